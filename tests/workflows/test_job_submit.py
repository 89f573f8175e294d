"""The demo as a job on a cluster, submitted the way the documentation says."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.workflows.conftest import ROOT, SMALL, environment, manifest_hash, outlive

pytestmark = pytest.mark.slow

RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A head node with token authentication; the environment of its clients."""
    folder = Path(tempfile.mkdtemp(prefix="gmh", dir="/tmp"))
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    dashboard = free_port()
    env = environment(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(token),
        RAY_API_SERVER_ADDRESS=f"http://127.0.0.1:{dashboard}",
    )
    env.pop("RAY_TMPDIR", None)
    # As the documentation has it: the environment is active where Ray starts, and a job's `python` is its.
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    command = [
        *(RAY, "start", "--head", "--block", f"--port={free_port()}", "--dashboard-host=127.0.0.1"),
        *(f"--dashboard-port={dashboard}", f"--temp-dir={folder / 'ray'}", "--num-cpus=2"),
        *(f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"),
    ]
    head = subprocess.Popen(
        command, env=env, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while subprocess.run([RAY, "job", "list"], env=env, capture_output=True).returncode != 0:
            assert time.monotonic() < deadline, "the head node did not answer within a minute"
            assert head.poll() is None, "the head node ended"
            time.sleep(1)
        yield env
    finally:
        family = psutil.Process(head.pid).children(recursive=True)
        for process in (psutil.Process(head.pid), *family):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        outlive(family, timeout_s=20)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_the_demo_as_a_submitted_job_makes_the_same_tokens_as_by_hand(
    cluster: dict[str, str], demo_run: tuple[Path, str], tmp_path: Path
) -> None:
    workspace = tmp_path / "ws"
    command = [
        *(RAY, "job", "submit", "--working-dir", ".", "--"),
        *("python", "-m", "workflows.demo", "--workspace", str(workspace)),
        *SMALL,
    ]
    done = subprocess.run(command, cwd=ROOT, env=cluster, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    # Another workspace, another scrape, another port of the server: the same tokens, to the byte.
    assert manifest_hash(done.stdout) == manifest_hash(demo_run[1])
    assert "succeeded" in done.stdout
    assert os.listdir(workspace / "models")


def test_a_users_mistake_fails_the_job_with_its_one_line(cluster: dict[str, str], tmp_path: Path) -> None:
    command = [
        *(RAY, "job", "submit", "--working-dir", ".", "--"),
        *(
            "python",
            "-m",
            "workflows.pretrain",
            "--workspace",
            str(tmp_path / "ws"),
            "--model.num_heads",
            "3",
        ),
    ]
    done = subprocess.run(command, cwd=ROOT, env=cluster, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert "error: num_heads 3 does not divide width" in done.stdout
    assert "Traceback" not in done.stdout


def test_the_nightly_script_submits_a_refresh_as_cron_would_start_it(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    books = ROOT / "workflows" / "demo_data" / "books"
    (tmp_path / "refresh.yaml").write_text(f"books: {books}\n")
    # Cron gives next to nothing; the crontab's own lines give the rest.
    environment = {
        **{name: value for name, value in cluster.items() if name.startswith("RAY_")},
        "PATH": cluster["PATH"],
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "GPTMILL_CONFIG": str(tmp_path / "refresh.yaml"),
        "GPTMILL_WORKSPACE": str(tmp_path / "ws"),
        "GPTMILL_PAUSE": "0",
        "GPTMILL_TRIES": "2",
    }

    def night() -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [str(ROOT / "deploy" / "nightly.sh")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    code, summary = night()
    assert (code, summary["status"], summary["version"]) == (0, "committed", 1)
    code, summary = night()
    assert (code, summary["status"]) == (0, "nothing_new")
    (tmp_path / "refresh.yaml").write_text(f"books: {tmp_path / 'nowhere'}\n")
    code, summary = night()
    assert (code, summary["status"]) == (2, "refused")
    assert "does not exist" in summary["message"]


def test_the_cluster_files_ray_starts_with_the_environment_first_on_its_path(tmp_path: Path) -> None:
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, script in (("ray", 'echo "$1: $(command -v python) $RAY_AUTH_MODE"'), ("python", "")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    content = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    [checkout] = content["file_mounts"]
    for node in ("head", "worker"):
        commands = [line.replace(checkout, str(tmp_path)) for line in content[f"{node}_start_ray_commands"]]
        said = [
            subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout
            for line in commands
        ]
        assert said[-1] == f"start: {programs / 'python'} token\n"
