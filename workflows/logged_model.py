"""What MLflow loads for a logged model: continues prompts. Runs from the copies of gpt/ logged beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd


class PromptCompletion(mlflow.pyfunc.PythonModel):
    """Column `prompt` in, column `text` out."""

    def load_context(self, context: Any) -> None:
        """Load the exported model of the artifact `model`."""
        from data_pipeline.tokenizer import Tokenizer
        from gpt.checkpoint import load_model

        folder = Path(context.artifacts["model"])
        self.model, _ = load_model(folder)
        self.tokenizer = Tokenizer.load(folder / "tokenizer.json")

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Continue each prompt; an empty one begins a document."""
        from gpt.generate import generate

        settings = params or {}
        texts = []
        for prompt in model_input["prompt"]:
            tokens = generate(
                self.model,
                [self.tokenizer.eot_id, *self.tokenizer.encode(prompt)],
                int(settings.get("max_new_tokens", 64)),
                temperature=float(settings.get("temperature", 0.8)),
                seed=int(settings.get("seed", 0)),
                stop_token=self.tokenizer.eot_id,
            )
            texts.append(self.tokenizer.decode(tokens))
        return pd.DataFrame({"text": texts})


mlflow.models.set_model(PromptCompletion())
