"""What an element's tag, class and id say about its role on a page.

Class names are split into words (entryContent, entry_content and entry-content are the same), and words that web
designers use for furniture mark it. The lists were tuned on one half of two public extraction benchmarks and
measured on the other (benchmarks/extraction.py).
"""

from __future__ import annotations

import re
from functools import lru_cache

# Marks on a part of a page. FURNITURE and TEASER are doubted when they would take most of the page.
FURNITURE, TEASER, CAPTION, LINKS, COMMENTS, FORM, NOSCRIPT = (1 << bit for bit in range(7))

# Holds no text to read.
UNREADABLE = frozenset(
    ("script", "style", "template", "svg", "canvas", "audio", "video", "source", "track", "embed",
     "img", "object", "applet", "param", "iframe", "frame", "frameset", "noindex", "head", "link", "math",
     "map", "area", "input", "select", "option", "optgroup", "datalist", "textarea", "button",
     "label", "legend", "progress", "output", "rp", "rt", "rtc", "use")
)  # fmt: skip
# Is not the main text.
ASIDE = UNREADABLE | frozenset(
    ["aside", "footer", "nav", "menu", "menuitem", "dialog", "picture", "marquee", "fieldset", "time"]
)
BLOCKS = frozenset(
    ("address", "article", "aside", "blockquote", "body", "center", "dd", "details", "dialog",
     "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3",
     "h4", "h5", "h6", "header", "hgroup", "hr", "html", "li", "main", "menu", "nav", "noscript",
     "ol", "p", "picture", "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th",
     "thead", "tr", "ul")
)  # fmt: skip
MARKABLE = frozenset(["div", "li", "ul", "ol", "dl", "p", "section", "span", "table", "header", "details"])
COMMENTABLE = frozenset(["div", "li", "ul", "ol", "dl", "section", "details"])
FRAMES = frozenset(["article", "div", "main", "section"])


WORD = re.compile("[a-z]+")
FURNITURE_WORDS = frozenset(
    WORD.findall(
        # the way around the site
        "nav navs navi navbar navbox navigation subnav submenu menu menus pagination pager paging prev previous next "
        "toc toolbar dropdown masthead topbar skip foot footer footers colophon copyright legal side sidebar sidebars "
        "rail aside banner banners widget widgets textwidget bar "
        # who and when
        "author authors byline bylines bio avatar timestamp dateline profile credit credits "
        # the networks
        "share sharing shares sharedaddy sharethis addthis addtoany social socials sociable viral follow like likes "
        "tweet facebook twitter whatsapp pinterest jp jetpack "
        # other pages of the site
        "related yarpp popular trending recent recommended recommendation recommendations readmore stories promo "
        "promos cta upsell "
        # what the site wants
        "newsletter newsletters subscribe subscription subscriptions signup signin login register paywall premium "
        "donate donation syndication cookie cookies consent gdpr privacy disclaimer modal overlay popup lightbox "
        "notice permission tooltip ad ads adv advert adverts advertisement advertising adsense dfp sponsor sponsored "
        "taboola outbrain criteo "
        # labels and switches
        "tag tags taglist tagcloud categories cat cats taxonomy meta postmeta postinfo metadata rating ratings vote "
        "votes icon icons button buttons btn toggle rss options "
        # not for the eye
        "noprint visuallyhidden expand collapsed placeholder editsection "
        # media
        "embed embedded embeds slide slides slider slideshow carousel gallery attachment viewport player video"
    )
)
# Names of several words, and parts of names.
FURNITURE_NAMES = re.compile(
    "(?:bread-crumbs?|user-info|most-(?:read|viewed|shared)|more-(?:on|from|news|articles)|read-more|also-like"
    "|see-also|sign-up|paid-content|category-list|hide-print|print-only|screen-reader-text|sr-only|visually-hidden)"
    "(?![a-z])"
    "|navigation|navbar|sidebar|footer|newsletter|breadcrumb|outbrain|taboola|advert|shariff"
    "|share(?:bar|box|buttons?|links?)|social(?:bar|links?|icons?|media)"
    "|related(?:posts?|articles?|content|links?|news)|cookie(?:bar|consent|banner|notice)"
    "|author(?:box|info|bio|name)|metadata$",
    re.MULTILINE,
)
# Whole class names: overflow-hidden and md:hidden hide nothing.
HIDDEN_CLASSES = frozenset(("hidden", "hide", "invisible", "is-hidden", "is-hide", "is-invisible"))
HIDDEN_STYLE = re.compile(r"display:\s?none")
CAPTION_WORDS = frozenset(("caption", "captions"))
CAPTION_END = re.compile("caption$", re.MULTILINE)
COMMENT_WORDS = frozenset(
    ("commentlist", "commentform", "respond", "disqus", "dsq", "comol", "discussion", "replies", "comment")
)
# WordPress names an article's tags and categories in its class.
LABELS = ("tag-", "category-", "status-", "type-", "format-")
CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")

# Likely frames of the main text, the likeliest first; an <article> comes second, a <main> last.
TEXT_BODY = re.compile(
    r"(?:article|entry|post|story|page|text|blog|art|news)-?(?:body|content|text|inner|copy|entry)(?![a-z])"
    r"|articlecontent|body-?text|post-?inner"
)
POST = re.compile(
    r"(?:theme|blog|section|single|field)-(?:content|body)|main-column|wpb-text-column|fulltext|single-post|^article |^primary",
    re.MULTILINE,
)
CONTENT = re.compile(r"content-?(?:main|body)|main-?content|page-content")


@lru_cache(1 << 14)
def hints_of(
    tag: str,
    class_: str | None,
    id_: str | None,
    role: str | None,
    style: str | None,
    itemprop: str | None,
    hidden: str | None,
) -> tuple[int, int]:
    """What an element's names say of what it holds.

    Returns:
        (marks, rank as the frame of the main text: 1 is the likeliest, 5 the last resort, 0 is none).
    """
    classes = class_.split() if class_ else []
    id_ = _spelled(id_) if id_ else ""
    marks = {"form": FORM, "noscript": NOSCRIPT}.get(tag, 0)
    if hidden == "true" or not HIDDEN_CLASSES.isdisjoint(classes) or (style and HIDDEN_STYLE.search(style)):
        marks |= FURNITURE
    if tag in MARKABLE:
        names = "\n".join(
            (_spelled(" ".join([name for name in classes if not name.startswith(LABELS)])), id_)
        )
        marks |= _marks(names, tag)
        if role and "nav" in role.lower():
            marks |= FURNITURE
    if tag not in FRAMES:
        return marks, 0
    return marks, _frame_rank(tag, _spelled(" ".join(classes)), id_, (role or "").lower(), itemprop)


def _marks(names: str, tag: str) -> int:
    """Marks of an element by the names in its class and id, a line each."""
    words = WORD.findall(names)
    marks = 0
    if not FURNITURE_WORDS.isdisjoint(words) or FURNITURE_NAMES.search(names):
        marks |= FURNITURE
    if "teaser" in names:
        marks |= TEASER
    if "caption" in names and (not CAPTION_WORDS.isdisjoint(words) or CAPTION_END.search(names)):
        marks |= CAPTION
    if tag in COMMENTABLE and ("comments" in names or not COMMENT_WORDS.isdisjoint(words)):
        marks |= COMMENTS
    return marks


def _frame_rank(tag: str, class_: str, id_: str, role: str, itemprop: str | None) -> int:
    names = f"{class_}\n{id_}"
    if class_ in ("post", "entry") or itemprop == "articleBody" or TEXT_BODY.search(names):
        return 1
    if tag == "article":
        return 2
    if role == "article" or id_ in ("article", "story") or class_ in ("text", "story") or POST.search(names):
        return 3
    if "content" in (class_, id_) or CONTENT.search(names):
        return 4
    is_main = class_.startswith("main") or id_.startswith("main") or role.startswith("main")
    return 5 if tag == "main" or is_main else 0


def _spelled(name: str) -> str:
    """In small letters, the words of a name parted by hyphens."""
    return (name if name.islower() else CAMEL_CASE.sub("-", name).lower()).replace("_", "-")
