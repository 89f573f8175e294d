"""Columns of the corpus tables and the row shape that travels between the steps of a refresh.

A step takes a table of living rows and gives back two tables: the rows it keeps, and the rows it removes,
each with a reason. Rows are never lost: read = kept + removed, at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

S, I64, F64 = pa.string(), pa.int64(), pa.float64()

# Contract (docs/workspace.md): corpus/documents. `metadata` is a JSON object of strings; `quality_score` is null where
# no quality model was configured; `pii` is a JSON object of counts by kind of the personal data that was masked, {}
# where there was none, null where none was looked for. A new column goes to the end, where a table that is there gets it, too.
DOCUMENTS = pa.schema(
    [
        ("doc_id", S),
        ("source", S),
        ("uri", S),
        ("title", S),
        ("text", S),
        ("lang", S),
        ("lang_score", F64),
        ("date", S),
        ("license", S),
        ("metadata", S),
        ("input_file", S),
        ("num_chars", I64),
        ("num_words", I64),
        ("text_hash", S),
        ("version", I64),
        ("quality_score", F64),
        ("pii", S),
    ]
)

# Contract: corpus/removed; `value` and `threshold` say by how much a rule was missed. What was measured before a
# document was removed stands beside them, null where it came to no text or the step was not reached. A new column goes
# to the end, where a table that is there gets it, too.
REMOVED = pa.schema(
    [
        ("doc_id", S),
        ("source", S),
        ("uri", S),
        ("input_file", S),
        ("stage", S),
        ("reason", S),
        ("duplicate_of", S),
        ("similarity", F64),
        ("value", F64),
        ("threshold", F64),
        ("text_sample", S),
        ("version", I64),
        ("num_chars", I64),
        ("num_words", I64),
        ("lang", S),
        ("lang_score", F64),
        ("quality_score", F64),
    ]
)

SIGNATURES = pa.schema(
    [
        ("doc_id", S),
        ("source", S),
        ("text_hash", S),
        ("num_chars", I64),
        ("signature", pa.binary()),
        ("version", I64),
    ]
)

# `status`: ok, damaged, or superseded: the path has another content now, or had the same read again. Of a superseded
# file the documents count that were kept and are no more in it. `modified`: the store's time stamp in ns, where a file
# with the same one need not be read to know its content; null where it proves nothing. A new column goes to the end.
INPUTS = pa.schema(
    [
        ("path", S),
        ("source", S),
        ("kind", S),
        ("size", I64),
        ("sha256", S),
        ("status", S),
        ("error", S),
        ("num_documents", I64),
        ("num_kept", I64),
        ("num_removed", I64),
        ("version", I64),
        ("modified", I64),
    ]
)

# What is to be kept out of the corpus from then on, whatever version it is: `kind` is uri, domain, doc_id or text_hash.
TAKEDOWNS = pa.schema([("kind", S), ("value", S), ("note", S), ("created_at", S)])

# `kind`: refresh, rebuild, remove or rollback. num_documents, num_kept and num_removed count what was read for the
# version; num_superseded and num_taken_down what left the documents of the version before it. `takedowns_version`: the
# Delta version of corpus/takedowns that the version complies with. `vacuumed_at`: its files are gone.
VERSIONS = pa.schema(
    [
        ("version", I64),
        ("created_at", S),
        ("config_hash", S),
        ("config", S),
        ("signature_scheme", S),
        ("documents_version", I64),
        ("removed_version", I64),
        ("signatures_version", I64),
        ("inputs_version", I64),
        ("num_inputs", I64),
        ("num_documents", I64),
        ("num_kept", I64),
        ("num_removed", I64),
        ("gptmill_version", S),
        ("kind", S),
        ("restored_version", I64),
        ("num_superseded", I64),
        ("num_taken_down", I64),
        ("takedowns_version", I64),
        ("vacuumed_at", S),
    ]
)

# What a reader gives: one row a document candidate. `row_id` = (number of the unit of work) << 36 | ordinal in it:
# its order is that of the sorted inputs and of the records in them, however the work was cut.
RAW = pa.schema(
    [
        ("row_id", I64),
        ("source", S),
        ("input_file", S),
        ("uri", S),
        ("title", S),
        ("text", S),
        ("format", S),
        ("date", S),
        ("license", S),
        ("metadata", S),
    ]
)

# Steps that remove what came to no text of its own.
BEFORE_TEXT = ("read", "extract")

VERDICT = pa.schema([("stage", S), ("reason", S), ("value", F64), ("threshold", F64)])

# What a refresh keeps on disk between reading and committing: documents and removed rows side by side, and the texts
# that ftfy changed as they were before.
STAGED = pa.schema(
    [("row_id", I64)]
    + [field for field in DOCUMENTS if field.name != "version"]
    + list(VERDICT)
    + [("unrepaired", S), ("signature", pa.binary())]
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a row is removed.

    Attributes:
        reason: a stable code, for example "too_few_words".
        value: what was measured, where the rule measures something.
        threshold: the bound that it missed.
    """

    reason: str
    value: float | None = None
    threshold: float | None = None


def split(table: pa.Table, stage: str, verdicts: Sequence[Verdict | None]) -> tuple[pa.Table, pa.Table]:
    """Part a table by verdict.

    Args:
        table: any table of rows.
        stage: name of the deciding step.
        verdicts: one entry a row; None keeps the row.

    Returns:
        (kept rows, removed rows with the columns of VERDICT appended).
    """
    kept = pa.array([verdict is None for verdict in verdicts], pa.bool_())
    refused = [verdict for verdict in verdicts if verdict is not None]
    removed = table.filter(pa.array([verdict is not None for verdict in verdicts], pa.bool_()))
    columns = {
        "stage": [stage] * len(refused),
        "reason": [verdict.reason for verdict in refused],
        "value": [verdict.value for verdict in refused],
        "threshold": [verdict.threshold for verdict in refused],
    }
    for name, values in columns.items():
        removed = removed.append_column(VERDICT.field(name), pa.array(values, VERDICT.field(name).type))
    return table.filter(kept), removed


def keep_all(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """What `split` gives where no row is removed."""
    return table, table.slice(0, 0)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the schema's columns, in its order; missing ones are null."""
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def replace_column(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with one column replaced, or appended where it is new."""
    index = table.schema.get_field_index(name)
    return table.append_column(name, values) if index < 0 else table.set_column(index, name, values)
