"""Where things lie in a workspace: the only place that knows the layout (docs/workspace.md)."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from data_pipeline.corpus import VERSIONS, Corpus
from data_pipeline.errors import InputError
from data_pipeline.shard_writer import latest_dataset
from data_pipeline.sources import as_path, is_local
from data_pipeline.storage import SCHEMES


@dataclass(frozen=True)
class Workspace:
    """A folder, or a part of an object store, with everything that workflows read and write.

    Attributes:
        root: absolute, because Ray's workers run in folders of their own.
        as_of: the corpus is read as it was at this version; 0 for the newest.
    """

    root: Path
    as_of: int = 0

    @classmethod
    def open(cls, location: str) -> Workspace:
        """The workspace at a path or URI; a folder is made where it is missing.

        Raises:
            InputError: a store that cannot be reached, or a path that is no folder or cannot be written.
        """
        root = _root(location)
        if not is_local(root):
            return cls(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"workspace: {root} cannot be made ({error.strerror}); give a folder that you may write"
            ) from None
        if not os.access(root, os.W_OK):
            raise InputError(f"workspace: {root} cannot be written; give a folder that you may write")
        return cls(root)

    @classmethod
    def existing(cls, location: str, as_of: int = 0) -> Workspace:
        """The workspace at a path or URI, for workflows that only read: a mistyped path makes no folder.

        Raises:
            InputError: as `open`, or there is no such folder.
        """
        root = _root(location)
        if is_local(root) and not root.is_dir():
            raise InputError(f"workspace: there is no folder {root}; check the path")
        return cls(root, as_of)

    @property
    def raw(self) -> Path:
        """What the crawler wrote, a folder a crawl."""
        return self.root / "raw"

    @property
    def corpus(self) -> Corpus:
        """The corpus tables."""
        return Corpus(self.root / "corpus", self.as_of)

    @property
    def corpus_id(self) -> str:
        """What tells this corpus from those of other workspaces in a shared MLflow store; "" where there is none."""
        corpus = self.corpus
        return str(corpus.delta(VERSIONS).metadata().id) if corpus.has_table(VERSIONS) else ""

    @property
    def tokens(self) -> Path:
        """Token datasets, by name and version."""
        return self.root / "tokens"

    @property
    def runs(self) -> Path:
        """Training runs, by name."""
        return self.root / "runs"

    @property
    def logs(self) -> Path:
        """What libraries said that a person need not see; of a workspace in an object store, on this machine."""
        return self.near.root / "logs"

    @property
    def near(self) -> Workspace:
        """The workspace itself, or for one in an object store the folder of this node that trainings work in (mirror)."""
        if is_local(self.root):
            return self
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", str(self.root))
        return Workspace(Path(tempfile.gettempdir()) / f"gptmill-{os.getuid()}" / name)

    def tokenizer(self, name: str) -> Path:
        """Folder of a tokenizer."""
        return self.root / "tokenizer" / name

    def model(self, name: str) -> Path:
        """Folder of an exported model."""
        return self.root / "models" / name

    def report(self, version: int) -> Path:
        """The data report of a corpus version."""
        return self.root / "corpus" / "reports" / f"version-{version:06d}.html"

    def dataset(self, name: str) -> Path:
        """Folder of the newest token dataset of a name."""
        return latest_dataset(self.tokens, name)


def exists(location: str) -> bool:
    """Whether there is a folder at a location; of an object store that is not asked."""
    return "://" in location or Path(location).expanduser().exists()


def _root(location: str) -> Path:
    if "://" in location:
        return _in_store(location)
    try:
        root = Path(location).expanduser().resolve()
        is_file = root.exists() and not root.is_dir()
    except (OSError, RuntimeError) as error:
        raise InputError(f"workspace: {location!r} is no usable path ({error})") from None
    if is_file:
        raise InputError(f"workspace: {root} is a file; give a folder")
    return root


def _in_store(location: str) -> Path:
    scheme, _, place = location.rstrip("/").partition("://")
    if scheme not in SCHEMES or "/" not in place:
        raise InputError(
            f"workspace: {location} is no place for a workspace; give a folder, or {' or '.join(SCHEMES)}://BUCKET/FOLDER"
        )
    from data_pipeline.sources import remote

    root = as_path(location.rstrip("/"))
    path = cast(Any, root)
    try:
        if bucket := remote.missing_bucket(path):
            raise InputError(f"workspace: there is no bucket {bucket}")
    except InputError:
        raise
    except Exception as error:  # each client has its own
        raise InputError(f"workspace: {location} cannot be reached ({remote.explain(path, error)})") from None
    return root
