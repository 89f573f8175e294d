"""How many training processes, on what; and one process a run."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import InputError
from data_pipeline.locks import locked
from tests.workflows.conftest import ROOT, environment
from workflows.workers import fit_workers

GPU_NODE = {"CPU": 8.0, "GPU": 2.0}


def test_auto_takes_a_gpu_each_where_there_are_any() -> None:
    group = fit_workers(0, "auto", [{"CPU": 4.0}, GPU_NODE, GPU_NODE], grows=False)
    assert group == (4, {"GPU": 1, "CPU": 1}, True)
    assert fit_workers(3, "auto", [GPU_NODE, GPU_NODE], grows=False).num_workers == 3


def test_more_workers_than_gpus_are_never_moved_to_cpus_unasked() -> None:
    with pytest.raises(InputError, match=r"workers: 8 .* 4 GPUs.*--device cpu"):
        fit_workers(8, "auto", [GPU_NODE, GPU_NODE], grows=False)
    assert fit_workers(8, "cpu", [GPU_NODE, GPU_NODE], grows=False) == (8, {"CPU": 2}, False)


def test_a_cluster_that_grows_is_asked_for_gpus_it_does_not_have_yet() -> None:
    assert fit_workers(8, "gpu", [{}], grows=True) == (8, {"GPU": 1, "CPU": 1}, True)
    assert fit_workers(0, "gpu", [{}], grows=True).num_workers == 1
    with pytest.raises(InputError, match="this machine has none"):
        fit_workers(0, "gpu", [{"CPU": 4.0}], grows=False)


def test_a_cluster_without_cpus_is_a_clear_error() -> None:
    with pytest.raises(InputError, match=r"workers: .*0 CPUs.*--device gpu"):
        fit_workers(0, "auto", [{}], grows=True)


@given(st.integers(1, 40), st.lists(st.integers(0, 64), min_size=1, max_size=6))
def test_each_cpu_worker_fits_on_one_node_and_has_as_many_cores_as_possible(
    wanted: int, cores: list[int]
) -> None:
    nodes = [{"CPU": float(number)} for number in cores]
    if wanted > sum(cores):
        with pytest.raises(InputError):
            fit_workers(wanted, "cpu", nodes, grows=False)
        return
    group = fit_workers(wanted, "cpu", nodes, grows=False)
    share = int(group.resources["CPU"])
    assert (group.num_workers, group.use_gpu) == (wanted, False)
    assert sum(number // share for number in cores) >= wanted
    assert sum(number // (share + 1) for number in cores) < wanted


CROWDED = """
import sys
from workflows import launch
import ray
from gpt.config import ModelConfig, TrainConfig
from data_pipeline.errors import InputError
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
@ray.remote(num_cpus=1)
class Other:
    def ready(self):
        return True
other = Other.remote()
ray.get(other.ready.remote())
launch.START_ATTEMPTS = 2
folder = sys.argv[1]
job = launch.TrainingJob(folder, "", "", "", ModelConfig(), TrainConfig(), "", "", {})
try:
    launch.run_training(job, 2, "cpu", 0, print)
except InputError as error:
    print("said:", error)
"""


@pytest.mark.slow
def test_workers_for_whom_others_leave_no_room_are_not_waited_for_for_ever(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CROWDED, str(tmp_path / "runs" / "x")],
        cwd=ROOT,
        env=environment(RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S="2"),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert "said: workers: the cluster did not give 2 workers with 1 CPU each" in done.stdout, done.stderr


def test_a_lock_is_refused_while_another_process_holds_it_and_free_when_that_one_is_killed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "runs" / "x" / ".lock"
    code = (
        "import sys, time; from pathlib import Path; from data_pipeline.locks import locked\n"
        "with locked(Path(sys.argv[1]), 'name: run x'):\n    print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(InputError, match="name: run x is worked on by another process"),
            locked(path, "name: run x"),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    deadline = time.monotonic() + 10
    while True:
        try:
            with locked(path, "name: run x"):
                break
        except InputError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
