"""A workspace in S3, from text to a model: refresh, tokenize, a training that is killed and goes on; verified at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.sources import as_path
from tests.data_pipeline.made_inputs import prose
from tests.data_pipeline.remote_servers import S3, SIGNED

ROOT = Path(__file__).resolve().parents[2]
WORKSPACE = "s3://mill/work"
TRAINING = [
    *("--preset", "demo", "--device", "cpu", "--workers", "1", "--name", "one", "--model.num_layers", "1"),
    *("--model.context_length", "32", "--model.width", "32", "--model.num_heads", "2"),
    *(
        "--train.batch_size",
        "4",
        "--train.num_steps",
        "60",
        "--train.warmup_steps",
        "5",
        "--train.checkpoint_every",
        "10",
    ),
    *("--train.eval_every", "30"),
]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    server = S3()
    settings = {
        **SIGNED,
        "AWS_ENDPOINT_URL": server.url,
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "GPTMILL_SHARD_CACHE": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path / "tmp"),
    }
    (tmp_path / "tmp").mkdir()
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    server.put("mill", "made", b"")
    yield server
    server.close()


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"workflows.{name}", "--workspace", WORKSPACE, *arguments]


def run(folder: Path, name: str, *arguments: str) -> str:
    done = subprocess.run(command(name, *arguments), cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_training_in_an_object_store_is_killed_and_goes_on(store: S3, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": prose(seed, 120)}) + "\n" for seed in range(150)))
    folder = tmp_path / "here"
    folder.mkdir()
    os.environ["PYTHONPATH"] = str(ROOT)
    run(folder, "refresh", "--files", str(texts))
    run(folder, "tokenize", "--tokenizer.vocab_size", "400", "--shards.val_share", "0.2")
    subprocess.run(
        [sys.executable, "-m", "workflows.tokenize", "verify", "--workspace", WORKSPACE, "--shards.val_share", "0.2"],
        cwd=folder, check=True, capture_output=True, timeout=100,
    )  # fmt: skip
    errors = (tmp_path / "errors").open("w")
    killed = subprocess.Popen(
        command("pretrain", *TRAINING), cwd=folder, stdout=subprocess.DEVNULL, stderr=errors,
        start_new_session=True,
    )  # fmt: skip
    checkpoints = as_path(f"{WORKSPACE}/runs/one/checkpoints")
    deadline = time.monotonic() + 120
    while not (checkpoints.exists() and any(checkpoints.rglob("state.json"))):
        assert killed.poll() is None, (tmp_path / "errors").read_text()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    # Another machine goes on: nothing of the first one's disk is left.
    shutil.rmtree(tmp_path / "tmp")
    (tmp_path / "tmp").mkdir()
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    # The lease of the dead one would run out in a minute.
    as_path(f"{WORKSPACE}/runs/one/.lock").unlink()
    done = subprocess.run(
        command("pretrain", *TRAINING), cwd=folder, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(as_path(f"{WORKSPACE}/runs/one/result.json").read_text())
    assert result["step"] == 60
    steps = [
        json.loads(line) for line in as_path(f"{WORKSPACE}/runs/one/metrics.jsonl").read_text().splitlines()
    ]
    assert [entry["step"] for entry in steps if entry["kind"] == "train"] == list(range(1, 61))
    assert as_path(f"{WORKSPACE}/models/one/model.safetensors").exists()
    assert "complete already" in run(folder, "pretrain", *TRAINING)
    # MLflow puts artifacts there, where its store is a database without a server.
    assert [path.name for path in folder.iterdir()] == ["mlruns"]
    assert any((tmp_path / "cache").glob("*.arrow"))
