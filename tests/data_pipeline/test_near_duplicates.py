"""Which documents count as copies, and of which other one; on a real Ray."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from data_pipeline import minhash
from data_pipeline.config import DedupConfig
from data_pipeline.dedup import MEMBER_COLUMNS, REMOVALS, TEXT_COLUMNS, Members, find_duplicates
from data_pipeline.engine import from_tables
from data_pipeline.minhash import jaccard, shingle_hashes
from data_pipeline.staging import text_hash
from tests.data_pipeline.made_inputs import prose, reworded

pytestmark = pytest.mark.usefixtures("ray_cluster")
CONFIG = DedupConfig(threshold=0.8)


@dataclass(frozen=True)
class Doc:
    id: str
    text: str
    rank: int = 0


def _table(docs: Sequence[Doc], first_key: int = 0) -> pa.Table:
    columns = {
        "key": pa.array(range(first_key, first_key + len(docs)), pa.int64()),
        "doc_id": pa.array([doc.id for doc in docs], pa.string()),
        "source_rank": pa.array([doc.rank for doc in docs], pa.int64()),
        "num_chars": pa.array([len(doc.text) for doc in docs], pa.int64()),
        "text_hash": pa.array([text_hash(doc.text) for doc in docs], pa.string()),
        "text": pa.array([doc.text for doc in docs], pa.string()),
        "signature": minhash.signatures(pa.array([doc.text for doc in docs], pa.string()), CONFIG),
    }
    return pa.table(columns).select(list(dict.fromkeys(MEMBER_COLUMNS + TEXT_COLUMNS)))


def removed(
    docs: Sequence[Doc],
    stored: Sequence[Doc] = (),
    blocks: int = 1,
    partitions: int = 2,
    config: DedupConfig = CONFIG,
) -> dict[str, dict]:
    """{id of a removed document: its row}."""
    size = -(-len(docs) // blocks)
    parts = [_table(docs[start : start + size], start) for start in range(0, len(docs), size)]
    old = _table(sorted(stored, key=lambda doc: doc.id))
    members = Members(
        new=from_tables(parts),
        stored=old.select(["doc_id", "text_hash", "signature"]),
        stored_texts=from_tables([old.drop_columns(["key", "signature"])]) if stored else None,
    )
    found = find_duplicates(members, config, partitions)
    assert found.schema == REMOVALS
    rows = found.to_pylist()
    assert [row["row_id"] for row in rows] == sorted(row["row_id"] for row in rows)
    return {docs[row["row_id"]].id: row for row in rows}


def similarity(left: str, right: str) -> float:
    return jaccard(shingle_hashes(left, CONFIG.shingle_size), shingle_hashes(right, CONFIG.shingle_size))


def test_exact_copies_leave_one_whatever_their_case_and_spaces() -> None:
    text = prose(1)
    docs = [Doc("b", text), Doc("a", text), Doc("c", text.upper().replace(" ", "\n")), Doc("other", prose(2))]
    rows = removed(docs)
    assert {key: (row["reason"], row["stage"], row["duplicate_of"]) for key, row in rows.items()} == {
        "b": ("exact_duplicate", "exact_dedup", "a"),
        "c": ("exact_duplicate", "exact_dedup", "a"),
    }
    assert rows["b"]["similarity"] == 1.0
    assert rows["b"]["threshold"] is None


def test_near_copies_are_removed_with_their_true_similarity() -> None:
    text = prose(1, 400)
    near = reworded(text, 5)
    truth = similarity(text, near)
    assert 0.8 < truth < 0.95
    # The keeper is the longer one.
    (row,) = removed([Doc("a", text), Doc("b", near), Doc("other", prose(2, 400))]).values()
    keeper = "a" if len(text) > len(near) else "b"
    assert row["duplicate_of"] == keeper
    assert (row["stage"], row["reason"], row["threshold"]) == ("near_dedup", "near_duplicate", 0.8)
    assert row["similarity"] == row["value"] == pytest.approx(truth)


def test_below_the_threshold_nothing_is_removed() -> None:
    text = prose(1, 400)
    other = reworded(text, 14)
    assert 0.6 < similarity(text, other) < 0.8
    assert removed([Doc("a", text), Doc("b", other)]) == {}
    assert len(removed([Doc("a", text), Doc("b", other)], config=DedupConfig(threshold=0.6))) == 1


def test_the_ends_of_a_chain_of_look_alikes_are_both_kept() -> None:
    words = prose(1, 440).split(" ")
    # B shares most with A and most with C, but A and C part at both ends; B is the longest and so the keeper.
    a, b, c = " ".join(words[:400]), " ".join(words[:440]), " ".join(words[40:440])
    assert similarity(a, b) > 0.8
    assert similarity(b, c) > 0.8
    assert similarity(a, c) < 0.85
    strict = DedupConfig(threshold=0.85)
    assert set(removed([Doc("a", a), Doc("b", b), Doc("c", c)], config=strict)) == {"a", "c"}
    # Where the middle has the lowest rank it goes, and nothing else does.
    rows = removed([Doc("a", a, 0), Doc("b", b, 2), Doc("c", c, 1)], config=strict)
    assert set(rows) == {"b"}


def test_a_document_is_removed_only_for_one_that_is_kept_and_like_it() -> None:
    rng = random.Random(7)
    words = prose(3, 500).split(" ")
    docs = []
    for number in range(12):
        start = number * 12
        docs.append(Doc(f"d{number:02d}", " ".join(words[start : start + 300]), rng.randint(0, 2)))
    rows = removed(docs)
    text = {doc.id: doc.text for doc in docs}
    assert rows
    for doc_id, row in rows.items():
        assert row["duplicate_of"] not in rows
        assert row["similarity"] == pytest.approx(similarity(text[doc_id], text[row["duplicate_of"]]))
        assert row["similarity"] >= CONFIG.threshold


@pytest.mark.parametrize(
    ("docs", "keeper"),
    [
        ([("z", 0, ""), ("a", 1, " more words here")], "z"),  # source priority before length
        ([("z", 1, " more words here"), ("a", 1, "")], "z"),  # then the longest
        ([("z", 1, ""), ("a", 1, "")], "a"),  # then the smallest id
    ],
)
def test_the_keeper_is_chosen_by_rule(docs: list[tuple[str, int, str]], keeper: str) -> None:
    text = prose(1, 300)
    rows = removed([Doc(name, text + more, rank) for name, rank, more in docs])
    assert set(rows) == {name for name, _, _ in docs} - {keeper}


def test_long_texts_that_share_boilerplate_are_all_kept() -> None:
    licence = prose(99, 300)
    docs = [Doc(f"book{number}", f"{licence}\n\n{prose(number, 1500)}\n\n{licence}") for number in range(8)]
    assert removed(docs) == {}


def test_texts_without_words_do_not_trip_anything() -> None:
    rows = removed([Doc("a", "!!!"), Doc("b", "???"), Doc("c", ""), Doc("d", prose(1))])
    assert "d" not in rows
    assert len(rows) <= 2


def test_chinese_near_copies_are_found() -> None:
    rng = random.Random(1)
    text = "".join(chr(rng.randint(0x4E00, 0x5FFF)) for _ in range(500))
    near = f"{text[:200]}甲{text[201:]}"
    assert set(removed([Doc("a", text), Doc("b", near), Doc("c", text[::-1])])) == {"b"}


def test_the_result_does_not_depend_on_blocks_and_partitions() -> None:
    docs = []
    for number in range(30):
        text = prose(number, 200)
        docs.append(Doc(f"d{number}", text, number % 3))
        if number % 3 == 0:
            docs.append(Doc(f"n{number}", reworded(text, 3), number % 2))
        if number % 5 == 0:
            docs.append(Doc(f"c{number}", text, 1))
    results = [removed(docs, blocks=blocks, partitions=parts) for blocks, parts in ((1, 1), (3, 4), (7, 2))]
    assert len(results[0]) == 16
    assert results[0] == results[1] == results[2]


def test_without_a_pair_there_is_nothing_to_remove() -> None:
    assert removed([Doc("a", prose(1))]) == {}
    assert removed([Doc(str(seed), prose(seed)) for seed in range(5)]) == {}


# ------------------------------------------------------------------------------------------- against the corpus


def test_a_stored_document_is_always_the_keeper() -> None:
    text = prose(1, 300)
    stored = [Doc("old", reworded(text, 3), 5), Doc("older", prose(2, 300), 5)]
    rows = removed([Doc("new", text + " and some more words", 0), Doc("fresh", prose(3, 300))], stored)
    assert {key: row["duplicate_of"] for key, row in rows.items()} == {"new": "old"}
    rows = removed([Doc("copy", prose(2, 300), 0)], stored)
    assert (rows["copy"]["reason"], rows["copy"]["duplicate_of"]) == ("exact_duplicate", "older")


def test_stored_documents_are_never_removed_even_where_they_are_alike() -> None:
    text = prose(1, 300)
    stored = [Doc("s1", text), Doc("s2", text), Doc("s3", reworded(text, 2))]
    rows = removed([Doc("n1", text), Doc("n2", prose(2))], stored)
    assert set(rows) == {"n1"}
    assert rows["n1"]["duplicate_of"] in {"s1", "s2"}


def test_new_documents_are_compared_with_each_other_as_well() -> None:
    rows = removed([Doc("n1", prose(5)), Doc("n2", prose(5))], [Doc("s1", prose(6))])
    assert {key: row["duplicate_of"] for key, row in rows.items()} == {"n2": "n1"}


def test_planted_near_duplicates_of_a_real_collection_are_found(shared_data: Path) -> None:
    path = shared_data / "dup" / "mccormick-articles_1000.train"
    docs = [
        Doc(*line.split(" ", 1)) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    truth = [line.split() for line in path.with_suffix(".truth").read_text().splitlines() if line.strip()]
    rows = removed(docs, blocks=2, config=DedupConfig(threshold=0.6))
    found = {frozenset((doc_id, row["duplicate_of"])) for doc_id, row in rows.items()}
    assert found == {frozenset(pair) for pair in truth}
