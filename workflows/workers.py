"""How many training processes, on what: from what a person wants and what the cluster has."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from data_pipeline.errors import InputError

Device = Literal["auto", "cpu", "gpu"]


class WorkerGroup(NamedTuple):
    """Training processes that are alike."""

    num_workers: int
    """How many."""
    resources: dict[str, float]
    """Ray resources of each."""
    use_gpu: bool
    """Whether each has a GPU."""

    @property
    def described(self) -> str:
        """The resources in words."""
        return " and ".join(f"{amount:g} {name}" for name, amount in self.resources.items())


def choose_workers(wanted: int, device: str) -> WorkerGroup:
    """The training processes to start on the running Ray.

    Args:
        wanted: how many; 0 takes one a GPU, else at most two on the CPUs there are.
        device: "cpu"; "gpu", also where the cluster has none yet and grows when asked; "auto", GPUs where there
            are any.

    Raises:
        InputError: the cluster has no room for them.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    # Only a cluster that was joined may grow.
    return fit_workers(wanted, device, nodes, grows=bool(os.environ.get("RAY_ADDRESS")))


def fit_workers(
    wanted: int, device: str, nodes: Sequence[Mapping[str, float]], *, grows: bool
) -> WorkerGroup:
    """`choose_workers` for given nodes.

    Args:
        nodes: resources of each node that is up, by Ray's names ("CPU", "GPU").
        grows: whether GPUs that are not there yet may come.
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    # A worker on a GPU takes a core, too.
    gpus = sum(min(int(node.get("GPU", 0)), cores) for node, cores in zip(nodes, cpus, strict=True))
    if device == "gpu" or (device == "auto" and gpus):
        if not gpus and not grows:
            raise InputError("device: gpu is asked for and this machine has none; use --device cpu")
        if wanted > gpus and (device == "auto" or not grows):
            raise InputError(
                f"workers: {wanted} are asked for and the cluster has {gpus} GPUs; ask for at most that, or train on "
                "CPUs with --device cpu" + (", or let the cluster grow with --device gpu" if grows else "")
            )
        return WorkerGroup(wanted or max(1, gpus), {"GPU": 1, "CPU": 1}, True)
    num_workers = wanted or max(1, min(2, sum(cpus)))
    return WorkerGroup(num_workers, {"CPU": _share(num_workers, cpus)}, False)


def _share(num_workers: int, cpus: Sequence[int]) -> int:
    """The most cores a worker can have so that all workers find room, each on one node.

    Torch takes its threads from it, so more is faster; but a worker that fits on no node would be waited for
    for ever.
    """
    if num_workers > sum(cpus):
        raise InputError(
            f"workers: {num_workers} are asked for and the cluster has {sum(cpus)} CPUs; ask for at most that"
            + ("" if sum(cpus) else ", or for GPUs with --device gpu")
        )
    share = sum(cpus) // num_workers
    while sum(cores // share for cores in cpus) < num_workers:
        share -= 1
    return share
