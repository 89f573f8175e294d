"""Every option of the data pipeline, one frozen dataclass a step. Light: `--help` imports nothing heavier.

`validate` raises InputError with one line that names the field, its value and the mend.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import PurePath
from typing import Any, Literal, get_args, get_type_hints

from data_pipeline.errors import InputError
from data_pipeline.filter_presets import FilterOptions, bounds_of, preset_of
from data_pipeline.quality_config import QualityConfig
from data_pipeline.shards import canonical_json

SOURCE_KINDS = ("web", "books", "wiki", "files")
# Options that a source may have of its own, instead of the refresh's.
PER_SOURCE = ("extraction", "clean", "privacy", "language", "block")
# Kinds of personal data; where two finds overlap, the earlier kind counts.
PII_KINDS = ("api_key", "email", "iban", "cn_id", "card", "ip", "phone")
SIGNATURE_SCHEME = "affine32"
# Of the web much is copied; a library of books that loses so much has lost books.
MAX_SOURCE_LOSS = {"web": 0.5, "files": 0.5, "books": 0.1, "wiki": 0.1}


@dataclass(frozen=True)
class SourceConfig:
    """One place that documents come from."""

    name: str = ""
    """The source's name in every table and report: web, book, wiki, or one of your own."""
    kind: str = "files"
    """How to read it: web (WARC, ARC, WET, HTML), books (Gutenberg text), wiki (MediaWiki XML) or files (JSONL, Parquet, Arrow, text)."""
    paths: list[str] = field(default_factory=list)
    """Files, folders (searched to the bottom), globs, or URIs of such (s3, gs, http, https ...)."""
    license: str = ""
    """Licence that is recorded with each document."""
    preset: str = ""
    """Filter preset: web, books, wiki or permissive; empty takes the kind's own."""
    text_column: str = "text"
    """Column that holds the text (JSON, CSV, Parquet, Arrow); meta.text looks into the object meta."""
    uri_column: str = ""
    """Column that identifies a document; empty: the file's name and the place in it."""
    title_column: str = ""
    """Column that holds the title."""
    date_column: str = ""
    """Column that holds the date."""
    metadata_columns: list[str] = field(default_factory=list)
    """Further columns to keep, in the documents' metadata."""
    weight: float = 1.0
    """How often training draws from this source, against its size: 2 is twice as often as its share of the text, 0 never."""
    filters: dict[str, float] = field(default_factory=dict)
    """Bounds of the filter preset that are other for this source, such as min_words."""
    extraction: ExtractConfig | None = None
    """How main text is found for this source; empty: as for all. What stands here replaces the refresh's whole block."""
    clean: CleanConfig | None = None
    """How this source's text is normalised; empty: as for all."""
    privacy: PrivacyConfig | None = None
    """Which personal data of this source is masked; empty: as for all."""
    language: LanguageConfig | None = None
    """Which languages are kept of this source; empty: as for all."""
    block: BlockConfig | None = None
    """Addresses and words that nothing is kept of in this source; empty: as for all."""

    def validate(self, where: str = "sources") -> None:
        """Raise InputError, naming the field, when the source cannot be read as configured."""
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise InputError(
                f"{where}.name: {self.name!r} must be letters, digits, - and _; it names columns and files"
            )
        if self.kind not in SOURCE_KINDS:
            raise InputError(
                f"{where}.kind: {self.kind!r} is none of {', '.join(SOURCE_KINDS)} (source {self.name})"
            )
        if not self.paths:
            raise InputError(f"{where}.paths: source {self.name} names no path; give files, folders or globs")
        if not all(path.strip() for path in self.paths):
            raise InputError(
                f"{where}.paths: source {self.name} names an empty path; give files, folders or globs"
            )
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise InputError(f"{where}.weight: {self.weight} must be a finite number, 0 or more")
        for name in PER_SOURCE:
            if (own := getattr(self, name)) is not None:
                own.validate(f"{where}.{name}")


@dataclass(frozen=True)
class ExtractConfig:
    """How the main text of web pages is found."""

    mode: str = "quality"
    """quality weighs each part of a page; fast leaves out what its names call furniture, and looks again where little is left."""

    def validate(self, where: str = "extraction") -> None:
        """Raise InputError for a mode that does not exist."""
        if self.mode not in ("quality", "fast"):
            raise InputError(f"{where}.mode: {self.mode!r} is neither quality nor fast")


@dataclass(frozen=True)
class CleanConfig:
    """How text is normalised."""

    fix_encoding: bool = True
    """Repair mojibake and broken entities with ftfy."""
    normalization: str = "NFC"
    """Unicode normal form: NFC or NFKC (NFKC also folds full-width forms, superscripts, ligatures)."""
    width: Literal["keep", "letters", "all"] = "keep"
    """Chinese and Japanese widths: keep them; fold full-width Latin letters and digits, but not punctuation, which is
    right in such text; or fold all full-width ASCII and half-width kana."""
    stock_lines: bool | None = None
    """Take out the lines that any page may have (cookie notices, "read more", share bars); empty: for sources with preset web."""
    strip_addresses: bool = False
    """Take the memory address out of printed objects (<function f at 0x7f3a...>): pages made by live programs differ by it at each scrape."""

    def validate(self, where: str = "clean") -> None:
        """Raise InputError for a normal form or a policy of widths that does not exist."""
        if self.normalization not in ("NFC", "NFKC"):
            raise InputError(f"{where}.normalization: {self.normalization!r} is neither NFC nor NFKC")
        if self.width not in ("keep", "letters", "all"):
            raise InputError(f"{where}.width: {self.width!r} is none of keep, letters, all")


@dataclass(frozen=True)
class PrivacyConfig:
    """Which personal data is masked."""

    enabled: bool | None = None
    """Whether to mask; empty: for sources with preset web."""
    kinds: list[str] = field(default_factory=lambda: list(PII_KINDS))
    """What to mask: api_key, email, iban, cn_id, card, ip, phone."""

    def validate(self, where: str = "privacy") -> None:
        """Raise InputError, naming the field, for a kind that does not exist."""
        for kind in self.kinds:
            if kind not in PII_KINDS:
                raise InputError(f"{where}.kinds: {kind!r} is none of {', '.join(PII_KINDS)}")


@dataclass(frozen=True)
class LanguageConfig:
    """Which languages are kept."""

    keep: list[str] = field(default_factory=list)
    """ISO 639-1 codes to keep; empty keeps all."""
    min_score: float = 0.0
    """Least certainty (0 to 1) of the language found; a document below it is removed."""

    def validate(self, where: str = "language") -> None:
        """Raise InputError, naming the field, for values that cannot work."""
        if not 0 <= self.min_score <= 1:
            raise InputError(f"{where}.min_score: {self.min_score} is outside 0 to 1")


@dataclass(frozen=True)
class BlockConfig:
    """Addresses and words that nothing is wanted of, in files of your own."""

    urls: list[str] = field(default_factory=list)
    """Files with a domain or the beginning of an address on each line; what lies there is removed."""
    words: list[str] = field(default_factory=list)
    """Files with a word or phrase on each line; documents with more of them than filters.max_blocked_word_ratio are removed."""

    def validate(self, where: str = "block") -> None:
        """Raise InputError for a file that is not there."""
        from data_pipeline.sources import as_path

        for option, files in (("urls", self.urls), ("words", self.words)):
            for file in files:
                if not as_path(file).is_file():
                    raise InputError(f"{where}.{option}: there is no file {file}")

    def content(self) -> dict[str, list[str]]:
        """What the files hold, as sha256 of each."""
        from data_pipeline.sources import as_path

        return {
            option: [hashlib.sha256(as_path(file).read_bytes()).hexdigest() for file in files]
            for option, files in (("urls", self.urls), ("words", self.words))
        }


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
    fp_weight: float = 0.02
    """Weight of pairs compared in vain, where bands are chosen: they cost time and nothing else."""
    fn_weight: float = 0.98
    """Weight of duplicates missed, where bands are chosen."""
    containment: float = 0.0
    """Also remove a document of whose shingles this share (0.5 to 1) is in a kept one: an excerpt; 0 for off. Finds excerpts of half a document or more, as pairs of less similarity are not compared."""
    max_source_loss: float | None = None
    """Largest share of a source's documents that near-duplicate removal may take; beyond it nothing is committed. Empty: 0.5 for web and files, 0.1 for books and wiki."""
    boilerplate_share: float = 0.0
    """Take lines out of web pages that this share of their host's pages have, such as 0.3; 0 for off."""
    boilerplate_pages: int = 10
    """Pages of a host that must have such a line, at least."""
    memory_bytes: int = 16 << 30
    """Memory of the whole cluster that comparing may take for buckets; beyond it bands are compared in turn."""

    def validate(self) -> None:
        """Raise InputError, naming the field, for values that cannot work."""
        if not 0.5 <= self.threshold <= 0.99:
            raise InputError(f"dedup.threshold: {self.threshold} is outside 0.5 to 0.99")
        if not 16 <= self.num_permutations <= 1024:
            raise InputError(f"dedup.num_permutations: {self.num_permutations} is outside 16 to 1024")
        if not 1 <= self.shingle_size <= 50:
            raise InputError(f"dedup.shingle_size: {self.shingle_size} is outside 1 to 50")
        if self.max_source_loss is not None and not 0 < self.max_source_loss <= 1:
            raise InputError(f"dedup.max_source_loss: {self.max_source_loss} is outside 0 to 1")
        for name in ("fp_weight", "fn_weight"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"dedup.{name}: {getattr(self, name)} is outside 0 to 1")
        if self.containment and not 0.5 <= self.containment <= 1:
            raise InputError(f"dedup.containment: {self.containment} is outside 0.5 to 1; 0 turns it off")
        if not 0 <= self.boilerplate_share <= 1:
            raise InputError(f"dedup.boilerplate_share: {self.boilerplate_share} is outside 0 to 1")
        if self.boilerplate_pages < 2:
            raise InputError(f"dedup.boilerplate_pages: {self.boilerplate_pages} must be at least 2")
        if self.memory_bytes < 1 << 20:
            raise InputError(f"dedup.memory_bytes: {self.memory_bytes} is less than a MiB")

    def loss_bound(self, kind: str) -> float:
        """The share of its documents that a source of a kind may lose."""
        if self.max_source_loss is not None:
            return self.max_source_loss
        return MAX_SOURCE_LOSS[kind]

    @property
    def scheme(self) -> str:
        """What a stored signature depends on; signatures of another scheme are never compared."""
        return (
            f"{SIGNATURE_SCHEME} permutations={self.num_permutations} seed={self.seed} "
            f"shingle={self.shingle_size} words=fnv1a64-casefold-1"
        )


def set_name(given: str) -> str:
    """Name of an evaluation set that is given as NAME=PATH or PATH."""
    name, equals, _ = given.partition("=")
    return name if equals and "/" not in name else PurePath(given).name.split(".")[0]


@dataclass(frozen=True)
class DecontaminateConfig:
    """How evaluation sets are kept out of the corpus."""

    sets: list[str] = field(default_factory=list)
    """Evaluation sets: files or folders of JSON, JSON lines, CSV, TSV, Parquet or text, also zipped; NAME=PATH gives one another name than its file's. What lies in the workspace's folder evaluation/ is protected, too."""
    action: Literal["remove", "tag"] = "remove"
    """remove what overlaps a set, or tag the document with the set's name in its metadata (evaluation_sets)."""
    unit: Literal["document", "paragraph"] = "document"
    """What is removed: the whole document, or the paragraphs that overlap and the rest stays, tagged."""
    ngram: int = 13
    """Words in a row (characters, in scripts without spaces) that make an overlap; 0 for off."""
    chars: int = 50
    """Letters and digits in a row that make an overlap; 0 for off."""

    def validate(self) -> None:
        """Raise InputError, naming the field, for values that cannot work."""
        for name, least in (("ngram", 5), ("chars", 20)):
            value = getattr(self, name)
            if value and not least <= value <= 1000:
                raise InputError(
                    f"decontamination.{name}: {value} is outside {least} to 1000; 0 turns it off"
                )
        if not self.ngram and not self.chars:
            raise InputError("decontamination: with ngram and chars both 0 nothing would be recognised")


@dataclass(frozen=True)
class Treatment:
    """What happens to the documents of one source: the refresh's options with the source's own in their place."""

    extraction: ExtractConfig
    clean: CleanConfig
    privacy: PrivacyConfig
    language: LanguageConfig
    block: BlockConfig
    filters: FilterOptions
    quality: QualityConfig
    dedup: DedupConfig
    decontamination: DecontaminateConfig


@dataclass(frozen=True)
class RefreshConfig:
    """What a refresh reads and how it decides."""

    sources: list[SourceConfig] = field(default_factory=list)
    """The sources, in order of priority: of two equal documents the earlier source's is kept."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """How text is normalised."""
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    """Which personal data is masked."""
    language: LanguageConfig = field(default_factory=LanguageConfig)
    """Which languages are kept."""
    block: BlockConfig = field(default_factory=BlockConfig)
    """Addresses and words that nothing is kept of."""
    quality: QualityConfig = field(default_factory=QualityConfig)
    """Which quality model scores the documents."""
    dedup: DedupConfig = field(default_factory=DedupConfig)
    """How duplicates are found."""
    decontamination: DecontaminateConfig = field(default_factory=DecontaminateConfig)
    """How evaluation sets are kept out."""
    extraction: ExtractConfig = field(default_factory=ExtractConfig)
    """How the main text of web pages is found."""
    accept_loss: list[str] | str = field(default_factory=list)
    """Sources that may lose more to near-duplicate removal than dedup.max_source_loss, this time."""
    unit_bytes: int = 32 << 20
    """Input bytes that one task reads; small files are grouped up to it."""
    group_bytes: int = 16 << 30
    """Input bytes that are committed as one version, about: what a killed refresh loses at most. Documents of an earlier group win over equal ones of a later."""
    trust_times: bool = True
    """Take a file whose size and time of change are those recorded for unchanged without reading it; false reads and hashes every file (http files always are)."""

    def validate(self) -> None:
        """Raise InputError for a configuration that cannot work, before any work."""
        for index, source in enumerate(self.sources):
            source.validate(f"sources[{index}]")
            self.of(source)
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"sources.name: {twice[0]} is given twice; give each source a name of its own")
        for name in ("unit_bytes", "group_bytes"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: {getattr(self, name)} must be positive")
        for name in (*PER_SOURCE, "dedup", "decontamination"):
            getattr(self, name).validate()
        self.quality.validate(names)

    def of(self, source: SourceConfig) -> Treatment:
        """How the documents of a source are treated: the one place where its own options meet the refresh's.

        Raises:
            InputError: a filter preset or bound that does not exist.
        """
        own = {name: getattr(source, name) or getattr(self, name) for name in PER_SOURCE}
        # What is not said is done where it is wanted nearly always: on web pages.
        is_web = preset_of(source.kind, source.preset) == "web"
        for name, option in (("clean", "stock_lines"), ("privacy", "enabled")):
            if getattr(own[name], option) is None:
                own[name] = replace(own[name], **{option: is_web})
        filters = bounds_of(source.kind, source.preset, source.filters)
        return Treatment(
            **own,
            filters=filters,
            quality=self.quality,
            dedup=self.dedup,
            decontamination=self.decontamination,
        )

    def content(self) -> dict[str, Any]:
        """The configuration as plain values: what decides how text is treated, so no paths and no task sizes."""
        content = asdict(self)
        for name in ("unit_bytes", "accept_loss", "trust_times"):
            del content[name]
        del content["dedup"]["memory_bytes"]
        content["block"] = self.block.content()
        content["quality"]["model"] = PurePath(self.quality.model).name
        content["decontamination"]["sets"] = [set_name(given) for given in self.decontamination.sets]
        for source, values in zip(self.sources, content["sources"], strict=True):
            del values["paths"]
            values["block"] = source.block and source.block.content()
        return content

    @property
    def config_hash(self) -> str:
        """sha256 of `content`, the same wherever the inputs lie."""
        return hashlib.sha256(canonical_json(self.content())).hexdigest()

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> RefreshConfig:
        """The configuration whose `content` this is, but for what it names by path (inputs, block lists, evaluation sets).

        What only another gptmill knows is left out.
        """
        sources = [{**source, "block": None} for source in content.get("sources", [])]
        sets = {**content.get("decontamination", {}), "sets": []}
        config: RefreshConfig = _restored(
            cls, {**content, "sources": sources, "block": {}, "decontamination": sets}
        )
        return config


def _restored(kind: Any, value: Any) -> Any:
    """A value of a field's type from plain values."""
    choices = [choice for choice in get_args(kind) if choice is not type(None)]
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        known = {entry.name for entry in fields(kind)} & value.keys()
        return kind(**{name: _restored(hints[name], value[name]) for name in known})  # type: ignore[operator]
    if value is not None and len(choices) == 1 and is_dataclass(choices[0]):
        return (
            [_restored(choices[0], part) for part in value]
            if isinstance(value, list)
            else _restored(choices[0], value)
        )
    return value
