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
     "object", "applet", "param", "iframe", "frame", "frameset", "noindex", "head", "link", "math",
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


def _words(text: str) -> str:
    """A pattern that finds any of the words, standing alone."""
    return "(?<![a-z])(?:" + "|".join(text.split()) + ")(?![a-z])"


FURNITURE_WORDS = re.compile(
    _words(
        # the way around the site
        "nav navs navi navbar navbox navigation subnav submenu menus? bread-?crumbs? pagination pager paging prev "
        "previous next toc toolbar dropdown masthead topbar skip foot footers? colophon copyright legal side sidebars? "
        "rail aside banners? widgets? textwidget bar "
        # who and when
        "authors? bylines? bio avatar timestamp dateline user-info user-profile profile credits? "
        # the networks
        "share sharing shares sharedaddy sharethis addthis addtoany socials? sociable viral follow likes? tweet facebook "
        "twitter whatsapp pinterest jp jetpack "
        # other pages of the site
        "related yarpp most-(?:popular|read|recent|viewed|shared) popular trending recent recommend(?:ed|ations?) "
        "more-(?:on|from|stories|news|articles) read-?more also-like see-also stories promos? cta upsell "
        # what the site wants
        "newsletters? subscribe subscriptions? sign-?up signin login register paywall premium donate donation "
        "syndication cookies? consent gdpr privacy disclaimer modal overlay popup lightbox notice permission tooltip "
        "ads? adv adverts? advertisement advertising adsense dfp sponsor sponsored taboola outbrain criteo paid-content "
        # labels and switches
        "tags? taglist tagcloud categories category-list cats? taxonomy meta postmeta postinfo metadata ratings? votes? "
        "icons? buttons? btn toggle rss options "
        # not for the eye
        "noprint hide-print print-only screen-reader-text sr-only visually-?hidden expand collapsed "
        "placeholder editsection "
        # media
        "embed embedded embeds slides? slider slideshow carousel gallery attachment viewport player video"
    )
    + "|navigation|navbar|sidebar|footer|newsletter|breadcrumb|outbrain|taboola|advert|shariff"
    "|share(?:bar|box|buttons?|links?)|social(?:bar|links?|icons?|media)"
    "|related(?:posts?|articles?|content|links?|news)|cookie(?:bar|consent|banner|notice)"
    "|author(?:box|info|bio|name)|metadata$"
)
# Whole class names: overflow-hidden and md:hidden hide nothing.
HIDDEN_CLASS = re.compile(r"(?<!\S)(?:is-)?(?:hidden|hide|invisible)(?!\S)")
HIDDEN_STYLE = re.compile(r"display:\s?none")
CAPTION_WORDS = re.compile(_words("captions? wp-caption-text") + "|caption$")
TEASER_WORDS = re.compile("teaser")
COMMENT_WORDS = re.compile(
    _words("commentlist comment-?form respond disqus dsq comol discussion replies comment") + "|comments"
)
# WordPress names an article's tags and categories in its class.
LABEL_CLASS = re.compile(r"(?<!\S)(?:tag|category|status|type|format)-\S+")
CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")

# Likely frames of the main text, the likeliest first; an <article> comes second, a <main> last.
TEXT_BODY = re.compile(
    r"(?:article|entry|post|story|page|text|blog|art|news)-?(?:body|content|text|inner|copy|entry)(?![a-z])"
    r"|articlecontent|body-?text|post-?inner"
)
POST = re.compile(
    r"(?:theme|blog|section|single|field)-(?:content|body)|main-column|wpb-text-column|fulltext|single-post|^article |^primary"
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
    class_, id_, role = class_ or "", _spelled(id_ or ""), (role or "").lower()
    unlabelled = _spelled(LABEL_CLASS.sub("", class_))
    marks = {"form": FORM, "noscript": NOSCRIPT}.get(tag, 0)
    if tag in COMMENTABLE and (COMMENT_WORDS.search(id_) or COMMENT_WORDS.search(unlabelled)):
        marks |= COMMENTS
    if tag in MARKABLE:
        if FURNITURE_WORDS.search(unlabelled) or FURNITURE_WORDS.search(id_) or "nav" in role:
            marks |= FURNITURE
        if TEASER_WORDS.search(unlabelled) or TEASER_WORDS.search(id_):
            marks |= TEASER
        if CAPTION_WORDS.search(unlabelled) or CAPTION_WORDS.search(id_):
            marks |= CAPTION
    if hidden == "true" or HIDDEN_CLASS.search(class_) or (style and HIDDEN_STYLE.search(style)):
        marks |= FURNITURE
    return marks, _frame_rank(tag, _spelled(class_), id_, role, itemprop) if tag in FRAMES else 0


def _frame_rank(tag: str, class_: str, id_: str, role: str, itemprop: str | None) -> int:
    if class_ in ("post", "entry") or itemprop == "articleBody":
        return 1
    if TEXT_BODY.search(class_) or TEXT_BODY.search(id_):
        return 1
    if tag == "article":
        return 2
    if role == "article" or id_ in ("article", "story") or class_ in ("text", "story"):
        return 3
    if POST.search(class_) or POST.search(id_):
        return 3
    if "content" in (class_, id_) or CONTENT.search(class_) or CONTENT.search(id_):
        return 4
    return 5 if tag == "main" or any(name.startswith("main") for name in (class_, id_, role)) else 0


def _spelled(name: str) -> str:
    return CAMEL_CASE.sub("-", name).lower().replace("_", "-")
