"""Remove exact and near-duplicate documents from any table with a column of texts.

  python -m data_pipeline.dedup --input 'pages/*.parquet' --id-column url --text-column text --output clean

Input: Parquet or JSON lines (files, folders, globs; local or s3://, gs://, https://), or a Delta table. Output:
  DIR/kept/*.parquet    the documents that stay, with all columns of the input
  DIR/removed.parquet   the others: id, duplicate_of (the document kept for it), similarity, cluster, reason

Documents are compared by their sets of shingles: runs of five words, or of five characters in scripts without spaces.
Two whose sets have a Jaccard similarity of --threshold or more are duplicates. 1.0 is the same text but for case,
spaces and punctuation; a changed word costs five shingles, so 0.8 is about one changed word in fifty; at 0.5 a third of
each text is its own. Of duplicates the longest stays, then the one with the smallest id. A document is removed only for
one that stays and that it was compared with, text against text.

The same input gives the same result on any number of cores or machines. With RAY_ADDRESS set the work runs on that
cluster, all of which must then reach --input and --output.

Exit codes: 0 done; 2 the input or an option is wrong (one line says what, and how to mend it); 1 anything else.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from data_pipeline.config import DedupConfig
from data_pipeline.errors import InputError, find_error

if TYPE_CHECKING:
    from data_pipeline.dedup.table import Outcome

# Without a terminal, progress is said so often.
PLAIN_SECONDS = 15.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the process's exit code."""
    try:
        run(_parse(argv))
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 1
    except Exception as error:
        found = find_error(error, InputError)
        if found is None:
            raise
        print(f"error: {' '.join(str(found).split())}", file=sys.stderr)
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are InputErrors."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; --help lists the options")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    defaults = DedupConfig()
    parser = _Parser(
        prog="python -m data_pipeline.dedup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="PATH", help="files, folders, globs, or Delta tables")
    add("--output", required=True, type=Path, metavar="DIR", help="folder for kept/ and removed.parquet")
    add("--text-column", default="text", metavar="NAME", help="column that is compared (default: text)")
    add(
        "--id-column",
        default="",
        metavar="NAME",
        help="column that names a document (default: file and place)",
    )
    add(
        "--threshold",
        type=float,
        default=defaults.threshold,
        metavar="S",
        help=f"similarity from which two documents are duplicates, 0.5 to 0.99 (default: {defaults.threshold})",
    )
    add(
        "--containment",
        type=float,
        default=defaults.containment,
        metavar="C",
        help="also remove excerpts: documents of whose shingles this share (0.5 to 1) is in a kept one (default: off)",
    )
    add(
        "--permutations",
        type=int,
        default=defaults.num_permutations,
        metavar="N",
        help=f"length of a signature; more finds more surely, and is slower (default: {defaults.num_permutations})",
    )
    add(
        "--shingle-size",
        type=int,
        default=defaults.shingle_size,
        metavar="N",
        help=f"words to a shingle (default: {defaults.shingle_size})",
    )
    add("--seed", type=int, default=defaults.seed, metavar="N", help="seed of the permutations (default: 1)")
    add(
        "--memory-gib",
        type=float,
        default=defaults.memory_bytes / 2**30,
        metavar="N",
        help="memory of the cluster for buckets; beyond it bands are compared in turn (default: 16)",
    )
    add("--json", action="store_true", help="the last line is a JSON object instead of a sentence")  # fmt: skip
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> None:
    """Deduplicate, and print the summary as the last line.

    Raises:
        InputError: what the user has to mend.
    """
    config = DedupConfig(
        threshold=options.threshold,
        containment=options.containment,
        num_permutations=options.permutations,
        shingle_size=options.shingle_size,
        seed=options.seed,
        memory_bytes=int(options.memory_gib * 2**30),
    )
    config.validate()
    from data_pipeline.cluster import ray_session, set_environment

    set_environment()
    from data_pipeline.dedup.bands import describe_bands
    from data_pipeline.dedup.table import check_output, dedup_table

    check_output(options.output)
    began = time.monotonic()
    print(describe_bands(config), file=sys.stderr)
    shown = _Progress()
    with tempfile.TemporaryDirectory(prefix="dedup-") as logs, ray_session(Path(logs) / "ray.log"):
        outcome = dedup_table(
            options.input, options.output, options.id_column, options.text_column, config, shown.say
        )
    shown.end()
    seconds = time.monotonic() - began
    if options.json:
        print(json.dumps({**asdict(outcome), "seconds": round(seconds, 1), "output": str(options.output)}))
    else:
        print(_sentence(outcome, options.output, seconds))


def _sentence(outcome: Outcome, output: Path, seconds: float) -> str:
    removed = outcome.num_exact + outcome.num_near
    skipped = f"; {outcome.num_skipped:,} comparisons left out" if outcome.num_skipped else ""
    return (
        f"kept {outcome.num_kept:,} of {outcome.num_documents:,} documents, removed {removed:,} ({outcome.num_exact:,} "
        f"exact, {outcome.num_near:,} near) in {outcome.num_clusters:,} clusters{skipped}: {output}/kept, "
        f"{output}/removed.parquet [{seconds:.1f} s]"
    )


class _Progress:
    """One line that changes in a terminal, a line now and then elsewhere; on standard error."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._said = time.monotonic()

    def say(self, line: str) -> None:
        """Show how far the work is."""
        line = "".join(char if char.isprintable() else "?" for char in line)
        if self._is_terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the line."""
        if self._is_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
