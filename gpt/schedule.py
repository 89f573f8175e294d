"""What a training will read, settled before it begins: windows, order, sizes of batches. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from data_pipeline.shards import TokenDataset
from gpt.batches import BatchSchedule
from gpt.config import TrainConfig
from gpt.order import SampleOrder, SourcePlan
from gpt.windows import Windows, cut


@dataclass(frozen=True)
class DataSchedule:
    """Everything that decides which tokens a step sees."""

    windows: Mapping[str, Windows]
    """Of each source."""
    order: SampleOrder
    """Sample -> window."""
    batches: BatchSchedule
    """Step -> samples."""
    plan: list[SourcePlan]
    """What all steps together take from each source."""

    @classmethod
    def of(cls, dataset: TokenDataset, config: TrainConfig, context_length: int) -> DataSchedule:
        """The schedule of a training on a dataset.

        Raises:
            ConfigError: weights that do not fit the sources, or a source that would be read more often than allowed.
        """
        batches = BatchSchedule(config.batch_size, config.batch_ramp_start, config.batch_ramp_samples)
        windows = cut(dataset.streams, config.packing, context_length)
        counts = {source: of_source.num_windows for source, of_source in windows.items()}
        weights = config.source_weights
        of_corpus = dataset.manifest.source_weights
        if weights is None and of_corpus:
            weights = {source: count * of_corpus.get(source, 1.0) for source, count in counts.items()}
        later = [(batches.start(stage.from_step), stage.weights) for stage in config.mixture_stages]
        order = SampleOrder(counts, weights, config.seed, context_length, later, config.packing)
        return cls(windows, order, batches, order.plan(batches.start(config.num_steps), config.max_epochs))
