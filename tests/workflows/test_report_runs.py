"""The data report goes to MLflow with the refresh, and again, with tokens, with the token dataset."""

from __future__ import annotations

from pathlib import Path

from workflows import tracking
from workflows.workspace import Workspace


def test_the_report_is_logged_and_says_tokens_once_there_are_any(tokenised: Path) -> None:
    workspace = Workspace.open(str(tokenised))
    client = tracking.client_of(workspace)
    reports = {}
    for kind in ("refresh", "tokenize"):
        (run,) = tracking.runs_of(workspace, kind)
        path = client.download_artifacts(run.info.run_id, workspace.report(1).name)
        reports[kind] = Path(path).read_text(encoding="utf-8")
    assert "has not been tokenised yet" in reports["refresh"]
    assert "Dataset bpe, manifest" in reports["tokenize"]
    assert workspace.report(1).read_text(encoding="utf-8") == reports["tokenize"]
