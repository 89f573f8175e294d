"""The data report in a real browser: it opens from disk without a complaint, fits a phone, and runs nothing."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

from data_pipeline.config import RefreshConfig, SourceConfig
from data_pipeline.corpus import Corpus
from data_pipeline.refresh import refresh
from data_pipeline.report import write_report
from tests.browser import opened
from tests.data_pipeline.made_inputs import HTML, page, prose, reworded, write_warc

RAN = "document.documentElement.setAttribute('data-ran', 1)"
# Texts that run, load or restyle something wherever they get into a page unescaped.
HOSTILE = [
    f"<script>{RAN}</script>",
    f"</title></style></textarea></noscript><script>{RAN}</script>",
    f'<img src=x onerror="{RAN}">',
    f'\'"><svg onload="{RAN}"></svg>',
    f'<svg><animate onbegin="{RAN}" attributeName=x dur=1s></svg><svg><style></svg><script>{RAN}</script>',
    f'<iframe srcdoc="<script>parent.{RAN}</script>"></iframe><object data="javascript:{RAN}"></object>',
    f'<a href="javascript:{RAN}" autofocus onfocus="{RAN}" tabindex=0>link</a><details open ontoggle="{RAN}">',
    "</style><style>body { display: none } @import url(http://127.0.0.1:9/x.css);</style>",
    "<link rel=stylesheet href=http://127.0.0.1:9/x.css><base href=http://127.0.0.1:9/><meta http-equiv=refresh content=0>",
    "{{ 7*7 }}{% raw %}{# #}${7*7}<!-- ]]> --><![CDATA[",
    "\u202eright to left\u2066 \u2067 and never back \u200f\u200b\ufeff",
    "Zalgo " + "Z" + "\u0300" * 400,
    "one line " + "x" * 1_000_000,
    "&lt;script&gt;" + "&amp;" * 50,
]


def with_script(report: Path, script: str, path: Path) -> Path:
    """The report without its policy and with a script of ours, to measure it by."""
    text = report.read_text(encoding="utf-8")
    text, count = re.subn(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text)
    assert count == 1
    path.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """The report of a refresh over pages and rows whose texts, titles, names and addresses are hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    pages = [
        (
            f"http://h{number}.test/?q={text[:500]}",
            "200 OK",
            HTML,
            page(f"{prose(number)}\n\n{text}", text[:500]),
        )
        for number, text in enumerate(HOSTILE)
    ]
    pages += [(f"http://near.test/{n}", "200 OK", HTML, page(f"{reworded(prose(n), 1)}\n\n{HOSTILE[n]}", HOSTILE[n][:500]))
              for n in range(5)]  # fmt: skip
    pages.append(
        ("http://broken.test/", "200 OK", HTML, b"<p>" + "cafÃ© ".encode() * 3 + HOSTILE[1].encode())
    )
    write_warc(folder / "pages.warc.gz", pages)
    rows = [{"text": text, "id": text[:500]} for text in HOSTILE]
    rows += [
        {"text": f"{text} {prose(50 + number)} cafÃ©", "id": text[:500]}
        for number, text in enumerate(HOSTILE)
    ]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n{bad\n")
    # A source's name is checked, a file's is not.
    (folder / "<img src=x onerror=document.title=1>.jsonl").write_text('{"text": 5}\n' * 3)
    sources = [
        SourceConfig(name="web", kind="web", paths=[str(folder / "pages.warc.gz")]),
        SourceConfig(name="rows", paths=[str(folder / "rows.jsonl")], preset="web", uri_column="id"),
        SourceConfig(name="odd", paths=[str(folder / "<img src=x onerror=document.title=1>.jsonl")]),
    ]
    corpus = Corpus(folder / "corpus")
    version = refresh(corpus, RefreshConfig(sources=sources), folder).version
    write_report(corpus, version, folder / "report.html")
    return folder / "report.html"


def test_a_script_and_a_complaint_would_be_seen(browser: str, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(
        f"<p>text<script>{RAN}; console.error('a complaint'); undefined_thing()</script>"
    )
    elements, console = opened(browser, tmp_path / "bad.html", tmp_path / "profile")
    assert "data-ran" in elements
    assert len(console) == 2
    assert "a complaint" in console[0]


def test_the_hostile_texts_run_where_they_are_not_escaped(browser: str, tmp_path: Path) -> None:
    for number, text in enumerate(HOSTILE[:4]):
        (tmp_path / f"{number}.html").write_text(f"<p>{text}</p>")
        elements, _ = opened(browser, tmp_path / f"{number}.html", tmp_path / "profile")
        assert "data-ran=" in elements.partition(">")[0] + elements.partition("<head")[0], text


def test_nothing_of_a_document_runs_and_the_console_stays_empty(
    browser: str, report: Path, tmp_path: Path
) -> None:
    # The texts are in the report, as text.
    content = report.read_text(encoding="utf-8")
    assert content.count("&lt;script&gt;") >= 10
    elements, console = opened(browser, report, tmp_path / "profile")
    assert console == []
    assert elements[elements.index("<html") :].partition(">")[0] == '<html lang="en"'
    assert "<title>Data report, corpus version 1</title>" in elements
    for tag in ("script", "iframe", "object", "img", "base", "animate"):
        assert f"<{tag}" not in elements


def test_even_an_injected_script_or_style_could_do_nothing(
    browser: str, report: Path, tmp_path: Path
) -> None:
    injected = f"<script>{RAN}</script><img src=x onerror=\"{RAN}\"><style>html {{ color: red }}</style><p style='color: red'>"
    (tmp_path / "r.html").write_text(
        report.read_text(encoding="utf-8").replace("<main>", f"<main>{injected}")
    )
    elements, console = opened(browser, tmp_path / "r.html", tmp_path / "profile")
    assert "data-ran=" not in elements[elements.index("<html") :].partition(">")[0]
    assert len(console) == 5  # the script, the picture and its handler, the style and the attribute
    assert all("Content Security Policy" in line for line in console)


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_never_scrolls_sideways(browser: str, report: Path, tmp_path: Path, width: int) -> None:
    # In a frame, since a browser without a screen has no window as narrow as a phone.
    script = (
        "document.querySelectorAll('details').forEach(part => { part.open = true });"
        "parent.document.title = `${innerWidth} ${document.documentElement.scrollWidth}`"
    )
    inner = with_script(report, script, tmp_path / "inner.html").read_text(encoding="utf-8")
    frame = f"<iframe width={width} height=900 style='border: 0' srcdoc=\"{html.escape(inner)}\"></iframe>"
    (tmp_path / "outer.html").write_text(f"<!doctype html><title>none</title>{frame}", encoding="utf-8")
    elements, _ = opened(browser, tmp_path / "outer.html", tmp_path / "profile")
    assert f"<title>{width} {width}</title>" in elements, elements[:200]


def test_links_lead_to_sections_and_no_style_is_refused(browser: str, report: Path, tmp_path: Path) -> None:
    script = (
        "document.title = [...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash)) + ' ' +"
        "getComputedStyle(document.querySelector('.tiles')).display"
    )
    elements, console = opened(
        browser, with_script(report, script, tmp_path / "r.html"), tmp_path / "profile"
    )
    assert "<title>true grid</title>" in elements
    assert console == []
