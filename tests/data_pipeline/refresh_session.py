"""Commands of workflows.refresh one after the other in one process with one Ray: a line of JSON in, one out."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class RefreshSession:
    """The process, and how to talk to it.

    Args:
        environment: variables for it, Ray's workers, and so all that they reach.
    """

    def __init__(self, cwd: Path, **environment: str) -> None:
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("RAY_AUTH", "RAY_ADDRESS"))
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.data_pipeline.refresh_session"],
            cwd=cwd,
            env={**kept, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        """(Exit code, summary, standard error) of `python -m workflows.refresh ARGUMENTS --json`."""
        answer = self.ask("refresh", *arguments, "--json")
        return answer["code"], json.loads(answer["out"] or "{}"), answer["err"]

    def ask(self, name: str, *arguments: str) -> dict[str, Any]:
        """{code, out, err} of `python -m workflows.NAME ARGUMENTS`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([name, *arguments]), file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def _answer(name: str, arguments: list[str]) -> dict[str, Any]:
    import traceback

    from workflows import cli, console, refresh, tokenize, versions

    module = {"refresh": refresh, "tokenize": tokenize}[name]

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            console.console.file = sys.stdout
            if name == "refresh" and arguments[0] in versions.COMMANDS:
                code = versions.run(arguments)
            else:
                code = cli.run(module.Options, module.main, name, "", arguments)
        except Exception:
            traceback.print_exc()
            code = 1
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def main() -> None:
    from data_pipeline.cluster import ray_session, set_environment

    set_environment()
    with tempfile.TemporaryDirectory() as folder, ray_session(Path(folder) / "log"):
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            print(json.dumps(_answer(name, arguments)), flush=True)


if __name__ == "__main__":
    main()
