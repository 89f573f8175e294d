"""What a command did, for schedulers: one line of JSON on standard output, and a message to a webhook.

The exit codes say the same in short: 0 done, also where there was nothing to do; 2 the input or the configuration is
wrong, so that trying again will not help; 1 anything else, also another process at work, so that it may.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from data_pipeline.errors import Busy, InputError, find_error
from workflows import cli
from workflows.console import console, printable

WEBHOOK_SECONDS = 10
Summary = dict[str, Any]


@dataclass(frozen=True)
class ReportOptions:
    """How a command tells a scheduler what it did."""

    json: bool = False
    """Print one line of JSON on standard output at the end, and everything else on standard error (--json will do)."""
    webhook: str = ""
    """URL that gets the same JSON by POST, with a line in `text` (as Slack, Mattermost and others show it). A URL with a secret in it belongs into the environment variable GPTMILL_WEBHOOK instead."""
    webhook_on: Literal["failure", "change", "always"] = "failure"
    """When: where the command failed or an input was damaged; also where it made a version; or always."""

    def validate(self) -> None:
        """Raise InputError for a URL that cannot work; it is not shown, for it may hold a secret."""
        url = self.url
        if url and not url.startswith(("http://", "https://")):
            raise InputError(
                "webhook: no http or https URL; give one, or leave --webhook and GPTMILL_WEBHOOK out"
            )

    @property
    def url(self) -> str:
        """The webhook's URL, "" for none."""
        return self.webhook or os.environ.get("GPTMILL_WEBHOOK", "")


@contextmanager
def summarised(command: str, options: ReportOptions) -> Iterator[Summary]:
    """Tell what came of the `with` block, which adds to the summary; errors pass through.

    Args:
        command: its name, as in `refresh remove`.
    """
    options.validate()
    began = time.monotonic()
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    summary: Summary = {"command": command, "status": "done", "exit_code": 0, "message": ""}
    if options.json:
        console.file = sys.stderr
    try:
        yield summary
    except BaseException as error:
        summary |= _failure(error)
        raise
    finally:
        summary |= {"started_at": started_at, "seconds": round(time.monotonic() - began, 3)}
        if options.json:
            print(json.dumps(summary), flush=True)
        if options.url and _is_wanted(summary, options.webhook_on):
            _post(options.url, summary)


def _failure(error: BaseException) -> Summary:
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return {"status": "stopped", "exit_code": 1, "message": "stopped"}
    message = cli.user_message(error)
    if message is None:
        return {"status": "failed", "exit_code": 1, "message": f"{type(error).__name__}: {error}"}
    if find_error(error, Busy) is not None:
        return {"status": "busy", "exit_code": 1, "message": message}
    return {"status": "refused", "exit_code": 2, "message": message}


def _is_wanted(summary: Summary, when: str) -> bool:
    is_failure = summary["exit_code"] != 0 or bool(summary.get("damaged"))
    return is_failure or when == "always" or (when == "change" and summary["status"] == "committed")


def _post(url: str, summary: Summary) -> None:
    """Send the summary; that it cannot be sent is said, and is no failure of the command."""
    text = printable(f"gptmill {summary['command']}: {summary['status']}. {summary['message']}".strip())
    body = json.dumps({"text": text, **summary}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=WEBHOOK_SECONDS):
            pass
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "code", None) or getattr(error, "reason", None) or type(error).__name__
        print(f"warning: the webhook did not take the message ({reason})", file=sys.stderr)
