"""What a person runs: thin compositions of data_pipeline and gpt under Ray, tracked in MLflow."""

import os as _os

from data_pipeline.cluster import set_environment as _set_environment

# Ray and MLflow read their environment when they are imported, so it is set before anything imports them. A
# value that is there already wins.
_ENVIRONMENT = {
    # How often Ray Train's controller looks at its workers: `report` waits for it.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Its loggers are pointed at the workflow's log file instead.
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
for _name, _value in _ENVIRONMENT.items():
    _os.environ.setdefault(_name, _value)
_set_environment()
