"""The data report: one HTML file a corpus version, self-contained, nothing in it can run.

Every text of a document passes through Jinja's escaping, and the page's own policy forbids scripts and
requests, should anything slip through.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow.compute as pc

from data_pipeline.atomic import write_text
from data_pipeline.corpus import STAGES, Corpus

COLOURS = {
    "kept": "#2a9d61",
    "read": "#9aa0a6",
    "extract": "#c8a13a",
    "language": "#7b6fd0",
    "filter": "#d06a4c",
    "quality": "#b8457a",
    "exact_dedup": "#4c8fd0",
    "near_dedup": "#2f5f9a",
}
MAX_DUPLICATES = 50


def write_report(corpus: Corpus, version: dict[str, Any], path: Path) -> None:
    """Write the report of everything up to a version.

    Args:
        version: row of corpus/versions.
        path: the HTML file; its folder is made.
    """
    funnel = corpus.funnel(version)
    inputs = (
        corpus.scan("inputs", version).to_table().sort_by([("source", "ascending"), ("path", "ascending")])
    )
    kept = corpus.read("documents", version, ["doc_id", "uri", "source", "lang", "num_words", "num_chars"])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    html = environment.get_template("report.html.j2").render(
        version=version,
        total=sum(row["count"] for row in funnel),
        kept=kept.num_rows,
        num_chars=pc.sum(kept["num_chars"]).as_py() or 0,
        stages=[(stage, COLOURS[stage]) for stage in ("kept", *STAGES[:-1])],
        sources=_bars(funnel),
        reasons=_reasons(corpus, version, funnel),
        languages=_languages(kept),
        duplicates=_duplicates(corpus, version, kept),
        inputs=inputs.to_pylist(),
        damaged=[row for row in inputs.to_pylist() if row["status"] != "ok"],
    )
    write_text(path, html)


def _bars(funnel: list[dict[str, Any]]) -> list[dict[str, Any]]:
    bars = []
    for source in sorted({row["source"] for row in funnel}):
        counts = dict.fromkeys(("kept", *STAGES[:-1]), 0)
        for row in funnel:
            if row["source"] == source:
                counts[row["stage"]] += row["count"]
        total = sum(counts.values())
        parts = [
            {"stage": stage, "count": count, "share": f"{100 * count / total:.3f}", "colour": COLOURS[stage]}
            for stage, count in counts.items()
            if count
        ]
        bars.append({"name": source, "total": total, "kept": counts["kept"], "parts": parts})
    return bars


def _reasons(corpus: Corpus, version: dict[str, Any], funnel: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each (source, stage, reason) with its count and its first example by doc_id."""
    columns = ["source", "stage", "reason", "doc_id", "uri", "value", "threshold", "text_sample"]
    removed = corpus.read("removed", version, columns).sort_by("doc_id")
    examples: dict[tuple, dict[str, Any]] = {}
    for row in removed.to_pylist():
        examples.setdefault((row["source"], row["stage"], row["reason"]), row)
    rows = []
    for row in funnel:
        if row["stage"] != "kept":
            example = examples[row["source"], row["stage"], row["reason"]]
            rows.append(
                {
                    **row,
                    **{key: example[key] for key in ("uri", "value", "threshold")},
                    "sample": example["text_sample"],
                }
            )
    return rows


def _languages(kept: Any) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row in kept.select(["source", "lang", "num_words", "num_chars"]).to_pylist():
        groups.setdefault((row["source"], row["lang"]), []).append((row["num_words"], row["num_chars"]))
    rows = [
        {
            "source": source,
            "lang": lang,
            "count": len(sizes),
            "words": sum(words for words, _ in sizes),
            "chars": sum(chars for _, chars in sizes),
            "median": int(np.median([chars for _, chars in sizes])),
        }
        for (source, lang), sizes in groups.items()
    ]
    return sorted(rows, key=lambda row: (row["source"], -row["count"], row["lang"]))


def _duplicates(corpus: Corpus, version: dict[str, Any], kept: Any) -> Iterable[dict[str, Any]]:
    uris = dict(zip(kept["doc_id"].to_pylist(), kept["uri"].to_pylist(), strict=True))
    removed = corpus.scan("removed", version).to_table(
        columns=["uri", "duplicate_of", "similarity"], filter=pc.field("duplicate_of").is_valid()
    )
    # The least similar first: those are the ones that a person should look at.
    rows = (
        removed.sort_by([("similarity", "ascending"), ("uri", "ascending")])
        .slice(0, MAX_DUPLICATES)
        .to_pylist()
    )
    return [{**row, "keeper": uris.get(row["duplicate_of"], row["duplicate_of"])} for row in rows]
