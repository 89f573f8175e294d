"""Where things lie in a workspace: the only place that knows the layout (docs/workspace.md)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from deltalake import DeltaTable

from data_pipeline.corpus import VERSIONS, Corpus
from data_pipeline.errors import InputError
from data_pipeline.shard_writer import latest_dataset


@dataclass(frozen=True)
class Workspace:
    """A folder with everything that workflows read and write.

    Attributes:
        root: absolute, because Ray's workers run in folders of their own.
    """

    root: Path

    @classmethod
    def open(cls, location: str) -> Workspace:
        """The workspace at a path; its folder is made where it is missing.

        Raises:
            InputError: a URI (object stores come later), or a path that is no folder or cannot be written.
        """
        root = _local(location)
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
    def existing(cls, location: str) -> Workspace:
        """The workspace at a path, for workflows that only read: a mistyped path makes no folder.

        Raises:
            InputError: as `open`, or there is no such folder.
        """
        root = _local(location)
        if not root.is_dir():
            raise InputError(f"workspace: there is no folder {root}; check the path")
        return cls(root)

    @property
    def raw(self) -> Path:
        """What the crawler wrote, a folder a crawl."""
        return self.root / "raw"

    @property
    def corpus(self) -> Corpus:
        """The corpus tables."""
        return Corpus(self.root / "corpus")

    @property
    def corpus_id(self) -> str:
        """What tells this corpus from those of other workspaces in a shared MLflow store; "" where there is none."""
        path = str(self.corpus.path(VERSIONS))
        return str(DeltaTable(path).metadata().id) if DeltaTable.is_deltatable(path) else ""

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
        """What libraries said that a person need not see."""
        return self.root / "logs"

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


def _local(location: str) -> Path:
    if re.match(r"[a-z][a-z0-9+.-]+://", location):
        raise InputError(
            f"workspace: {location} is a URI; this version keeps a workspace on a local or shared disk"
        )
    try:
        root = Path(location).expanduser().resolve()
        is_file = root.exists() and not root.is_dir()
    except (OSError, RuntimeError) as error:
        raise InputError(f"workspace: {location!r} is no usable path ({error})") from None
    if is_file:
        raise InputError(f"workspace: {root} is a file; give a folder")
    return root
