"""Personal data is found by kind, gives way to tags, and is counted; what only looks like it stays.

tests/data_pipeline/pii_cases.txt holds the labelled cases: one a line, each find as {{kind|what stands there}}, a
line feed as \\n. All of it is made up, with checksums that hold; a ~ in a key keeps scanners from taking it for one.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

from data_pipeline import staging
from data_pipeline.config import PII_KINDS, PrivacyConfig, RefreshConfig, SourceConfig
from data_pipeline.corpus import Corpus
from data_pipeline.errors import InputError
from data_pipeline.privacy import TAGS, find, mask, mask_text
from data_pipeline.privacy.identifiers import is_cn_id, is_iban, luhn
from data_pipeline.refresh import refresh
from data_pipeline.report import write_report
from data_pipeline.sources import Record
from tests.data_pipeline.made_inputs import HTML, page, prose, write_warc
from tests.data_pipeline.real_texts import real_texts

CASES = Path(__file__).with_name("pii_cases.txt")
LABEL = re.compile(r"\{\{(\w+)\|(.*?)\}\}", re.DOTALL)
Found = tuple[int, int, str]


def cases() -> Iterator[tuple[str, set[Found]]]:
    """(Text, what is to be found in it) of each labelled case."""
    for line in CASES.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("# "):
            text, labels, done = "", set(), 0
            line = line.replace("\\n", "\n")
            for match in LABEL.finditer(line):
                text += line[done : match.start()]
                value = match[2].replace("~", "")
                labels.add((len(text), len(text) + len(value), match[1]))
                text += value
                done = match.end()
            yield text + line[done:], labels


def test_precision_and_recall_over_the_labelled_cases() -> None:
    right, wrong, missed = Counter[str](), Counter[str](), Counter[str]()
    num_cases = num_negative = 0
    for text, labels in cases():
        found = set(find(text))
        right.update(kind for _, _, kind in found & labels)
        wrong.update(kind for _, _, kind in found - labels)
        missed.update(kind for _, _, kind in labels - found)
        for start, end, kind in sorted(found ^ labels):
            print(
                f"{'wrong' if (start, end, kind) in found else 'missed'} {kind}: {text[start:end]!r} in {text!r}"
            )
        num_cases += 1
        num_negative += not labels
    assert num_cases >= 500
    assert num_negative >= 200
    for kind in PII_KINDS:
        precision, recall = _share(right[kind], wrong[kind]), _share(right[kind], missed[kind])
        print(f"{kind:8s} {right[kind]:4d} found, precision {precision:.3f}, recall {recall:.3f}")
        assert right[kind] >= 20, "too few cases to say anything"
        assert min(precision, recall) >= 0.95
    precision, recall = _share(right.total(), wrong.total()), _share(right.total(), missed.total())
    print(f"all      {right.total():4d} found, precision {precision:.3f}, recall {recall:.3f}")
    assert min(precision, recall) >= 0.97


def _share(right: int, other: int) -> float:
    return right / (right + other)


@pytest.mark.parametrize(
    ("text", "masked", "counts"),
    [
        ("Write to a.b@mail-host.org or c@d.co.", "Write to <EMAIL> or <EMAIL>.", {"email": 2}),
        ("Tel. +49 30 901820, from 84.23.117.9", "Tel. <PHONE>, from <IP>", {"phone": 1, "ip": 1}),
        (
            "卡号 4111 1111 1111 1111，身份证11010519491231002X",
            "卡号 <CARD>，身份证<CN_ID>",
            {"card": 1, "cn_id": 1},
        ),
        ("IBAN DE89 3704 0044 0532 0130 00 BIC", "IBAN <IBAN> BIC", {"iban": 1}),
        ("nothing in 1.2.3.4 pages of 2019-05-12", "nothing in 1.2.3.4 pages of 2019-05-12", {}),
        ("", "", {}),
    ],
)
def test_each_find_gives_way_to_the_tag_of_its_kind(text: str, masked: str, counts: dict[str, int]) -> None:
    assert mask_text(text) == (masked, counts)
    assert mask_text(masked) == (masked, {}), "masking twice is masking once"


def test_only_the_kinds_asked_for_are_masked() -> None:
    text = "a@b.org, +49 30 901820, 84.23.117.9"
    assert mask_text(text, ["ip"])[0] == "a@b.org, +49 30 901820, <IP>"
    assert mask_text(text, ["phone", "email"])[0] == "<EMAIL>, <PHONE>, 84.23.117.9"
    assert mask_text(text, []) == (text, {})


def test_checksums_tell_a_number_from_one_with_a_digit_wrong() -> None:
    good = "4539578763621486"
    assert luhn(good)
    assert not any(
        luhn(good[:index] + str((int(good[index]) + 1) % 10) + good[index + 1 :]) for index in range(16)
    )
    assert is_iban("GB29NWBK60161331926819")
    assert not is_iban("GB29NWBK60161331926818")
    assert is_cn_id("11010519491231002X")
    assert is_cn_id("11010519491231002x")
    assert not is_cn_id("110105194912310021")
    assert not is_cn_id("11010519491331002X"), "there is no thirteenth month"
    assert not is_cn_id("99010519491231002X"), "there is no such region"


def test_finds_are_in_order_and_apart_and_masking_real_texts_twice_is_masking_once(shared_data: Path) -> None:
    total = Counter[str]()
    for text in real_texts(shared_data):
        found = find(text)
        assert all(left[1] <= right[0] for left, right in pairwise(found))
        assert all(0 <= start < end <= len(text) for start, end, _ in found)
        masked, counts = mask_text(text)
        total.update(counts)
        assert sum(masked.count(tag) - text.count(tag) for tag in TAGS.values()) == counts.total()
        assert mask_text(masked)[1] == {}
    assert total["email"] > 100
    assert total["phone"] > 20


def test_books_and_classics_lose_nothing(shared_data: Path) -> None:
    num_found = 0
    for path in sorted((shared_data / "books").glob("*/*.txt"))[::3]:
        text = path.read_text(encoding="utf-8", errors="replace")
        # Between Project Gutenberg's header and footer, whose addresses are real.
        num_found += len(find(text[20_000:-30_000]))
    assert num_found == 0


# -------------------------------------------------------------------------------------------------------- hostile text

HOSTILE = {
    "email": ["a@", "@", "a.b-", "a@b.com", "a(at)b.", " at a dot com", "[({<", " "],
    "phone": ["1", "1 ", "(0", "0(0)", "+1 ", "tel: 1234567 ", "010-62345678转", "call (", "[({<", " "],
    "ip": ["1.", "8.8.8.8 ", "123.123.123.123.", ":", "2001:", "2001::", "version 1.1.1.1 ", " "],
    "card": ["1", "4111 ", "4111111111111111 ", "://4111111111111111 ", "-", " "],
    "cn_id": ["1", "11010519491231002X", "11010519491231002 ", "x", " "],
    "iban": ["A", "AA00", "DE89 ", "DE89 3704 0044 ", "AA00AAAA", " "],
    "api_key": ["sk-", "eyJ", "eyJaaaaaaaaaaaaaa.", "api_key=", "-----BEGIN PRIVATE KEY-----", "=", " "],
}


@pytest.mark.parametrize("kind", PII_KINDS)
def test_hostile_text_takes_time_in_proportion(kind: str) -> None:
    for piece in HOSTILE[kind]:
        seconds = []
        for size in (100_000, 400_000):
            text = (piece * (size // len(piece) + 1))[:size]
            began = time.process_time()
            mask_text(text, [kind])
            seconds.append(time.process_time() - began)
        # Four times the text: quadratic time would be sixteen-fold.
        assert seconds[1] < 10 * seconds[0] + 0.5, (piece, seconds)


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["a@", "1", " ", "[({<", ":", "1 ", "2001:", "+1 "])
def test_a_hostile_megabyte_takes_a_second_and_four_take_four(piece: str) -> None:
    seconds = []
    for size in (1_000_000, 4_000_000):
        text = (piece * (size // len(piece) + 1))[:size]
        began = time.process_time()
        mask_text(text)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 10 * seconds[0] + 0.5


# ---------------------------------------------------------------------------------------------------------- the step

PII = "Ask jane.roe@uni-halle.de, {number}, or call +49 30 901820."


def _table(*texts: str) -> pa.Table:
    return pa.table(
        {"text": pa.array(texts, pa.string()), "title": pa.array(["by a@b.org", None], pa.string())}
    )


def test_counts_of_text_and_title_reach_the_table_as_json() -> None:
    masked = mask(_table(PII, "nothing"), PrivacyConfig(enabled=True))
    assert masked["text"].to_pylist() == ["Ask <EMAIL>, {number}, or call <PHONE>.", "nothing"]
    assert masked["title"].to_pylist() == ["by <EMAIL>", ""]
    assert masked["pii"].to_pylist() == ['{"email":2,"phone":1}', "{}"]


@pytest.mark.parametrize("config", [PrivacyConfig(enabled=False), PrivacyConfig(enabled=True, kinds=[])])
def test_where_nothing_is_looked_for_the_count_is_null(config: PrivacyConfig) -> None:
    table = _table(PII, "nothing")
    masked = mask(table, config)
    assert masked.drop_columns(["pii"]).equals(table)
    assert masked["pii"].null_count == 2


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        (SourceConfig(name="w", kind="web", paths=["x"]), True),
        (SourceConfig(name="b", kind="books", paths=["x"]), False),
        (SourceConfig(name="i", kind="wiki", paths=["x"]), False),
        (SourceConfig(name="f", kind="files", paths=["x"]), False),
        (SourceConfig(name="f", kind="files", paths=["x"], preset="web"), True),
        (SourceConfig(name="w", kind="web", paths=["x"], privacy=PrivacyConfig(enabled=False)), False),
        (SourceConfig(name="b", kind="books", paths=["x"], privacy=PrivacyConfig(enabled=True)), True),
        (SourceConfig(name="b", kind="books", paths=["x"], privacy=PrivacyConfig(kinds=["email"])), False),
    ],
)
def test_web_sources_are_masked_and_others_where_they_say_so(source: SourceConfig, wanted: bool) -> None:
    config = RefreshConfig(sources=[source])
    config.validate()
    assert config.of(source).privacy.enabled is wanted
    assert config.of(source).clean.stock_lines is (source.kind == "web" or source.preset == "web")


def test_an_unknown_kind_is_said() -> None:
    with pytest.raises(InputError, match=r"privacy\.kinds: 'name' is none of api_key"):
        RefreshConfig(privacy=PrivacyConfig(kinds=["email", "name"])).validate()


def test_whatever_becomes_of_a_document_its_sample_is_masked() -> None:
    source = SourceConfig(name="web", kind="web", paths=["x"])
    records = [
        Record("u:kept", prose(1) + " " + PII),
        Record("u:short", PII),
        Record("u:unread", PII, reason="http_status"),
        Record("u:page", f"<html><script>const mail = '{PII}'</script></html>", "html"),
    ]
    treatment = RefreshConfig(sources=[source]).of(source)
    rows = staging.process(staging.raw_table(records, 0, source, "x"), treatment).to_pylist()
    assert [row["stage"] for row in rows] == [None, "filter", "read", "extract"]
    for row in rows:
        assert "jane.roe" not in row["text"]
        assert json.loads(row["pii"]).keys() <= {"email", "phone"}


@pytest.mark.usefixtures("ray_cluster")
def test_a_refresh_masks_counts_and_reports(tmp_path: Path) -> None:
    pages = [
        (
            f"http://a.test/{seed}",
            "200 OK",
            HTML,
            page(f"{prose(seed)} CafÃ© {PII.format(number=seed)}", f"Page {seed}"),
        )
        for seed in range(1, 4)
    ]
    (tmp_path / "in").mkdir()
    write_warc(tmp_path / "in" / "a.warc.gz", [*pages, ("http://a.test/9", "200 OK", HTML, page(prose(9)))])
    (tmp_path / "in" / "rows.jsonl").write_text(json.dumps({"text": f"{prose(20)} {PII}"}))
    sources = [
        SourceConfig(name="web", kind="web", paths=[str(tmp_path / "in" / "a.warc.gz")]),
        SourceConfig(name="rows", kind="files", paths=[str(tmp_path / "in" / "rows.jsonl")]),
    ]
    corpus = Corpus(tmp_path / "corpus")
    version = refresh(corpus, RefreshConfig(sources=sources), tmp_path).version
    documents = corpus.scan("documents", version).to_table(columns=["source", "text", "pii"]).to_pylist()
    assert len(documents) == 5
    for row in documents:
        assert ("jane.roe" in row["text"]) == (row["source"] == "rows")
        assert (row["pii"] is None) == (row["source"] == "rows")
    found = [{"source": "web", "kind": kind, "count": 3, "num_documents": 3} for kind in ("email", "phone")]
    assert corpus.masked(version) == corpus.masked(version, only=True) == found
    evidence = corpus.evidence(version["version"]).read_text()
    assert "Caf" in evidence, "there is a repaired line to show"
    assert "jane.roe" not in evidence
    write_report(corpus, version, tmp_path / "report.html")
    report = (tmp_path / "report.html").read_text()
    assert "Personal data" in report
    assert "jane.roe" not in report
