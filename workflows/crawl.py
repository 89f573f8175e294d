"""Scrape sites into WARC files below <workspace>/raw, politely and resumably."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from data_pipeline.config import CrawlConfig
from workflows import cli


@dataclass(frozen=True)
class Options:
    """Options of workflows.crawl."""

    workspace: str = "workspace"
    """Folder that everything is kept in."""
    crawl: CrawlConfig = field(default_factory=CrawlConfig)
    """What to scrape, and how politely."""


def main(options: Options) -> None:
    """Fetch what the frontier still holds; a second call goes on, or finds nothing to do."""
    from data_pipeline.crawl import crawl
    from workflows.console import step
    from workflows.workspace import Workspace

    workspace = Workspace.open(options.workspace)
    with step("crawl") as shown:
        result = crawl(options.crawl, workspace.raw / options.crawl.name, shown.update)
        others = ", ".join(
            f"{count} {outcome}" for outcome, count in result.outcomes.items() if outcome != "done"
        )
        if result.fetched:
            shown.summary = f"{result.fetched} pages into {result.folder}" + (
                f" ({others})" if others else ""
            )
        else:
            shown.summary = f"nothing to fetch, {result.known} pages are there from before"


if __name__ == "__main__":
    sys.exit(cli.run(Options, main, "crawl", __doc__))
