"""How many sequences each step takes: a constant, or GPT-3's ramp (Brown 2020, section 2.1 and appendix B)."""

from __future__ import annotations

from itertools import accumulate


class BatchSchedule:
    """Step -> size of its global batch, and the sample that it begins with.

    A ramp grows from `ramp_start` to `batch_size` in steps of `ramp_start`, each kept for an equal share of
    `ramp_samples` samples (Megatron-LM's rule). A pure function of the step: nothing to save but the step.

    Args:
        batch_size: sequences of a global batch after the ramp.
        ramp_start: sequences of the first; a divisor of batch_size, 0 = no ramp.
        ramp_samples: sequences over which it grows.
    """

    def __init__(self, batch_size: int, ramp_start: int = 0, ramp_samples: int = 0) -> None:
        self.batch_size = batch_size
        sizes: list[int] = []
        sample = 0
        while ramp_start and sample < ramp_samples:
            num_increments = batch_size // ramp_start - 1
            sizes.append(ramp_start * (1 + num_increments * sample // ramp_samples))
            sample += sizes[-1]
        self._sizes = sizes
        self._starts = list(accumulate(sizes, initial=0))

    def size(self, step: int) -> int:
        """Sequences in the global batch of a step, 0 the first."""
        return self._sizes[step] if step < len(self._sizes) else self.batch_size

    def start(self, step: int) -> int:
        """Samples before a step: where its batch begins, and what training has consumed when it is next."""
        beyond = step - len(self._sizes)
        return self._starts[step] if beyond < 0 else self._starts[-1] + beyond * self.batch_size
