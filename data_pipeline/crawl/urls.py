"""URLs: the one spelling that frontier and archive know, and the traps that a spelling gives away.

courlan, which trafilatura brings along, was tried: it sorts queries, drops empty parameters and merges slashes, all
of which may name another page. httpx parses as browsers do; what is left out of RFC 3986, section 6.2, is done here.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from functools import lru_cache
from urllib.parse import urljoin, urlsplit

import httpx

MAX_URL_CHARS = 2_000
# /a/b/a/b/a/b ... comes from relative links that a server answers at any depth.
MAX_SEGMENT_REPEATS = 3
MAX_SEGMENTS = 30
DEFAULT_PORTS = {"http": 80, "https": 443}
ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]{0,251}[a-z0-9_])?")
UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
TRACKING = re.compile(
    r"(utm_\w+|fbclid|gclid|gclsrc|dclid|msclkid|yclid|twclid|igshid|mc_cid|mc_eid|_hsenc|_hsmi)",
    re.IGNORECASE,
)


@lru_cache(maxsize=1 << 16)
def canonical(url: str, strip_tracking: bool = True) -> str:
    """The one spelling of a URL: ASCII, no fragment, no default port, no dot segments, never an empty path.

    Args:
        strip_tracking: leave out the parameters that only tell where a reader came from.

    Raises:
        ValueError: no http or https URL, one too long, or one with a user name.
    """
    if len(url) > MAX_URL_CHARS:
        raise ValueError(f"longer than {MAX_URL_CHARS} characters")
    url = url.partition("#")[0]
    if "%" in url:
        url = ESCAPE.sub(_normal_escape, url)
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from None
    host = parsed.raw_host.decode("ascii").rstrip(".")
    if parsed.scheme not in DEFAULT_PORTS or parsed.userinfo or not (HOST.fullmatch(host) or _is_ipv6(host)):
        raise ValueError("no http or https URL of a host")
    if parsed.port is not None and not 0 < parsed.port < 1 << 16:
        raise ValueError("no port of that number")
    authority = f"[{host}]" if ":" in host else host
    if parsed.port not in (None, DEFAULT_PORTS[parsed.scheme]):
        authority += f":{parsed.port}"
    path, _, query = parsed.raw_path.decode("ascii").partition("?")
    if query and strip_tracking:
        query = "&".join(part for part in query.split("&") if not TRACKING.fullmatch(part.partition("=")[0]))
    spelled = f"{parsed.scheme}://{authority}{path or '/'}" + (f"?{query}" if query else "")
    if len(spelled) > MAX_URL_CHARS:
        raise ValueError(f"longer than {MAX_URL_CHARS} characters")
    return spelled


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _normal_escape(match: re.Match[str]) -> str:
    char = chr(int(match[1], 16))
    return char if char in UNRESERVED else match[0].upper()


@lru_cache(maxsize=1 << 16)
def link(base: str, reference: str, strip_tracking: bool = True) -> str:
    """Where a reference on a page leads to, in its one spelling; "" where that is no web page."""
    if len(reference) > MAX_URL_CHARS:
        return ""
    try:
        return canonical(_join(base, reference.strip()), strip_tracking)
    except ValueError:
        return ""


def _join(base: str, reference: str) -> str:
    if reference.startswith("/") and not reference.startswith("//"):
        return origin_of(base) + reference  # most links are such, and urljoin takes ten times as long
    return urljoin(base, reference)


def host_of(url: str) -> str:
    """The host of a canonical URL, without its port."""
    return urlsplit(url).hostname or ""


def origin_of(url: str) -> str:
    """Scheme, host and port of a canonical URL: what a robots.txt speaks for."""
    return "/".join(url.split("/", 3)[:3])


def path_of(url: str) -> str:
    """A canonical URL without its query."""
    return url.partition("?")[0]


def is_trap(url: str) -> bool:
    """Whether the path of a canonical URL repeats itself, or is deeper than any honest one."""
    segments = [segment for segment in path_of(url).split("/")[3:] if segment]
    if len(segments) > MAX_SEGMENTS:
        return True
    return max(Counter(segments).values(), default=0) > MAX_SEGMENT_REPEATS
