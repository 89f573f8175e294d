"""Start Ray for a command, or join the cluster that a job was submitted to; keep its chatter in a file."""

from __future__ import annotations

import logging
import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    # Ray ends idle workers beyond the number of cores, and a shuffle's workers are others than a map's: on a small
    # machine each shuffle would wait seconds for processes that were there a moment before.
    "RAY_num_workers_soft_limit": str(max(8, os.cpu_count() or 1)),
    "TOKENIZERS_PARALLELISM": "false",
}
# Of blocks that a task of a shuffle takes.
SHUFFLE_BYTES = 16 << 20
LOGGERS = ("ray", "ray.data", "ray.train", "mlflow", "alembic", "py.warnings")


def set_environment() -> None:
    """What Ray reads from the environment when it is imported: call it before. A value that is there wins."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("RAY_ADDRESS") and "RAY_AUTH_MODE" not in os.environ:
        # A cluster of our own listens on the network: only who knows this token may run code on it. Handed over in
        # the environment, it is written to no file.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@contextmanager
def ray_session(log_file: Path) -> Iterator[None]:
    """Ray for the time of a `with` block: the cluster in RAY_ADDRESS, else one of this machine's own.

    Args:
        log_file: gets what Ray, MLflow and warnings would print.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    joins = bool(os.environ.get("RAY_ADDRESS"))
    import ray

    if ray.is_initialized():
        with _logs_to(log_file):
            _configure_data()
            yield
        return
    with _logs_to(log_file):
        ray.init(
            # Without an address Ray would join whatever cluster somebody started on this machine.
            address=os.environ.get("RAY_ADDRESS") or "local",
            include_dashboard=None if joins else False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            configure_logging=False,
        )
        try:
            _configure_data()
            yield
        finally:
            ray.shutdown()


def _configure_data() -> None:
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    # The newer Parquet reader starts 32 actors for each read.
    context.use_datasource_v2 = False
    # By default a gigabyte of blocks is one task of a shuffle: too much for a worker's memory, and work for one core.
    context.shuffle_input_batch_bytes = SHUFFLE_BYTES
    # Signatures and hashes do not compress, and texts are gone again within seconds.
    context.shuffle_compression = "lz4"
    # An InputError that a task raised arrives as one; Ray Data's own error in its place loses what it wraps.
    context.raise_original_map_exception = True


@contextmanager
def _logs_to(path: Path) -> Iterator[None]:
    """Send the libraries' loggers to a file instead of the terminal; undone at the end."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.INFO)
    logging.captureWarnings(True)
    before = {}
    for name in LOGGERS:
        logger = logging.getLogger(name)
        before[name] = (logger.handlers, logger.propagate)
        logger.handlers, logger.propagate = [handler], False
    try:
        with warnings.catch_warnings():
            yield
    finally:
        logging.captureWarnings(False)
        for name, (handlers, propagate) in before.items():
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()
