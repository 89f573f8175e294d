"""The examples beside a version: bounded, the right ones, and the same however the work was cut."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import ftfy
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import differences, evidence, schema
from data_pipeline.config import RefreshConfig, SourceConfig
from data_pipeline.corpus import Corpus
from data_pipeline.refresh import refresh
from data_pipeline.repairs import SETTINGS, repairs
from tests.data_pipeline.made_inputs import prose, reworded

# ------------------------------------------------------------------------------------------------- what ftfy did


@pytest.mark.parametrize(
    "text",
    [
        "plain\nnothing to do",
        "one\ncafÃ© au lait\nthree &amp; four",
        "<p>markup\nstays &amp; so &lt;b&gt; does this\nbut not thisâ€™s",
        "controls \x01 and \x1b[31mcolours\x1b[0m\nlast",
        "a next line\x85character and a \x0cform feed\n",
        "an entity &#xd800; of a surrogate\nAT&amp;T\n\n\n",
    ],
)
def test_the_repaired_lines_are_those_that_ftfy_changes(text: str) -> None:
    found = {repair.before: repair.after for repair in repairs(text)}
    lines = [found.get(line, line) for line in text.split("\n")]
    assert "\n".join(lines) == ftfy.fix_text(text, SETTINGS)
    assert all(repair.steps and repair.before != repair.after for repair in repairs(text))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("aé<&;Ãâ€™©amp\n\x85\x01 “")))
def test_whatever_the_text_its_repairs_make_up_what_ftfy_makes_of_it(text: str) -> None:
    queue = list(repairs(text))
    out = []
    for line in text.split("\n"):
        if queue and queue[0].before == line:
            out.append(queue.pop(0).after)
        else:
            out.append(line)
    assert queue == []
    assert "\n".join(out) == ftfy.fix_text(text, SETTINGS)


def test_a_step_says_how_the_bytes_went_wrong() -> None:
    (repair,) = repairs("It was a cafÃ© in Paris.")
    assert (repair.before, repair.after) == ("It was a cafÃ© in Paris.", "It was a café in Paris.")
    assert repair.steps == (("encode", "latin-1"), ("decode", "utf-8"))


# --------------------------------------------------------------------------------------------------- differences


def test_the_windows_show_the_first_difference_however_late_it_comes() -> None:
    words = [f"word{number}" for number in range(40_000)]
    other = [*words[:35_000], "CHANGED", *words[35_001:]]
    left, right = differences.windows(" ".join(words), " ".join(other))
    assert "word35000" in left
    assert "CHANGED" in right
    assert max(len(left), len(right)) <= differences.MAX_CHARS + len(differences.CUT)
    assert left.endswith(differences.CUT)
    marks = differences.marked(left, right)
    assert [piece for piece, differs in marks[0] if differs] == ["word35000"]
    assert [piece for piece, differs in marks[1] if differs] == ["CHANGED"]


def test_a_long_insertion_does_not_hide_where_the_texts_meet_again() -> None:
    text = prose(1, 500)
    left, right = differences.windows(" ".join(prose(2, 3000).split()) + " " + text, text)
    assert " ".join(text.split()[:20]) in left
    assert right.startswith(text[:50])


def test_the_pieces_of_a_comparison_are_its_texts() -> None:
    left, right = prose(1, 100), reworded(prose(1, 100), 5)
    marks = differences.marked(left, right)
    assert ("".join(piece for piece, _ in marks[0]), "".join(piece for piece, _ in marks[1])) == (left, right)
    assert [piece for piece, differs in marks[1] if differs] == [f"changed0x{number}" for number in range(5)]
    assert differences.marked("天气很好", "天气不好")[1] == [("天气", False), ("不", True), ("好", False)]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("<" * 1_000_000, "<" * 1_000_000 + ">"),
        ("x" * 1_000_000, "y" * 1_000_000),
        ("a b " * 250_000, "b a " * 250_000),
        (" " * 1_000_000, "\n" * 1_000_000),
        ("", ""),
        ("ab " * 100 + "c", "ab " * 100),
    ],
)
def test_hostile_texts_are_compared_in_bounded_time_and_space(left: str, right: str) -> None:
    began = time.process_time()
    windows = differences.windows(left, right)
    marks = differences.marked(*windows)
    # Thousands of times what it takes; a comparison of whole texts would take hours.
    assert time.process_time() - began < 30
    assert all(len(window) <= differences.MAX_CHARS + len(differences.CUT) for window in windows)
    assert all(len(pieces) <= 2 * differences.MAX_TOKENS for pieces in marks)


# ------------------------------------------------------------------------------------------------- with a refresh

pages = [prose(seed) for seed in range(30)]


def rows(folder: Path, name: str, texts: list[str]) -> SourceConfig:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    lines = [json.dumps({"text": text, "id": f"{name}-{number}"}) for number, text in enumerate(texts)]
    path.write_text("\n".join(lines))
    return SourceConfig(name=name, paths=[str(path)], uri_column="id")


def take_in(workspace: Path, *sources: SourceConfig, **changes: int) -> evidence.Evidence:
    corpus = Corpus(workspace / "corpus")
    version = refresh(corpus, RefreshConfig(sources=list(sources), **changes), workspace).version
    return evidence.load(corpus.evidence(version["version"]))


@pytest.mark.usefixtures("ray_cluster")
def test_a_version_keeps_examples_of_repairs_and_of_the_least_similar_duplicates(tmp_path: Path) -> None:
    broken = [f"{text} cafÃ©" for text in pages]
    near = [reworded(pages[number], 1 + number % 2, seed=number) for number in range(9)]
    web, book = (
        rows(tmp_path / "in", name, texts) for name, texts in (("web", broken + near), ("book", pages[:2]))
    )
    found = take_in(tmp_path, web, book)
    assert found.num_repaired == {"web": 30}
    assert len(found.repairs) == evidence.NUM_REPAIRS
    assert [row["doc_id"] for row in found.repairs] == sorted(row["doc_id"] for row in found.repairs)
    for row in found.repairs:
        ((line,),) = [row["lines"]]
        assert "cafÃ©" in line["before"]
        assert "café" in line["after"]
        assert line["steps"] == [["encode", "latin-1"], ["decode", "utf-8"]]
    similarities = [pair["similarity"] for pair in found.pairs]
    assert similarities == sorted(similarities)
    sides = {frozenset((pair["uri"], pair["keeper_uri"])) for pair in found.pairs}
    assert sides >= {frozenset((f"web-{number}", f"web-{30 + number}")) for number in range(9)}
    for pair in found.pairs:
        assert 0.8 <= pair["similarity"] < 1
        assert pair["left"] != pair["right"]
    assert {pair["keeper_source"] for pair in found.pairs} == {"web"}


@pytest.mark.usefixtures("ray_cluster")
def test_the_examples_are_the_same_however_the_work_was_cut(tmp_path: Path) -> None:
    broken = [f"{text}\nIt was a cafÃ©, {number}." for number, text in enumerate(pages)]
    made = []
    for name, unit_bytes in (("one", 32 << 20), ("two", 1)):
        sources = [
            rows(tmp_path / "in", "a", broken[:15]),
            rows(tmp_path / "in", "b", pages[:14] + broken[15:]),
        ]
        made.append(take_in(tmp_path / name, *sources, unit_bytes=unit_bytes))
    assert made[0] == made[1]
    assert made[0].pairs
    assert len(made[0].repairs) == 2 * evidence.NUM_REPAIRS


@pytest.mark.usefixtures("ray_cluster")
def test_a_duplicate_of_an_earlier_versions_document_is_shown_beside_it(tmp_path: Path) -> None:
    first = take_in(tmp_path, rows(tmp_path / "in", "web", [*pages[:5], "Voilà: a cafÃ© again."]))
    assert first.pairs == []
    second = take_in(tmp_path, rows(tmp_path / "new", "late", [reworded(pages[3], 2), "Another cafÃ©."]))
    (pair,) = second.pairs
    assert (pair["uri"], pair["keeper_uri"]) == ("late-0", "web-3")
    marks = differences.marked(pair["left"], pair["right"])
    assert [piece for piece, differs in marks[0] if differs][:1] == ["changed0x0"]
    # The examples of the version before are taken over.
    assert second.num_repaired == {"late": 1, "web": 1}
    assert {row["source"] for row in second.repairs} == {"late", "web"}


def test_a_missing_or_damaged_file_is_no_evidence(tmp_path: Path) -> None:
    assert evidence.load(tmp_path / "none.json") == evidence.Evidence()
    for content in ("{", "[]", '{"unknown": 1}', "\xff"):
        (tmp_path / "bad.json").write_text(content, encoding="latin-1")
        assert evidence.load(tmp_path / "bad.json") == evidence.Evidence()
    some = evidence.Evidence({"web": 3}, [{"source": "web"}], [{"left": "\u202e<b>"}])
    evidence.save(some, tmp_path / "deep" / "some.json")
    assert evidence.load(tmp_path / "deep" / "some.json") == some
    assert dataclasses.asdict(some).keys() == json.loads((tmp_path / "deep" / "some.json").read_text()).keys()


def test_rows_are_found_by_a_column_in_any_file(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "corpus")
    corpus.prepare()
    texts = [f"text {number}" for number in range(300)]
    documents = [
        {"doc_id": f"d{number}", "source": "web", "uri": f"u{number}", "text": text, "version": 1}
        for number, text in enumerate(texts)
    ]
    files = [
        corpus.write_file(
            "documents", pa.Table.from_pylist(documents[part::3], schema=schema.DOCUMENTS), f"{part}"
        )
        for part in range(3)
    ]
    inputs = pa.Table.from_pylist([{"source": "web", "num_documents": 300}], schema=schema.INPUTS)
    version = corpus.commit(files, inputs, {"version": 1})
    found = corpus.find("documents", version, "uri", ["u7", "u299", "nowhere"], ["doc_id", "text", "lang"])
    assert sorted(row["doc_id"] for row in found) == ["d299", "d7"]
    assert {row["text"] for row in found} == {"text 7", "text 299"}
    assert {row["lang"] for row in found} == {None}
