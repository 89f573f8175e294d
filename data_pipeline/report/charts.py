"""The report's pictures: small SVG drawings, built as trees so that no text can become markup, each with words for it.

Colours are classes that report.css fills in, so that they follow a dark background; coordinates are pixels at a width
of about 360, the width of a phone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from markupsafe import Markup

from data_pipeline.wording import visible

WIDTH, HEIGHT, BASE, TOP = 360, 132, 108, 16
LEFT, RIGHT = 4, 356
TITLE_CHARS = 400


def class_of(step: str) -> str:
    """The class that gives a step its colour."""
    return "s-" + re.sub("[^a-z0-9_]", "", step)


def _drawing(width: float, height: float, title: str, kind: str) -> Element:
    """An empty drawing; the title is what is read out in its place."""
    title = visible(title, TITLE_CHARS)
    view = {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "class": kind}
    svg = Element("svg", {**view, "aria-label": title})
    SubElement(svg, "title").text = title
    return svg


def _done(svg: Element) -> Markup:
    return Markup(tostring(svg, encoding="unicode"))


def _label(svg: Element, text: str, x: float, y: float, anchor: str = "start", kind: str = "") -> None:
    label = SubElement(svg, "text", {"x": f"{x:g}", "y": f"{y:g}", "text-anchor": anchor})
    label.text = text
    if kind:
        label.set("class", kind)


def _columns(counts: np.ndarray, scale: float, step: float, inset: float) -> str:
    """Path of a bar for each count that is not 0."""
    parts = []
    for place, count in enumerate(counts.tolist()):
        if count:
            height = max(1.0, count * scale)
            x = LEFT + place * step + inset
            parts.append(f"M{x:.1f} {BASE:g}v{-height:.1f}h{step - 2 * inset:.1f}v{height:.1f}z")
    return "".join(parts)


def histogram(before: np.ndarray, kept: np.ndarray, ticks: Sequence[tuple[float, str]], title: str) -> Markup:
    """Documents before in the back, those kept in front.

    Args:
        before, kept: documents by bin.
        ticks: (bin edge as a number of bins, label).
        title: the picture in words.
    """
    svg = _drawing(WIDTH, HEIGHT, title, "histogram")
    most = int(before.max(initial=1))
    scale = (BASE - TOP) / most
    step = (RIGHT - LEFT) / len(before)
    SubElement(svg, "path", {"class": "before", "d": _columns(before, scale, step, 0.4)})
    SubElement(svg, "path", {"class": "s-kept", "d": _columns(kept, scale, step, 0.2 * step)})
    _axis(svg, [(LEFT + place * step, label) for place, label in ticks])
    _label(svg, f"{most:,}", LEFT, TOP - 5, kind="quiet")
    return _done(svg)


def _axis(svg: Element, ticks: Sequence[tuple[float, str]]) -> None:
    SubElement(svg, "path", {"class": "axis", "d": f"M{LEFT} {BASE}H{RIGHT}"})
    for x, label in ticks:
        SubElement(svg, "path", {"class": "axis", "d": f"M{x:.1f} {BASE}v4"})
        anchor = "start" if x < LEFT + 12 else "end" if x > RIGHT - 12 else "middle"
        _label(svg, label, round(x, 1), BASE + 16, anchor, "quiet")


def columns(counts: Sequence[int], labels: Sequence[str], title: str) -> Markup:
    """A column for each count, its label below and its number above."""
    svg = _drawing(WIDTH, HEIGHT, title, "histogram")
    scale = (BASE - TOP) / max(1, *counts)
    step = (RIGHT - LEFT) / max(1, len(counts))
    SubElement(
        svg, "path", {"class": "s-near_dedup", "d": _columns(np.array(counts), scale, step, 0.15 * step)}
    )
    SubElement(svg, "path", {"class": "axis", "d": f"M{LEFT} {BASE}H{RIGHT}"})
    for place, (count, label) in enumerate(zip(counts, labels, strict=True)):
        x = LEFT + (place + 0.5) * step
        _label(svg, label, round(x, 1), BASE + 16, "middle", "quiet")
        if count:
            _label(svg, f"{count:,}", round(x, 1), BASE - max(1.0, count * scale) - 4, "middle")
    return _done(svg)


NARROW, STRIP_BINS = 160, 24


def strip(values: Sequence[float], bounds: Sequence[float], title: str) -> Markup:
    """Measured values as a small histogram, and the bounds that they missed as lines across it."""
    low, high = min(*values, *bounds), max(np.quantile(values, 0.98), *bounds)
    room = (high - low) or abs(high) or 1.0
    low, high = low - 0.04 * room, high + 0.04 * room
    svg = _drawing(NARROW, 28, title, "strip")
    counts, _ = np.histogram(np.clip(values, low, high), bins=STRIP_BINS, range=(low, high))
    step, scale = NARROW / STRIP_BINS, 22 / max(1, counts.max())
    bars = [
        f"M{place * step:.1f} 26v{-max(1.5, count * scale):.1f}h{step - 1:.1f}V26z"
        for place, count in enumerate(counts.tolist())
        if count
    ]
    SubElement(svg, "path", {"class": "measured", "d": "".join(bars)})
    SubElement(svg, "path", {"class": "axis", "d": f"M0 26H{NARROW}"})
    for bound in sorted(set(bounds)):
        x = NARROW * (bound - low) / (high - low)
        SubElement(svg, "path", {"class": "bound", "d": f"M{x:.1f} 0V28"})
    return _done(svg)


def share_bar(parts: Sequence[tuple[str, float]], title: str) -> Markup:
    """A bar cut into shares of its width, which is that of the page.

    Args:
        parts: (class, share between 0 and 1).
    """
    title = visible(title, TITLE_CHARS)
    size = {"width": "100%", "height": "20"}
    svg = Element("svg", {"role": "img", "aria-label": title, "class": "bar", **size})
    SubElement(svg, "title").text = title
    left = 0.0
    for kind, share in parts:
        place = {"x": f"{100 * left:.3f}%", "width": f"{100 * share:.3f}%", "height": "20"}
        SubElement(svg, "rect", {**place, "class": kind})
        left += share
    return _done(svg)


FLOW_WIDTH, NODE_WIDTH, FLOW_LEFT, FLOW_RIGHT, FLOW_HEIGHT = 960, 12, 190, 690, 340
SLOT, GAP = 18, 6


def flows(
    sources: Sequence[str],
    outcomes: Sequence[tuple[str, str]],
    counts: Mapping[tuple[str, str], int],
    title: str,
) -> Markup:
    """Documents from each source on the left to what became of them on the right, ribbons as wide as they are many.

    Args:
        outcomes: (name, class), top to bottom.
        counts: {(source, outcome): documents}.
    """
    total = max(1, sum(counts.values()))
    width_of = {pair: max(0.75, FLOW_HEIGHT * count / total) for pair, count in counts.items() if count}
    names = [name for name, _ in outcomes]
    left = _slots([sum(width_of.get((source, name), 0.0) for name in names) for source in sources])
    right = _slots([sum(width_of.get((source, name), 0.0) for source in sources) for name in names])
    height = max([SLOT, *(top + size for top, size in (*left, *right))]) + 12
    svg = _drawing(FLOW_WIDTH, height, title, "flows")
    next_left, next_right = ([top for top, _ in side] for side in (left, right))
    for i, source in enumerate(sources):
        for j, (name, kind) in enumerate(outcomes):
            width = width_of.get((source, name))
            if width:
                ribbon = _ribbon(next_left[i], next_right[j], width)
                path = SubElement(svg, "path", {"class": f"ribbon {kind}", "d": ribbon})
                SubElement(path, "title").text = f"{source}, {name}: {counts[source, name]:,}"
                next_left[i] += width
                next_right[j] += width
    for source, (top, size) in zip(sources, left, strict=True):
        number = sum(counts.get((source, name), 0) for name in names)
        _node(svg, FLOW_LEFT - NODE_WIDTH, top, size, "node")
        _label(svg, f"{source}  {number:,}", FLOW_LEFT - NODE_WIDTH - 8, top + size / 2 + 4, "end")
    for (name, kind), (top, size) in zip(outcomes, right, strict=True):
        number = sum(counts.get((source, name), 0) for source in sources)
        _node(svg, FLOW_RIGHT, top, size, kind)
        _label(svg, f"{name}  {number:,} ({100 * number / total:.1f} %)", FLOW_RIGHT + 20, top + size / 2 + 4)
    return _done(svg)


def _slots(sizes: Sequence[float]) -> list[tuple[float, float]]:
    """(top, height) of nodes below each other, with room for a label each."""
    places, top = [], 6.0
    for size in sizes:
        slot = max(size, SLOT)
        places.append((top + (slot - size) / 2, size))
        top += slot + GAP
    return places


def _node(svg: Element, x: float, top: float, size: float, kind: str) -> None:
    place = {"x": f"{x:g}", "y": f"{top:.1f}", "width": f"{NODE_WIDTH}", "height": f"{max(1.0, size):.1f}"}
    SubElement(svg, "rect", {**place, "class": kind})


def _ribbon(left: float, right: float, width: float) -> str:
    middle = (FLOW_LEFT + FLOW_RIGHT) / 2
    return (
        f"M{FLOW_LEFT} {left:.1f}C{middle:g} {left:.1f} {middle:g} {right:.1f} {FLOW_RIGHT} {right:.1f}"
        f"V{right + width:.1f}C{middle:g} {right + width:.1f} {middle:g} {left + width:.1f} {FLOW_LEFT} {left + width:.1f}Z"
    )


def log_ticks(first: int, last: int, bins_a_decade: int) -> list[tuple[float, str]]:
    """Ticks at the powers of ten between two bins, as `histogram` takes them."""
    names = ("1", "10", "100", "1 k", "10 k", "100 k", "1 M", "10 M", "100 M")
    return [
        (place * bins_a_decade - first, name)
        for place, name in enumerate(names)
        if first <= place * bins_a_decade <= last
    ]


def trimmed(before: np.ndarray, least: int = 16) -> slice:
    """The bins from the first to the last that hold something, but at least so many."""
    filled = np.flatnonzero(before)
    first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, least)
    first = max(0, min(first, last - least))
    return slice(first, max(last, first + least))


def cluster_bins(sizes: np.ndarray) -> tuple[list[int], list[str]]:
    """(groups, label) by size: 2, 3 to 4, 5 to 8 and so on in powers of two, the last without an end."""
    edges = [2, 3, 5]
    while len(edges) < 9 and len(sizes) and edges[-1] <= sizes.max():
        edges.append(2 * edges[-1] - 1)
    if len(sizes) and edges[-1] <= sizes.max():
        edges[-1] = int(sizes.max()) + 1
    places = np.searchsorted(edges, sizes, side="right") - 1
    labels = [
        f"{first}" if beyond == first + 1 else f"{first}-{beyond - 1:,}" for first, beyond in pairwise(edges)
    ]
    return np.bincount(places, minlength=len(labels)).tolist(), labels
