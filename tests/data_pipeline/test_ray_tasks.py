"""Plain tasks over tables that name files: what they give back, and what becomes of their failures."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa
import pytest

from data_pipeline.engine import run_tasks
from data_pipeline.errors import InputError


def tables(count: int) -> list[pa.Table]:
    return [pa.table({"n": [i]}) for i in range(count)]


def test_each_table_is_taken_once_whatever_the_number_of_cores(ray_cluster: None) -> None:
    def doubled(table: pa.Table, more: int) -> pa.Table:
        return pa.table({"n": [2 * n + more for n in table["n"].to_pylist()]})

    rows = [row["n"] for row in run_tasks(doubled, tables(50), more=1)]
    assert sorted(rows) == list(range(1, 101, 2))
    assert list(run_tasks(doubled, [], more=1)) == []


def test_a_users_mistake_in_a_task_is_the_callers_in_one_line(ray_cluster: None) -> None:
    def mistaken(table: pa.Table) -> pa.Table:
        raise InputError("a.7z: install 7z")

    with pytest.raises(InputError) as raised:
        list(run_tasks(mistaken, tables(1)))
    assert str(raised.value) == "a.7z: install 7z"


def test_a_bug_in_a_task_is_an_error_of_the_caller(ray_cluster: None) -> None:
    def failing(table: pa.Table) -> pa.Table:
        raise RuntimeError("the reason of it all")

    with pytest.raises(RuntimeError, match="the reason of it all"):
        list(run_tasks(failing, tables(3)))


def test_a_task_that_kills_its_worker_ends_in_an_error_after_a_few_tries(
    ray_cluster: None, tmp_path: Path
) -> None:
    folder = str(tmp_path)

    def deadly(table: pa.Table) -> pa.Table:
        open(f"{folder}/try-{os.getpid()}-{os.urandom(4).hex()}", "w").close()
        os._exit(1)

    with pytest.raises(Exception, match=r"(?i)worker|crash|died"):
        list(run_tasks(deadly, tables(1)))
    assert len(list(tmp_path.glob("try-*"))) == 3


def test_what_nobody_waits_for_is_not_run(ray_cluster: None, tmp_path: Path) -> None:
    folder = str(tmp_path)

    def leave_a_mark(table: pa.Table) -> pa.Table:
        open(f"{folder}/{table['n'][0].as_py()}", "w").close()
        time.sleep(0.05)
        return table

    rows = run_tasks(leave_a_mark, tables(100))
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) < 20
