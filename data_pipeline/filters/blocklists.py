"""Addresses and words that a user wants nothing of, from files of their own; nothing is shipped or downloaded.

An address list has one entry a line: a domain, which takes all hosts below it with it (example.com, *.example.com, or
as in a hosts file, 0.0.0.0 example.com), or an address with all pages below it (https://example.com/forum). A word
list has one word or phrase a line, in capitals or not. Blank lines and lines that begin with # are passed over.

Both are held as sorted 64-bit hashes: a list of five million domains takes 40 MB.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

import numpy as np
import xxhash

from data_pipeline import words
from data_pipeline.compiled import compiled
from data_pipeline.config import BlockConfig
from data_pipeline.errors import InputError
from data_pipeline.filters.characters import UNSPACED, WORD
from data_pipeline.filters.repetition import power, running_hashes
from data_pipeline.filters.tokens import hash_codes
from data_pipeline.words import mix64

HOST = re.compile(r"(\*?\.)?(?P<name>[a-z0-9_-]+(\.[a-z0-9_-]+)*)\.?")
MAX_SEGMENTS = 30
MAX_PHRASE_WORDS = 16


@dataclass(frozen=True)
class Blocked:
    """What the lists of a BlockConfig hold.

    Attributes:
        addresses: uint64 hashes of domains and of addresses without their scheme, sorted.
        phrases: uint64 hashes of phrases, sorted.
        lengths: whether there is a phrase of 0, 1, ... words, [MAX_PHRASE_WORDS + 1].
    """

    addresses: np.ndarray
    phrases: np.ndarray
    lengths: np.ndarray


NOTHING = Blocked(np.empty(0, np.uint64), np.empty(0, np.uint64), np.zeros(MAX_PHRASE_WORDS + 1, np.bool_))


def read_blocked(config: BlockConfig) -> Blocked:
    """Read the lists; once a process.

    Raises:
        InputError: a file that cannot be read, or a line in it that is no entry.
    """
    return _read(tuple(config.urls), tuple(config.words))


@lru_cache(maxsize=8)
def _read(url_files: tuple[str, ...], word_files: tuple[str, ...]) -> Blocked:
    addresses = {_hash(_address(line, where)) for file in url_files for where, line in _lines(file)}
    phrases, lengths = set(), np.zeros(MAX_PHRASE_WORDS + 1, np.bool_)
    for file in word_files:
        for where, line in _lines(file):
            hashes = words.word_hashes(line)
            if not 1 <= len(hashes) <= MAX_PHRASE_WORDS:
                raise InputError(f"{where}: {line!r} is no phrase of 1 to {MAX_PHRASE_WORDS} words")
            phrases.add(int(mix64(running_hashes(hashes)[-1])))
            lengths[len(hashes)] = True
    return Blocked(
        np.sort(np.fromiter(addresses, np.uint64)), np.sort(np.fromiter(phrases, np.uint64)), lengths
    )


def _lines(file: str) -> Iterator[tuple[str, str]]:
    """(file:line, entry) of each entry."""
    from data_pipeline.sources import as_path

    try:
        with as_path(file).open("rb") as lines:
            for number, raw in enumerate(lines, start=1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if line and not line.startswith("#"):
                    yield f"{file}:{number}", line
    except OSError as error:
        raise InputError(f"block: {file} cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"block: {file} is not UTF-8 ({error}); save it as UTF-8") from None


# ------------------------------------------------------------------------------------------------- addresses


def _hash(address: str) -> int:
    return xxhash.xxh3_64_intdigest(address.encode("utf-8"))


def _address(line: str, where: str) -> str:
    """The entry of a line as `_places` spells addresses."""
    first, *rest = re.split(r"\s#", line, maxsplit=1)[0].split()
    entry = rest.pop(0) if rest and _is_ip(first) else first
    if rest:
        raise InputError(f"{where}: {line!r} is more than one entry; give each a line of its own")
    if match := HOST.fullmatch(entry.lower()):
        return match["name"]
    places = _places(entry if "://" in entry else f"http://{entry}")
    if not places or "*" in entry:
        raise InputError(f"{where}: {line!r} is neither a domain nor the beginning of a web address")
    return places[-1]


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _places(url: str) -> list[str]:
    """What a URL lies in: its domains, its host with each beginning of its path, itself; none of what is no URL."""
    from data_pipeline.crawl.urls import canonical  # brings an HTTP client along, which only lists need

    if "://" not in url:
        return []
    try:
        url = canonical(url, strip_tracking=False)
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:  # with a user name, without a host ...
        host = url.partition("://")[2].partition("/")[0].rpartition("@")[2].partition(":")[0].lower()
        return _domains(host)
    segments = parts.path.strip("/").split("/")[:MAX_SEGMENTS]
    paths = ["/".join(segments[:count]) for count in range(1, len(segments) + 1) if segments[0]]
    if parts.query:
        paths.append(f"{parts.path.strip('/')}?{parts.query}")
    return [*_domains(host), *(f"{parts.netloc}/{path}" for path in paths)]


def _domains(host: str) -> list[str]:
    """A host and the domains above it, the highest first."""
    labels = host.split(".")
    return [".".join(labels[start:]) for start in range(len(labels) - 1, -1, -1)] if host else []


def are_blocked(uris: Sequence[str], blocked: Blocked) -> np.ndarray:
    """Whether each URI lies in an address of the list, [uris]; one that is no web address never does."""
    found = np.zeros(len(uris), np.bool_)
    if not len(blocked.addresses):
        return found
    hashes = [[_hash(place) for place in _places(uri)] for uri in uris]
    owners = np.repeat(np.arange(len(uris)), [len(places) for places in hashes])
    flat = np.fromiter((value for places in hashes for value in places), np.uint64, len(owners))
    place = np.minimum(np.searchsorted(blocked.addresses, flat), len(blocked.addresses) - 1)
    found[owners[blocked.addresses[place] == flat]] = True
    return found


# ----------------------------------------------------------------------------------------------------- words


@compiled
def count_blocked_words(
    codes: np.ndarray, flags: np.ndarray, folded: np.ndarray, phrases: np.ndarray, lengths: np.ndarray
) -> int:
    """How many words of a text are the last of a phrase in the list.

    Args:
        codes, flags: the text's code points and their characters.table() entries.
        folded: words.tables()[1].
        phrases, lengths: see Blocked.
    """
    if len(phrases) == 0:
        return 0
    running = running_hashes(_word_hashes(folded[codes], flags))
    powers = np.array([power(size) for size in range(len(lengths))])
    count = 0
    for end in range(1, len(running)):
        for size in range(1, min(len(lengths), end + 1)):
            if not lengths[size]:
                continue
            value = mix64(running[end] - running[end - size] * powers[size])
            place = np.searchsorted(phrases, value)
            if place < len(phrases) and phrases[place] == value:
                count += 1
                break
    return count


@compiled
def _word_hashes(codes: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """words.word_hashes of code points that are case-folded."""
    out = np.empty(len(codes), np.uint64)
    count = start = 0
    while start < len(codes):
        end = start + 1
        if flags[start] & WORD:
            while end < len(codes) and flags[end] & WORD:
                end += 1
        if flags[start] & (WORD | UNSPACED):
            out[count] = hash_codes(codes, start, end)
            count += 1
        start = end
    return out[:count]
