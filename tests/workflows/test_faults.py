"""Trainings that are killed end like those that are not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.workflows.conftest import ROOT, environment, run_workflow
from workflows.journal import TRAIN, VALIDATION, curve, read_journal

STEPS = 40
# Long enough a step that a kill meets the training, small enough to end soon.
SETTINGS = [
    *(
        "--preset",
        "tiny",
        "--workers",
        "2",
        "--train.num_steps",
        str(STEPS),
        "--train.checkpoint_every",
        "10",
    ),
    *("--train.eval_every", "20", "--train.batch_size", "16", "--model.context_length", "128"),
    *("--model.width", "128", "--model.num_layers", "4", "--model.dropout", "0.1"),
]

pytestmark = pytest.mark.slow


def pretrain(workspace: Path, name: str) -> list[str]:
    return ["--workspace", str(workspace), "--name", name, *SETTINGS]


@pytest.fixture(scope="module")
def undisturbed(tokenised: Path) -> Path:
    done = run_workflow("pretrain", *pretrain(tokenised, "undisturbed"))
    assert done.returncode == 0, done.stderr
    return tokenised / "runs" / "undisturbed" / "metrics.jsonl"


def start(workspace: Path, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "workflows.pretrain", *pretrain(workspace, name)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for_step(journal: Path, step: int, driver: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert driver.poll() is None, driver.stderr.read().decode() if driver.stderr else ""
        if any(entry["kind"] == TRAIN and entry["step"] >= step for entry in read_journal(journal)):
            return
        time.sleep(0.02)
    raise AssertionError(f"the training did not reach step {step}")


def training_workers(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    children = psutil.Process(driver.pid).children(recursive=True)
    return [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]


def same_curves(left: Path, right: Path) -> None:
    for kind, name in ((TRAIN, "loss"), (TRAIN, "grad_norm"), (VALIDATION, "bits_per_byte")):
        assert curve(left, kind, name) == curve(right, kind, name)
    assert curve(left, TRAIN, "loss")[0] == list(range(1, STEPS + 1))


def mlflow_steps(workspace: Path, name: str) -> list[int]:
    from workflows.tracking import client_of
    from workflows.workspace import Workspace

    run_id = json.loads((workspace / "runs" / name / "run.json").read_text())["mlflow_run_id"]
    client = client_of(Workspace.open(str(workspace)))
    assert client.get_run(run_id).info.status == "FINISHED"
    return [metric.step for metric in client.get_metric_history(run_id, "train/loss")]


def test_a_run_whose_worker_is_killed_has_the_curve_of_an_undisturbed_one(
    tokenised: Path, undisturbed: Path
) -> None:
    journal = tokenised / "runs" / "worker-killed" / "metrics.jsonl"
    driver = start(tokenised, "worker-killed")
    wait_for_step(journal, 13, driver)
    workers = training_workers(driver)
    assert len(workers) == 2
    workers[0].send_signal(signal.SIGKILL)
    _, stderr = driver.communicate(timeout=300)
    assert driver.returncode == 0, stderr.decode()
    same_curves(journal, undisturbed)
    assert mlflow_steps(tokenised, "worker-killed") == list(range(1, STEPS + 1))


def test_a_run_whose_driver_is_killed_goes_on_with_the_same_command(
    tokenised: Path, undisturbed: Path
) -> None:
    run_dir = tokenised / "runs" / "driver-killed"
    driver = start(tokenised, "driver-killed")
    wait_for_step(run_dir / "metrics.jsonl", 23, driver)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=60)
    run_id = json.loads((run_dir / "run.json").read_text())["mlflow_run_id"]

    done = run_workflow("pretrain", *pretrain(tokenised, "driver-killed"))
    assert done.returncode == 0, done.stderr
    same_curves(run_dir / "metrics.jsonl", undisturbed)
    assert json.loads((run_dir / "run.json").read_text())["mlflow_run_id"] == run_id
    assert mlflow_steps(tokenised, "driver-killed") == list(range(1, STEPS + 1))
    # Ray's agents notice within a minute or two that their node is gone.
    _, alive = psutil.wait_procs(family, timeout=150)
    assert not alive, "Ray's processes outlive the driver"


def test_a_run_that_is_complete_is_left_as_it_is(tokenised: Path, undisturbed: Path) -> None:
    before = undisturbed.read_bytes()
    done = run_workflow("pretrain", *pretrain(tokenised, "undisturbed"))
    assert done.returncode == 0, done.stderr
    assert "complete already" in done.stdout
    assert undisturbed.read_bytes() == before
