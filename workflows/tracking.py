"""MLflow: the only place that speaks it (the sender of metrics and the wrapper of logged models excepted).

Runs are written through MlflowClient with their id: the fluent API keeps its state per thread and process.
One experiment a workflow kind; runs point at their parent, and carry tags to be found by.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from data_pipeline.errors import InputError
from data_pipeline.sources import is_local

if TYPE_CHECKING:
    import matplotlib.figure

    from data_pipeline.shards import Manifest
    from workflows.workspace import Workspace

KINDS = ("refresh", "quality", "tokenize", "pretrain", "finetune", "evaluate")
MAX_PARAM_CHARS = 500
# MLflow refuses longer digests.
DIGEST_CHARS = 32
# What gpt/ and data_pipeline.tokenizer import, for whoever loads a logged model elsewhere.
MODEL_PACKAGES = ("numpy", "pandas", "pyarrow", "safetensors", "tiktoken", "torch")


def tracking_uri(workspace: Workspace) -> str:
    """MLFLOW_TRACKING_URI, else the SQLite store of the workspace.

    Raises:
        InputError: neither is there, for the workspace is in an object store.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if not given and not is_local(workspace.root):
        raise InputError(
            f"MLFLOW_TRACKING_URI: {workspace.root} is in an object store, which cannot hold MLflow's database; "
            "set it to a tracking server, or to sqlite:////PATH/mlflow.db"
        )
    return given or f"sqlite:///{workspace.root / 'mlflow.db'}"


def how_to_look(workspace: Workspace) -> str:
    """What a person types or opens to see the runs; never with a password in it."""
    uri = tracking_uri(workspace)
    if uri.startswith(("http://", "https://")):
        return without_password(uri)
    # A database elsewhere may have its password in the URI, which the shell knows already.
    given = '"$MLFLOW_TRACKING_URI"' if os.environ.get("MLFLOW_TRACKING_URI") else uri
    return f"{Path(sys.executable).with_name('mlflow')} ui --backend-store-uri {given}"


def without_password(uri: str) -> str:
    """A URI without user and password."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@cache
def client_for(uri: str) -> MlflowClient:
    """The client of a store.

    `mlflow.set_tracking_uri` is not called: it would write MLFLOW_TRACKING_URI into the environment, where the
    next workspace of this process, and each process started from it, would take it for the user's.
    """
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def _current_store(uri: str) -> Iterator[None]:
    """Let MLflow's fluent API use a store for the time of a `with` block; the environment is put back."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None unsets it


def client_of(workspace: Workspace) -> MlflowClient:
    """The client of the workspace's store."""
    try:
        return client_for(tracking_uri(workspace))
    except MlflowException as error:
        store = without_password(tracking_uri(workspace))
        raise InputError(
            f"MLFLOW_TRACKING_URI: MLflow store {store} cannot be used ({error.message})"
        ) from None


def experiment_name(kind: str) -> str:
    """Name of the experiment that collects a workflow's runs."""
    return f"gptmill-{kind}"


def _experiment_id(workspace: Workspace, kind: str) -> str:
    client = client_of(workspace)
    experiment = client.get_experiment_by_name(experiment_name(kind))
    if experiment is not None:
        return experiment.experiment_id
    # A tracking server chooses its own place for artifacts; the store in the workspace keeps them beside it.
    is_local = not os.environ.get("MLFLOW_TRACKING_URI")
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
        """Log a file, of this machine or of a workspace in an object store."""
        if is_local(path):
            self.client.log_artifact(self.run_id, str(path), folder)
            return
        with tempfile.TemporaryDirectory(prefix="gptmill-") as temporary:
            copy = Path(temporary) / path.name
            copy.write_bytes(path.read_bytes())
            self.client.log_artifact(self.run_id, str(copy), folder)

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
    tags: Mapping[str, object] | None = None,
    parent: str | None = None,
    run_id: str | None = None,
    began: float | None = None,
) -> Iterator[Run]:
    """A run for the time of a `with` block; finished at its end, failed when it raises.

    Args:
        kind: one of KINDS; names the experiment.
        settings: the resolved configuration, logged as parameters and as config.json.
        tags: what the run is found by; there from its first moment, so that a killed one is found too.
        parent: run that made what this one starts from.
        run_id: re-open this run instead of making one.
        began: Unix time at which the work began, where that was before this call.
    """
    client = client_of(workspace)
    run = Run(client, run_id or _create(workspace, kind, name, settings, tags or {}, parent, began))
    client.update_run(run.run_id, status="RUNNING")
    try:
        yield run
    except BaseException as error:
        # SystemExit is how Ray ends a driver that gets SIGTERM.
        status = "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"
        client.set_terminated(run.run_id, status)
        raise
    client.set_terminated(run.run_id, "FINISHED")


def _create(
    workspace: Workspace,
    kind: str,
    name: str,
    settings: Mapping[str, Any],
    given_tags: Mapping[str, object],
    parent: str | None,
    began: float | None,
) -> str:
    client = client_of(workspace)
    tags = {key: str(value) for key, value in given_tags.items()}
    tags |= {"gptmill.workflow": kind, "mlflow.source.name": f"workflows.{kind}", "mlflow.source.type": "JOB"}
    tags["mlflow.user"] = _user()
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


def _user() -> str:
    """Who runs this; a container's user often has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


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


def find_run(
    workspace: Workspace, kind: str, tags: Mapping[str, object], *, finished: bool = True
) -> str | None:
    """Id of the newest run of a kind with these tags that finished (that did not, for False), or None."""
    client = client_of(workspace)
    experiment = client.get_experiment_by_name(experiment_name(kind))
    if experiment is None:
        return None
    conditions = [f"attributes.status {'=' if finished else '!='} 'FINISHED'"]
    conditions += [f"tags.`{name}` = '{value}'" for name, value in tags.items()]
    runs = client.search_runs(
        [experiment.experiment_id],
        filter_string=" and ".join(conditions),
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    return runs[0].info.run_id if runs else None


def corpus_tags(workspace: Workspace, version: int) -> dict[str, str]:
    """Tags that name one version of one corpus: a store that is shared holds many with a version 1."""
    return {"gptmill.corpus": workspace.corpus_id, "gptmill.corpus_version": str(version)}


def find_tokenize_run(workspace: Workspace, manifest: Manifest) -> str | None:
    """Id of the run that made a token dataset of this workspace, or None."""
    tags = corpus_tags(workspace, manifest.corpus_version)
    return find_run(workspace, "tokenize", {**tags, "gptmill.manifest_hash": manifest.manifest_hash})


def known_run(workspace: Workspace, run_id: str | None) -> str | None:
    """The id when the store has that run; None when it has not, or has deleted it."""
    if run_id is None:
        return None
    try:
        info = client_of(workspace).get_run(run_id).info
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return None
        raise
    return run_id if info.lifecycle_stage == "active" else None


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


def runs_with(workspace: Workspace, manifest_hashes: Sequence[str]) -> list[dict[str, str]]:
    """Runs that name one of these token datasets, and all that began from such a run, oldest first.

    Returns:
        {run_id, workflow, name, status, manifest_hash} of each; the hash is "" for those of the second kind.
    """
    client = client_of(workspace)
    found: dict[str, Any] = {}
    for kind in KINDS:
        experiment = client.get_experiment_by_name(experiment_name(kind))
        if experiment is None:
            continue
        for manifest_hash in manifest_hashes:
            condition = f"tags.`gptmill.manifest_hash` = '{manifest_hash}'"
            found |= _search(client, experiment.experiment_id, condition)
        # KINDS are in the order of the work, so a run's parent is among the runs of an earlier kind.
        for parent in list(found):
            found |= _search(client, experiment.experiment_id, f"tags.`gptmill.parent_run` = '{parent}'")
    return [
        {
            "run_id": run_id,
            "workflow": run.data.tags.get("gptmill.workflow", ""),
            "name": run.info.run_name or "",
            "status": run.info.status,
            "manifest_hash": run.data.tags.get("gptmill.manifest_hash", ""),
        }
        for run_id, run in sorted(found.items(), key=lambda entry: entry[1].info.start_time or 0)
    ]


def _search(client: MlflowClient, experiment_id: str, condition: str) -> dict[str, Any]:
    """All runs of an experiment that meet a condition, by id."""
    runs: dict[str, Any] = {}
    token = None
    while True:
        page = client.search_runs([experiment_id], condition, page_token=token)
        runs |= {run.info.run_id: run for run in page}
        token = page.token
        if not token:
            return runs


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
    """Log an exported model as a pyfunc that continues prompts; not again where the run has it already."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    experiment = run.client.get_run(run.run_id).info.experiment_id
    if run.client.search_logged_models([experiment], filter_string=f"source_run_id = '{run.run_id}'"):
        return
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
    with (
        _current_store(tracking_uri(workspace)),
        mlflow.start_run(run_id=run.run_id),
        warnings.catch_warnings(),
    ):
        # The signature is given: an example would only make MLflow start the model.
        warnings.filterwarnings("ignore", message=".*input example was not provided")
        info = mlflow.pyfunc.log_model(
            name=model_folder.name,
            python_model=str(Path(__file__).with_name("logged_model.py")),
            artifacts={"model": str(model_folder)},
            code_paths=[str(packages / "gpt"), str(packages / "data_pipeline")],
            signature=signature,
            # Named, because MLflow would otherwise start the model to find out.
            pip_requirements=model_requirements(),
        )
    # The end of the fluent block above has finished the run.
    run.client.update_run(run.run_id, status="RUNNING")
    now = int(time.time() * 1000)
    for name, value in metrics.items():
        run.client.log_metric(run.run_id, name, value, timestamp=now, step=0, model_id=info.model_id)


def model_requirements() -> list[str]:
    """The packages that a logged model needs, pinned to those that run now (without a build's local label)."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in MODEL_PACKAGES]
