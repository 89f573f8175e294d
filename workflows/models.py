"""Which models a workspace holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.errors import InputError

if TYPE_CHECKING:
    from workflows.workspace import Workspace


def check_name(option: str, name: str) -> None:
    """Refuse a name that is no plain folder name; empty is for the workflow to fill in.

    Raises:
        InputError: names the option and the value.
    """
    if name and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise InputError(f"{option}: {name!r} must be letters, digits, -, _ and dots; it names a folder")


def read_config(folder: Path) -> dict[str, Any] | None:
    """A model folder's config.json, or None where there is no model."""
    return read_json(folder / "config.json")


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file's object, or None where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def newest_model(workspace: Workspace, kind: str) -> str:
    """Name of the newest model of a kind ("gpt" or "classifier").

    Raises:
        InputError: the workspace has none.
    """
    found = [
        (path.stat().st_mtime, path.parent.name)
        for path in (workspace.root / "models").glob("*/config.json")
        # A folder with a dot in front is one that is being written, or that a kill left behind.
        if not path.parent.name.startswith(".")
        and json.loads(path.read_text(encoding="utf-8")).get("kind") == kind
    ]
    if not found:
        maker = {"gpt": "pretrain", "classifier": "finetune"}[kind]
        raise InputError(
            f"model: {workspace.root / 'models'} holds no {kind}; make one with python -m workflows.{maker}"
        )
    return max(found)[1]
