"""Scrape sites into WARC files below <workspace>/raw, politely and resumably.

    python -m workflows.crawl --crawl.seeds '[https://example.org/docs/]' --crawl.scope prefix \
        --crawl.max_depth 3 --crawl.contact you@example.org

It obeys robots.txt, asks a host for one page at a time with a pause between, refuses private addresses, and keeps
no cookies. The same command goes on where the last one stopped; with wider limits (--crawl.max_depth,
--crawl.max_pages) it goes on from there; with --crawl.revisit_after 24 it asks for pages that are older than a day
again, and stores those that changed. Give the folder to `refresh --web`.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data_pipeline.crawl_config import CrawlConfig
from workflows import cli

if TYPE_CHECKING:
    from data_pipeline.crawl import CrawlResult


@dataclass(frozen=True)
class Options:
    """Options of workflows.crawl."""

    workspace: str = "workspace"
    """Folder that everything is kept in."""
    crawl: CrawlConfig = field(default_factory=CrawlConfig)
    """What to scrape, and how politely."""


def main(options: Options) -> None:
    """Fetch what the frontier still holds; a second call goes on, or finds nothing to do."""
    from data_pipeline.cluster import ray_session
    from data_pipeline.crawl import crawl
    from workflows.console import step
    from workflows.workspace import Workspace

    options.crawl.validate()
    workspace = Workspace.open(options.workspace)
    session = ray_session(workspace.logs / "crawl.log") if options.crawl.workers > 1 else nullcontext()
    with session, step("crawl") as shown:
        shown.summary = summary(crawl(options.crawl, workspace.raw / options.crawl.name, shown.update))


def summary(result: CrawlResult) -> str:
    """One line about what a crawl did."""
    if not result.fetched and not result.unchanged:
        said = [f"nothing to fetch, {result.known} pages are there from before"]
    else:
        said = [f"{result.fetched} pages into {result.folder}"]
        said += [f"{result.unchanged} unchanged"] * bool(result.unchanged)
    said += [f"{count} {outcome}" for outcome, count in result.outcomes.items() if outcome != "done"]
    said += [f"{result.waiting} waiting for a later run"] * bool(result.waiting)
    said += [f"{count} left out ({reason})" for reason, count in result.left_out.items()]
    return ", ".join(said)


if __name__ == "__main__":
    sys.exit(cli.run(Options, main, "crawl", __doc__))
