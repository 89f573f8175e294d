"""What a person runs: thin compositions of data_pipeline and gpt under Ray, tracked in MLflow."""
