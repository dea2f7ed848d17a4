"""The page's charts: inline SVG by matplotlib, whose colours are the page's CSS variables.

One chart so serves light, dark and print. Its words are numbers and units; titles, in both languages, are the page's.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
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
    "#060606": "var(--bad)",
    "#070707": "var(--line)",
    "#080808": "var(--transfer)",
}
_INK, _MEASURED, _GUIDE, _MUTED, _CARD, _BAD, _LINE, _TRANSFER = _COLOURS
_BAR = 0.84  # of the room between two batch sizes
_ABREAST = 42  # characters of the bars' labels that have room beside each other; more stand upright

Json = Mapping[str, Any]


def throughput(batches: Sequence[Json], guide: Mapping[int, float], simulated: bool) -> str:
    """Samples/s by batch size from zero: a bar to the median, a dot for every repeat, the guide's figure as a dash.

    `guide` is empty beside a simulated device. A bar whose repeats are too noisy, or whose device was busy, is open.
    """

    label = _labels([batch["throughput"]["median"] for batch in batches])

    def draw(axes: Axes) -> None:
        for place, batch in enumerate(batches):
            figure = batch["throughput"]
            sound = figure["idle"] and not figure["noisy"]
            face = {"facecolor": _MEASURED, "alpha": 0.3} if sound else {"facecolor": "none", "linestyle": (0, (3, 2))}
            axes.bar(place, figure["median"], _BAR, edgecolor=_MEASURED, linewidth=1, **face)
            values = figure["values"]
            spread = [place + 0.28 * ((i + 0.5) / len(values) * 2 - 1) for i in range(len(values))]
            axes.plot(spread, values, "o", markersize=4, mfc=_CARD if simulated else _MEASURED, mec=_MEASURED)
            label(axes, place, 0)
            if (theirs := guide.get(batch["batch_size"])) is not None:
                axes.hlines(theirs, place - _BAR / 2, place + _BAR / 2, color=_GUIDE, linewidth=2)

    return _by_batch_size("throughput", batches, "samples/s", draw)


def latency(batches: Sequence[Json]) -> str:
    """Milliseconds per batch by batch size from zero: a bar to the median of the compute time, marks at p90 and p99.

    H2D and D2H are stacked on the bar where the tool told them.
    """

    label = _labels([batch["latency_ms"]["median"] for batch in batches])

    def draw(axes: Axes) -> None:
        for place, batch in enumerate(batches):
            figure = batch["latency_ms"]
            axes.bar(place, figure["median"], _BAR, facecolor=_MEASURED, alpha=0.3, edgecolor=_MEASURED, linewidth=1)
            top = figure["median"]
            for name in ("h2d", "d2h"):
                if figure.get(name):
                    axes.bar(place, figure[name]["median"], _BAR, top, facecolor=_TRANSFER, alpha=0.45)
                    top += figure[name]["median"]
            marks = [figure[name] for name in ("p90", "p99") if figure.get(name)]
            for value, style in zip(marks, ("v", "D")[-len(marks) :], strict=True):
                axes.plot(place, value, style, markersize=5, mfc=_CARD, mec=_INK)
            label(axes, place, max([top, *marks]))

    return _by_batch_size("latency", batches, "ms", draw)


def margins(edges: Sequence[float], samples: Sequence[int], flipped: Sequence[int]) -> str:
    """How many samples have which margin (fp32's best output less its second), those that flipped in front."""

    def draw(axes: Axes) -> None:
        left, widths = edges[:-1], [b - a for a, b in pairwise(edges)]
        common: dict[str, Any] = {"align": "edge", "linewidth": 1}
        axes.bar(left, samples, widths, facecolor=_MEASURED, alpha=0.3, edgecolor=_CARD, **common)
        axes.bar(left, flipped, widths, facecolor=_BAD, edgecolor=_CARD, **common)

    return _figure("margins", draw, "", (4, 2.2), whole=True)


def number(value: float) -> str:
    """A rate or a time as the page writes it: two decimals."""
    return f"{value:.2f}"


def _by_batch_size(name: str, batches: Sequence[Json], unit: str, draw: Callable[[Axes], None]) -> str:
    def all_of_it(axes: Axes) -> None:
        draw(axes)
        axes.set_xticks(range(len(batches)), [str(batch["batch_size"]) for batch in batches])
        axes.margins(y=0.14)

    return _figure(name, all_of_it, unit, (4, 2.6))


def _figure(
    name: str, draw: Callable[[Axes], None], unit: str, inches: tuple[float, float], whole: bool = False
) -> str:
    """One chart whose vertical axis begins at zero, of whole numbers or any; ids in it begin with `name`."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9}):
        figure = Figure(figsize=inches, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        draw(axes)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=whole))
        axes.set_ylabel(unit, color=_MUTED)
        axes.set_axisbelow(True)
        axes.grid(axis="y", color=_LINE, linewidth=1)
        axes.tick_params(colors=_MUTED, length=0)
        axes.tick_params(axis="x", labelcolor=_INK)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(_MUTED)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(text.getvalue(), name)


def _labels(values: Sequence[float]) -> Callable[[Axes, int, float], object]:
    """What writes the value of a place above a height, upright where all of them would not fit beside each other."""
    texts = [number(value) for value in values]
    rotation = 90 if len(texts) * max(map(len, texts)) > _ABREAST else 0
    common: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "bottom", "color": _INK}

    def label(axes: Axes, place: int, height: float) -> object:
        return axes.annotate(texts[place], (place, height), (0, 6), rotation=rotation, weight="bold", **common)

    return label


def _inline(svg: str, name: str) -> str:
    """What of an SVG file belongs into a page: no prologue, no global style, ids of its own, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r'^(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r'^(<svg[^>]*?) (?:width|height)="[^"]*"', r'\1 aria-hidden="true"', svg)
    for stand_in, colour in _COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return re.sub(r"\s*\n\s*", "\n", svg).strip()
