"""The files of deploy/: the commands in them are commands of gptmill, and their fields are what the systems know."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_pipeline.errors import InputError
from workflows import cli, refresh, versions

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
KUBERAY = DEPLOY / "kuberay"
# Of `ray.io/v1` in KubeRay 1.6, the fields of a RayJob's spec and of a RayCronJob's.
RAYJOB = {
    *(
        "activeDeadlineSeconds",
        "backoffLimit",
        "clusterSelector",
        "deletionStrategy",
        "entrypoint",
        "entrypointNumCpus",
    ),
    *(
        "entrypointNumGpus",
        "entrypointResources",
        "jobId",
        "managedBy",
        "metadata",
        "rayClusterSpec",
        "runtimeEnvYAML",
    ),
    *("shutdownAfterJobFinishes", "submissionMode", "submitterConfig", "submitterPodTemplate", "suspend"),
    "ttlSecondsAfterFinished",
}
RAYCRONJOB = {"jobTemplate", "schedule", "suspend", "timeZone"}


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((KUBERAY / name).read_text())


def options_of(command: str, folder: Path) -> Any:
    """A command line of a file, read as the workflow reads it."""
    (folder / "refresh.yaml").write_text("language: {keep: [en]}\n")
    words = shlex.split(re.sub(r"/\S*/refresh\.yaml", str(folder / "refresh.yaml"), command))
    assert words[:3] == ["python", "-m", "workflows.refresh"]
    if words[3] in versions.COMMANDS:
        return cli.parse(versions.COMMANDS[words[3]][0], "refresh", "", words[4:])
    return cli.parse(refresh.Options, "refresh", "", words[3:])


def test_the_rayjobs_entrypoint_is_a_refresh_that_waits_and_tells_what_it_did(tmp_path: Path) -> None:
    job = load("refresh-rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job["spec"]) <= RAYJOB
    options = options_of(job["spec"]["entrypoint"], tmp_path)
    assert (options.workspace, options.wait, options.json) == ("s3://BUCKET/gptmill", 3600, True)
    assert options.language.keep == ["en"]


def test_the_raycronjob_starts_that_very_job(tmp_path: Path) -> None:
    job = load("refresh-raycronjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayCronJob")
    assert set(job["spec"]) <= RAYCRONJOB
    assert job["spec"]["jobTemplate"] == load("refresh-rayjob.yaml")["spec"]


def test_the_cluster_of_the_job_runs_the_ray_that_the_lock_pins() -> None:
    lock = (DEPLOY.parent / "requirements.lock").read_text()
    version = load("refresh-rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"ray=={version}\n" in lock


def test_the_plain_cronjob_calls_the_script_and_does_not_repeat_a_users_mistake() -> None:
    job = load("refresh-cronjob.yaml")
    assert (job["apiVersion"], job["kind"], job["spec"]["concurrencyPolicy"]) == (
        "batch/v1",
        "CronJob",
        "Forbid",
    )
    spec = job["spec"]["jobTemplate"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    (script,) = container["command"]
    assert (DEPLOY.parent / script).stat().st_mode & 0o111
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [2]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    # Kubernetes wants this where a pod's failures are told apart.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    script_text = (DEPLOY / "nightly.sh").read_text()
    assert all(entry["name"] in script_text for entry in container["env"])


def test_the_crontabs_lines_are_commands(tmp_path: Path) -> None:
    lines = [
        line for line in (DEPLOY / "gptmill.crontab").read_text().splitlines() if line and line[0] != "#"
    ]
    jobs = [line.split(maxsplit=5) for line in lines if not re.match(r"[A-Z_]+=", line)]
    assert all(re.fullmatch(r"[\d*/,-]+", field) for job in jobs for field in job[:5])
    nightly, vacuum = (job[5] for job in jobs)
    assert nightly.startswith("/srv/gptmill/deploy/nightly.sh ")
    command = vacuum.split("&& .venv/bin/")[1].replace('"$GPTMILL_WORKSPACE"', "ws")
    options = options_of(command, tmp_path)
    assert (options.keep, options.wait, options.workspace) == (60, True, "ws")


def test_the_script_is_a_plain_shells_and_asks_for_what_it_needs() -> None:
    subprocess.run(["sh", "-n", str(DEPLOY / "nightly.sh")], check=True)
    done = subprocess.run(
        [str(DEPLOY / "nightly.sh")], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "names the YAML file of the refresh" in done.stderr


@pytest.mark.parametrize(
    ("answers", "code", "calls"), [("1 1 0", 0, 3), ("1 1 1", 1, 3), ("2", 2, 1), ("0", 0, 1)]
)
def test_the_script_tries_again_what_may_pass_and_ends_with_the_refreshs_code(
    answers: str, code: int, calls: int, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "answers").write_text(answers)
    # In the place of `ray job submit`, which ends with 1 whatever the job's code was.
    (tmp_path / "bin" / "ray").write_text(
        f"""#!/bin/sh
cd {tmp_path}; echo "$@" >> calls
set -- $(cat answers); code=$1; shift; echo "$@" > answers
echo 'Job submitted'
echo '{{"command": "refresh", "status": "x", "exit_code": '$code', "message": ""}}'
[ "$code" = 0 ]
"""
    )
    (tmp_path / "bin" / "ray").chmod(0o755)
    # The script puts the checkout's environment first; in a copy of it there is none.
    script = tmp_path / "deploy" / "nightly.sh"
    script.parent.mkdir()
    script.write_text((DEPLOY / "nightly.sh").read_text())
    script.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "GPTMILL_PAUSE": "0",
        "GPTMILL_CONFIG": "/etc/refresh.yaml",
        "GPTMILL_WORKSPACE": "/ws with space",
    }
    done = subprocess.run([str(script)], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1].startswith('{"command": "refresh"')
    lines = (tmp_path / "calls").read_text().splitlines()
    assert len(lines) == calls
    ids = [line.split()[3] for line in lines]
    assert len(set(ids)) == calls


@pytest.mark.parametrize("arguments", [["--wait", "-1"], ["--webhook", "ftp://x"], ["--as-of", "3"]])
def test_options_that_cannot_work_are_refused(arguments: list[str], tmp_path: Path) -> None:
    options = cli.parse(refresh.Options, "refresh", "", [*arguments, "--workspace", str(tmp_path / "ws")])
    with pytest.raises(InputError, match=r"wait: -1|webhook: no http|as_of: a refresh builds"):
        refresh.main(options)
