"""robots.txt as RFC 9309 reads it, parsed by protego.

An answer of 4xx allows all, apart from 429, which says busy and not absent; 5xx, 429 and no answer allow nothing, for
now. Rules are kept a day.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, field

from protego import Protego

from data_pipeline.crawl.fetch import Answer
from data_pipeline.sources.web import decode_body

AGENT = "gptmill"
MAX_BYTES = 500_000
MAX_REDIRECTS = 5
KEEP_SECONDS = 24 * 3600.0
MAX_SITEMAPS = 100


@dataclass(frozen=True)
class Rules:
    """What one origin asks of us.

    Attributes:
        parsed: None where nothing may be fetched, since the server fails.
        delay: seconds between two requests.
        sitemaps: as the file names them.
        failure: how the pages are counted where nothing may be fetched.
    """

    parsed: Protego | None
    delay: float = 0.0
    sitemaps: tuple[str, ...] = ()
    failure: str = "robots_unreachable"
    asked_at: float = field(default_factory=time.monotonic)

    def allows(self, url: str) -> bool:
        """Whether a URL may be fetched."""
        # Only the product token counts (RFC 9309, 2.2.1): the contact beside it could match any group.
        return self.parsed is not None and self.parsed.can_fetch(url, AGENT)

    @property
    def is_fresh(self) -> bool:
        """Whether the rules are from the last 24 hours."""
        return time.monotonic() - self.asked_at < KEEP_SECONDS


def is_busy(status: int) -> bool:
    """Whether a server says that it cannot answer now."""
    return status == 429 or status >= 500


def parse_rules(answer: Answer | None) -> Rules:
    """The rules in an answer to /robots.txt; None, or an answer that is no file, allows all."""
    if answer is None or answer.status != 200:
        return Rules(Protego.parse(""))
    try:
        body = decode_body(answer.body, None, answer.header("content-encoding"))
    except (OSError, ValueError, zlib.error):
        return Rules(None)  # a file that nobody can read may have said anything
    parsed = Protego.parse(body[:MAX_BYTES].decode("utf-8-sig", "replace"))
    delay = float(parsed.crawl_delay(AGENT) or 0)
    rate = parsed.request_rate(AGENT)
    if rate is not None and rate.requests > 0:
        delay = max(delay, rate.seconds / rate.requests)
    sitemaps = [url for url, _ in zip(parsed.sitemaps, range(MAX_SITEMAPS), strict=False)]
    return Rules(parsed, delay, tuple(sitemaps))
