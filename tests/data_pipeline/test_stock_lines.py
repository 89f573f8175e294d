"""Lines that pages repeat go, whole lines only; what reads like them stays."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from data_pipeline.clean import clean_text
from data_pipeline.config import CleanConfig
from data_pipeline.patterns import linear
from data_pipeline.stock_lines import MAX_LINE_CHARS, PATTERN, RULES, is_stock_line, without_stock_lines
from tests.data_pipeline.real_texts import real_texts

REPEATED = [
    *(
        "Read more",
        "READ MORE »",
        "[Read more...]",
        "Continue reading →",
        "Skip to main content",
        "Back to top",
    ),
    *("Click here to read more", "View all posts by admin", "Toggle navigation", "Advertisement"),
    *("Story continues below advertisement", "Read the full article"),
    *(
        "Share this:",
        "Share this post",
        "Share on Facebook",
        "Click to share on Twitter (Opens in new window)",
    ),
    *("Follow us on Instagram", "Facebook Twitter LinkedIn Email Print", "Share: Facebook Twitter Pinterest"),
    *(
        "Like this:",
        "Like Loading...",
        "Subscribe to our newsletter",
        "Sign up for our free daily newsletter!",
    ),
    "This website uses cookies to improve your experience. We'll assume you're ok with this.",
    "We use cookies to ensure that we give you the best experience on our website.",
    "By continuing to browse the site you are agreeing to our use of cookies.",
    *("Accept all cookies", "Cookie settings", "Manage cookies"),
    "Please enable JavaScript to view the comments powered by Disqus.",
    "JavaScript is disabled in your browser. Please enable it for full functionality.",
    "Your browser does not support the video tag.",
    "You are using an outdated browser. Please upgrade your browser to improve your experience.",
    "This site requires JavaScript to run correctly.",
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor.",
    *("阅读全文", "点击查看更多", "【返回顶部】", "分享到：", "分享到微信朋友圈", "加载更多评论"),
    "打开微信，使用“扫一扫”即可将网页分享至朋友圈。",
    *(
        "您的浏览器版本过低，请升级浏览器后访问。",
        "请启用JavaScript后继续",
        "本网站使用Cookie以改善您的体验。",
    ),
    *("Weiterlesen …", "Mehr erfahren", "Auf Facebook teilen", "Diese Website verwendet Cookies."),
    *("Lire la suite", "En savoir plus", "Ce site utilise des cookies pour améliorer votre expérience."),
    *("Leer más", "Este sitio web utiliza cookies propias y de terceros.", "Leggi tutto", "Leia mais"),
    *(
        "Lees verder",
        "Читать далее",
        "Мы используем файлы cookie, чтобы сайт работал лучше.",
        "続きを読む",
        "더보기",
    ),
]
PROSE = [
    *("More", "Share", "Menu", "Tweet", "Print", "Email", "Home", "Next", "Loading", "Subscribe", "Cookies"),
    *("read more than one book a week", "I read more.", "Read more books, watch fewer films", "more"),
    *(
        "# Read more",
        "* Facebook Twitter",
        "// share this",
        "- Advertisement for a house",
        "Advertisement of the author",
    ),
    *("Facebook, Twitter, Email", "Facebook | Twitter", "Facebook", "Twitter and Facebook are networks"),
    *("print email", ">>> print(email)", "share: true", "javascript: void(0)", "x | x | x", "cookies = []"),
    "The cookies were still warm when she opened the tin.",
    "Cookies are small files, and this website explains how they came about.",
    "JavaScript is a language that browsers run.",
    "We use knives to cut bread and we use forks to eat.",
    "He said that by continuing to walk they would agree on a way.",
    "“Lorem ipsum” is what printers set when they have no text.",
    *(
        "他打开微信，看了一眼又放下。",
        "我们使用工具来工作。",
        "更多的人来了。",
        "分享是一种快乐。",
        "全文共三章。",
    ),
    *("Mehr Licht!", "Voir la mer", "Más vale tarde que nunca", "Leggi la lettera", "Далее мы читали молча."),
]


@pytest.mark.parametrize("line", REPEATED)
def test_a_line_that_pages_repeat_goes(line: str) -> None:
    assert is_stock_line(line)
    assert linear(PATTERN).search(f"before\n{line}\nafter"), "the screen must see it, too"
    assert without_stock_lines(f"before\n{line}\nafter") == "before\nafter"


@pytest.mark.parametrize("line", PROSE)
def test_a_line_of_prose_code_or_a_table_stays(line: str) -> None:
    assert not is_stock_line(line)
    assert without_stock_lines(f"before\n{line}\nafter") == f"before\n{line}\nafter"


def test_a_long_line_is_prose_whatever_it_begins_with() -> None:
    assert is_stock_line("We use cookies " + "x " * 50)
    assert not is_stock_line("We use cookies " + "x " * MAX_LINE_CHARS)


def test_the_gap_that_a_line_leaves_is_closed() -> None:
    text = "First paragraph.\n\nRead more\n\n\nSecond paragraph.\n\nShare this:"
    assert clean_text(text, CleanConfig(stock_lines=True)) == "First paragraph.\n\n\nSecond paragraph."
    assert clean_text(text, CleanConfig(stock_lines=False)) == text


def test_the_screen_sees_every_real_line_that_goes_and_books_lose_none(shared_data: Path) -> None:
    screen = linear(PATTERN)
    for text in real_texts(shared_data):
        if not screen.search(text):
            assert without_stock_lines(text) == text
    for path in sorted((shared_data / "books").glob("*/*.txt"))[::4]:
        text = path.read_text(encoding="utf-8", errors="replace")[:200_000]
        assert [line for line in text.split("\n") if is_stock_line(line)] == []


@pytest.mark.parametrize(
    "piece",
    [
        " ",
        ">",
        "we use cookies ",
        "cookies ",
        "facebook ",
        "share this post ",
        "by using agree cookies ",
        "read more",
        "[",
        "扫一扫",
        "lorem ipsum dolor ",
    ],
)
def test_hostile_lines_take_time_in_proportion(piece: str) -> None:
    screen = linear(PATTERN)
    seconds = []
    for size in (1_000_000, 4_000_000):
        text = (piece * (size // len(piece) + 1))[:size]
        began = time.process_time()
        screen.search(text)
        without_stock_lines(text)
        seconds.append(time.process_time() - began)
    # Quadratic time would be sixteen-fold.
    assert seconds[1] < 10 * seconds[0] + 0.5


def test_no_rule_matches_an_empty_line_or_a_single_letter() -> None:
    for rule in RULES:
        pattern = linear(f"(?i:{rule})")
        assert not pattern.fullmatch("")
        assert not any(pattern.fullmatch(char) for char in "abcxyz019更多")
