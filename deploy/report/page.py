"""report.html: the verdict as one page that needs nothing but itself."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError
from markupsafe import Markup

from deploy.report import charts, skeletons
from deploy.report.table import worst_error
from stgcn import plain_json

_FORMATS: dict[str, Callable[[Any], str]] = {
    "percent": lambda value: f"{value:.2%}",
    "gate": lambda value: f"{value * 100:g}%",
    "figure": charts.number,
    "integer": lambda value: f"{value:d}",
    "cosine": lambda value: f"{value:.6f}",
    "error": lambda value: f"{value:.2g}",
}


def render(
    summary: Mapping[str, Any],
    entries: Mapping[str, Mapping[str, Any]],
    steps: Sequence[str],
    run: str,
    drawings: Mapping[int, Mapping[str, Any]],
) -> str:
    """The page of a verdict.

    `entries` is the manifest's, `steps` those to show in order, `run` the id it is kept under, `drawings` the noted
    samples' clips (`skeletons.drawing`); a sample without one is listed, not drawn. Raises ValueError for a summary of
    another form.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals |= {"num": lambda path, form: _number(summary, path, form), "t": _bilingual}
    environment.filters |= {"shell": shlex.join, "versions": versions}
    template = environment.get_template("page.html.j2")
    values = {
        "summary": summary,
        "worst": _worst(summary["batches"]),
        "best": _best(summary["batches"]),
        "entries": {name: entries[name] for name in steps},
        "run": run,
        "drawings": {str(sample): drawing for sample, drawing in drawings.items()},
        "bones": skeletons.bones(),
        "frames_a_second": skeletons.FRAMES_A_SECOND,
        "figures": _charts(summary),
        "embedded": Markup(json.dumps(summary, ensure_ascii=False).replace("<", "\\u003c")),  # noqa: S704 (escaped)
    }
    try:
        return template.render(values)
    except TemplateError as error:
        raise ValueError(str(error)) from None


def embedded_summary(page: str) -> Any:
    """The summary that a page was made of; ValueError where it holds none."""
    _, marker, rest = page.partition('<script type="application/json" id="summary">')
    if not marker:
        raise ValueError("it holds no summary")
    return plain_json.loads(rest.partition("</script>")[0])


def versions(entry: Mapping[str, Any]) -> dict[str, str]:
    """The tools among a step's inputs, each by its version or the head of its digest."""
    inputs = entry["inputs"]
    named = {k: inputs[k] for k in ("image", "numpy", "soc_version", "cann", "driver", "ais_bench") if k in inputs}
    every = {**named, **inputs.get("tools", {})}
    return {k: v[:12] if len(v) == 64 else v for k, v in every.items() if isinstance(v, str)}


def _number(summary: Mapping[str, Any], path: str, form: str) -> Markup:
    """A number of the summary, which carries its path there and its full value."""
    value: Any = summary
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    if value is None:
        return _bilingual("not measured", "未测量")
    return Markup('<data value="{}" data-path="{}">{}</data>').format(json.dumps(value), path, _FORMATS[form](value))


def _bilingual(english: str, chinese: str) -> Markup:
    """Both languages; the page shows one. Markup in either is the template's own."""
    return Markup('<span lang="en">{}</span><span lang="zh">{}</span>').format(Markup(english), Markup(chinese))  # noqa: S704


def _worst(batches: Sequence[Mapping[str, Any]]) -> int:
    """The place of the batch size farthest from its gate."""
    return max(range(len(batches)), key=lambda i: worst_error(batches[i]))


def _best(batches: Sequence[Mapping[str, Any]]) -> int | None:
    """The place of the batch size with the greatest throughput."""
    measured = [i for i, batch in enumerate(batches) if batch["throughput"]]
    return max(measured, key=lambda i: float(batches[i]["throughput"]["median"]), default=None)


def _charts(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """name -> {"svg", "logarithmic"}; empty where nothing was measured."""
    found = {}
    for name, low, high in (("throughput", "min", "max"), ("latency_ms", "min", "p99")):
        points = {
            batch["batch_size"]: charts.Point(batch[name]["median"], batch[name][low], batch[name][high])
            for batch in summary["batches"]
            if batch[name]
        }
        guide = {int(size): value for size, value in summary["guide"][name].items()}
        if summary["persons"] and name == "latency_ms":
            guide = {}  # its batches are of clips
        if points:
            svg = charts.by_batch_size(name, points, guide, summary["device"]["simulated"])
            found[name] = {"svg": Markup(svg), "logarithmic": charts.logarithmic(points, guide)}  # noqa: S704 (ours)
    return found
