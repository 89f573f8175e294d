"""The sections of the report, as plain values and pictures for its template; every list in them is bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from data_pipeline.differences import marked
from data_pipeline.evidence import Evidence
from data_pipeline.report import charts
from data_pipeline.report.charts import class_of
from data_pipeline.report.measures import BINS_A_DECADE, KEPT, SCORES, Measures
from data_pipeline.report.odd import Funnel
from data_pipeline.shards import MANIFEST_NAME
from data_pipeline.token_documents import manifests
from data_pipeline.wording import short_number

# Full to these bounds with the longest of texts, the page stays below 5 MB.
MAX_SOURCES, MAX_REASONS, SOURCES_A_REASON, MAX_LANGUAGES, MAX_DOMAINS = 24, 40, 8, 8, 20
MAX_PAIRS, PAIRS_A_KEEPER, REPAIRS_A_SOURCE, MAX_INPUTS, EXAMPLES = 15, 2, 3, 200, 4
SCORE_NAMES = {"lang_score": "certainty of the language", "quality_score": "quality score"}
OTHERS = "all others"

Row = dict[str, Any]


def shown_sources(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """{source: OTHERS} for all but the sources with the most documents."""
    read: Counter[str] = Counter()
    for row in rows:
        read[row["source"]] += row["count"]
    largest = sorted(read, key=lambda source: (-read[source], source))
    return dict.fromkeys(largest[MAX_SOURCES:], OTHERS)


def totals(measures: Measures) -> Row:
    """Words and characters kept."""
    cells = [cell[2:] for cell in measures.languages.values()] or [np.zeros(2, np.int64)]
    words, chars = np.sum(cells, axis=0).tolist()
    return {"words": words, "chars": chars}


def bars(funnel: Funnel) -> list[Row]:
    """A bar a source, cut by what became of its documents."""
    rows = []
    for source in funnel.sources:
        counts, total = funnel.by_step(source), funnel.read(source)
        parts = [(step, counts[step]) for step in funnel.steps if counts[step]]
        words = ", ".join(f"{step} {count:,}" for step, count in parts)
        svg = charts.share_bar(
            [(class_of(step), count / total) for step, count in parts], f"{source}: {words}"
        )
        rows.append({"source": source, "svg": svg, "counts": counts, "read": total})
    return rows


def flows(funnel: Funnel) -> Markup:
    """The sources on the left, what became of their documents on the right."""
    counts = {
        (source, step): count for source in funnel.sources for step, count in funnel.by_step(source).items()
    }
    title = f"{funnel.read():,} documents of {len(funnel.sources)} sources, by the step that removed them, or kept"
    return charts.flows(funnel.sources, [(step, class_of(step)) for step in funnel.steps], counts, title)


# ------------------------------------------------------------------------------------------------------ reasons


def reasons(funnel: Funnel, measures: Measures) -> list[Row]:
    """Each reason with its sources, what was measured, and examples in turn from each source."""
    rows = []
    for (step, code), count in funnel.reasons()[:MAX_REASONS]:
        by_source = sorted(funnel.of_reason(step, code).items(), key=lambda entry: (-entry[1], entry[0]))
        found = [
            _reason_of(measures, funnel, source, step, code) for source, _ in by_source[:SOURCES_A_REASON]
        ]
        # In turn, so that a large source does not crowd out the others.
        turns = [measures.examples.get((source, step, code), []) for source, _ in by_source]
        examples = [turn[place] for place in range(EXAMPLES) for turn in turns if place < len(turn)]
        rows.append(
            {
                "step": step,
                "code": code,
                "count": count,
                "sources": found,
                "num_more": len(by_source) - len(found),
                "has_values": any(row["strip"] for row in found),
                "examples": examples[:EXAMPLES],
            }
        )
    return rows


def _reason_of(measures: Measures, funnel: Funnel, source: str, step: str, code: str) -> Row:
    rows = measures.values.get((source, step, code), [])
    values = [row["value"] for row in rows]
    bounds = sorted({row["threshold"] for row in rows if row["threshold"] is not None})
    bound = " to ".join(dict.fromkeys(short_number(end) for end in (*bounds[:1], *bounds[-1:])))
    strip, middle = Markup(""), ""
    if values:
        middle = short_number(float(np.median(values)))
        title = f"{source}, {code}: {len(values)} measured values, median {middle}, bound {bound or 'none'}"
        strip = charts.strip(values, bounds, title)
    count = funnel.of_reason(step, code)[source]
    return {
        "source": source, "count": count, "read": funnel.read(source), "strip": strip, "median": middle, "bound": bound
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ distributions


def distributions(funnel: Funnel, measures: Measures) -> list[Row]:
    """Pictures of lengths and scores, before and after, of each source that has any."""
    rows = []
    for source in funnel.sources:
        if source not in measures.lengths:
            continue
        lengths = measures.lengths[source]
        cut = charts.trimmed(lengths.sum(axis=0))
        ticks = charts.log_ticks(cut.start, cut.stop, BINS_A_DECADE)
        pictures = [_picture(source, "length in characters", lengths[:, cut], ticks)]
        for name in SCORES:
            scores = measures.scores[name, source]
            if scores.any():
                ticks = [(share * scores.shape[1], f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1)]
                pictures.append(_picture(source, SCORE_NAMES[name], scores, ticks))
        before = lengths.sum(axis=0)
        rows.append(
            {
                "source": source,
                "pictures": pictures,
                "before": int(before.sum()),
                "kept": int(lengths[KEPT].sum()),
                "median_before": _median_length(before),
                "median_kept": _median_length(lengths[KEPT]),
            }
        )
    return rows


def _median_length(counts: np.ndarray) -> int:
    """The length in characters that half of the documents are shorter than, as good as the bins are narrow."""
    bin_of_half = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    length = 10 ** ((bin_of_half + 0.5) / BINS_A_DECADE)
    return int(float(f"{length:.1e}"))


def _picture(source: str, name: str, counts: np.ndarray, ticks: list[tuple[float, str]]) -> Row:
    before, kept = counts.sum(axis=0), counts[KEPT]
    title = f"{source}, {name}: {before.sum():,} documents before, {kept.sum():,} kept"
    return {"name": name, "svg": charts.histogram(before, kept, ticks, title)}


def languages(funnel: Funnel, measures: Measures) -> list[Row]:
    """Of each source its languages, the most frequent first and the rare ones in one row."""
    rows = []
    for source in funnel.sources:
        cells = [
            (lang or "none", cell) for (name, lang), cell in measures.languages.items() if name == source
        ]
        cells.sort(key=lambda entry: (-entry[1][:2].sum(), entry[0]))
        rare = cells[MAX_LANGUAGES:]
        if rare:
            cells = [
                *cells[:MAX_LANGUAGES],
                (f"{len(rare)} more", np.sum([cell for _, cell in rare], axis=0)),
            ]
        most = max((int(cell[:2].sum()) for _, cell in cells), default=1)
        for lang, cell in cells:
            kept, removed, words, chars = cell.tolist()
            parts = [("s-kept", kept / most), ("before", removed / most)]
            bar = charts.share_bar(parts, f"{source}, {lang}: {kept:,} kept, {removed:,} removed")
            rows.append(
                {"source": source, "lang": lang, "before": kept + removed, "kept": kept, "words": words,
                 "chars": chars, "bar": bar}
            )  # fmt: skip
    return rows


def masked(rows: Sequence[Row], funnel: Funnel, shown: Mapping[str, str]) -> list[Row]:
    """Of each source the personal data that was masked, by kind.

    Args:
        rows: as Corpus.masked gives them.
        shown: as `shown_sources` gives it.
    """
    totals: dict[tuple[str, str], Row] = {}
    for row in rows:
        source = shown.get(row["source"], row["source"])
        empty = {
            "source": source,
            "kind": row["kind"],
            "count": 0,
            "num_documents": 0,
            "kept": funnel.kept(source),
        }
        cell = totals.setdefault((source, row["kind"]), empty)
        cell["count"] += row["count"]
        cell["num_documents"] += row["num_documents"]
    return list(totals.values())


def domains(measures: Measures) -> Row:
    """The domains with the most pages kept, and those with the most removed."""
    rows: list[Row] = [
        {"source": source, "domain": domain, "kept": int(cell[0]), "removed": int(cell[1])}
        for (source, domain), cell in measures.domains.items()
    ]
    lists: dict[str, list[Row]] = {}
    for side, kind in (("kept", "s-kept"), ("removed", "before")):
        most = sorted(
            (row for row in rows if row[side]), key=lambda row: (-row[side], row["domain"], row["source"])
        )
        lists[side] = [
            {**row, "bar": charts.share_bar([(kind, row[side] / most[0][side])], f"{row[side]:,} {side}")}
            for row in most[:MAX_DOMAINS]
        ]
    return {"count": len(rows), "is_whole": measures.has_all_domains, **lists}


# --------------------------------------------------------------------------------------------------- duplicates


def duplicates(measures: Measures, found: Evidence) -> Row:
    """Sizes of the groups, the largest of them, and the least similar pairs side by side."""
    groups, copies = len(measures.cluster_sizes), int((measures.cluster_sizes - 1).sum())
    near = int(measures.similarities.sum())
    ticks = [(share * len(measures.similarities), f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1)]
    pairs: list[Row] = []
    seen: Counter[str] = Counter()
    for pair in found.pairs:
        seen[pair["keeper"]] += 1
        if len(pairs) < MAX_PAIRS and seen[pair["keeper"]] <= PAIRS_A_KEEPER:
            left, right = marked(pair["left"], pair["right"])
            pairs.append({**pair, "left": left, "right": right})
    return {
        "groups": groups,
        "copies": copies,
        "near": near,
        "sizes": charts.columns(
            *charts.cluster_bins(measures.cluster_sizes), f"{groups:,} groups of duplicates by size"
        ),
        "similarities": charts.histogram(
            measures.similarities,
            np.zeros_like(measures.similarities),
            ticks,
            f"{near:,} near-duplicates by their similarity to the document kept for them",
        ),
        "largest": measures.largest,
        "pairs": pairs,
    }


def repairs(found: Evidence) -> list[Row]:
    """Of each source how many texts ftfy repaired, and some of them."""
    sources = sorted(found.num_repaired.items(), key=lambda entry: (-entry[1], entry[0]))
    return [
        {
            "source": source,
            "count": count,
            "examples": [
                {"uri": row["uri"], "lines": [_repaired_line(line) for line in row["lines"]]}
                for row in [row for row in found.repairs if row["source"] == source][:REPAIRS_A_SOURCE]
            ],
        }
        for source, count in sources[: MAX_SOURCES // 2]
    ]


def _repaired_line(line: Row) -> Row:
    before, after = marked(line["before"], line["after"])
    steps = ", ".join(" ".join(step) for step in line["steps"][:8])
    return {"before": before, "after": after, "steps": steps}


# ---------------------------------------------------------------------------------------------- tokens and inputs


def tokens(root: Path | None, version: Row) -> Row | None:
    """Tokens by source of the newest dataset that was made of a version; None where there is none."""
    found = [
        ((folder / MANIFEST_NAME).stat().st_mtime, manifest)
        for folder, manifest in (manifests(root) if root is not None else [])
        if manifest.corpus_version == version["version"]
    ]
    if not found:
        return None
    _, manifest = max(found, key=lambda entry: entry[0])
    rows: list[Row] = []
    for source, splits in manifest.totals.items():
        sums = {
            name: sum(cell[name] for cell in splits.values())
            for name in ("num_tokens", "num_docs", "num_bytes")
        }
        by_split = {
            split: splits[split]["num_tokens"] if split in splits else 0 for split in ("train", "val")
        }
        rows.append({"source": source, **sums, **by_split})
    rows.sort(key=lambda row: (-row["num_tokens"], row["source"]))
    return {
        "name": manifest.name,
        "hash": manifest.manifest_hash,
        "total": sum(row["num_tokens"] for row in rows),
        "rows": rows[:MAX_SOURCES],
    }


def inputs(table: pa.Table) -> Row:
    """Damaged files first, then those with the most documents."""
    damaged = pc.equal(table["status"], "damaged")
    order = [
        ("damaged", "descending"),
        ("num_documents", "descending"),
        ("source", "ascending"),
        ("path", "ascending"),
    ]
    rows = table.append_column("damaged", damaged).sort_by(order).slice(0, MAX_INPUTS)
    return {"count": table.num_rows, "damaged": pc.sum(damaged).as_py() or 0, "rows": rows.to_pylist()}
