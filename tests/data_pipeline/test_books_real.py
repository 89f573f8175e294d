"""Real books: header and footer go, the work's first and last words stay, the header's statements are read."""

from __future__ import annotations

import itertools
import re
from functools import cache
from pathlib import Path

import pytest

from data_pipeline import wikitext
from data_pipeline.books import gutenberg
from data_pipeline.books.encoding import decode
from data_pipeline.sources import books, mediawiki

# The first words of the work (its title page, where it has one) and its last, read by eye in each file.
WORDS = {
    "pg-en/11-0": ("ALICE’S ADVENTURES IN WONDERLAND\n\nLewis Carroll", "the happy summer days.\n\nTHE END"),
    "pg-en/1155-0": (
        "THE SECRET ADVERSARY\n\nBy Agatha Christie",
        "“And a damned good sport too,” said Tommy.",
    ),
    "pg-en/120-0": ("TREASURE ISLAND\n\nby Robert Louis", "“Pieces of eight! Pieces of eight!”"),
    "pg-en/1237-0": ("FATHER GORIOT\n\nBy Honore De Balzac", "Beatrix\nThe Unconscious Humorists"),
    "pg-en/140-0": ("THE JUNGLE\n\nby Upton Sinclair", "CHICAGO WILL BE OURS!”"),
    "pg-en/145-0": ("Middlemarch\n\nGeorge Eliot", "rest in unvisited tombs.\n\nTHE END"),
    "pg-en/158-0": ("EMMA\n\nBy Jane Austen", "perfect happiness of the union.\n\nFINIS"),
    "pg-en/16-0": ("PETER PAN\n\n[PETER AND WENDY]", "gay and innocent and heartless.\n\nTHE END"),
    "pg-en/1952-0": ("THE YELLOW WALLPAPER\n\nBy Charlotte", "creep over him every time!"),
    "pg-en/203-0": ("UNCLE TOM’S CABIN\n\nor", "the wrath of Almighty God!"),
    "pg-en/205-0": ("WALDEN\n\nand\n\nON THE DUTY", "but not yet anywhere seen."),
    "pg-en/219-0": ("HEART OF DARKNESS\n\nBy Joseph Conrad", "the heart of an immense darkness."),
    "pg-en/2701-0": ("MOBY-DICK;\n\nor, THE WHALE.", "only found another orphan."),
    "pg-en/2600-0": ("WAR AND PEACE\n\nBy Leo Tolstoy", "a dependence of which we are not conscious."),
    "pg-en/The-Art-of-War": ("SUN TZU ON THE ART OF WAR", ""),
    "pg-en/pg4657": ("PERSONAL NARRATIVE OF A PILGRIMAGE", "to the curious linguist.\n\nEND OF VOLUME I."),
    "pg-en/pg4658": ("PERSONAL NARRATIVE OF A PILGRIMAGE", "Zuyud schismatics, ii. 6"),
    "pg-en/pg55": ("The Wonderful Wizard of Oz", "I'm so glad to be at home again!\""),
    "pg-en/pg55539": ("KOREAN TALES", "on the streets in Korea."),
    "pg-en/pg59254": ("THE INIMITABLE JEEVES", '"Very good, sir," said Jeeves.'),
    "pg-en/pg60362": ("DARK WINDOWS\n\nBY BRYCE WALTON", "the only sane people left in the world."),
    "pg-en/pg7256": ("THE GIFT OF THE MAGI", "They are the magi."),
    "pg-en/pg768": ("WUTHERING HEIGHTS\n\nCHAPTER I", "for the sleepers in that quiet earth."),
    "pg-en/pg815": ("DEMOCRACY IN AMERICA", "increases most rapidly in proportion.]"),
    "pg-en/pg844": ("The Importance of Being Earnest\nA Trivial", "of Being Earnest.\n\nTABLEAU"),
    "pg-en-b/pg108": ("The Return of Sherlock Holmes", "he turned to the door.\n\nTHE END"),
    "pg-en-b/pg1342": ("PRIDE.\nand\nPREJUDICE", "TOOKS COURT, CHANCERY LANE, LONDON."),
    "pg-en-b/pg42078": ("JANE AUSTEN'S WORKS.", "Canterbury.\n\nTHE END."),
    "pg-en-b/pg834": ("THE MEMOIRS OF SHERLOCK HOLMES", "the wisest man whom I have ever known."),
    "pg-fr/Madame_Bovary_GustaveFlaubert": (
        "Gustave Flaubert\nMADAME BOVARY",
        "recevoir la croix d'honneur.",
    ),
    "pg-fr/20000-Lieues-sous-les-mers": ("20000 Lieues sous les mers", "FIN DE LA SECONDE PARTIE"),
    "pg-fr/Candide": ("OEUVRES\n\nDE\n\nVOLTAIRE.", "FIN DE CANDIDE."),
}
LICENCE = re.compile(
    r"(?:START|END) OF TH(?:E|IS) PROJECT|Gutenberg-tm|Gutenberg™|gutenberg\.(?:org|net)|small print!"
    r"|Literary Archive|Distributed\s+Proofread|pgdp\.net|Gutenberg (?:E-?book|E-?text)|Gutenberg Licen[sc]e"
    r"|^E-text prepared|^Produced by|^Character set",
    re.I | re.M,
)
# A preface of 1994 to the electronic text, which says so in its heading.
OWN_WORDS = {"The-Art-of-War.txt": 1}


@cache
def parsed(path: Path) -> gutenberg.Book:
    (record,) = books.read(path)
    return gutenberg.parse(record.content)


def all_paths(shared_data: Path) -> list[Path]:
    folders = ("pg-en", "pg-en-b", "pg-fr")
    return [path for folder in folders for path in sorted((shared_data / "books" / folder).glob("*.txt"))]


@pytest.mark.parametrize("name", WORDS)
def test_the_first_and_the_last_words_of_a_work_stay_and_nothing_stands_around_them(
    name: str, shared_data: Path
) -> None:
    first, last = WORDS[name]
    text = parsed(shared_data / "books" / f"{name}.txt").text
    assert text.startswith(first)
    assert text.endswith(last)


def test_no_book_keeps_licence_text_and_none_loses_its_own(shared_data: Path) -> None:
    paths = all_paths(shared_data)
    assert len(paths) == 125
    for path in paths:
        text = parsed(path).text
        left = [match.group() for match in LICENCE.finditer(text)]
        assert len(left) <= OWN_WORDS.get(path.name, 0), (path.name, left)
        # Words of the file between its header and its footer, by their size alone.
        words = len((decode(path.read_bytes()) or "").split())
        assert len(text.split()) > 0.94 * words - 4_500, path.name


def test_all_statements_of_the_headers_are_read(shared_data: Path) -> None:
    """Against a second reading of the header, line by line and by other means."""
    for path in all_paths(shared_data):
        head = (decode(path.read_bytes()) or "").replace("\r\n", "\n").split("START OF TH")[0]
        book = parsed(path)
        # One file has its title on the line of its licence.
        title = head.partition("Title: ")[2].split("\n")[0].strip()
        author, language = (
            next(
                line.removeprefix(f"{name}:").strip()
                for line in head.split("\n")
                if line.startswith(f"{name}:")
            )
            for name in ("Author", "Language")
        )
        assert title, path.name
        assert book.title.startswith(title), path.name
        assert book.author.split(", ")[0] == author.split(", ")[0], path.name
        assert book.language == language, path.name
        number = head.split("book #")[-1] if "book #" in head else head.partition("Book #")[2]
        assert book.number == (number or head.partition("Etext #")[2]).split("]")[0], path.name
        assert re.search(r"\d", book.release_date), path.name


@pytest.mark.parametrize("encoding", ["big5hkscs", "gb18030"])
def test_real_chinese_books_are_read_in_either_old_encoding(encoding: str, shared_data: Path) -> None:
    for path in sorted((shared_data / "books" / "pg-zh").glob("*.txt")):
        raw = path.read_text("utf-8").encode(encoding, "ignore")
        assert decode(raw) == raw.decode(encoding), path.name


@pytest.mark.parametrize(
    ("wiki", "encodings"),
    [
        ("ja", ["euc_jp", "shift_jis"]),
        ("ko", ["euc_kr", "cp949"]),
        ("zh", ["gb18030", "big5", "gb2312"]),
        ("bg", ["cp1251", "koi8_r", "iso8859_5"]),
    ],
)
def test_real_text_of_many_scripts_is_told_by_its_bytes(
    shared_data: Path, wiki: str, encodings: list[str]
) -> None:
    (path,) = (shared_data / "wiki").glob(f"*{wiki}wiki*.bz2")
    records = (record for record in mediawiki.read(path) if not record.reason)
    texts = [wikitext.to_text(record.content) for record in itertools.islice(records, 12)]
    checked = 0
    for encoding in encodings:
        for text in texts:
            for size in (200, 2_000):
                raw = text[100 : 100 + size].encode(encoding, "ignore")
                if sum(byte >= 0x80 for byte in raw) < 150 + 150 * (wiki == "bg"):
                    continue
                assert decode(raw) == raw.decode(encoding), (encoding, raw[:60])
                checked += 1
    assert checked >= len(encodings)
