"""What passes between the driver, which owns the frontier, and the workers, which fetch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """A URL that the frontier hands out.

    Attributes:
        url: in its one spelling.
        depth: links between a seed and it.
        redirects: redirects in a row that led to it.
        kind: page or sitemap.
        seed: whether the user gave it, or a seed redirects to it.
        tries: failed tries in this run.
        etag, last_modified, digest, stored_at: of its newest capture; "" where there is none.
        via: the URL that it was found on; "" for a seed.
    """

    url: str
    depth: int = 0
    redirects: int = 0
    kind: str = "page"
    seed: bool = False
    tries: int = 0
    etag: str = ""
    last_modified: str = ""
    digest: str = ""
    stored_at: str = ""
    via: str = ""


@dataclass(frozen=True)
class Visit:
    """What became of an entry.

    Attributes:
        outcome: done, unchanged, redirect, noindex, status_404, robots, failed_ConnectError and so on.
        links: URLs that the page leads to.
        redirect: where the server sends us instead; "" for nowhere.
        sitemaps: further sitemaps that a sitemap names.
        etag, last_modified, digest, stored_at: of the capture, for the next visit.
        num_bytes: of the body as it was sent.
        retry: whether it is to be tried again in this run.
        wait: seconds that the host asks to be left alone, or that are better let pass.
    """

    url: str
    outcome: str
    links: list[str] = field(default_factory=list)
    redirect: str = ""
    sitemaps: list[str] = field(default_factory=list)
    etag: str = ""
    last_modified: str = ""
    digest: str = ""
    stored_at: str = ""
    num_bytes: int = 0
    retry: bool = False
    wait: float = 0.0


@dataclass
class Turn:
    """What a worker did with some entries of one host; entries without a visit go back to the queue.

    Attributes:
        sitemaps: that the host's robots.txt names.
        delay: seconds between two requests to the host, as far as it is known.
        wait: seconds until the host may be asked again.
    """

    visits: list[Visit] = field(default_factory=list)
    sitemaps: list[str] = field(default_factory=list)
    delay: float = 0.0
    wait: float = 0.0
