"""The page's charts: wordless inline SVG whose colours are the page's CSS variables, so one serves every language,
light and dark. Marks carry their numbers, so that there is no axis to read off."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Stand-ins that matplotlib writes and the page's variables replace.
_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--measured)",
    "#030303": "var(--guide)",
    "#040404": "var(--muted)",
    "#050505": "var(--card)",
}
_INK, _MEASURED, _GUIDE, _MUTED, _CARD = _COLOURS
_LOGARITHMIC_FROM = 20.0  # times between the least and the greatest


@dataclass(frozen=True)
class Point:
    """A measured figure and the range of its repeats."""

    value: float
    low: float
    high: float


def logarithmic(points: Mapping[int, Point], guide: Mapping[int, float]) -> bool:
    """Whether the figures lie so far apart that only their ratios can be shown."""
    values = [
        *(v for p in points.values() for v in (p.low, p.high)),
        *(guide[size] for size in points if size in guide),
    ]
    return bool(values) and min(values) > 0 and max(values) / min(values) > _LOGARITHMIC_FROM


def by_batch_size(name: str, points: Mapping[int, Point], guide: Mapping[int, float], simulated: bool) -> str:
    """An SVG of measured figures with their range, beside the guide's, over the batch sizes; ids begin with `name`."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    sizes = sorted(points)
    beside = {size: guide[size] for size in sizes if size in guide}
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10}):
        figure = Figure(figsize=(4.4, 2.6), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        places = range(len(sizes))
        guided = [place for place, size in zip(places, sizes, strict=True) if size in beside]
        axes.plot(guided, list(beside.values()), color=_GUIDE, linewidth=1, linestyle=(0, (1, 3)))
        axes.plot(guided, list(beside.values()), "D", markersize=5, mfc=_CARD, mec=_GUIDE)
        low, high = ([getattr(points[size], end) for size in sizes] for end in ("low", "high"))
        axes.vlines(list(places), low, high, color=_MEASURED, linewidth=4, alpha=0.35)
        values = [points[size].value for size in sizes]
        axes.plot(places, values, color=_MEASURED, linewidth=1.5, linestyle=(0, (4, 3)) if simulated else "-")
        axes.plot(places, values, "o", markersize=7, mfc=_CARD if simulated else _MEASURED, mec=_MEASURED)
        for place, size in zip(places, sizes, strict=True):
            _label(axes, place, points[size], beside.get(size))
        if logarithmic(points, guide):
            axes.set_yscale("log")
        axes.margins(x=0.12, y=0.22)
        axes.set_xticks(list(places), [str(size) for size in sizes], color=_INK)
        axes.tick_params(axis="x", length=0, pad=8)
        axes.yaxis.set_visible(False)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(_MUTED)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(text.getvalue(), name)


def _label(axes: Axes, place: int, point: Point, guide: float | None) -> None:
    """The figure's number on the side away from the guide's."""
    above = guide is None or point.value >= guide
    away = 13 if above else -13
    edge = point.high if above else point.low
    common: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center"}
    axes.annotate(number(point.value), (place, edge), (0, away), color=_INK, weight="bold", **common)
    if guide is not None:
        axes.annotate(number(guide), (place, guide), (0, -away), color=_GUIDE, size=9, **common)


def number(value: float) -> str:
    """A rate or a time as the page writes it: two decimals."""
    return f"{value:.2f}"


def _inline(svg: str, name: str) -> str:
    """What of an SVG file belongs into a page: no prologue, no global style, ids of its own, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r'^(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r'^(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    for stand_in, colour in _COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return re.sub(r"\s*\n\s*", "\n", svg).strip()
