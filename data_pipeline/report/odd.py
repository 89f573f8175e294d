"""The funnel by source, and what in it, or beside it, a person should look at before training on the corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline import schema
from data_pipeline.corpus import STAGES
from data_pipeline.evidence import Evidence
from data_pipeline.report.measures import SCORE_BINS, Measures

# Shares from which something is said, and documents below which a share proves nothing.
LOST, LOST_TO_ONE_REASON, UNEQUAL, COPIES = 0.5, 0.3, 2.0, 0.3
ONE_DOMAIN, UNCERTAIN, REPAIRED = 0.3, 0.2, 0.1
FEW = 20
CERTAIN = 0.5


@dataclass(frozen=True)
class Funnel:
    """What became of every document, by source.

    Attributes:
        counts: {(source, stage, reason): documents}.
        sources: by name.
        steps: kept, then the steps that removed something, in their order.
    """

    counts: Mapping[tuple[str, str, str], int]
    sources: list[str]
    steps: list[str]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Funnel:
        """From rows of Corpus.funnel, equal ones added up."""
        counts: Counter[tuple[str, str, str]] = Counter()
        for row in rows:
            counts[row["source"], row["stage"], row["reason"]] += row["count"]
        found = {stage for _, stage, _ in counts}
        known = ["kept", *(stage for stage in STAGES if stage != "kept")]
        steps = [step for step in known if step in found] + sorted(found - set(known))
        return cls(counts, sorted({source for source, _, _ in counts}), steps)

    def by_step(self, source: str) -> Counter[str]:
        """Documents of a source by the step that decided."""
        counts: Counter[str] = Counter()
        for (name, stage, _), count in self.counts.items():
            if name == source:
                counts[stage] += count
        return counts

    def read(self, source: str | None = None) -> int:
        """Documents read, of one source or of all."""
        return sum(count for (name, _, _), count in self.counts.items() if source in (None, name))

    def with_text(self, source: str | None = None) -> int:
        """Documents that came to a text of their own."""
        return sum(
            count
            for (name, stage, _), count in self.counts.items()
            if source in (None, name) and stage not in schema.BEFORE_TEXT
        )

    def kept(self, source: str | None = None) -> int:
        """Documents kept."""
        return sum(
            count
            for (name, stage, _), count in self.counts.items()
            if source in (None, name) and stage == "kept"
        )

    def reasons(self) -> list[tuple[tuple[str, str], int]]:
        """((stage, reason), documents), the most frequent first, those of records that came to no text last."""
        totals: Counter[tuple[str, str]] = Counter()
        for (_, stage, reason), count in self.counts.items():
            if stage != "kept":
                totals[stage, reason] += count
        return sorted(
            totals.items(), key=lambda entry: (entry[0][0] in schema.BEFORE_TEXT, -entry[1], entry[0])
        )

    def of_reason(self, step: str, reason: str) -> dict[str, int]:
        """Documents removed for a reason, by source."""
        return {source: count for (source, *found), count in self.counts.items() if found == [step, reason]}


def warnings(funnel: Funnel, measures: Measures, inputs: pa.Table, found: Evidence) -> list[str]:
    """What looks odd, one sentence each; none of it stopped the refresh."""
    return [
        *_damaged(inputs),
        *(line for source in funnel.sources for line in _losses(funnel, source)),
        *_domains(measures),
        *_languages(measures),
        *_clusters(funnel, measures),
        *_repaired(funnel, found),
    ]


def _damaged(inputs: pa.Table) -> list[str]:
    names = inputs.filter(pc.equal(inputs["status"], "damaged"))["path"]
    if not len(names):
        return []
    some = ", ".join(sorted(names.to_pylist())[:3]) + (
        f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    )
    return [
        f"{len(names):,} of {len(inputs):,} input files are damaged and were read as far as they go: {some}."
    ]


def _losses(funnel: Funnel, source: str) -> list[str]:
    read, with_text, kept = funnel.read(source), funnel.with_text(source), funnel.kept(source)
    if read and not kept:
        return [f"Source {source}: none of {read:,} documents was kept."]
    if with_text < FEW:
        return []
    lines = []
    lost = 1 - kept / with_text
    others = funnel.with_text() - with_text
    lost_of_others = 1 - (funnel.kept() - kept) / others if others else 1.0
    if lost >= LOST:
        lines.append(f"Source {source} lost {lost:.0%} of the documents that had a text.")
    elif lost >= 0.2 and others >= FEW and lost >= UNEQUAL * lost_of_others:
        lines.append(
            f"Source {source} lost {lost:.0%} of the documents that had a text; the other sources lost {lost_of_others:.0%}."
        )
    for (stage, reason), _ in funnel.reasons():
        count = funnel.counts.get((source, stage, reason), 0)
        if stage not in schema.BEFORE_TEXT and count >= LOST_TO_ONE_REASON * with_text:
            lines.append(
                f"Source {source}: {stage}, {reason} alone removed {count / with_text:.0%} of the documents that had a text."
            )
    return lines


def _domains(measures: Measures) -> list[str]:
    lines = []
    for source in sorted({source for source, _ in measures.domains}):
        counts = {domain: int(cell[0]) for (name, domain), cell in measures.domains.items() if name == source}
        total = sum(counts.values())
        domain = min(counts, key=lambda name: (-counts[name], name))
        if total >= FEW and len(counts) > 1 and counts[domain] >= ONE_DOMAIN * total:
            lines.append(
                f"Source {source}: {counts[domain] / total:.0%} of the kept pages are from one domain, {domain[:80]}."
            )
    return lines


def _languages(measures: Measures) -> list[str]:
    lines = []
    for (name, source), scores in sorted(measures.scores.items()):
        kept = scores[0]
        if name == "lang_score" and kept.sum() >= FEW:
            uncertain = int(kept[: int(CERTAIN * SCORE_BINS)].sum())
            if uncertain >= UNCERTAIN * kept.sum():
                lines.append(
                    f"Source {source}: the language of {uncertain / kept.sum():.0%} of the kept documents is uncertain "
                    f"(score below {CERTAIN:g})."
                )
    return lines


def _clusters(funnel: Funnel, measures: Measures) -> list[str]:
    lines = []
    copies = int((measures.cluster_sizes - 1).sum())
    if funnel.with_text() >= FEW and copies >= COPIES * funnel.with_text():
        lines.append(
            f"{copies / funnel.with_text():.0%} of the documents that had a text are copies of others."
        )
    largest = measures.largest[0] if measures.largest else None
    if largest and largest["size"] >= max(FEW, 0.05 * funnel.with_text()):
        lines.append(
            f"{largest['size']:,} documents are one group of duplicates; kept for them: {largest['uri'][:120]}."
        )
    return lines


def _repaired(funnel: Funnel, found: Evidence) -> list[str]:
    lines = []
    for source, count in sorted(found.num_repaired.items()):
        with_text = funnel.with_text(source)
        if with_text >= FEW and count >= REPAIRED * with_text:
            lines.append(
                f"Source {source}: the encoding of {count / with_text:.0%} of the texts had to be repaired."
            )
    return lines
