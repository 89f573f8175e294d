"""What is taken down is gone from the next version on, and stays away."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline import evidence, history, schema, takedowns
from data_pipeline.config import DedupConfig, RefreshConfig, SourceConfig
from data_pipeline.corpus import TAKEDOWN, Corpus
from data_pipeline.errors import InputError
from data_pipeline.refresh import open_refresh, refresh
from data_pipeline.takedowns import Rules, parse_rules
from tests.data_pipeline.made_inputs import prose, reworded
from tests.data_pipeline.test_changed_inputs import accounted, kept, reasons, rows_of, write

HOST = "http://forum.example.org"
SECRET = "the very words that nobody may read any more"


def text(number: int) -> str:
    return prose(number, 200)


def run(folder: Path, **options: Any) -> Any:
    source = SourceConfig(name="rows", paths=[str(folder / "in")], uri_column="id")
    config = RefreshConfig(sources=[source], dedup=DedupConfig(max_source_loss=1.0), **options)
    return refresh(Corpus(folder / "corpus"), config, folder)


def take_down(folder: Path, **given: Any) -> history.Removal:
    corpus = Corpus(folder / "corpus")
    with corpus.locked():
        return history.remove(corpus, parse_rules(**given), "asked for")


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A corpus of two refreshes: pages of a forum and of others, with near and exact copies."""
    request.getfixturevalue("ray_cluster")
    pages = {f"{HOST}/{number}": text(number) for number in range(3)}
    write(tmp_path / "in/one.jsonl", **pages, **{"http://other.test/3": f"{text(3)} {SECRET}"})
    run(tmp_path)
    copies = {"http://mirror.test/0": reworded(text(0), 2), "http://mirror.test/1": text(1)}
    write(tmp_path / "in/two.jsonl", **copies, **{"http://sub.forum.example.org/4": text(4)})
    run(tmp_path)
    return tmp_path


def test_an_address_is_gone_from_the_next_version_on_and_does_not_return(folder: Path) -> None:
    found = take_down(folder, uris=["http://other.test/3"])
    corpus = Corpus(folder / "corpus")
    assert (found.version["version"], found.version["kind"], found.version["num_taken_down"]) == (
        3,
        "remove",
        1,
    )
    assert found.documents["uri"].to_pylist() == ["http://other.test/3"]
    assert "http://other.test/3" not in kept(folder)
    (row,) = (row for row in rows_of(folder, "removed") if row["stage"] == TAKEDOWN)
    assert (row["uri"], row["reason"], row["text_sample"], row["version"]) == (
        *("http://other.test/3", "taken_down", "", 3),
    )
    assert found.doc_ids == [row["doc_id"]]
    accounted(folder)
    # The version before still reads as it was.
    assert "http://other.test/3" in corpus.read("documents", corpus.at(2), ["uri"])["uri"].to_pylist()
    # A second call changes nothing, and still knows which document it was.
    again = take_down(folder, uris=["http://other.test/3"])
    assert (again.changed, again.num_rules, again.doc_ids) == (False, 0, found.doc_ids)

    # Neither the address with another text, nor the text at another address, nor a rebuild brings it back.
    write(
        folder / "in/three.jsonl",
        **{"http://other.test/3": text(30), "http://elsewhere.test/": f"{text(3)} {SECRET}", "x": text(31)},
    )
    run(folder)
    assert {"http://other.test/3", "http://elsewhere.test/"} & set(kept(folder)) == set()
    assert "x" in kept(folder)
    assert reasons(folder)["http://elsewhere.test/", TAKEDOWN, "taken_down"] == 1
    accounted(folder)
    source = SourceConfig(name="rows", paths=[str(folder / "in")], uri_column="id")
    config = RefreshConfig(sources=[source], dedup=DedupConfig(max_source_loss=1.0))
    refresh(corpus, config, folder, rebuild=True)
    assert "http://other.test/3" not in kept(folder)
    assert SECRET not in json.dumps(rows_of(folder, "documents") + rows_of(folder, "removed"))


def test_a_domain_takes_its_subdomains_along_and_no_other(folder: Path) -> None:
    write(
        folder / "in/three.jsonl",
        **{"http://myforum.example.org.test/": text(7), "http://example.org/": text(8)},
    )
    run(folder)
    found = take_down(folder, domains=["Forum.Example.org."])
    assert len(found.documents) == 4
    assert sorted(kept(folder)) == [
        *("http://example.org/", "http://myforum.example.org.test/", "http://other.test/3"),
    ]
    # Copies elsewhere were removed for pages of the forum; their samples are of the same words.
    removed = {row["uri"]: row for row in rows_of(folder, "removed")}
    assert removed["http://mirror.test/0"]["text_sample"] == ""
    shown = evidence.load(Corpus(folder / "corpus").evidence(found.version["version"]))
    assert [pair for pair in shown.pairs if "forum" in pair["keeper_uri"]] == []
    write(folder / "in/four.jsonl", **{f"{HOST}/new": text(9)})
    run(folder)
    assert f"{HOST}/new" not in kept(folder)


def test_a_list_names_documents_addresses_and_domains(folder: Path) -> None:
    doc_id = kept(folder)[f"{HOST}/2"]["doc_id"]
    (folder / "list.txt").write_text(
        f"# asked for on Monday\n{doc_id}\n\nhttp://other.test/3\ndomain sub.forum.example.org\n"
    )
    take_down(folder, file=folder / "list.txt")
    assert sorted(kept(folder)) == [f"{HOST}/0", f"{HOST}/1"]
    table = Corpus(folder / "corpus").delta("takedowns").to_pyarrow_table()
    assert table.schema.names == schema.TAKEDOWNS.names
    assert set(table["note"].to_pylist()) == {"asked for"}


def test_a_takedown_that_was_killed_behind_the_ledger_is_finished_by_the_next_refresh(folder: Path) -> None:
    corpus = Corpus(folder / "corpus")
    takedowns.enter(corpus, [("uri", f"{HOST}/0")], "")
    # Nothing new is in the sources, and yet there is something to do.
    source = SourceConfig(name="rows", paths=[str(folder / "in")], uri_column="id")
    with open_refresh(corpus, RefreshConfig(sources=[source]), folder) as work:
        assert (work.is_needed, work.new) == (True, [])
    result = run(folder)
    assert (result.changed, result.version["num_taken_down"], result.version["kind"]) == (True, 1, "remove")
    assert f"{HOST}/0" not in kept(folder)
    assert not run(folder).changed


def test_a_takedown_and_a_changed_file_meet_in_one_refresh(folder: Path) -> None:
    takedowns.enter(Corpus(folder / "corpus"), [("uri", f"{HOST}/0"), ("uri", "http://other.test/3")], "")
    write(folder / "in/one.jsonl", **{f"{HOST}/0": text(0), f"{HOST}/1": text(1), "new": text(40)})
    result = run(folder)
    assert (result.version["num_taken_down"], result.version["num_superseded"]) == (2, 1)
    assert sorted(kept(folder)) == [f"{HOST}/1", "http://sub.forum.example.org/4", "new"]
    accounted(folder)


def test_a_rollback_brings_back_an_older_version_but_not_what_was_taken_down(folder: Path) -> None:
    corpus = Corpus(folder / "corpus")
    take_down(folder, uris=["http://other.test/3"])
    write(folder / "in/three.jsonl", x=text(50))
    run(folder)
    with corpus.locked():
        row = history.rollback(corpus, 1)
    assert (row["version"], row["kind"], row["restored_version"], row["num_taken_down"]) == (
        5,
        "rollback",
        1,
        1,
    )
    assert sorted(kept(folder)) == [f"{HOST}/{number}" for number in range(3)]
    accounted(folder)
    # What was read since the version is new again.
    result = run(folder)
    assert (result.new_inputs, result.known_inputs) == (2, 1)
    assert "x" in kept(folder)
    accounted(folder)
    with corpus.locked(), pytest.raises(InputError, match="is the newest one already"):
        history.rollback(corpus, result.version["version"])
    with corpus.locked(), pytest.raises(InputError, match="has no version 99"):
        history.rollback(corpus, 99)


def test_differences_between_versions_are_counted_by_source(folder: Path) -> None:
    corpus = Corpus(folder / "corpus")
    take_down(folder, uris=["http://other.test/3"])
    write(folder / "in/one.jsonl", **{f"{HOST}/0": text(0), "http://other.test/3": text(3), "new": text(40)})
    # Its address is still in the file.
    run(folder)
    found = history.diff(corpus, corpus.at(2), corpus.at())
    assert found.documents["rows"]["added"] == 2  # the new page, and the copy of page 1 in the other file
    assert found.documents["rows"]["gone"] == 3
    assert found.num_documents == (5, 4)
    assert found.inputs == {"rows": {"added": 1, "gone": 1}}
    assert found.removed["rows", TAKEDOWN, "taken_down"] == 1
    assert ("-", "rows", "http://other.test/3") in found.examples
    back = history.diff(corpus, corpus.at(), corpus.at(2))
    assert (back.documents["rows"]["added"], back.documents["rows"]["gone"]) == (3, 2)
    nothing = history.diff(corpus, corpus.at(2), corpus.at(2))
    assert (nothing.documents, nothing.removed, nothing.inputs) == ({}, {}, {})


def test_documents_of_every_readable_version_are_named_for_whoever_looks_for_their_tokens(
    folder: Path,
) -> None:
    first = take_down(folder, uris=["http://other.test/3"])
    write(folder / "in/one.jsonl", **{f"{HOST}/0": text(0)})
    run(folder)
    # Its file has changed, and yet the datasets of older versions hold it.
    assert "http://other.test/3" not in {row["uri"] for row in rows_of(folder, "removed")}
    assert take_down(folder, uris=["http://other.test/3"]).doc_ids == first.doc_ids
    assert len(take_down(folder, domains=["forum.example.org"]).doc_ids) == 4


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.parquet*")}


def test_a_vacuum_leaves_the_files_of_the_versions_that_stay(folder: Path) -> None:
    corpus = Corpus(folder / "corpus")
    take_down(folder, uris=["http://other.test/3"])
    write(folder / "in/three.jsonl", x=text(50))
    run(folder)
    before = kept(folder)
    # What a killed refresh leaves.
    (folder / "corpus/.staging/abc").mkdir(parents=True)
    for name in (
        "documents/part-v000009-x.parquet",
        ".staging/abc/unit-000000.parquet",
        "removed/y.parquet.tmp",
    ):
        pq.write_table(pa.table({"a": [1]}), folder / "corpus" / name)
    with corpus.locked():
        dry = history.vacuum(corpus, keep=2, protected=[1], dry_run=True)
    assert dry.versions == [2]
    assert corpus.at(2)
    with corpus.locked():
        done = history.vacuum(corpus, keep=2, protected=[1])
    assert {name for name, _ in dry.files} <= {name for name, _ in done.files}
    assert all(not (folder / "corpus" / name).exists() for name, _ in done.files)
    assert kept(folder) == before
    assert corpus.read("documents", corpus.at(1), ["uri"]).num_rows == 4
    with pytest.raises(InputError, match="files of version 2 were removed on"):
        corpus.at(2)
    named = {
        path.split("/corpus/")[1]
        for number in (1, 3, 4)
        for table in ("documents", "removed", "signatures", "inputs")
        for path in corpus.files(table, corpus.at(number))
    }
    left = {name for name in files_below(folder / "corpus") if "_delta_log" not in name}
    assert {name for name in left if not name.startswith(("versions/", "takedowns/"))} == named
    run(folder)


def test_a_purge_leaves_no_byte_of_the_text(folder: Path) -> None:
    take_down(folder, uris=["http://other.test/3"])
    corpus = Corpus(folder / "corpus")
    with corpus.locked():
        history.purge(corpus)
    os.remove(folder / "in/one.jsonl")
    for path in (folder / "corpus").rglob("*"):
        if path.suffix == ".parquet" and "_delta_log" not in str(path):
            assert SECRET not in json.dumps(pq.read_table(path, partitioning=None).to_pylist(), default=str)
        elif path.is_file():
            assert SECRET.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nothing to take down"),
        ({"domains": ["org"]}, "no domain of two parts"),
        ({"doc_ids": ["../etc"]}, "is no document id"),
        ({"uris": [""]}, "an empty uri"),
    ],
)
def test_what_names_nothing_is_refused(given: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_rules(**given)


def test_a_list_with_a_line_that_names_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("http://fine.test/\nwhat is this\n")
    with pytest.raises(InputError, match=r"list, line 2: 'what is this' is no address and no id"):
        parse_rules(file=tmp_path / "list")
    with pytest.raises(InputError, match="cannot be read"):
        parse_rules(file=tmp_path / "missing")


def test_hosts_are_matched_by_their_labels() -> None:
    rules = Rules.of([("domain", "a.test")])
    uris = {
        "http://a.test/": True,
        "https://user@www.A.test:80/x": True,
        "http://ba.test/": False,
        "http://a.test.org/": False,
        "http://b.test/a.test": False,
        "a.test": False,
        "ftp://a.test/": True,
        "http://b.test/?http://a.test/": False,
    }
    table = pa.table({"uri": list(uris), "doc_id": [""] * len(uris)})
    assert rules.match(table).tolist() == list(uris.values())
