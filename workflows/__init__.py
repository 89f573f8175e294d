"""What a person runs: thin compositions of data_pipeline and gpt under Ray, tracked in MLflow."""

import os as _os
import secrets as _secrets

# Ray and MLflow read their environment when they are imported, so it is set before anything imports them. A
# value that is there already wins.
_ENVIRONMENT = {
    # How often Ray Train's controller looks at its workers: `report` waits for it.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    # Ray ends idle workers beyond the number of cores, and a shuffle's workers are others than a map's: on a small
    # machine each shuffle would wait seconds for processes that were there a moment before.
    "RAY_num_workers_soft_limit": str(max(8, _os.cpu_count() or 1)),
    # The jemalloc that Ray brings, which it preloads for itself: trees of small nodes (HTML) cost a fifth less than
    # with glibc's malloc.
    "RAY_LD_PRELOAD_ON_WORKERS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Its loggers are pointed at the workflow's log file instead.
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
for _name, _value in _ENVIRONMENT.items():
    _os.environ.setdefault(_name, _value)
if not _os.environ.get("RAY_ADDRESS") and "RAY_AUTH_MODE" not in _os.environ:
    # A cluster of our own listens on the network: only who knows this token may run code on it. Handed over in
    # the environment, it is written to no file.
    _os.environ["RAY_AUTH_MODE"] = "token"
    _os.environ["RAY_AUTH_TOKEN"] = _secrets.token_hex(32)
