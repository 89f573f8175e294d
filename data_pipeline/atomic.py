"""Small files that a reader sees whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_pipeline.storage import make_folder, new_file


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8; its folder is made when it is missing."""
    make_folder(path.parent)
    with new_file(path) as file:
        file.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
