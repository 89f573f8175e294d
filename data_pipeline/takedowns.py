"""What must not be in the corpus any more: addresses, domains, documents, texts.

`corpus/takedowns` is a ledger of its own. It only grows, and no rollback takes a line of it back: each version complies
with the ledger as it is when the version is made. Where documents are taken down, the hashes of their texts go into it,
too, so that the same text does not return under another address; a changed text is another one.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import write_deltalake

from data_pipeline import schema
from data_pipeline.corpus import Corpus
from data_pipeline.errors import InputError

TABLE, REASON = "takedowns", "taken_down"
KINDS = ("uri", "domain", "doc_id", "text_hash")
HOST = r"^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>[^/?#:]+)"
DOMAIN = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")
DOC_ID = re.compile(r"[0-9a-f]{32}")
Rule = tuple[str, str]


@dataclass(frozen=True)
class Rules:
    """What is kept out: {kind: values}."""

    uri: frozenset[str] = frozenset()
    domain: frozenset[str] = frozenset()
    doc_id: frozenset[str] = frozenset()
    text_hash: frozenset[str] = frozenset()

    @classmethod
    def of(cls, rules: Iterable[Rule]) -> Rules:
        """From pairs of kind and value."""
        values: dict[str, set[str]] = {kind: set() for kind in KINDS}
        for kind, value in rules:
            values[kind].add(value)
        return cls(**{kind: frozenset(found) for kind, found in values.items()})

    def __bool__(self) -> bool:
        return any(getattr(self, kind) for kind in KINDS)

    def match(self, table: pa.Table) -> np.ndarray:
        """Which rows are to be kept out.

        Args:
            table: `uri`, `doc_id` and, where texts count, `text_hash`.
        """
        matched = np.zeros(table.num_rows, np.bool_)
        for kind in ("uri", "doc_id", "text_hash"):
            values = getattr(self, kind)
            if values and kind in table.column_names:
                found = pc.is_in(table[kind], pa.array(sorted(values), pa.string()))
                matched |= found.to_numpy(zero_copy_only=False)
        if self.domain:
            hosts = pc.struct_field(pc.extract_regex(table["uri"], HOST), "host")
            known = [host for host in pc.unique(hosts).to_pylist() if host and self._has_host(host)]
            matched |= pc.is_in(hosts, pa.array(known, pa.string())).to_numpy(zero_copy_only=False)
        return matched

    def _has_host(self, host: str) -> bool:
        labels = host.lower().rstrip(".").split(".")
        return any(".".join(labels[start:]) in self.domain for start in range(len(labels)))


def parse_rules(
    uris: Sequence[str] = (),
    domains: Sequence[str] = (),
    doc_ids: Sequence[str] = (),
    file: Path | None = None,
) -> list[Rule]:
    """The rules of a request, each once.

    Args:
        file: a list of further ones, one a line: an address, the id of a document, or `domain NAME` (`uri` and
            `doc_id` may stand in front as well); empty lines and what begins with # are passed over.

    Raises:
        InputError: nothing to take down, or a value that is none of its kind.
    """
    rules = [("uri", uri) for uri in uris] + [("domain", name) for name in domains]
    rules += [("doc_id", doc_id) for doc_id in doc_ids]
    checked = [_checked(kind, value, f"{kind}") for kind, value in rules]
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"file: {file} cannot be read as UTF-8 text ({error})") from None
        checked += [
            _rule_of(line.strip(), f"file: {file}, line {number}")
            for number, line in enumerate(lines, start=1)
            if line.strip() and not line.lstrip().startswith("#")
        ]
    if not checked:
        raise InputError("remove: nothing to take down; give --uri, --domain, --doc-id or --file")
    return list(dict.fromkeys(checked))


def _rule_of(line: str, where: str) -> Rule:
    kind, _, value = line.partition(" ")
    if kind in ("uri", "domain", "doc_id"):
        return _checked(kind, value.strip(), where)
    if DOC_ID.fullmatch(line):
        return "doc_id", line
    if "://" in line:
        return "uri", line
    raise InputError(
        f"{where}: {line[:100]!r} is no address and no id; write uri, domain or doc_id before it"
    )


def _checked(kind: str, value: str, where: str) -> Rule:
    if kind == "domain":
        value = value.lower().rstrip(".").removeprefix("*.")
        try:
            value = value.encode("idna").decode()
        except UnicodeError:
            value = ""
        if not DOMAIN.fullmatch(value):
            raise InputError(f"{where}: no domain of two parts or more, as in example.org")
    if kind == "doc_id" and not DOC_ID.fullmatch(value):
        raise InputError(f"{where}: {value[:100]!r} is no document id (32 hexadecimal digits)")
    if not value:
        raise InputError(f"{where}: an empty {kind}")
    return kind, value


# -------------------------------------------------------------------------------------------------------- the ledger


def ledger(corpus: Corpus) -> tuple[Rules, int | None]:
    """(All rules, the ledger's Delta version); (none, None) where nothing was ever taken down."""
    if not corpus.has_table(TABLE):
        return Rules(), None
    version = corpus.delta(TABLE).version()
    rows = corpus.whole(TABLE, version).to_table(columns=["kind", "value"])
    return Rules.of(zip(*(column.to_pylist() for column in rows.columns), strict=True)), version


def enter(corpus: Corpus, rules: Sequence[Rule], note: str) -> int:
    """Add the rules that the ledger lacks; return their number. From then on every new version complies."""
    known, _ = ledger(corpus)
    new = [(kind, value) for kind, value in rules if value not in getattr(known, kind)]
    if new:
        corpus.create_table(TABLE, schema.TAKEDOWNS)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        rows = [{"kind": kind, "value": value, "note": note, "created_at": now} for kind, value in new]
        write_deltalake(
            corpus.delta(TABLE), pa.Table.from_pylist(rows, schema=schema.TAKEDOWNS), mode="append"
        )
    return len(new)
