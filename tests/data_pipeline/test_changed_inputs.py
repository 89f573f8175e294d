"""A file that has another content is a new input: what it lost leaves the corpus, what it kept stays as it is."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from data_pipeline.config import DedupConfig, RefreshConfig, SourceConfig
from data_pipeline.corpus import SUPERSEDED, Corpus
from data_pipeline.refresh import RefreshResult, refresh
from tests.data_pipeline.made_inputs import prose, reworded

pytestmark = pytest.mark.usefixtures("ray_cluster")

Row = dict[str, Any]
VERSIONS_LATER = (
    *("kind", "restored_version", "num_superseded", "num_taken_down", "takedowns_version", "vacuumed_at"),
)
TEXTS = {name: prose(number, 200) for number, name in enumerate("abcdefgh")}


def write(path: Path, **rows: str) -> None:
    """A JSON lines file of {id: text}, later than whatever was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in rows.items()))


def texts(names: str) -> dict[str, str]:
    return {name: TEXTS[name] for name in names}


def run(folder: Path, **options: Any) -> RefreshResult:
    source = SourceConfig(name="rows", paths=[str(folder / "in")], uri_column="id")
    config = RefreshConfig(sources=[source], dedup=DedupConfig(max_source_loss=1.0), **options)
    return refresh(Corpus(folder / "corpus"), config, folder)


def rows_of(folder: Path, table: str) -> list[Row]:
    corpus = Corpus(folder / "corpus")
    return corpus.scan(table, corpus.at()).to_table().to_pylist()


def kept(folder: Path) -> dict[str, Row]:
    return {row["uri"]: row for row in rows_of(folder, "documents")}


def reasons(folder: Path) -> Counter[tuple[str, str, str]]:
    return Counter((row["uri"], row["stage"], row["reason"]) for row in rows_of(folder, "removed"))


def accounted(folder: Path) -> None:
    """Each document that was read is in one table, under its file; each kept one has its signature beside it."""
    documents, removed = rows_of(folder, "documents"), rows_of(folder, "removed")
    inputs = rows_of(folder, "inputs")
    assert all(row["num_kept"] + row["num_removed"] == row["num_documents"] for row in inputs)
    for table, count in ((documents, "num_kept"), (removed, "num_removed")):
        expected = Counter()
        for row in inputs:
            expected[row["path"]] += row[count]
        assert Counter(row["input_file"] for row in table) == +expected
    assert [row["doc_id"] for row in documents] == [row["doc_id"] for row in rows_of(folder, "signatures")]
    corpus = Corpus(folder / "corpus")
    names = [
        {path.rsplit("/", 1)[-1] for path in corpus.files(table, corpus.at())}
        for table in ("documents", "signatures")
    ]
    assert names[0] == names[1]


def test_documents_that_a_changed_file_lost_are_superseded_and_the_others_stay(tmp_path: Path) -> None:
    write(tmp_path / "in/one.jsonl", **texts("abc"), short="too short", bad="")
    write(tmp_path / "in/two.jsonl", **texts("de"))
    run(tmp_path)
    before = kept(tmp_path)
    changed = reworded(TEXTS["b"], 2)  # a near-copy of the text that it takes the place of
    write(tmp_path / "in/one.jsonl", a=TEXTS["a"], b=changed, f=TEXTS["f"], bad="")
    result = run(tmp_path)
    assert (result.new_inputs, result.known_inputs) == (1, 1)
    assert (result.version["num_documents"], result.version["num_superseded"]) == (4, 3)

    after = kept(tmp_path)
    assert sorted(after) == ["a", "b", "d", "e", "f"]
    assert after["a"] == before["a"]
    assert (after["b"]["text"], after["b"]["version"], after["f"]["version"]) == (changed, 2, 2)
    gone = [row for row in rows_of(tmp_path, "removed") if row["stage"] == SUPERSEDED]
    assert sorted((row["uri"], row["reason"], row["version"]) for row in gone) == [
        *(("b", "changed_input", 2), ("c", "changed_input", 2), ("short", "changed_input", 2)),
    ]
    assert {row["doc_id"] for row in gone} == {before[uri]["doc_id"] for uri in ("b", "c", "short")}
    # What the file's old content had removed is decided anew, not twice.
    assert Counter(row["uri"] for row in rows_of(tmp_path, "removed"))["bad"] == 1
    accounted(tmp_path)
    # The version before reads as it was.
    corpus = Corpus(tmp_path / "corpus")
    old = {row["uri"]: row for row in corpus.scan("documents", corpus.at(1)).to_table().to_pylist()}
    assert old == before


def test_a_file_that_returns_to_its_old_content_is_read_again(tmp_path: Path) -> None:
    for names in ("ab", "ac", "ab", "ab"):
        write(tmp_path / "in/one.jsonl", **texts(names))
        result = run(tmp_path)
    assert (result.changed, result.version["version"]) == (False, 3)
    assert sorted(kept(tmp_path)) == ["a", "b"]
    assert kept(tmp_path)["a"]["version"] == 1
    inputs = rows_of(tmp_path, "inputs")
    assert sorted((row["status"], row["version"], row["num_documents"]) for row in inputs) == [
        *(("ok", 3, 2), ("superseded", 1, 1), ("superseded", 2, 1)),
    ]
    accounted(tmp_path)


def test_a_text_whose_kept_copy_is_superseded_comes_back_from_the_file_that_still_has_it(
    tmp_path: Path,
) -> None:
    near = reworded(TEXTS["b"], 2)
    write(tmp_path / "in/one.jsonl", a=TEXTS["a"], b=TEXTS["b"])
    run(tmp_path)
    write(tmp_path / "in/two.jsonl", a_too=TEXTS["a"], b_too=near, d=TEXTS["d"])
    run(tmp_path)
    assert sorted(kept(tmp_path)) == ["a", "b", "d"]
    write(tmp_path / "in/one.jsonl", **texts("cg"))
    result = run(tmp_path)
    assert result.new_inputs == 1
    after = kept(tmp_path)
    assert sorted(after) == ["a_too", "b_too", "c", "d", "g"]
    assert (after["d"]["version"], after["a_too"]["version"]) == (2, 3)
    assert {stage for _, stage, _ in reasons(tmp_path)} == {SUPERSEDED}
    accounted(tmp_path)


def test_one_document_twice_in_a_changed_file_is_kept_once(tmp_path: Path) -> None:
    write(tmp_path / "in/one.jsonl", **texts("ab"))
    run(tmp_path)
    path = tmp_path / "in/one.jsonl"
    path.write_text(path.read_text() * 2)
    run(tmp_path)
    assert sorted(kept(tmp_path)) == ["a", "b"]
    assert reasons(tmp_path) == {(uri, "exact_dedup", "exact_duplicate"): 1 for uri in ("a", "b")}
    accounted(tmp_path)


def test_a_mended_file_takes_the_place_of_the_damaged_one(tmp_path: Path) -> None:
    import gzip

    lines = "".join(json.dumps({"id": name, "text": TEXTS[name]}) + "\n" for name in "abcd").encode()
    whole = b"".join(gzip.compress(line + b"\n") for line in lines.splitlines())
    (tmp_path / "in").mkdir()
    (tmp_path / "in/one.jsonl.gz").write_bytes(whole[:-100])
    ((name, _),) = run(tmp_path).damaged
    assert name == "in/one.jsonl.gz"
    assert sorted(kept(tmp_path)) == ["a", "b", "c"]
    (tmp_path / "in/one.jsonl.gz").write_bytes(whole)
    assert run(tmp_path).damaged == []
    assert sorted(kept(tmp_path)) == ["a", "b", "c", "d"]
    assert not reasons(tmp_path)
    accounted(tmp_path)


def test_a_file_of_the_recorded_size_and_time_is_not_read_unless_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "in/one.jsonl"
    write(path, **texts("ab"))
    old = path.stat().st_mtime_ns - 10**10
    os.utime(path, ns=(old, old))
    run(tmp_path)
    # Nobody would write a file like this by accident.
    path.write_text(path.read_text().replace("the", "eht"))
    os.utime(path, ns=(old, old))
    assert not run(tmp_path).changed
    assert run(tmp_path, trust_times=False).changed
    # A file that was only touched is read, found to be the same, and taken for known.
    path.touch()
    assert not run(tmp_path).changed


def test_a_corpus_of_an_older_gptmill_goes_on(tmp_path: Path) -> None:
    write(tmp_path / "in/one.jsonl", **texts("abc"))
    run(tmp_path)
    # Its table of versions, and that of inputs, as they were before there were takedowns.
    corpus = Corpus(tmp_path / "corpus")
    for name, later in (
        ("versions", [*VERSIONS_LATER]),
        ("inputs", ["modified"]),
    ):
        rows = corpus.delta(name).to_pyarrow_table().drop_columns(later)
        if name == "versions":
            rows = rows.set_column(
                rows.schema.get_field_index("inputs_version"), "inputs_version", pa.array([0], pa.int64())
            )
        shutil.rmtree(corpus.path(name))
        write_deltalake(str(corpus.path(name)), rows)
    assert not run(tmp_path).changed
    write(tmp_path / "in/one.jsonl", **texts("ab"))
    assert run(tmp_path).version["num_superseded"] == 1
    assert sorted(kept(tmp_path)) == ["a", "b"]
    accounted(tmp_path)


def test_near_copies_among_few_new_rows_of_a_large_file_are_no_loss_of_the_source(tmp_path: Path) -> None:
    rows = {str(number): prose(100 + number, 150) for number in range(60)}
    write(tmp_path / "in/one.jsonl", **rows)
    run(tmp_path)
    copies = {f"copy-{number}": reworded(rows[str(number)], 1, number) for number in range(12)}
    write(tmp_path / "in/one.jsonl", **rows, **copies)
    source = SourceConfig(name="rows", paths=[str(tmp_path / "in")], uri_column="id")
    result = refresh(Corpus(tmp_path / "corpus"), RefreshConfig(sources=[source]), tmp_path)
    assert (result.version["num_kept"], result.version["num_removed"]) == (60, 12)


def test_groups_of_files_are_committed_one_by_one(tmp_path: Path) -> None:
    for name in "abcd":
        write(tmp_path / f"in/{name}.jsonl", **texts(name))
    size = (tmp_path / "in/a.jsonl").stat().st_size
    result = run(tmp_path, group_bytes=2 * size + size // 2)
    corpus = Corpus(tmp_path / "corpus")
    assert [row["num_inputs"] for row in corpus.versions()] == [2, 2]
    assert [row["version"] for row in result.versions] == [1, 2]
    assert {uri: row["version"] for uri, row in kept(tmp_path).items()} == {"a": 1, "b": 1, "c": 2, "d": 2}
    accounted(tmp_path)
