"""Every option of the data pipeline, one frozen dataclass a step. Light: `--help` imports nothing heavier.

`validate` raises InputError with one line that names the field, its value and the mend.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from data_pipeline.errors import InputError
from data_pipeline.filter_presets import preset_of
from data_pipeline.shards import canonical_json

SOURCE_KINDS = ("web", "books", "wiki", "files")
SIGNATURE_SCHEME = "affine32"
SPECIAL_TOKENS = (
    "<|endoftext|>",
    *("<|pad|>", "<|mask|>", "<|start|>", "<|delimiter|>", "<|classify|>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
)


@dataclass(frozen=True)
class SourceConfig:
    """One place that documents come from."""

    name: str = ""
    """The source's name in every table and report: web, book, wiki, or one of your own."""
    kind: str = "files"
    """How to read it: web (WARC, ARC, WET, HTML), books (Gutenberg text), wiki (MediaWiki XML) or files (JSONL, Parquet, Arrow, text)."""
    paths: list[str] = field(default_factory=list)
    """Files, folders (searched to the bottom) or globs."""
    license: str = ""
    """Licence that is recorded with each document."""
    preset: str = ""
    """Filter preset: web, books, wiki or permissive; empty takes the kind's own."""
    text_column: str = "text"
    """Column that holds the text (JSONL, Parquet, Arrow)."""
    uri_column: str = ""
    """Column that identifies a document (JSONL, Parquet, Arrow); empty: the file's path and the row number."""
    title_column: str = ""
    """Column that holds the title (JSONL, Parquet, Arrow)."""

    def validate(self, where: str = "sources") -> None:
        """Raise InputError, naming the field, when the source cannot be read as configured."""
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise InputError(
                f"{where}.name: {self.name!r} must be letters, digits, - and _; it names columns and files"
            )
        if self.kind not in SOURCE_KINDS:
            raise InputError(
                f"{where}.kind: {self.kind!r} is none of {', '.join(SOURCE_KINDS)} (source {self.name})"
            )
        if not self.paths:
            raise InputError(f"{where}.paths: source {self.name} names no path; give files, folders or globs")


@dataclass(frozen=True)
class CleanConfig:
    """How text is normalised."""

    fix_encoding: bool = True
    """Repair mojibake and broken entities with ftfy."""
    normalization: str = "NFC"
    """Unicode normal form: NFC or NFKC (NFKC also folds full-width forms)."""
    strip_addresses: bool = False
    """Take the memory address out of printed objects (<function f at 0x7f3a...>): pages made by live programs differ by it at each scrape."""


@dataclass(frozen=True)
class LanguageConfig:
    """Which languages are kept."""

    keep: list[str] = field(default_factory=list)
    """ISO 639-1 codes to keep; empty keeps all."""
    min_score: float = 0.0
    """Least certainty (0 to 1) of the language found; a document below it is removed."""


@dataclass(frozen=True)
class DedupConfig:
    """How near-duplicates are found."""

    threshold: float = 0.8
    """Jaccard similarity of word shingles from which two documents count as duplicates (0.5 to 0.99)."""
    num_permutations: int = 128
    """Length of a signature; more is surer and slower."""
    shingle_size: int = 5
    """Words (characters, in scripts without spaces) to a shingle."""
    seed: int = 1
    """Seed of the permutations."""
    max_source_loss: float = 0.5
    """Largest share of a source's documents that near-duplicate removal may take; beyond it nothing is committed."""

    def validate(self) -> None:
        """Raise InputError, naming the field, for values that cannot work."""
        if not 0.5 <= self.threshold <= 0.99:
            raise InputError(f"dedup.threshold: {self.threshold} is outside 0.5 to 0.99")
        if not 16 <= self.num_permutations <= 1024:
            raise InputError(f"dedup.num_permutations: {self.num_permutations} is outside 16 to 1024")
        if not 1 <= self.shingle_size <= 50:
            raise InputError(f"dedup.shingle_size: {self.shingle_size} is outside 1 to 50")
        if not 0 < self.max_source_loss <= 1:
            raise InputError(f"dedup.max_source_loss: {self.max_source_loss} is outside 0 to 1")

    @property
    def scheme(self) -> str:
        """What a stored signature depends on; signatures of another scheme are never compared."""
        return (
            f"{SIGNATURE_SCHEME} permutations={self.num_permutations} seed={self.seed} "
            f"shingle={self.shingle_size} words=fnv1a64-casefold-1"
        )


@dataclass(frozen=True)
class RefreshConfig:
    """What a refresh reads and how it decides."""

    sources: list[SourceConfig] = field(default_factory=list)
    """The sources, in order of priority: of two equal documents the earlier source's is kept."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """How text is normalised."""
    language: LanguageConfig = field(default_factory=LanguageConfig)
    """Which languages are kept."""
    dedup: DedupConfig = field(default_factory=DedupConfig)
    """How duplicates are found."""
    unit_bytes: int = 32 << 20
    """Input bytes that one task reads; small files are grouped up to it."""

    def validate(self) -> None:
        """Raise InputError for a configuration that cannot work, before any work."""
        for index, source in enumerate(self.sources):
            source.validate(f"sources[{index}]")
            preset_of(source.kind, source.preset)
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"sources.name: {twice[0]} is given twice; give each source a name of its own")
        if self.unit_bytes <= 0:
            raise InputError(f"unit_bytes: {self.unit_bytes} must be positive")
        if self.clean.normalization not in ("NFC", "NFKC"):
            raise InputError(f"clean.normalization: {self.clean.normalization!r} is neither NFC nor NFKC")
        self.dedup.validate()

    def content(self) -> dict[str, Any]:
        """The configuration as plain values: what decides how text is treated, so no paths and no task sizes."""
        content = asdict(self)
        del content["unit_bytes"]
        for source in content["sources"]:
            del source["paths"]
        return content

    @property
    def config_hash(self) -> str:
        """sha256 of `content`, the same wherever the inputs lie."""
        return hashlib.sha256(canonical_json(self.content())).hexdigest()


@dataclass(frozen=True)
class TokenizerConfig:
    """How the tokenizer is trained."""

    name: str = "bpe"
    """Name of the tokenizer and of the token dataset made with it."""
    vocab_size: int = 16384
    """Tokens in the vocabulary, special ones included (at least 266)."""
    sample_bytes: int = 200 << 20
    """Text that training looks at, at most; documents are taken in the order of their ids, which is random."""
    min_frequency: int = 2
    """Pairs seen less often are never merged."""

    def validate(self) -> None:
        """Raise InputError, naming the field, for values that cannot work."""
        least = 256 + len(SPECIAL_TOKENS)
        if not least <= self.vocab_size <= 1 << 20:
            raise InputError(f"tokenizer.vocab_size: {self.vocab_size} is outside {least} to {1 << 20}")
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise InputError(
                f"tokenizer.name: {self.name!r} must be letters, digits, - and _; it names a folder"
            )
        if self.sample_bytes <= 0:
            raise InputError(f"tokenizer.sample_bytes: {self.sample_bytes} must be positive")


@dataclass(frozen=True)
class ShardConfig:
    """How token shards are cut."""

    val_share: float = 0.05
    """Share of the documents, by hash of their text, that is held out for validation."""
    shard_chars: int = 256 << 20
    """Characters of text that go into one shard, about."""

    def validate(self) -> None:
        """Raise InputError, naming the field, for values that cannot work."""
        if not 0 < self.val_share < 0.5:
            raise InputError(
                f"shards.val_share: {self.val_share} is outside 0 to 0.5; validation is less than the training data"
            )
        if self.shard_chars <= 0:
            raise InputError(f"shards.shard_chars: {self.shard_chars} must be positive")


@dataclass(frozen=True)
class CrawlConfig:
    """What to scrape, and how politely."""

    name: str = "web"
    """Name of the crawl: its folder below raw/ and the stem of its WARC files."""
    seeds: list[str] = field(default_factory=list)
    """URLs to begin with; the crawl stays on their hosts."""
    max_depth: int = 1
    """Links to follow from a seed, at most."""
    max_pages: int = 1000
    """Pages to fetch, at most."""
    include: list[str] = field(default_factory=list)
    """Regular expressions; a URL must match one of them (empty: all do)."""
    exclude: list[str] = field(default_factory=list)
    """Regular expressions; a URL that matches one is left out."""
    delay: float = 1.0
    """Seconds between two requests to one host; robots.txt may ask for more."""
    timeout: float = 30.0
    """Seconds to wait for a server."""
    max_page_bytes: int = 8 << 20
    """Bytes of a page that are fetched, at most; larger pages are left out."""
    retries: int = 2
    """Further tries after a failed connection or a 5xx answer."""
    contact: str = ""
    """Your e-mail address or web page, sent with each request; must be set for any host but this machine."""
    connect_to: dict[str, str] = field(default_factory=dict)
    """Fetch HOST from ADDRESS:PORT instead, like curl's --connect-to; WARC and corpus keep HOST."""
    allow_private: list[str] = field(default_factory=list)
    """Hosts that may resolve to private or loopback addresses."""

    def validate(self) -> None:
        """Raise InputError, naming the field, for a crawl that cannot or must not run."""
        if not self.seeds:
            raise InputError("crawl.seeds: no URL to begin with; give at least one")
        for url in self.seeds:
            if not _is_web_url(url):
                raise InputError(f"crawl.seeds: {url!r} is no http or https URL")
        for option in ("max_depth", "delay", "retries"):
            if getattr(self, option) < 0:
                raise InputError(f"crawl.{option}: {getattr(self, option)} must not be negative")
        for option in ("max_pages", "timeout", "max_page_bytes"):
            if getattr(self, option) <= 0:
                raise InputError(f"crawl.{option}: {getattr(self, option)} must be positive")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise InputError(f"crawl.name: {self.name!r} must be letters, digits, - and _; it names a folder")
        for option, patterns in (("include", self.include), ("exclude", self.exclude)):
            for pattern in patterns:
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise InputError(
                        f"crawl.{option}: {pattern!r} is no regular expression ({error})"
                    ) from None
        strangers = sorted(
            {host for url in self.seeds if not self.is_local(host := urlsplit(url).hostname or "")}
        )
        if strangers and not self.contact:
            raise InputError(
                f"crawl.contact: say who you are (an e-mail address or a page) before you crawl {strangers[0]}; "
                "a host of your own goes into crawl.allow_private instead"
            )

    def is_local(self, host: str) -> bool:
        """Whether the user named this host as one on the own machine or network."""
        return host in self.connect_to or host in self.allow_private

    @property
    def user_agent(self) -> str:
        """What the crawler says it is."""
        return f"gptmill/0.1 (+{self.contact or 'local crawl'})"


def _is_web_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed only when it is asked for
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
