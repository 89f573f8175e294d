"""MLflow: the only place that speaks it (the wrapper of logged models beside it excepted).

Runs are written through MlflowClient with their id: the fluent API keeps its state per thread and process.
One experiment a workflow kind; runs point at their parent, and carry tags to be found by.
"""

from __future__ import annotations

import getpass
import json
import logging
import math
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException

from data_pipeline.errors import InputError
from workflows.journal import TRAIN, VALIDATION, read_journal

if TYPE_CHECKING:
    import matplotlib.figure

    from data_pipeline.shards import Manifest
    from workflows.workspace import Workspace

logger = logging.getLogger("mlflow.gptmill")
KINDS = ("refresh", "tokenize", "pretrain", "finetune", "evaluate")
MAX_PARAM_CHARS = 500
# MLflow refuses longer digests.
DIGEST_CHARS = 32


def tracking_uri(workspace: Workspace) -> str:
    """MLFLOW_TRACKING_URI, else the SQLite store of the workspace."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{workspace.root / 'mlflow.db'}"


@cache
def _client(uri: str) -> MlflowClient:
    mlflow.set_tracking_uri(uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def client_of(workspace: Workspace) -> MlflowClient:
    """The client of the workspace's store."""
    try:
        return _client(tracking_uri(workspace))
    except MlflowException as error:
        raise InputError(f"MLflow store {tracking_uri(workspace)} cannot be used ({error.message})") from None


def experiment_name(kind: str) -> str:
    """Name of the experiment that collects a workflow's runs."""
    return f"gptmill-{kind}"


def _experiment_id(workspace: Workspace, kind: str) -> str:
    client = client_of(workspace)
    experiment = client.get_experiment_by_name(experiment_name(kind))
    if experiment is not None:
        return experiment.experiment_id
    # A tracking server chooses its own place for artifacts; the store in the workspace keeps them beside it.
    is_local = "MLFLOW_TRACKING_URI" not in os.environ
    location = (workspace.root / "mlartifacts" / kind).as_uri() if is_local else None
    try:
        # The kind makes MLflow's pages open on training runs and their curves, not on GenAI traces.
        return client.create_experiment(
            experiment_name(kind),
            artifact_location=location,
            tags={"mlflow.experimentKind": "custom_model_development"},
        )
    except MlflowException:  # another process was first
        found = client.get_experiment_by_name(experiment_name(kind))
        if found is None:
            raise
        return found.experiment_id


@dataclass(frozen=True)
class Run:
    """One MLflow run, open for writing."""

    client: MlflowClient
    run_id: str

    def tag(self, name: str, value: object) -> None:
        """Set a tag."""
        self.client.set_tag(self.run_id, name, str(value))

    def describe(self, markdown: str) -> None:
        """Set the description that MLflow shows at the top of the run's page."""
        self.tag("mlflow.note.content", markdown)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics; values that are no finite numbers are left out."""
        now = int(time.time() * 1000)
        rows = [
            Metric(name, float(value), now, step) for name, value in values.items() if math.isfinite(value)
        ]
        for start in range(0, len(rows), 500):
            self.client.log_batch(self.run_id, metrics=rows[start : start + 500])

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file."""
        self.client.log_artifact(self.run_id, str(path), folder)

    def text(self, text: str, name: str) -> None:
        """Log a text as a file."""
        self.client.log_text(self.run_id, text, name)

    def figure(self, figure: matplotlib.figure.Figure, name: str) -> None:
        """Log a picture."""
        self.client.log_figure(self.run_id, figure, name)

    def dataset(self, manifest: Manifest, folder: Path) -> None:
        """Name the token dataset as the run's training input."""
        tokens = sum(shard.num_tokens for shard in manifest.shards)
        profile = {"num_tokens": tokens, "corpus_version": manifest.corpus_version, "totals": manifest.totals}
        dataset = Dataset(
            name=f"tokens/{manifest.name}",
            digest=manifest.manifest_hash[:DIGEST_CHARS],
            source_type="local",
            source=json.dumps({"uri": str(folder), "manifest_hash": manifest.manifest_hash}),
            profile=json.dumps(profile),
        )
        self.client.log_inputs(
            self.run_id, datasets=[DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training")])]
        )


@contextmanager
def start_run(
    workspace: Workspace,
    kind: str,
    name: str,
    settings: Mapping[str, Any],
    *,
    parent: str | None = None,
    run_id: str | None = None,
    began: float | None = None,
) -> Iterator[Run]:
    """A run for the time of a `with` block; finished at its end, failed when it raises.

    Args:
        kind: one of KINDS; names the experiment.
        settings: the resolved configuration, logged as parameters and as config.json.
        parent: run that made what this one starts from.
        run_id: re-open this run instead of making one.
        began: Unix time at which the work began, where that was before this call.
    """
    client = client_of(workspace)
    run = Run(client, run_id or _create(workspace, kind, name, settings, parent, began))
    client.update_run(run.run_id, status="RUNNING")
    try:
        yield run
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        client.set_terminated(run.run_id, status)
        raise
    client.set_terminated(run.run_id, "FINISHED")


def _create(
    workspace: Workspace,
    kind: str,
    name: str,
    settings: Mapping[str, Any],
    parent: str | None,
    began: float | None,
) -> str:
    client = client_of(workspace)
    tags = {"gptmill.workflow": kind, "mlflow.source.name": f"workflows.{kind}", "mlflow.source.type": "JOB"}
    tags["mlflow.user"] = getpass.getuser()
    commit = git_commit()
    if commit:
        tags["mlflow.source.git.commit"] = commit
    if parent:
        tags |= {"mlflow.parentRunId": parent, "gptmill.parent_run": parent}
    start_time = int(began * 1000) if began is not None else None
    run = client.create_run(_experiment_id(workspace, kind), start_time=start_time, run_name=name, tags=tags)
    run_id = run.info.run_id
    parameters = [Param(key, value[:MAX_PARAM_CHARS]) for key, value in flatten(settings).items()]
    for start in range(0, len(parameters), 100):
        client.log_batch(run_id, params=parameters[start : start + 100])
    client.log_dict(run_id, dict(settings), "config.json")
    return run_id


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{"train.lr": "0.001", ...} of nested settings."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            flat |= flatten({str(index): entry for index, entry in enumerate(value)}, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def git_commit() -> str:
    """Commit of the code that runs, "-dirty" behind it with uncommitted changes; "" outside a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "status", "--porcelain", "-uno"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("-dirty" if changes else "")


def find_run(workspace: Workspace, kind: str, tags: Mapping[str, str]) -> str | None:
    """Id of the newest finished run of a kind with these tags, or None."""
    client = client_of(workspace)
    experiment = client.get_experiment_by_name(experiment_name(kind))
    if experiment is None:
        return None
    condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    runs = client.search_runs(
        [experiment.experiment_id],
        filter_string=f"attributes.status = 'FINISHED'{' and ' + condition if condition else ''}",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    return runs[0].info.run_id if runs else None


def runs_of(workspace: Workspace, kind: str = "") -> list[Any]:
    """MLflow runs of one workflow, or of all, newest first.

    Raises:
        InputError: an unknown workflow.
    """
    if kind and kind not in KINDS:
        raise InputError(f"workflow: {kind!r} is none of {', '.join(KINDS)}")
    client = client_of(workspace)
    experiments = [
        client.get_experiment_by_name(experiment_name(name)) for name in ([kind] if kind else KINDS)
    ]
    found = [experiment.experiment_id for experiment in experiments if experiment is not None]
    return list(client.search_runs(found, order_by=["attributes.start_time DESC"])) if found else []


@contextmanager
def system_metrics(workspace: Workspace, run: Run) -> Iterator[None]:
    """Log this machine's load to a run while a `with` block runs."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(
        run.run_id, sampling_interval=5, resume_logging=True, tracking_uri=tracking_uri(workspace)
    )
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def log_model(workspace: Workspace, run: Run, model_folder: Path, metrics: Mapping[str, float]) -> None:
    """Log an exported model as a pyfunc that continues prompts."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "prompt")]),
        outputs=Schema([ColSpec("string", "text")]),
        params=ParamSchema(
            [
                ParamSpec("max_new_tokens", "long", 64),
                ParamSpec("temperature", "double", 0.8),
                ParamSpec("seed", "long", 0),
            ]
        ),
    )
    packages = Path(__file__).resolve().parent.parent
    mlflow.set_tracking_uri(tracking_uri(workspace))
    with mlflow.start_run(run_id=run.run_id):
        info = mlflow.pyfunc.log_model(
            name=model_folder.name,
            python_model=str(Path(__file__).with_name("logged_model.py")),
            artifacts={"model": str(model_folder)},
            code_paths=[str(packages / "gpt"), str(packages / "data_pipeline")],
            signature=signature,
            # Named, because MLflow would otherwise start the model to find out.
            pip_requirements=["torch", "numpy", "pyarrow", "safetensors", "tiktoken"],
        )
    run.client.update_run(run.run_id, status="RUNNING")
    now = int(time.time() * 1000)
    for name, value in metrics.items():
        run.client.log_metric(run.run_id, name, value, timestamp=now, step=0, model_id=info.model_id)


class MetricSender:
    """Sends a journal's entries to MLflow in the background; slow or absent servers never hold up training."""

    def __init__(self, uri: str, run_id: str, journal_path: Path) -> None:
        self._client = _client(uri)
        self._run_id = run_id
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        for entry in self._unsent(journal_path):
            self._queue.put(entry)
        self._thread = threading.Thread(target=self._run, name="mlflow-metrics", daemon=True)
        self._thread.start()

    def send(self, entry: dict[str, Any]) -> None:
        """Queue one entry."""
        self._queue.put(entry)

    def close(self, timeout: float = 60.0) -> None:
        """Wait until everything is sent, at most `timeout` seconds; the journal keeps the rest."""
        self._queue.put(None)
        self._thread.join(timeout)

    def _unsent(self, journal_path: Path) -> list[dict[str, Any]]:
        """Entries that an earlier process wrote down and could not send any more."""
        entries = list(read_journal(journal_path))
        if not entries:
            return []
        last = {}
        for kind in (TRAIN, VALIDATION):
            history = self._client.get_metric_history(self._run_id, f"{kind}/loss")
            last[kind] = max((metric.step for metric in history), default=-1)
        return [entry for entry in entries if entry["step"] > last[entry["kind"]]]

    def _run(self) -> None:
        closing = False
        pause = 0.5
        batch: list[dict[str, Any]] = []
        while not closing or batch:
            closing = self._take(batch, 0.0 if closing else pause) or closing
            try:
                self._log(batch)
                batch, pause = [], 0.5
            except Exception as error:  # tracking must never end a training
                logger.warning("metrics wait for MLflow: %s", error)
                if closing:
                    return
                pause = min(30.0, pause * 2)

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

    def _log(self, batch: list[dict[str, Any]]) -> None:
        metrics = [
            Metric(f"{entry['kind']}/{name}", value, int(entry["time"] * 1000), entry["step"])
            for entry in batch
            for name, value in entry["values"].items()
            if math.isfinite(value)
        ]
        for start in range(0, len(metrics), 500):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + 500])
