"""Which documents count as copies, and of which other one; on a real Ray."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import ray.data

from data_pipeline import minhash
from data_pipeline.config import DedupConfig
from data_pipeline.dedup.candidates import LIMITS, MEMBER_COLUMNS, Limits, Members
from data_pipeline.dedup.duplicates import find_duplicates
from data_pipeline.dedup.verify import REMOVALS
from data_pipeline.engine import from_tables
from data_pipeline.minhash import jaccard, shingle_hashes
from data_pipeline.text_hash import text_hash
from tests.data_pipeline.made_inputs import prose, reworded

pytestmark = pytest.mark.usefixtures("ray_cluster")
CONFIG = DedupConfig(threshold=0.8)


@dataclass(frozen=True)
class Doc:
    id: str
    text: str
    rank: int = 0


def _table(docs: Sequence[Doc], keys: Sequence[int]) -> pa.Table:
    return pa.table(
        {
            "key": pa.array(keys, pa.int64()),
            "doc_id": pa.array([doc.id for doc in docs], pa.string()),
            "source": pa.array([f"s{doc.rank}" for doc in docs], pa.string()),
            "uri": pa.array([doc.id for doc in docs], pa.string()),
            "source_rank": pa.array([doc.rank for doc in docs], pa.int64()),
            "num_chars": pa.array([len(doc.text) for doc in docs], pa.int64()),
            "text_hash": pa.array([text_hash(doc.text) for doc in docs], pa.string()),
            "text": pa.array([doc.text for doc in docs], pa.string()),
            "signature": minhash.signatures(pa.array([doc.text for doc in docs], pa.string()), CONFIG),
        }
    )


def _chosen(table: pa.Table, wanted: pa.Table, columns: list[str]) -> pa.Table:
    """The rows of a table with wanted keys."""
    place = pc.index_in(wanted["key"], value_set=table["key"].combine_chunks())
    found = pc.is_valid(place)
    wanted, rows = wanted.filter(found), table.take(place.drop_null())
    for name in columns:
        wanted = wanted.append_column(name, rows[name])
    if "text" in columns and "needs_text" in wanted.column_names:
        text = pc.if_else(wanted["needs_text"], wanted["text"], "")
        wanted = wanted.set_column(wanted.schema.get_field_index("text"), "text", text)
    return wanted


def members_of(docs: Sequence[Doc], stored: Sequence[Doc] = (), blocks: int = 1) -> Members:
    """Documents in memory as deduplication takes them; keys are places in the lists."""
    size = max(1, -(-len(docs) // blocks))
    parts = [
        _table(docs[start : start + size], range(start, min(len(docs), start + size)))
        for start in range(0, len(docs), size)
    ]
    old = [_table(stored, range(-1, -1 - len(stored), -1))] if stored else []

    def load(wanted: pa.Table, columns: list[str]) -> ray.data.Dataset:
        return from_tables([_chosen(table, wanted, columns) for table in [*old, *parts]])

    return Members(
        new=from_tables([part.select(MEMBER_COLUMNS) for part in parts]),
        stored=from_tables([old[0].select(MEMBER_COLUMNS)]) if stored else None,
        num_new=len(docs),
        load=load,
    )


def removed(
    docs: Sequence[Doc],
    stored: Sequence[Doc] = (),
    blocks: int = 1,
    partitions: int = 2,
    config: DedupConfig = CONFIG,
    limits: Limits = LIMITS,
) -> dict[str, dict]:
    """{id of a removed document: its row}."""
    found = find_duplicates(members_of(docs, stored, blocks), config, partitions, limits).removals
    assert found.schema == REMOVALS
    rows = found.to_pylist()
    assert [row["row_id"] for row in rows] == sorted(row["row_id"] for row in rows)
    by_key = {**dict(enumerate(docs)), **{-1 - place: doc for place, doc in enumerate(stored)}}
    for row in rows:
        assert by_key[row.pop("keeper")].id == row["duplicate_of"]
    return {docs[row.pop("row_id")].id: row for row in rows}


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
    assert rows == {}


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


def _family(seed: int, size: int, num_words: int = 200) -> list[Doc]:
    """Near-copies of one text, exact copies among them."""
    text = prose(seed, num_words)
    near = [
        Doc(f"f{seed}-{number}", reworded(text, number % 4, number), number % 3) for number in range(size)
    ]
    return [*near, Doc(f"f{seed}-copy", near[0].text, 1), Doc(f"f{seed}-last", near[-1].text, 0)]


def test_limits_of_the_work_change_no_result() -> None:
    docs = [doc for seed in range(4) for doc in _family(seed, 12)] + [
        Doc(str(seed), prose(seed)) for seed in range(50, 60)
    ]
    expected = removed(docs)
    assert len(expected) > 30
    for limits in (
        Limits(group_rows=3, partition_rows=10),  # groups compared bucket by bucket
        Limits(edges=0),  # components by label propagation
        Limits(part_chars=3000),  # rounds by text
        Limits(round_rows=2, part_chars=10_000_000),  # rounds by number
        Limits(partition_rows=5),
    ):
        assert removed(docs, blocks=3, partitions=3, limits=limits) == expected, limits
    # Bands in turn, one at a time.
    bucket_rows = 48 * len(docs)
    in_turn = dataclasses.replace(CONFIG, memory_bytes=bucket_rows)
    assert removed(docs, config=in_turn) == expected


def test_the_order_of_the_documents_changes_no_result() -> None:
    docs = [doc for seed in range(5) for doc in _family(seed, 6)]
    expected = removed(docs)
    for seed in range(3):
        shuffled = docs.copy()
        random.Random(seed).shuffle(shuffled)
        assert removed(shuffled, blocks=seed + 1, partitions=seed + 1) == expected


def test_a_bucket_beyond_the_window_is_compared_in_part_and_that_is_counted() -> None:
    template = prose(9999, 300)
    docs = [Doc(f"p{number}", f"{template} {prose(number, 60)}") for number in range(40)]
    members = members_of(docs)
    everything = find_duplicates(members, CONFIG, 2)
    assert everything.num_skipped == 0
    few = find_duplicates(members, CONFIG, 2, Limits(window=3))
    assert few.num_skipped > 0
    for row in few.removals.to_pylist():
        text = {doc.id: doc.text for doc in docs}
        assert similarity(docs[row["row_id"]].text, text[row["duplicate_of"]]) >= CONFIG.threshold


def test_a_template_makes_one_group_of_which_no_text_is_read() -> None:
    template = prose(9999, 200)
    docs = [Doc(f"p{number}", f"{template} {prose(number, 150)}") for number in range(300)]
    found = find_duplicates(members_of(docs), CONFIG, 2)
    assert found.num_met > 50
    assert (found.num_read, found.removals.num_rows) == (0, 0)


def test_an_excerpt_is_removed_only_where_that_is_asked_for() -> None:
    words = prose(1, 600).split(" ")
    docs = [
        Doc("whole", " ".join(words)),
        Doc("excerpt", " ".join(words[100:450])),
        Doc("half", " ".join(words[:300] + prose(2, 300).split(" "))),
        Doc("other", prose(3, 400)),
    ]
    assert removed(docs) == {}
    rows = removed(docs, config=DedupConfig(containment=0.95))
    (excerpt,) = rows.values()
    assert set(rows) == {"excerpt"}
    assert (excerpt["reason"], excerpt["duplicate_of"], excerpt["threshold"]) == ("excerpt", "whole", 0.95)
    assert excerpt["value"] == 1.0
    assert excerpt["similarity"] == pytest.approx(similarity(docs[0].text, docs[1].text))


def test_copies_of_a_text_share_what_becomes_of_it() -> None:
    # The longest is kept; the equal texts go with it, each for the document that is kept.
    text = prose(1, 300)
    docs = [Doc("a", text), Doc("b", text), Doc("c", text.upper()), Doc("long", f"{text} and more words")]
    rows = removed(docs)
    assert {key: (row["stage"], row["duplicate_of"]) for key, row in rows.items()} == dict.fromkeys(
        "abc", ("near_dedup", "long")
    )


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
