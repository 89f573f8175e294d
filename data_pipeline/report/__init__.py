"""The data report: one HTML file a corpus version, self-contained, nothing in it can run.

Every text of a document passes through Jinja's escaping or is a text or an attribute of an XML tree, and the page's
own policy forbids scripts, requests and all styles but the page's one, should anything slip through. Every list is
bounded, so that the report of any corpus can be opened.

    measures   the numbers, in one pass over the tables
    odd        the funnel, and what a person should look at first
    charts     pictures
    sections   all of these as the template wants them
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from data_pipeline import evidence
from data_pipeline.atomic import write_text
from data_pipeline.corpus import Corpus
from data_pipeline.differences import MAX_CHARS
from data_pipeline.report import sections
from data_pipeline.report.charts import class_of
from data_pipeline.report.measures import measure
from data_pipeline.report.odd import Funnel, warnings
from data_pipeline.wording import short_number, visible

COLOURS = {
    "kept": "#2a9d61",
    "read": "#9aa0a6",
    "extract": "#c8a13a",
    "language": "#7b6fd0",
    "filter": "#d06a4c",
    "quality": "#b8457a",
    "decontaminate": "#8a5a2b",
    "exact_dedup": "#4c8fd0",
    "near_dedup": "#2f5f9a",
}
FOLDER = Path(__file__).parent
MAX_WARNINGS, TEXT_CHARS, URI_CHARS, CONFIG_CHARS = 30, 300, 160, 20_000


def colour(step: str) -> str:
    """The colour of a step, as #rrggbb."""
    return COLOURS.get(step, "#5f8f8f")


def write_report(corpus: Corpus, version: dict[str, Any], path: Path, tokens: Path | None = None) -> None:
    """Write the report of everything up to a version.

    Args:
        version: row of corpus/versions.
        path: the HTML file; its folder is made.
        tokens: folder of token datasets; the newest that was made of this version is shown.
    """
    rows = corpus.funnel(version)
    shown = sections.shown_sources(rows)
    funnel = Funnel.of([{**row, "source": shown.get(row["source"], row["source"])} for row in rows])
    inputs = corpus.scan("inputs", version).to_table()
    reasons = funnel.reasons()
    measures = measure(
        corpus, version, shown, [reason for reason, _ in reasons[: sections.MAX_REASONS]], inputs
    )
    found = evidence.load(corpus.evidence(version["version"]))
    style = _style(funnel)
    html = _template().render(
        version=version,
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        funnel=funnel,
        warnings=warnings(funnel, measures, inputs, found)[:MAX_WARNINGS],
        totals=sections.totals(measures),
        bars=sections.bars(funnel),
        flows=sections.flows(funnel),
        reasons=sections.reasons(funnel, measures),
        other_reasons=reasons[sections.MAX_REASONS :],
        distributions=sections.distributions(funnel, measures),
        languages=sections.languages(funnel, measures),
        masked=sections.masked(corpus.masked(version), funnel, shown),
        domains=sections.domains(measures),
        duplicates=sections.duplicates(measures, found),
        repairs=sections.repairs(found),
        tokens=sections.tokens(tokens, version),
        inputs=sections.inputs(inputs),
        config=json.dumps(json.loads(version["config"] or "{}"), indent=1, ensure_ascii=False),
    )
    write_text(path, html)


def _style(funnel: Funnel) -> str:
    steps = "".join(
        f".{class_of(step)}{{fill:{colour(step)};background:{colour(step)}}}\n" for step in funnel.steps
    )
    return (FOLDER / "report.css").read_text(encoding="utf-8") + steps


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": short_number,
        "class_of": class_of,
        "share": lambda part, whole: f"{100 * part / whole:.1f} %" if whole else "-",
        "seen": lambda text: visible(text, TEXT_CHARS),
        "uri": lambda text: visible(text, URI_CHARS),
        "piece": lambda text: visible(text, MAX_CHARS),
        "config": lambda text: visible(text, CONFIG_CHARS),
    }
    return environment.get_template("report.html.j2")
