"""Lines that recur over a host's pages are taken out of them, where that is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.config import DedupConfig, RefreshConfig, SourceConfig
from data_pipeline.corpus import Corpus
from data_pipeline.refresh import refresh
from data_pipeline.staging import doc_id
from data_pipeline.text_hash import text_hash
from data_pipeline.words import count_words
from tests.data_pipeline.made_inputs import prose

pytestmark = pytest.mark.usefixtures("ray_cluster")
MENU, NOTICE, RARE = (
    "Home | Products | About us",
    "All rights reserved by us, 2024.",
    "Read also: a story of ours.",
)


def pages() -> list[dict[str, str]]:
    """Twenty pages of one host with a menu and a notice, ten of another whose menu two pages have, and a text file."""
    rows = [
        {
            "id": f"https://one.test/{number}",
            "text": f"{MENU}\n{prose(number)}\n\n{NOTICE.upper() if number % 2 else NOTICE}",
        }
        for number in range(20)
    ]
    rows[3]["text"] += f"\n{RARE}"
    rows.append({"id": "https://one.test/empty", "text": f"{MENU}\n{NOTICE}"})
    rows += [
        {"id": f"https://two.test/{number}", "text": prose(30 + number) + (f"\n{MENU}" if number < 2 else "")}
        for number in range(10)
    ]
    return [*rows, {"id": "notes", "text": f"{MENU}\n{prose(50)}"}]


def run(
    folder: Path, dedup: DedupConfig, unit_bytes: int = 32 << 20
) -> tuple[dict[str, dict], dict[str, dict]]:
    """(kept rows, removed rows) by uri."""
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "rows.jsonl").write_text("\n".join(map(json.dumps, pages())))
    source = SourceConfig(name="rows", paths=[str(folder / "in")], uri_column="id", preset="permissive")
    corpus = Corpus(folder / "corpus")
    refresh(corpus, RefreshConfig(sources=[source], dedup=dedup, unit_bytes=unit_bytes), folder)
    return tuple(  # type: ignore[return-value]
        {row["uri"]: row for row in corpus.scan(table, corpus.at()).to_table().to_pylist()}
        for table in ("documents", "removed")
    )


def test_what_recurs_on_a_host_goes_and_the_rest_is_counted_and_signed_anew(tmp_path: Path) -> None:
    kept, removed = run(tmp_path, DedupConfig(boilerplate_share=0.3))
    for number in range(20):
        row = kept[f"https://one.test/{number}"]
        assert row["text"] == prose(number) + (f"\n\n{RARE}" if number == 3 else "")
        assert row["doc_id"] == doc_id("rows", row["uri"], row["text"])
        assert row["text_hash"] == text_hash(row["text"])
        assert (row["num_chars"], row["num_words"]) == (len(row["text"]), count_words(row["text"]))
    # Two pages of ten are too few, and a file has no host.
    assert MENU in kept["https://two.test/1"]["text"]
    assert MENU in kept["notes"]["text"]
    assert removed["https://one.test/empty"]["reason"] == "only_boilerplate"


def test_units_of_the_work_change_no_result(tmp_path: Path) -> None:
    config = DedupConfig(boilerplate_share=0.3)
    texts = [
        {uri: row["text"] for uri, row in run(tmp_path / name, config, unit_bytes=size)[0].items()}
        for name, size in (("c", 1 << 20), ("d", 1))
    ]
    assert texts[0] == texts[1]


def test_nothing_is_taken_out_unless_it_is_asked_for(tmp_path: Path) -> None:
    kept, removed = run(tmp_path, DedupConfig())
    assert MENU in kept["https://one.test/5"]["text"]
    assert removed == {}
