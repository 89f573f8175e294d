"""Which token datasets hold given documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.errors import InputError
from data_pipeline.locks import locked
from data_pipeline.shards import DOC_ID, MANIFEST_NAME, Manifest
from data_pipeline.storage import place_of


@dataclass(frozen=True)
class Holding:
    """A token dataset that holds some of the documents.

    Attributes:
        folder: of the dataset.
        manifest: its manifest.
        shards: {shard's path: documents found in it}.
    """

    folder: Path
    manifest: Manifest
    shards: dict[str, int]

    @property
    def num_documents(self) -> int:
        """Documents found."""
        return sum(self.shards.values())


def manifests(root: Path) -> Iterator[tuple[Path, Manifest]]:
    """(Folder, manifest) of each token dataset below <workspace>/tokens; damaged ones are passed over."""
    if not root.exists():
        return
    for path in sorted(root.glob(f"*/*/{MANIFEST_NAME}")):
        try:
            yield path.parent, Manifest.load(path.parent)
        except InputError:
            continue  # who uses it is told so


def datasets_with(root: Path, doc_ids: Sequence[str]) -> list[Holding]:
    """The datasets that hold any of the documents; only the shards' column of ids is read."""
    wanted = pa.array(sorted(doc_ids), pa.string())
    found = []
    for folder, manifest in manifests(root):
        counts = {shard.path: _count(folder / shard.path, wanted) for shard in manifest.shards}
        shards = {path: count for path, count in counts.items() if count}
        if shards:
            found.append(Holding(folder, manifest, shards))
    return found


def _count(path: Path, wanted: pa.Array) -> int:
    files, place = place_of(path)
    options = pa.ipc.IpcReadOptions(included_fields=[0])
    total = 0
    with files.open_input_file(place) as file:
        reader = pa.ipc.open_file(file, options=options)
        assert reader.schema.names[0] == DOC_ID
        for index in range(reader.num_record_batches):
            ids = reader.get_batch(index).column(0)
            total += pc.sum(pc.is_in(ids.cast(pa.string()), wanted)).as_py() or 0
    return total


@contextmanager
def held_still(root: Path, wait: float, told: Callable[[str], None]) -> Iterator[None]:
    """Let nobody write tokens below <workspace>/tokens in the `with` block; `wait` seconds for those who do now.

    Raises:
        Busy: somebody still does.
    """
    with ExitStack() as locks:
        for folder in _folders(root):
            what = f"tokenizer.name: token dataset {folder.name}"
            locks.enter_context(locked(folder / ".lock", what, wait, told))
        yield


def unreadable(root: Path) -> list[Path]:
    """Folders of datasets that were begun and never finished, or whose manifest is damaged: who knows what they hold."""
    readable = {str(folder) for folder, _ in manifests(root)}
    return [
        folder for dataset in _folders(root) for folder in _folders(dataset) if str(folder) not in readable
    ]


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir()) if path.exists() else []
