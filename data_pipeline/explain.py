"""What each step does to one document, and why: the steps of a refresh, walked with a look at the document in between.

    a record of a file, or a document of a corpus, read from its file again
      -> read, then staging.STEPS one by one -> the most similar documents of the corpus

Nothing is written. A step without a description of its own here is described by the columns that it changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline import extract, filters, language, staging
from data_pipeline.config import DedupConfig, RefreshConfig, SourceConfig, Treatment
from data_pipeline.corpus import Corpus
from data_pipeline.differences import in_line, windows
from data_pipeline.errors import InputError
from data_pipeline.filter_values import RuleValue, rule_values
from data_pipeline.minhash import as_matrix, num_common, shingle_hashes, signature
from data_pipeline.repairs import Repair, repairs
from data_pipeline.sources import Record, as_path, read_records
from data_pipeline.staging import guarded, process, raw_table
from data_pipeline.stock_lines import is_stock_line
from data_pipeline.text_hash import text_hash
from data_pipeline.wording import short_number, visible

MAX_REPAIRS, SAMPLE_CHARS, LINE_CHARS = 5, 300, 160
# The documents whose signatures agree most are compared by their texts, from so much agreement on.
MAX_SIMILAR, LEAST_AGREEMENT = 4, 0.3

Row = dict[str, Any]


@dataclass(frozen=True)
class Passage:
    """What one step did.

    Attributes:
        step: its name.
        outcome: kept, or the reason why the document was removed.
        lines: what it did and what it measured.
    """

    step: str
    outcome: str
    lines: list[str] = field(default_factory=list)


# ----------------------------------------------------------------------------------------------------- documents


def find_records(source: SourceConfig, path: Path, errors: list[str], uri: str = "") -> Iterator[Record]:
    """The records of a file, or those of one uri; what breaks the file off goes to `errors`."""
    for record in guarded(read_records(source, path), errors):
        if not uri or record.uri == uri:
            yield record


def find_again(row: Row, source: SourceConfig, config: RefreshConfig, base: Path) -> Record | None:
    """The record that a document of the corpus was made of; None where its file is gone or holds it no more.

    Args:
        row: of documents or removed, with doc_id, uri and input_file.
        base: what a relative `input_file` is relative to.
    """
    place = as_path(row["input_file"])
    path = place if place.is_absolute() else base / row["input_file"]
    try:
        if not path.is_file():
            return None
    except (OSError, InputError):  # a server that is gone
        return None
    uri = "" if row["uri"] == row["input_file"] else row["uri"]
    first = None
    for record in find_records(source, path, [], uri):
        # A page may have been stored more than once: its text decides which this is.
        made = process(raw_table([record], 0, source, row["input_file"]), config.of(source))
        if made["doc_id"][0].as_py() == row["doc_id"]:
            return record
        first = first or record
    # A page that lost the lines it shares with its host's others afterwards has another text, and so another id.
    return first if uri and config.dedup.boilerplate_share else None


# --------------------------------------------------------------------------------------------------------- steps


def explain_record(
    record: Record, source: SourceConfig, config: RefreshConfig, input_file: str
) -> tuple[list[Passage], str | None]:
    """(what the steps did to a record, its text after them; None where one removed it)."""
    treatment = config.of(source)
    table = raw_table([record], 0, source, input_file)
    row = table.to_pylist()[0]
    passages = [Passage("read", row["reason"] or "kept", _read_lines(row))]
    alive = table.drop_columns(["reason"])
    if row["reason"]:
        return passages, None
    for name, step in staging.STEPS:
        kept, removed = step(alive, treatment)
        after = kept if kept.num_rows else removed
        describe = DESCRIPTIONS.get(name, _changed_columns)
        reason = None if kept.num_rows else after["reason"][0].as_py()
        passages.append(Passage(name, reason or "kept", describe(alive, after, treatment)))
        if reason:
            return passages, None
        alive = kept
    return passages, str(alive["text"][0].as_py())


def _read_lines(row: Row) -> list[str]:
    stated = {name: row[name] for name in ("title", "date") if row[name]}
    if row["metadata"] != "{}":
        stated["metadata"] = row["metadata"]
    size = [f"{len(row['text']):,} characters of {row['format']}"] if row["text"] else []
    return size + [f"{name}: {visible(value, LINE_CHARS)}" for name, value in stated.items()]


def _value(table: pa.Table, name: str) -> Any:
    return table[name][0].as_py()


def _extract_lines(before: pa.Table, after: pa.Table, treatment: Treatment) -> list[str]:
    text = _value(after, "text")
    size = (
        f"{len(_value(before, 'text')):,} characters of {_value(before, 'format')} -> {len(text):,} of text"
    )
    found = [name for name in ("title", "date", "metadata") if _value(before, name) != _value(after, name)]
    begin = " ".join(text[:SAMPLE_CHARS].split())
    return [
        size,
        *(f"{name}: {visible(_value(after, name), LINE_CHARS)}" for name in found),
        f"begins: {visible(begin, SAMPLE_CHARS)}",
    ]


def _clean_lines(before: pa.Table, after: pa.Table, treatment: Treatment) -> list[str]:
    old, new = _value(before, "text"), _value(after, "text")
    if old == new:
        return ["changed nothing"]
    lines = [f"{len(old):,} -> {len(new):,} characters", f"first change: {difference(old, new)}"]
    found = list(islice(repairs(old), MAX_REPAIRS + 1)) if treatment.clean.fix_encoding else []
    lines += [_repair_line(repair) for repair in found[:MAX_REPAIRS]]
    lines += ["ftfy repaired more lines than these"] * (len(found) > MAX_REPAIRS)
    stock = [line for line in old.split("\n") if is_stock_line(line)] if treatment.clean.stock_lines else []
    lines += [f"stock line taken out: {visible(line, LINE_CHARS)}" for line in stock[:MAX_REPAIRS]]
    return lines + ["more stock lines taken out than these"] * (len(stock) > MAX_REPAIRS)


def difference(left: str, right: str) -> str:
    """The part of two texts around their first difference in one line, as differences.in_line shows it."""
    shown = in_line(*windows(left, right)).replace("\n", "\\n")
    return visible(shown, 3 * LINE_CHARS)


def _repair_line(repair: Repair) -> str:
    steps = ", ".join(" ".join(step) for step in repair.steps)
    return f"ftfy: {difference(repair.before, repair.after)} ({steps})"


def _privacy_lines(before: pa.Table, after: pa.Table, treatment: Treatment) -> list[str]:
    found = _value(after, "pii")
    if found is None:
        return ["not looked for in this source"]
    counts = ", ".join(f"{kind} {count:,}" for kind, count in json.loads(found).items())
    if not counts:
        return ["found no personal data"]
    return [f"masked: {counts}", f"first change: {difference(_value(before, 'text'), _value(after, 'text'))}"]


def _language_lines(before: pa.Table, after: pa.Table, treatment: Treatment) -> list[str]:
    wanted = treatment.language
    kept = ", ".join(wanted.keep) or "every language"
    found = f"{_value(after, 'lang')}, certainty {_value(after, 'lang_score'):.3f}"
    return [found, f"wanted: {kept}, certainty at least {wanted.min_score:g}"]


def _filter_lines(before: pa.Table, after: pa.Table, treatment: Treatment) -> list[str]:
    rows = rule_values(before, treatment)
    width = max(len(row.reason) for row in rows)
    return [_rule_line(row, width) for row in rows]


def _rule_line(row: RuleValue, width: int) -> str:
    value = "-" if row.value is None else short_number(row.value)
    bound = "turned off"
    if row.bound is not None:
        bound = f"{'at least' if row.is_least else 'at most'} {short_number(row.bound)}"
    return f"{row.reason:<{width}}  {value:>10}  {bound:<20}  {'FAILS' if row.fails else 'passes'}"


def _changed_columns(before: pa.Table, after: pa.Table, treatment: Treatment) -> list[str]:
    old, new = before.to_pylist()[0], after.to_pylist()[0]
    names = [name for name in new if new[name] != old.get(name) and name != "stage"]
    lines = [f"{name}: {_short(new[name])}" for name in names if name != "text"]
    if "text" in names:
        lines.append(f"first change: {difference(old['text'], new['text'])}")
    return lines or ["changed nothing"]


def _short(value: Any) -> str:
    return short_number(value) if isinstance(value, float) else visible(str(value), LINE_CHARS)


Description = Callable[[pa.Table, pa.Table, Treatment], list[str]]
DESCRIPTIONS: dict[str, Description] = {
    extract.STAGE: _extract_lines,
    "clean": _clean_lines,
    "privacy": _privacy_lines,
    language.STAGE: _language_lines,
    filters.STAGE: _filter_lines,
}


# ---------------------------------------------------------------------------------------------------- duplicates


@dataclass(frozen=True)
class _Similar:
    """A document of the corpus beside the one that is explained.

    Attributes:
        row: doc_id, source, uri, text.
        reason: why the other would be removed for it; "" for not at all.
        similarity: Jaccard of the shingles; contained: the share of the other's shingles that it has.
    """

    row: Row
    reason: str
    similarity: float
    contained: float

    def line(self, text: str) -> str:
        """In words, with the first difference from the text that is explained."""
        place = f"{visible(self.row['uri'], LINE_CHARS)} ({self.row['source']}, {self.row['doc_id']})"
        if self.reason == "exact_duplicate":
            return f"equal but for case and spaces: {place}"
        found = f"similarity {self.similarity:.3f}, has {self.contained:.0%} of it"
        return f"{found}: {place}: {difference(text, self.row['text'])}"


def explain_duplicates(text: str, uri: str, corpus: Corpus, version: Row, config: DedupConfig) -> Passage:
    """The most similar documents of a corpus, and whether a refresh would remove this one for one of them.

    Args:
        text, uri: of the document, the text as the steps leave it; where the corpus holds it, that is no duplicate.
    """
    if version["signature_scheme"] != config.scheme:
        made, asked = version["signature_scheme"], config.scheme
        return Passage("duplicates", "not asked", [f"the corpus has signatures '{made}', not '{asked}'"])
    lines = [f"threshold {config.threshold:g}"]
    found = []
    for row in _candidates(text, corpus, version, config):
        similar = _compared(text, row, config)
        if similar.reason == "exact_duplicate" and row["uri"] == uri:
            lines.append(f"the corpus holds it: {row['doc_id']} ({row['source']})")
        else:
            found.append(similar)
    found.sort(key=lambda similar: (-similar.similarity, similar.row["doc_id"]))
    reason = next((similar.reason for similar in found if similar.reason), "kept")
    lines += [similar.line(text) for similar in found]
    return Passage("duplicates", reason, lines if len(lines) > 1 else [*lines, "none is similar"])


def _compared(text: str, row: Row, config: DedupConfig) -> _Similar:
    if text_hash(row["text"]) == text_hash(text):
        return _Similar(row, "exact_duplicate", 1.0, 1.0)
    own, other = (shingle_hashes(each, config.shingle_size) for each in (text, row["text"]))
    common = num_common(own, other)
    similarity, contained = common / max(1, len(own) + len(other) - common), common / max(1, len(own))
    if similarity >= config.threshold:
        return _Similar(row, "near_duplicate", similarity, contained)
    is_excerpt = bool(config.containment) and contained >= config.containment
    return _Similar(row, "excerpt" if is_excerpt else "", similarity, contained)


def _candidates(text: str, corpus: Corpus, version: Row, config: DedupConfig) -> list[Row]:
    """The kept documents whose signatures agree most with a text's, by the share of equal values."""
    own = signature(text, config)
    hash_of_text = text_hash(text)
    best: list[tuple[float, str]] = []
    rows = corpus.scan("signatures", version)
    for batch in rows.to_batches(columns=["doc_id", "text_hash", "signature"], batch_size=16_384):
        if not batch.num_rows:
            continue
        agreement = (as_matrix(batch["signature"], config.num_permutations) == own).mean(axis=1)
        agreement[np.array(batch["text_hash"].to_pylist()) == hash_of_text] = 1.0
        order = np.argsort(-agreement, kind="stable")[:MAX_SIMILAR]
        best += [(float(agreement[row]), batch["doc_id"][int(row)].as_py()) for row in order]
        best = sorted(best, key=lambda entry: (-entry[0], entry[1]))[:MAX_SIMILAR]
    ids = [doc_id for share, doc_id in best if share >= LEAST_AGREEMENT]
    columns = ["doc_id", "source", "uri", "text"]
    return corpus.find("documents", version, "doc_id", ids, columns) if ids else []
