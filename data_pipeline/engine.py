"""Ray Data in a few verbs over Arrow tables: a table a task in, a table a task out.

Everything that knows Ray Data's habits is here. Input tables carry the names of files to read rather than
the data, so that blocks stay few and small until a task opens its file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pyarrow as pa
import ray
import ray.data
from ray.data._internal.execution import resource_manager, streaming_executor_state

# A shuffle starts this many reducers at most; beyond, partitions grow instead.
MAX_PARTITIONS = 2000
# Ray Data 2.60 takes a cluster for empty, and runs one task at a time, until it looks again how large it is: by default a
# second after each execution began.
resource_manager.ResourceManager.GLOBAL_LIMITS_UPDATE_INTERVAL_S = 0.1  # type: ignore[assignment]
# It looks for tasks that ended at this interval, and a core waits for one or two of them before it gets its next task.
streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = 0.02


def from_tables(tables: Sequence[pa.Table]) -> ray.data.Dataset:
    """A dataset of one block a table."""
    return ray.data.from_arrow(list(tables))


def map_tables(
    dataset: ray.data.Dataset, function: Callable[..., pa.Table], **kwargs: Any
) -> ray.data.Dataset:
    """Apply `function(table, **kwargs)` to each block."""
    with warnings.catch_warnings():
        # Ray 2.60 has no other way yet to bound the retries, and warns that this one will go.
        warnings.simplefilter("ignore")
        return dataset.map_batches(
            cast(Any, function),
            batch_format="pyarrow",
            batch_size=None,
            fn_kwargs=kwargs,
            # By default a block that kills its worker process is tried again for ever.
            max_retries=2,
        )


def shuffle(dataset: ray.data.Dataset, key: str, num_partitions: int) -> ray.data.Dataset:
    """Bring rows of equal key into one block; into a single block, without a shuffle, for one partition."""
    if num_partitions <= 1:
        # Starting a shuffle's reducers costs seconds, which a small corpus need not pay.
        return dataset.repartition(1)
    return dataset.repartition(min(MAX_PARTITIONS, num_partitions), keys=[key])


def stream(dataset: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    """Rows of a small result as plain values, as the tasks finish."""
    for batch in dataset.iter_batches(batch_format="pyarrow", batch_size=None, prefetch_batches=0):
        yield from cast(pa.Table, batch).to_pylist()


def collect(dataset: ray.data.Dataset, schema: pa.Schema) -> pa.Table:
    """A small result as one table; blocks arrive in any order, so sort what must be stable."""
    blocks: list[pa.Table] = ray.get(dataset.to_arrow_refs())
    tables = [block.select(schema.names).cast(schema) for block in blocks if block.num_rows]
    return pa.concat_tables(tables) if tables else schema.empty_table()
