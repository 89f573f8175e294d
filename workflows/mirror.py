"""A training of a workspace in an object store: works in a folder of its node, and what it writes goes to the store.

A run's folder is brought in before it goes on, and sent after each checkpoint and at the end. Files are sent before
those that older ones are replaced by are removed, so the store holds a whole checkpoint at any time; one that a kill
left half sent is found damaged when it is read, and the one before it is used.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.fs

from data_pipeline.sources import is_local
from data_pipeline.storage import place_of

if TYPE_CHECKING:
    from workflows.workspace import Workspace


def pull(workspace: Workspace, *folders: str) -> None:
    """Bring folders of a workspace to this node; nothing for one on a disk.

    Args:
        folders: relative to the workspace, as in runs/NAME.
    """
    if is_local(workspace.root):
        return
    for folder in folders:
        files, place = place_of(workspace.root / folder)
        near = workspace.near.root / folder
        found = _remote_files(files, place)
        for path in _local_files(near):
            if path not in found:
                (near / path).unlink()
        for path, size in found.items():
            target = near / path
            # What a checkpoint holds never changes under its name; small files may, at equal sizes.
            if not target.exists() or target.stat().st_size != size or "checkpoints" not in path:
                target.parent.mkdir(parents=True, exist_ok=True)
                beside = target.with_name(target.name + ".part")
                pyarrow.fs.copy_files(f"{place}/{path}", str(beside), files, pyarrow.fs.LocalFileSystem())
                beside.replace(target)
        _drop_empty(near)


def push(workspace: Workspace, *folders: str) -> None:
    """Send folders of this node to the workspace; nothing for one on a disk. What is not here any more is removed there."""
    if is_local(workspace.root):
        return
    for folder in folders:
        files, place = place_of(workspace.root / folder)
        near = workspace.near.root / folder
        there = _remote_files(files, place)
        here = _local_files(near)
        # Marks last: result.json and done.json say that the rest is there.
        for path in sorted(
            here,
            key=lambda path: ("checkpoints" not in path, path.endswith(("result.json", "done.json")), path),
        ):
            if "checkpoints" in path and there.get(path) == here[path]:
                continue
            pyarrow.fs.copy_files(str(near / path), f"{place}/{path}", pyarrow.fs.LocalFileSystem(), files)
        for path in there.keys() - here.keys():
            files.delete_file(f"{place}/{path}")


def _remote_files(files: pyarrow.fs.FileSystem, place: str) -> dict[str, int]:
    """{path below a folder: bytes}."""
    selector = pyarrow.fs.FileSelector(place, allow_not_found=True, recursive=True)
    found = {
        entry.path.removeprefix(f"{place}/"): entry.size
        for entry in files.get_file_info(selector)
        if entry.type == pyarrow.fs.FileType.File
    }
    return {path: size for path, size in found.items() if not _is_temporary(path)}


def _local_files(folder: Path) -> dict[str, int]:
    paths = {
        str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }
    return {path: size for path, size in paths.items() if not _is_temporary(path)}


def _is_temporary(path: str) -> bool:
    """Whether a file is a lock or not yet whole."""
    return any(part.startswith(".") for part in path.split("/")) or path.endswith((".tmp", ".part"))


def _drop_empty(folder: Path) -> None:
    """Remove folders in which nothing is: a checkpoint that the store does not have any more."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            shutil.rmtree(path)
