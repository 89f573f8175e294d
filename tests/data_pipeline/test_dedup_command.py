"""python -m data_pipeline.dedup: any table in, the same table without its duplicates out; on a real Ray."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.config import DedupConfig
from data_pipeline.dedup import table_files
from data_pipeline.dedup.table import Outcome, dedup_table
from data_pipeline.errors import InputError
from data_pipeline.text_hash import text_hash, text_hashes
from tests.data_pipeline.made_inputs import prose, reworded

ROOT = Path(__file__).resolve().parents[2]
CONFIG = DedupConfig()


def rows() -> list[dict[str, Any]]:
    """Thirty texts, near and exact copies of some, an empty one and one word."""
    texts = [prose(seed, 200) for seed in range(30)]
    texts += [reworded(texts[seed], 2) for seed in range(5)] + [text.upper() for text in texts[10:13]]
    texts += ["", "word"]
    return [
        {"url": f"u{number:02d}", "body": text, "n": number, "tags": ["a", "b"][: number % 3], "lang": "en"}
        for number, text in enumerate(texts)
    ]


def run(places: list[Path], output: Path, id_column: str = "url", text_column: str = "body") -> Outcome:
    return dedup_table([str(place) for place in places], output, id_column, text_column, CONFIG)


def results(output: Path) -> tuple[list[dict], list[dict]]:
    """(kept rows, removed rows), each sorted."""
    kept = pads.dataset(output / "kept").to_table().to_pylist()
    removed = pq.read_table(output / "removed.parquet").to_pylist()
    return sorted(kept, key=lambda row: row["n"]), sorted(removed, key=lambda row: row["id"])


@pytest.fixture(scope="module")
def expected(
    tmp_path_factory: pytest.TempPathFactory, ray_cluster: None
) -> tuple[Outcome, list[dict], list[dict]]:
    """What comes of `rows` in one Parquet file."""
    folder = tmp_path_factory.mktemp("expected")
    pq.write_table(pa.Table.from_pylist(rows()), folder / "all.parquet")
    outcome = run([folder / "all.parquet"], folder / "out")
    return outcome, *results(folder / "out")


Expected = tuple[Outcome, list[dict], list[dict]]


def test_every_row_is_kept_whole_or_listed_as_removed(expected: Expected) -> None:
    outcome, kept, removed = expected
    everything = {row["url"]: row for row in rows()}
    assert outcome == Outcome(40, 32, 3, 5, 8, 0)
    assert [row["url"] for row in kept] == sorted(set(everything) - {row["id"] for row in removed})
    assert all(row == everything[row["url"]] for row in kept)
    for row in removed:
        assert row["duplicate_of"] in {other["url"] for other in kept}
        assert row["reason"] == ("exact_duplicate" if row["similarity"] == 1.0 else "near_duplicate")
        assert 0.8 <= row["similarity"] <= 1.0
    assert sorted(row["cluster"] for row in removed) == list(range(1, 9))


def _parquet_parts(folder: Path) -> list[Path]:
    shuffled = rows()
    random.Random(3).shuffle(shuffled)
    folder.mkdir()
    for number in range(4):
        part = pa.Table.from_pylist(shuffled[number * 10 : number * 10 + 10])
        pq.write_table(part, folder / f"{number}.parquet", row_group_size=3)
    return [folder]


def _json_lines(folder: Path) -> list[Path]:
    folder.mkdir()
    lines = [json.dumps(row) + "\n" for row in rows()]
    (folder / "a.jsonl").write_text("\n".join(lines[:20]))
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        file.writelines(lines[20:])
    return [folder / "*.jsonl", folder / "b.jsonl.gz"]


def _delta(folder: Path) -> list[Path]:
    table = pa.Table.from_pylist(rows())
    write_deltalake(str(folder), table.slice(0, 25), partition_by=["lang"])
    write_deltalake(str(folder), table.slice(0, 25), mode="overwrite")
    write_deltalake(str(folder), table.slice(25), mode="append")
    return [folder]


@pytest.mark.parametrize("write", [_parquet_parts, _json_lines, _delta])
def test_the_result_is_the_same_in_every_format_order_and_cut(
    write: Any, expected: Expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Units of a row group or two.
    monkeypatch.setattr(table_files, "UNIT_BYTES", 2000)
    outcome = run(write(tmp_path / "in"), tmp_path / "out")
    assert (outcome, *results(tmp_path / "out")) == expected
    assert not (tmp_path / "out" / ".work").exists()


def test_ids_keep_their_type_and_rows_without_a_column_of_ids_are_named_by_place(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(rows())
    pq.write_table(table, tmp_path / "a.parquet")
    run([tmp_path / "a.parquet"], tmp_path / "by-number", id_column="n")
    removed = pq.read_table(tmp_path / "by-number" / "removed.parquet")
    assert removed.schema.field("id").type == removed.schema.field("duplicate_of").type == pa.int64()
    run([tmp_path / "a.parquet"], tmp_path / "by-place", id_column="")
    ids = pq.read_table(tmp_path / "by-place" / "removed.parquet")["id"].to_pylist()
    assert len(ids) == 8
    assert all(name.startswith(f"{tmp_path / 'a.parquet'}#") for name in ids)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"url": ["a"], "text": ["x"]},
            "--text-column: the input has no column 'body'; it has url, text",
        ),
        ({"id": ["a"], "body": ["x"]}, "--id-column: the input has no column 'url'"),
        ({"url": ["a"], "body": [1]}, "--text-column: body of .* holds int64, not text"),
        ({"url": ["a", None], "body": ["x", "y"]}, "--id-column: row 1 of .*a.parquet has no url"),
        ({"url": [], "body": []}, "--input: the files hold no documents"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line_and_leaves_nothing(
    content: dict, message: str, tmp_path: Path, ray_cluster: None
) -> None:
    pq.write_table(pa.table(content), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message):
        run([tmp_path / "a.parquet"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"no Parquet", "a.parquet is no Parquet file that can be read"),
        ("a.jsonl", b'{"url": "a", "body": "x"}\n{nonsense\n', "a.jsonl holds a line that does not fit in"),
        ("a.jsonl", b"[1, 2]\n", "no JSON object"),
        ("a.txt", b"text", "a.txt is neither Parquet nor JSON lines nor a Delta table"),
    ],
)
def test_files_that_cannot_be_read_are_one_line(
    name: str, content: bytes, message: str, tmp_path: Path, ray_cluster: None
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        run([tmp_path / name], tmp_path / "out")


def test_the_command_prints_a_summary_last_and_ends_with_0_or_2(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows()), tmp_path / "a.parquet")
    command = [sys.executable, "-m", "data_pipeline.dedup", "--input", "a.parquet", "--output", "out"]
    command = [*command, "--id-column", "url", "--text-column", "body"]

    def call(*more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("RAY_ADDRESS", None)
        return subprocess.run(
            [*command, *more], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )

    done = call("--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["num_documents"], summary["num_kept"], summary["output"]) == (40, 32, "out")
    assert "0.8: 98.2%" in done.stderr
    again = call()
    assert (again.returncode, again.stdout) == (2, "")
    assert "error: --output: out/kept is there already" in again.stderr
    assert "Traceback" not in again.stderr
    for wrong in (("--threshold", "2"), ("--nonsense",)):
        done = call(*wrong)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@settings(deadline=None)
@given(
    st.lists(
        st.text(max_size=50)
        | st.text(st.sampled_from("ßẞİıſΣςσǅȺⱥÄäﬀ“”—…春😀𐐀 \u2028\u3000aZ"), max_size=30)
        | st.text(st.sampled_from(" \t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\x85\xa0aBZ."), max_size=50),
        max_size=5,
    )
)
def test_hashes_of_a_column_are_those_of_its_texts(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    expected = [text_hash(text) for text in texts]
    assert text_hashes(pa.array(texts, pa.string())) == expected
    assert text_hashes(pa.chunked_array([pa.array(["x", *texts], pa.large_string())[1:]])) == expected


def test_every_character_is_folded_as_python_does() -> None:
    texts = [
        f"x{chr(code)} y"
        for code in range(0x110000)
        if (not 0xD800 <= code < 0xE000 and code % 7 < 2) or code < 0x3000
    ]
    assert text_hashes(pa.array(texts, pa.string())) == [text_hash(text) for text in texts]
