"""Raw text to a trained GPT in one command, on this machine, in a few minutes.

Scrapes Python's own documentation server over HTTP, adds a few original books and a small wiki, and runs
every workflow on them: refresh, tokenize, pretrain, finetune, evaluate. A second call does only what is new.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.config import (
    CleanConfig,
    DedupConfig,
    LanguageConfig,
    RefreshConfig,
    SourceConfig,
)
from data_pipeline.crawl_config import CrawlConfig
from data_pipeline.tokenizer_config import ShardConfig, TokenizerConfig
from gpt.config import ModelConfig, TrainConfig
from gpt.presets import preset
from workflows import cli, pretrain
from workflows.demo_scrape import PYDOC_HOST, PYDOC_MODULES, scrape, served_at
from workflows.finetune import FinetuneConfig
from workflows.passages import PassageConfig
from workflows.workers import Device

if TYPE_CHECKING:
    from workflows.workspace import Workspace

DATA = Path(__file__).resolve().parent / "demo_data"


def _pydoc(path: str) -> SourceConfig:
    """The scraped pages. They are code: marks outnumber words, lines end in no full stop, and each class lists again what
    it inherits. Of the rules for the web only length and repeated lines tell a bad one, at bounds of their own."""
    return SourceConfig(
        name="web",
        kind="web",
        paths=[path],
        license="PSF-2.0",
        preset="permissive",
        filters={"min_words": 50, "max_duplicate_line_char_ratio": 0.5},
    )


@dataclass(frozen=True)
class Options:
    """Options of workflows.demo."""

    workspace: str = "workspace"
    """Folder that everything is kept in."""
    web: str = ""
    """Your own WARC or HTML files (file, folder or glob) instead of the scrape."""
    books: str = ""
    """Your own Project Gutenberg text files instead of the demo's."""
    wiki: str = ""
    """Your own MediaWiki XML export instead of the demo's."""
    workers: int = 0
    """Training processes; 0 takes one a GPU, else at most two on the CPUs there are."""
    device: Device = "auto"
    """What they compute on: auto (GPUs where there are any), cpu, or gpu (a cluster that grows is asked for them)."""
    crawl: CrawlConfig = field(
        default_factory=lambda: CrawlConfig(
            name="pydoc",
            seeds=[f"http://{PYDOC_HOST}/"],
            include=[rf"/({'|'.join(PYDOC_MODULES)})\.html$"],
            max_pages=250,
            delay=0.0,
        )
    )
    """What to scrape."""
    clean: CleanConfig = field(default_factory=lambda: CleanConfig(strip_addresses=True))
    """How text is normalised."""
    language: LanguageConfig = field(default_factory=LanguageConfig)
    """Which languages are kept."""
    # The planted second edition changes a word in 35, which leaves 77 % of its five-word shingles.
    dedup: DedupConfig = field(default_factory=lambda: DedupConfig(threshold=0.7))
    """How duplicates are found."""
    tokenizer: TokenizerConfig = field(default_factory=lambda: TokenizerConfig(name="demo", vocab_size=4096))
    """How the tokenizer is trained."""
    shards: ShardConfig = field(default_factory=lambda: ShardConfig(val_share=0.1))
    """How token shards are cut."""
    model: ModelConfig = field(default_factory=lambda: preset("demo").model)
    """Shape of the network."""
    train: TrainConfig = field(default_factory=lambda: preset("demo").train)
    """The training schedule."""
    passages: PassageConfig = field(
        default_factory=lambda: PassageConfig(chars=400, per_document=16, per_class=120)
    )
    """How the classifier's labelled passages are cut from the corpus."""
    finetune: FinetuneConfig = field(default_factory=lambda: FinetuneConfig(epochs=2, max_length=96))
    """How the classifier is fine-tuned."""

    def refresh_config(self, web: str) -> RefreshConfig:
        """The refresh's configuration.

        Args:
            web: where the scrape is, or the user's own web files.
        """
        sources = [
            SourceConfig(name="web", kind="web", paths=[web]) if self.web else _pydoc(web),
            SourceConfig(name="book", kind="books", paths=[self.books or str(DATA / "books")]),
            SourceConfig(name="wiki", kind="wiki", paths=[self.wiki or str(DATA / "wiki")]),
        ]
        return RefreshConfig(sources=sources, clean=self.clean, language=self.language, dedup=self.dedup)

    def pretrain_options(self) -> pretrain.Options:
        """The pretraining's options."""
        return pretrain.Options(
            workspace=self.workspace,
            dataset=self.tokenizer.name,
            workers=self.workers,
            device=self.device,
            model=self.model,
            train=self.train,
        )

    def validate(self) -> None:
        """Raise InputError or ConfigError for whatever any of the workflows would refuse, before the first."""
        if not self.web:
            served_at(self.crawl).validate()
        self.refresh_config(self.web or self.crawl.name).validate()
        for part in (self.tokenizer, self.shards, self.pretrain_options(), self.passages, self.finetune):
            part.validate()


def main(options: Options) -> None:
    """Run every workflow and print what came of it."""
    options.validate()

    from data_pipeline.cluster import ray_session
    from workflows.console import say
    from workflows.workspace import Workspace

    workspace = Workspace.open(options.workspace)
    say(f"gptmill demo in {workspace.root}; what the libraries say goes to {workspace.logs / 'demo.log'}")
    times: dict[str, float] = {}
    with _timed(times, "scrape"):
        web = options.web or str(scrape(workspace, options.crawl))
    began = time.monotonic()
    with ray_session(workspace.logs / "demo.log"):
        times["start Ray"] = time.monotonic() - began
        outcome = _run(workspace, options, web, times)
    show_outcome(workspace, outcome, times)


def _run(workspace: Workspace, options: Options, web: str, times: dict[str, float]) -> dict[str, Any]:
    """The workflows one after the other, under a running Ray."""
    from workflows import evaluate, finetune, refresh, tokenize

    with _timed(times, "refresh"):
        version = refresh.refresh_corpus(workspace, options.refresh_config(web)).version
    with _timed(times, "tokenise"):
        folder, manifest = tokenize.tokenize_corpus(workspace, version, options.tokenizer, options.shards)
    with _timed(times, "pretrain"):
        trained = pretrain.pretrain(workspace, options.pretrain_options(), folder)
    with _timed(times, "finetune"):
        tuning = finetune.Options(
            model=trained["name"],
            passages=options.passages,
            finetune=options.finetune,
            workspace=options.workspace,
        )
        tuned = finetune.finetune(workspace, tuning)
    with _timed(times, "evaluate"):
        grading = evaluate.Options(
            model=trained["name"],
            classifier=tuned["name"],
            dataset=options.tokenizer.name,
            workspace=options.workspace,
        )
        graded = evaluate.evaluate(workspace, grading)
    return {"version": version, "manifest": manifest, "trained": trained, "graded": graded}


@contextmanager
def _timed(times: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    times[name] = time.monotonic() - began


def show_outcome(workspace: Workspace, outcome: dict[str, Any], times: dict[str, float]) -> None:
    """Print the funnel, tokens, scores, a sample and how to go on."""
    from workflows.console import say, table
    from workflows.evaluate import show_scores
    from workflows.refresh import show_funnel
    from workflows.tokenize import show_tokens
    from workflows.tracking import how_to_look

    trained = outcome["trained"]
    say()
    show_funnel(workspace, outcome["version"])
    say()
    show_tokens(outcome["manifest"])
    say()
    show_scores(outcome["graded"])
    say()
    first, last = (trained[name].get("all") for name in ("first_evaluation", "last_evaluation"))
    if first and last:
        before, after = first["bits_per_byte"], last["bits_per_byte"]
        say(f"Pretraining: validation {before:.3f} -> {after:.3f} bits/byte ({1 - after / before:.0%} lower)")
    samples = sorted((workspace.runs / trained["name"] / "samples").glob("*.txt"))
    say(f"What it writes: {samples[-1].read_text(encoding='utf-8').strip()!r}" if samples else "")
    say()
    rows = [[name, f"{seconds:.1f} s"] for name, seconds in times.items()]
    table(["", "time"], [*rows, ["all", f"{sum(times.values()):.1f} s"]], title="Where the time went")
    say()
    say(f"manifest_hash {outcome['manifest'].manifest_hash}")
    say(f"Look at the runs:        {how_to_look(workspace)}")
    say(f"Look at the data report: {workspace.report(outcome['version']['version'])}")


if __name__ == "__main__":
    sys.exit(cli.run(Options, main, "demo", __doc__))
