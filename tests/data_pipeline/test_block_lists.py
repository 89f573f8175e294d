"""Addresses and words that a user wants nothing of: what an entry covers, and one line for an entry that is none."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pyarrow as pa
import pytest

from data_pipeline.config import BlockConfig, RefreshConfig, SourceConfig
from data_pipeline.errors import InputError
from data_pipeline.filter_presets import PRESETS, UNBOUNDED, bounds_of
from data_pipeline.filters import filter_documents
from data_pipeline.filters.blocklists import are_blocked, read_blocked

ADDRESSES = """# adverts and a forum
example.com

0.0.0.0 ads.test   # as in a hosts file
*.wild.net
https://Good.org/forum/
good.org/a/b?c=1
bücher.example
"""


def write(folder: Path, text: str) -> str:
    path = folder / "list.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("uri", "is_in"),
    [
        ("http://example.com/", True),
        ("https://EXAMPLE.com:8080", True),
        ("https://www.a.example.com/x?y#z", True),
        ("http://user:word@example.com/x", True),
        ("http://notexample.com/", False),
        ("http://example.com.evil.net/", False),
        ("http://other.net/example.com/", False),
        ("http://ads.test/banner", True),
        ("http://0.0.0.0/", False),
        ("http://wild.net/", True),
        ("http://sub.wild.net./", True),
        ("http://good.org/", False),
        ("http://good.org/forum", True),
        ("https://good.org/forum/thread/1", True),
        ("https://good.org/forum?page=2", True),
        ("https://good.org/x/../forum/1", True),
        ("https://good.org/forums", False),
        ("https://good.org/a/b?c=1", True),
        ("https://good.org/a/b?c=12", False),
        ("https://xn--bcher-kva.example/", True),
        ("https://bücher.example/a", True),
        ("book.txt", False),
        ("books.zip#example.com", False),
        ("", False),
        ("http://", False),
        ("http://" + "a" * 3000 + ".example.com", True),
        ("http://[::1]/", False),
    ],
)
def test_an_entry_covers_what_lies_below_it(tmp_path: Path, uri: str, is_in: bool) -> None:
    blocked = read_blocked(BlockConfig(urls=[write(tmp_path, ADDRESSES)]))
    assert are_blocked(["http://fine.net/", uri, "x"], blocked).tolist() == [False, is_in, False]


@pytest.mark.parametrize(
    ("text", "num_words", "num_found"),
    [
        ("A Casino Royale", 3, 1),
        ("casinos", 1, 0),
        ("no HOT\ndogs, hot dog", 5, 1),
        ("hot-dogs", 2, 1),
        ("dogs hot", 2, 0),
        ("这是成人网站吗？成人", 9, 1),
        ("casino casino casino x", 4, 3),
        ("", 0, 0),
    ],
)
def test_words_and_phrases_are_found_as_whole_words(
    tmp_path: Path, text: str, num_words: int, num_found: int
) -> None:
    block = BlockConfig(words=[write(tmp_path, "casino\nHot dogs\n成人网站\n")])
    kept, removed = filter_documents(pa.table({"text": [text]}), UNBOUNDED, block)
    if num_found == 0:
        assert kept.num_rows == 1
    else:
        (row,) = removed.to_pylist()
        assert (row["reason"], row["value"], row["threshold"]) == (
            "blocked_words",
            num_found / num_words,
            0.0,
        )


def test_a_source_may_bear_some_of_the_words_and_have_a_list_of_its_own(tmp_path: Path) -> None:
    block = BlockConfig(words=[write(tmp_path, "casino\n")])
    table = pa.table({"text": ["a casino in a book", "casino casino"]})
    kept, _ = filter_documents(table, bounds_of("files", "", {"max_blocked_word_ratio": 0.5}), block)
    assert kept["text"].to_pylist() == ["a casino in a book"]
    own, common = (
        SourceConfig(name=name, paths=["x"], block=lists) for name, lists in (("a", block), ("b", None))
    )
    config = RefreshConfig(sources=[own, common])
    assert (config.of(own).block, config.of(common).block) == (block, BlockConfig())


def test_a_blocked_address_comes_before_every_other_reason(tmp_path: Path) -> None:
    table = pa.table({"text": ["", "a good text"], "uri": ["http://a.example.com/", "http://b.net/"]})
    kept, removed = filter_documents(
        table, PRESETS["permissive"], BlockConfig(urls=[write(tmp_path, "example.com")])
    )
    assert kept["uri"].to_pylist() == ["http://b.net/"]
    assert removed.select(["reason", "value", "threshold"]).to_pylist() == [
        {"reason": "blocked_url", "value": 1.0, "threshold": 0.0}
    ]


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("urls", "example.com\nnot a domain\n", r"list\.txt:2: 'not a domain' is more than one entry"),
        ("urls", "a.com b.com # both\n", r"list\.txt:1: 'a.com b.com # both' is more than one"),
        ("urls", "https://*/x\n", r"list\.txt:1: 'https://\*/x' is neither"),
        ("urls", "/path/only\n", r"list\.txt:1: '/path/only' is neither"),
        ("words", "fine\n!!!\n", r"list\.txt:2: '!!!' is no phrase of 1 to 16 words"),
        ("words", "a " * 17, r"list\.txt:1: .* is no phrase"),
    ],
)
def test_an_entry_that_is_none_is_one_line(tmp_path: Path, option: str, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=words) as raised:
        read_blocked(BlockConfig(**{option: [path]}))
    assert "\n" not in str(raised.value)


def test_a_list_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"block\.words: there is no file .*missing\.txt"):
        RefreshConfig(block=BlockConfig(words=[str(tmp_path / "missing.txt")])).validate()
    with pytest.raises(InputError, match=r"missing\.txt cannot be read"):
        read_blocked(BlockConfig(urls=[str(tmp_path / "missing.txt")]))
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.txt is not UTF-8"):
        read_blocked(BlockConfig(words=[str(tmp_path / "latin.txt")]))


def test_the_configuration_knows_a_list_by_what_is_in_it(tmp_path: Path) -> None:
    def config_hash(folder: str, text: str) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        return RefreshConfig(block=BlockConfig(words=[write(tmp_path / folder, text)])).config_hash

    assert config_hash("a", "one") == config_hash("b", "one") != config_hash("b", "two")


def test_a_long_list_is_held_as_hashes(tmp_path: Path) -> None:
    rng = random.Random(0)
    names = ["".join(rng.choices(string.ascii_lowercase, k=9)) + ".test" for _ in range(20_000)]
    blocked = read_blocked(BlockConfig(urls=[write(tmp_path, "\n".join(names))]))
    assert blocked.addresses.nbytes == 8 * len(set(names))
    assert are_blocked([f"http://www.{name}/" for name in names[::100]], blocked).all()
    assert not are_blocked([f"http://{name}x/" for name in names[::100]], blocked).any()
