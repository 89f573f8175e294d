"""Which links a crawl takes: by host, domain or folder of the seeds, by the user's expressions, by depth."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from tld import get_fld

from data_pipeline.crawl import urls
from data_pipeline.crawl_config import CrawlConfig


class Scope:
    """Says of a URL why it is left out, or that it is not.

    Args:
        config: scope, include, exclude and max_depth.
        seeds: canonical URLs that the crawl began with, and those that they redirect to.
    """

    def __init__(self, config: CrawlConfig, seeds: Sequence[str]) -> None:
        self._config = config
        self._include = [re.compile(pattern) for pattern in config.include]
        self._exclude = [re.compile(pattern) for pattern in config.exclude]
        self._places: set[str] = set()
        for seed in seeds:
            self.add_seed(seed)

    def add_seed(self, url: str) -> None:
        """Let the crawl into the host, domain or folder of a URL."""
        self._places.add(self._place(url))

    def reason_against(self, url: str, depth: int, kind: str = "page") -> str:
        """Why a link is left out (out_of_scope, trap, beyond_depth), or ""."""
        if not self._holds(url, kind):
            return "out_of_scope"
        if urls.is_trap(url):
            return "trap"
        return "beyond_depth" if depth > self._config.max_depth else ""

    def _holds(self, url: str, kind: str) -> bool:
        # Who has not said who they are may crawl their own hosts only, wherever links lead.
        if not self._config.contact and not self._config.is_local(urls.host_of(url)):
            return False
        if kind == "sitemap":  # robots.txt may name one on another host of the domain
            return self._config.scope == "any" or any(same_domain(url, place) for place in self._places)
        if self._config.scope == "prefix":
            inside = any(_without_scheme(url).startswith(place) for place in self._places)
        else:
            inside = self._config.scope == "any" or self._place(url) in self._places
        return (
            inside
            and (not self._include or any(pattern.search(url) for pattern in self._include))
            and not any(pattern.search(url) for pattern in self._exclude)
        )

    def _place(self, url: str) -> str:
        if self._config.scope == "prefix":
            return _without_scheme(urls.path_of(url)).rpartition("/")[0] + "/"
        netloc = urlsplit(url).netloc
        return "//" + (registered_domain(urls.host_of(url)) if self._config.scope == "domain" else netloc)

    def fingerprint(self) -> str:
        """Changes whenever the same URL could be judged otherwise than before."""
        config = self._config
        settings = [config.scope, config.include, config.exclude, config.max_depth, config.max_queries]
        local = [bool(config.contact), sorted(config.connect_to), sorted(config.allow_private)]
        return json.dumps([*settings, local, sorted(self._places)])


def same_domain(url: str, other: str) -> bool:
    """Whether two URLs are of one registered domain."""
    return registered_domain(urls.host_of(url)) == registered_domain(urls.host_of(other))


@lru_cache(maxsize=1 << 14)
def registered_domain(host: str) -> str:
    """example.co.uk of www.example.co.uk, by the public suffix list in the `tld` package; else the host itself."""
    # Private suffixes too: the sites below github.io are strangers to each other.
    return get_fld(f"http://{host}/", fail_silently=True, search_private=True) or host


def _without_scheme(url: str) -> str:
    return url.partition(":")[2]
