"""Send a training's metrics to MLflow in the background; slow or absent servers never hold up training."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric

from workflows.journal import TRAIN, VALIDATION, read_journal
from workflows.tracking import client_for

logger = logging.getLogger("mlflow.gptmill")
# MLflow takes at most a thousand metrics in one request.
MAX_METRICS = 500


class MetricSender:
    """A thread that sends entries in order, and tries again while MLflow is away.

    Everything that asks MLflow happens in the thread: no call here waits for a server, `close` excepted.

    Args:
        uri: the store.
        run_id: the run in it.
        journal_path: what an earlier process wrote down there and could not send any more goes first.
    """

    def __init__(self, uri: str, run_id: str, journal_path: Path | None = None) -> None:
        self._uri = uri
        self._run_id = run_id
        # Read here: what is recorded after this call comes through `send`.
        self._journal = list(read_journal(journal_path)) if journal_path else []
        self._all_sent = False
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="mlflow-metrics", daemon=True)
        self._thread.start()

    def send(self, entry: dict[str, Any]) -> None:
        """Queue one entry: {"kind": "train" or "val", "step", "time", "values": {name: number}}."""
        self._queue.put(entry)

    def close(self, timeout: float = 60.0) -> bool:
        """Wait until everything is sent, at most `timeout` seconds; whether it is. The journal keeps the rest."""
        self._queue.put(None)
        self._thread.join(timeout)
        return self._all_sent

    def _run(self) -> None:
        closing = False
        pause = 0.5
        batch: list[dict[str, Any]] = []
        while not closing or batch or self._journal:
            closing = self._take(batch, 0.0 if closing else pause) or closing
            try:
                client = client_for(self._uri)
                batch[:0], self._journal = self._unsent(client), []
                self._log(client, batch)
                batch, pause = [], 0.5
            except Exception as error:  # tracking must never end a training
                logger.warning("metrics wait for MLflow: %s", error)
                if closing:
                    return
                pause = min(30.0, pause * 2)
        self._all_sent = True

    def _unsent(self, client: MlflowClient) -> list[dict[str, Any]]:
        """Entries of the journal that MLflow does not have yet."""
        if not self._journal:
            return []
        last = {}
        for kind in (TRAIN, VALIDATION):
            history = client.get_metric_history(self._run_id, f"{kind}/loss")
            last[kind] = max((metric.step for metric in history), default=-1)
        return [entry for entry in self._journal if entry["step"] > last[entry["kind"]]]

    def _take(self, batch: list[dict[str, Any]], wait: float) -> bool:
        """Move what is queued into the batch; True when the end was among it."""
        deadline = time.monotonic() + wait
        while True:
            try:
                entry = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return False
            if entry is None:
                return True
            batch.append(entry)

    def _log(self, client: MlflowClient, batch: list[dict[str, Any]]) -> None:
        metrics: list[Metric] = []
        for entry in batch:
            row = [
                Metric(f"{entry['kind']}/{name}", value, int(entry["time"] * 1000), entry["step"])
                for name, value in entry["values"].items()
                if math.isfinite(value)
            ]
            # A request holds whole entries: the loss alone must not stand for the rest of its step.
            if metrics and len(metrics) + len(row) > MAX_METRICS:
                client.log_batch(self._run_id, metrics=metrics)
                metrics = []
            metrics += row
        if metrics:
            client.log_batch(self._run_id, metrics=metrics)
