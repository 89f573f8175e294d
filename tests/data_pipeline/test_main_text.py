"""The main text of web pages: what is kept, what is left out, and how it compares on public benchmarks."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from benchmarks.extraction import SCRAPINGHUB, TRAFILATURA, load_gold, score
from data_pipeline.html.blocks import PageTooComplex
from data_pipeline.html.main_text import main_text
from tests.data_pipeline.made_inputs import prose

MODES = pytest.mark.parametrize("fast", [False, True])


def html(body: str) -> str:
    return f"<!doctype html><html><head><title>T</title></head><body>{body}</body></html>"


def paragraphs(count: int, first: int = 0) -> str:
    return "".join(f"<p>{prose(first + i, 40)}</p>" for i in range(count))


@MODES
def test_navigation_footers_and_comments_are_left_out(fast: bool) -> None:
    page = html(
        "<nav><a href=/>Home sweet home</a></nav>"
        "<div class='cookie-banner'><p>We value your privacy, accept all cookies now.</p></div>"
        f"<article><h1>A heading</h1>{paragraphs(4)}"
        "<div class='relatedPosts'><ul><li><a href=/x>Another story of ours</a></li></ul></div>"
        "<div class='share-buttons'>Share on everything</div></article>"
        "<div id='comments'><p>First! This is a comment of a reader.</p></div>"
        "<footer>Copyright somebody</footer>"
    )
    text = main_text(page, fast)
    assert text == "A heading\n\n" + "\n\n".join(prose(i, 40) for i in range(4))


@MODES
def test_lists_tables_code_and_headings_stay_readable(fast: bool) -> None:
    page = html(
        f"<div class='entry-content'>{paragraphs(3)}<h2>Steps</h2>"
        "<ul><li>One <b>bold</b> thing<p>and more of it</p></li><li>Two<ul><li>inner</li></ul></li></ul>"
        "<table><tr><th>Name</th><th>Size</th></tr><tr><td>atom</td><td>small</td></tr></table>"
        f"<pre>if x:\n    y()</pre><blockquote>Quoted words.</blockquote><p>Line one<br>line two</p>{paragraphs(1, 9)}</div>"
    )
    text = main_text(page, fast)
    for piece in (
        "\n\nSteps\n\n- One bold thing\nand more of it\n- Two\n- inner\n\n",
        "Name | Size\natom | small",
        "if x:\n    y()",
        "Quoted words.",
        "Line one\nline two",
    ):
        assert piece in text


def test_tables_that_only_lay_a_page_out_are_read_as_text() -> None:
    page = html(f"<table><tr><td><p>{prose(1, 60)}</p></td><td><p>{prose(2, 60)}</p></td></tr></table>")
    assert main_text(page) == f"{prose(1, 60)}\n\n{prose(2, 60)}"


def test_chinese_pages_lose_their_furniture_and_no_character() -> None:
    body = "".join(
        f"<p>第{i}段，这是一个关于春天的故事，讲述山间小镇里人们的生活与劳作。</p>" for i in range(12)
    )
    page = html(
        f"<div class='nav'><a>首页</a></div><div class='article-content'>{body}<p>责任编辑：某人</p></div>"
    )
    text = main_text(page)
    assert text.count("春天的故事") == 12
    assert "首页" not in text
    assert "责任编辑" not in text


def test_a_page_whose_text_lies_in_divs_or_behind_breaks_is_read() -> None:
    in_divs = html("<div id=main>" + "".join(f"<div>{prose(i, 40)}</div>" for i in range(3)) + "</div>")
    with_breaks = html("<div id=main>" + "<br><br>".join(prose(i, 40) for i in range(3)) + "</div>")
    expected = "\n\n".join(prose(i, 40) for i in range(3))
    assert main_text(in_divs) == main_text(with_breaks) == expected


@MODES
def test_a_wrapper_with_a_telling_name_does_not_hide_the_page(fast: bool) -> None:
    # A layout's class names the sidebar that it has; a form wraps whole pages of some frameworks.
    page = html(f"<form><div class='has-sidebar'><div class='menu-open'>{paragraphs(5)}</div></div></form>")
    assert prose(4, 40) in main_text(page, fast)


def test_what_json_ld_states_helps_a_page_that_scripts_would_fill() -> None:
    body = prose(1, 80)
    script = f'<script type="application/ld+json">{{"articleBody": "{body} \\u00e9<br>end"}}</script>'
    assert main_text(html(f"{script}<div id=app></div>")) == f"{body} é end"


def test_a_noscript_copy_counts_only_where_the_page_has_no_text_of_its_own() -> None:
    copy = f"<noscript>{paragraphs(3, 20)}</noscript>"
    assert prose(20, 40) in main_text(html(f"<div class='post'>{copy}</div>"))
    assert prose(20, 40) not in main_text(html(f"<article>{paragraphs(6)}{copy}</article>"))


@pytest.mark.parametrize(
    "page", ["", " ", "no markup at all", "<", "<!--", "<html></html>", "\x00", "<p>" * 300]
)
def test_odd_pages_are_no_error(page: str) -> None:
    assert isinstance(main_text(page), str)


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "<div>",
            "<p>a",
            "<a>",
            "<b>x",
            "<i></i>",
            "<p></p>",
            "<table><tr><td>a",
            "<ul><li>x",
            "<!--",
            "<!-- -->",
        ),
        *(
            "<script>",
            "<script></script>",
            "<svg>",
            "<nav></nav>",
            "<aside><nav>",
            "a<br>",
            "<figure>aaaa",
            "<div class='entry-content'>a</div>",
        ),
        *("<article>a</article>", "<span class=nav>a", "&amp;", "<nav>", "<p>read more ", "©"),
        '<script type=application/ld+json>"articleBody":"',
    ],
)
def test_hostile_pages_take_bounded_time(unit: str) -> None:
    page = (unit * (1 + (4 << 20) // len(unit)))[: 4 << 20]
    began = time.process_time()
    with contextlib.suppress(PageTooComplex):
        main_text(page)
    assert time.process_time() - began < 10


@pytest.mark.parametrize("attribute", [" a{}", "/a{}", " a{}='>'", ' a{}="<"', "\n<b a{}"])
def test_a_tag_with_too_many_attributes_is_refused_in_bounded_time(attribute: str) -> None:
    page = f"<div{''.join(attribute.format(i) for i in range(300_000))}>text</div>"
    began = time.process_time()
    with pytest.raises(PageTooComplex, match="attributes"):
        main_text(page)
    assert time.process_time() - began < 10
    few = f"<div{''.join(attribute.format(i) for i in range(1_000))}><p>{prose(1, 60)}</p></div>"
    assert main_text(few).endswith(prose(1, 60))


def test_public_benchmarks_are_read_at_least_as_well_as_by_the_best_extractor(shared_data: Path) -> None:
    gold = load_gold(shared_data / "web" / "html_gold")
    scores = score(gold, main_text)
    assert scores[SCRAPINGHUB]["all"]["f1"] >= 0.960
    assert scores[TRAFILATURA]["all"]["f1"] >= 0.918
    fast = score({SCRAPINGHUB: gold[SCRAPINGHUB]}, lambda page: main_text(page, fast=True))
    assert fast[SCRAPINGHUB]["all"]["f1"] >= 0.93
