"""Ray in five verbs over Arrow tables: a table a task in, a table a task out.

Everything that knows Ray's habits is here. Input tables carry the names of files to read rather than the data, so
that blocks stay few and small until a task opens its file. What passes many rows on from task to task is a Ray Data
dataset; what reads files, writes files and reports in a few rows needs no more than tasks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import pyarrow as pa
import ray
import ray.data
from ray.data._internal.execution.resource_manager import ResourceManager

from data_pipeline.errors import InputError

# A shuffle starts this many reducers at most; beyond, partitions grow instead.
MAX_PARTITIONS = 2000


MAX_RETRIES = 2
# How long Ray Data takes a cluster for empty, and runs one task at a time: it asks for the size when an execution
# begins, and sees the answer when it asks again. By default that is a second, for each execution.
ResourceManager.GLOBAL_LIMITS_UPDATE_INTERVAL_S = 0.1  # type: ignore[misc]


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
            max_retries=MAX_RETRIES,
        )


def shuffle(dataset: ray.data.Dataset, key: str, num_partitions: int) -> ray.data.Dataset:
    """Bring rows of equal key into one block; into a single block, without a shuffle, for one partition."""
    if num_partitions <= 1:
        # Starting a shuffle's reducers costs seconds, which a small corpus need not pay.
        return dataset.repartition(1)
    return dataset.repartition(min(MAX_PARTITIONS, num_partitions), keys=[key])


def run_tasks(
    function: Callable[..., pa.Table], tables: Sequence[pa.Table], **kwargs: Any
) -> Iterator[dict[str, Any]]:
    """Rows of `function(table, **kwargs)`, a task a table, as the tasks finish.

    Ray Data would look after its tasks ten times a second only: a core that has done its task waits for the next.

    Raises:
        InputError: the one that a task raised.
    """
    shared = ray.put((function, kwargs))
    waiting = iter(tables)
    running: list[ray.ObjectRef[pa.Table]] = []
    try:
        while True:
            # A few more than the cores can take: none waits, and a cluster that grows sees that there is more to
            # do. Not many more, as Ray starts processes for them in advance.
            cores = int(ray.cluster_resources().get("CPU", 1))
            room = cores + cores // 4 + 1 - len(running)
            running += [_task.remote(shared, table) for table in islice(waiting, max(1, room))]
            if not running:
                return
            done, running = ray.wait(running)
            try:
                rows = ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, InputError):
                    raise error.cause from None
                raise
            yield from rows.to_pylist()
    finally:
        for task in running:
            ray.cancel(task)


@ray.remote(max_retries=MAX_RETRIES, scheduling_strategy="SPREAD")
def _task(shared: tuple[Callable[..., pa.Table], Mapping[str, Any]], table: pa.Table) -> pa.Table:
    function, kwargs = shared
    return function(table, **kwargs)


def collect(dataset: ray.data.Dataset, schema: pa.Schema) -> pa.Table:
    """A small result as one table; blocks arrive in any order, so sort what must be stable."""
    blocks: list[pa.Table] = ray.get(dataset.to_arrow_refs())
    tables = [block.select(schema.names).cast(schema) for block in blocks if block.num_rows]
    return pa.concat_tables(tables) if tables else schema.empty_table()
