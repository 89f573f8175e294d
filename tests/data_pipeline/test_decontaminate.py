"""What overlaps an evaluation set does not enter the corpus, and a set that protects nothing is an error."""

from __future__ import annotations

import dataclasses
import gzip
import json
import tempfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.config import DecontaminateConfig, RefreshConfig, SourceConfig
from data_pipeline.corpus import Corpus
from data_pipeline.decontaminate import decontaminate, protected
from data_pipeline.errors import InputError
from data_pipeline.evaluation_sets import read_texts
from data_pipeline.refresh import refresh
from data_pipeline.words import word_hashes
from tests.data_pipeline.made_inputs import prose

QUESTION = "Which of the following rivers did the old ship builder cross with his seven horses in the winter of the flood?"
CHINESE = "以下哪一条河流是老船匠在洪水之冬带着七匹马渡过的"


def config_of(folder: Path, **options: object) -> DecontaminateConfig:
    (folder / "quiz.jsonl").write_text(json.dumps({"question": QUESTION, "choices": ["yes", "no"]}) + "\n")
    (folder / "zh.json").write_text(json.dumps([{"题": CHINESE}]))
    given_sets = [str(folder / "quiz.jsonl"), f"chinese={folder / 'zh.json'}"]
    return protected(DecontaminateConfig(sets=given_sets, **options), None)  # type: ignore[arg-type]


def table_of(texts: list[str]) -> pa.Table:
    return pa.table({"text": texts, "metadata": ['{"author":"x"}'] * len(texts)})


def test_an_overlap_removes_the_document_and_names_the_set(tmp_path: Path) -> None:
    words = QUESTION.split()
    texts = [
        f"{prose(1)} {QUESTION.upper().replace(' ', ' - ')} {prose(2)}",  # other case, spaces, punctuation
        f"{prose(3)} {' '.join(words[3:16])} {prose(4)}",  # thirteen words
        f"{prose(3)} {' '.join(words[5:13])} {prose(4)}",  # eight words
        f"{prose(5)}\n{CHINESE[2:17]}，{prose(6)}",
        f"{prose(5)}\n{CHINESE[2:12]}，{prose(6)}",
        prose(7),
        "",
    ]
    kept, removed = decontaminate(table_of(texts), config_of(tmp_path))
    assert kept["text"].to_pylist() == [texts[2], texts[4], texts[5], texts[6]]
    assert removed["text"].to_pylist() == [texts[0], texts[1], texts[3]]
    assert removed["reason"].to_pylist() == ["in_quiz", "in_quiz", "in_chinese"]
    assert set(removed["stage"].to_pylist()) == {"decontaminate"}
    assert all(value >= 1 for value in removed["value"].to_pylist())


def test_fifty_letters_in_a_row_are_an_overlap_even_of_few_words(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(
        "Donaudampfschifffahrtsgesellschaftskapitänswitwenrentenauszahlungsstelle\n"
    )
    config = protected(DecontaminateConfig(sets=[str(tmp_path / "long.txt")]), None)
    texts = [
        "die donaudampf-schifffahrts-gesellschafts-kapitäns-witwenrenten gibt es",
        "die Donaudampfschifffahrtsgesellschaft gibt es",
    ]
    kept, removed = decontaminate(table_of(texts), config)
    assert removed["text"].to_pylist() == texts[:1]
    assert kept["text"].to_pylist() == texts[1:]


def test_paragraphs_go_and_the_rest_stays_tagged(tmp_path: Path) -> None:
    config = config_of(tmp_path, unit="paragraph")
    texts = [
        f"{prose(1, 40)}\n\nA quiz.\n{QUESTION}\nEnd.\n\n{prose(2, 40)}",
        f"{prose(1, 40)}\n{QUESTION}\n{prose(2, 40)}",
        QUESTION,
        prose(3),
    ]
    kept, removed = decontaminate(table_of(texts), config)
    assert removed["text"].to_pylist() == [QUESTION]
    parts = kept["text"].to_pylist()
    assert parts[0] == f"{prose(1, 40)}\n\n{prose(2, 40)}"
    assert parts[1] == f"{prose(1, 40)}\n{prose(2, 40)}"
    assert parts[2] == texts[3]
    tags = [json.loads(row).get("evaluation_sets") for row in kept["metadata"].to_pylist()]
    assert tags == ["quiz", "quiz", None]


def test_tagging_removes_nothing(tmp_path: Path) -> None:
    texts = [f"{QUESTION} {CHINESE}", prose(1)]
    kept, removed = decontaminate(table_of(texts), config_of(tmp_path, action="tag"))
    assert (kept["text"].to_pylist(), removed.num_rows) == (texts, 0)
    assert json.loads(kept["metadata"][0].as_py()) == {"author": "x", "evaluation_sets": "chinese,quiz"}
    assert json.loads(kept["metadata"][1].as_py()) == {"author": "x"}


WORDS = st.lists(st.sampled_from(["a", "bb", "c-c", "春", "天。", "é"]), max_size=40).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(WORDS, WORDS)
def test_words_in_a_row_are_those_of_the_plain_definition(left: str, right: str) -> None:

    def runs(text: str) -> set[tuple[int, ...]]:
        hashes = word_hashes(text).tolist()
        return {tuple(hashes[start : start + 5]) for start in range(len(hashes) - 4)}

    if not runs(left):
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.txt"
        path.write_text(left)
        config = protected(DecontaminateConfig(sets=[str(path)], ngram=5, chars=0), None)
        _, removed = decontaminate(table_of([right]), config)
    assert removed.num_rows == bool(runs(left) & runs(right))


def test_every_kind_of_file_is_read(tmp_path: Path) -> None:
    rows = [{"q": "one question", "options": ["two"], "more": [{"text": "three"}], "n": 4}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "lines.json").write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[0]) + "\n")
    (tmp_path / "a.csv").write_text('q,option\n"one, question","two\nlines"\n')
    (tmp_path / "a.tsv").write_text('q\toption\na "quoted\ttwo\n')
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("one\n")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("dev/a.csv", "one,two\n")
        archive.writestr("LICENSE", "all rights\n")
    expected = {
        "a.jsonl": ["one question", "two", "three"],
        "a.json": ["one question", "two", "three"],
        "lines.json": ["one question", "two", "three"] * 2,
        "a.csv": ["q", "option", "one, question", "two\nlines"],
        "a.tsv": ["q", "option", 'a "quoted', "two"],
        "a.txt": ["one", "two"],
        "a.parquet": ["one question", "two", "three"],
        "a.txt.gz": ["one"],
        "a.zip": ["one", "two"],
    }
    assert {name: list(read_texts(tmp_path / name)) for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", r"a \(.*a.jsonl\) has no text of 13 words or 50 characters"),
        ("a.jsonl", b'{"q": "too short"}', "nothing of it could be recognised"),
        ("a.jsonl", b"{nonsense", r"a.jsonl cannot be read \("),
        ("a.txt", b"\xff\xfe\x00", "a.txt cannot be read"),
        ("a.zip", b"no zip", "a.zip cannot be read"),
        ("a.parquet", b"no Parquet", "a.parquet cannot be read"),
        ("a.docx", b"x", "is no evaluation set; known are"),
    ],
)
def test_a_set_that_is_empty_or_unreadable_is_an_error(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        protected(DecontaminateConfig(sets=[str(tmp_path / name)]), None)
    with pytest.raises(InputError, match=message):
        protected(DecontaminateConfig(), tmp_path)


def test_a_set_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.jsonl does not exist"):
        protected(DecontaminateConfig(sets=[str(tmp_path / "nowhere.jsonl")]), None)
    assert protected(DecontaminateConfig(), tmp_path / "nowhere").sets == []


def test_real_evaluation_sets_are_found_in_documents_that_hold_them_and_in_no_books(
    shared_data: Path,
) -> None:
    tasks = shared_data / "tasks"
    places = [tasks / "en" / "mmlu.zip", tasks / "zh" / "ceval.zip", tasks / "en" / "sst2-dev.tsv"]
    config = protected(DecontaminateConfig(sets=[str(place) for place in places]), None)
    questions = [next(text for text in read_texts(place) if len(word_hashes(text)) >= 20) for place in places]
    texts = [f"{prose(seed)} {question} {prose(seed + 50)}" for seed, question in enumerate(questions)]
    texts += [prose(seed) for seed in range(20)]
    kept, removed = decontaminate(table_of(texts), config)
    assert removed["reason"].to_pylist() == ["in_mmlu", "in_ceval", "in_sst2-dev"]
    assert kept.num_rows == 20


def test_a_refresh_protects_what_lies_in_the_workspace(tmp_path: Path, ray_cluster: None) -> None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "quiz.jsonl").write_text(json.dumps({"question": QUESTION}))
    rows = [{"text": f"{prose(1)} {QUESTION}"}, {"text": prose(2)}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = RefreshConfig(sources=[SourceConfig(name="rows", paths=[str(tmp_path / "in.jsonl")])])
    corpus = Corpus(tmp_path / "corpus")
    result = refresh(corpus, config, tmp_path)
    (gone,) = corpus.scan("removed", result.version).to_table().to_pylist()
    assert (gone["stage"], gone["reason"]) == ("decontaminate", "in_quiz")
    assert json.loads(result.version["config"])["decontamination"]["sets"] == ["quiz"]
    (tmp_path / "evaluation" / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="empty"):
        refresh(corpus, config, tmp_path)
    with pytest.raises(InputError, match=r"decontamination\.ngram: 2"):
        refresh(corpus, dataclasses.replace(config, decontamination=DecontaminateConfig(ngram=2)), tmp_path)
