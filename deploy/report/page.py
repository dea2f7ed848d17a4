"""report.html: the verdict as one page that needs nothing but itself."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, TemplateError
from markupsafe import Markup

from deploy.pipeline.prelude import bare
from deploy.precision.reasons import in_words
from deploy.report import charts
from deploy.report.drawings import Drawings
from deploy.report.table import agreement_of, to_csv
from stgcn import plain_json

_FORMATS: dict[str, Callable[[Any], str]] = {
    "percent": lambda value: f"{value:.2%}",
    "gate": lambda value: f"{value * 100:g}%",
    "figure": charts.number,
    "integer": lambda value: f"{value:d}",
    "change": lambda value: f"{value:+.1%}",
    "milliseconds": lambda value: f"{value:.3f}" if not 0 < value < 0.001 else f"{value:.1g}",
    "cosine": lambda value: f"{value:.6f}",
    "error": lambda value: f"{value:.2g}",
    "share": lambda value: f"{value:.2%}",
    "number": lambda value: f"{value:.6g}",
}
_CONTENTS = {  # of the page, with the headings of the sections, in English and Chinese
    "verdict": ("Verdict", "验收结果"),
    "speed": ("Throughput and latency", "吞吐量与时延"),
    "profile": ("Where the time goes", "耗时分布"),
    "accuracy": ("Accuracy", "精度"),
    "precision": ("Nodes in float32", "保留 float32 的节点"),
    "differences": ("Differences", "与 fp32 的差异"),
    "samples": ("Samples", "样本"),
    "steps": ("What ran", "运行了什么"),
}


# A space beside Chinese punctuation belongs to the English alone.
_SPACE_BEFORE = re.compile(r'\s+(<span lang="en">)([^<]*</span><span lang="zh">[，。：；、（）])')
_SPACE_AFTER = re.compile(r'(</span><span lang="zh">[^<]*[，。：；、（]</span>)\s+')


@dataclass(frozen=True)
class Previous:
    """An earlier run of the same workspace, to compare with."""

    run: str
    throughput: Mapping[int, float]  # medians in samples/s by batch size


def render(
    summary: Mapping[str, Any],
    entries: Mapping[str, Mapping[str, Any]],
    steps: Sequence[str],
    run: str,
    drawings: Drawings,
    previous: Previous | None = None,
) -> str:
    """The page of a verdict.

    `entries` is the manifest's, `steps` those to show, `run` the verdict's name, `drawings` those of the
    noted samples; a sample without one is listed, not drawn.

    Raises:
        ValueError: the summary is of another form.
    """
    try:
        values = _values(summary, {n: entries[n] for n in steps}, run, drawings, previous)
        text = _template().render(
            {**values, "num": partial(_number, summary), "maybe": partial(_maybe, summary), "t": _bilingual}
        )
    except (TemplateError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from None
    return _SPACE_AFTER.sub(r" \1", _SPACE_BEFORE.sub(r"\1 \2", text))


@lru_cache
def _template() -> Template:
    """The page's; half a second to compile."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html.j2")


def _values(
    summary: Mapping[str, Any],
    entries: Mapping[str, Mapping[str, Any]],
    run: str,
    drawings: Drawings,
    previous: Previous | None,
) -> dict[str, Any]:
    """What the template is given."""
    batches = summary["batches"]
    measured = [batch for batch in batches if batch["throughput"]]
    worst = _worst(batches)
    classified = "confused" in batches[worst]
    guide = {} if summary["device"]["simulated"] else {int(k): v for k, v in summary["guide"]["throughput"].items()}
    every = _timeline(entries)
    profiled = [i for i, batch in enumerate(batches) if batch.get("profile")]
    shown = {
        "profile": bool(profiled),
        "precision": bool(summary.get("precision")),
        "differences": classified,
        "samples": classified,
    }
    return {
        "summary": summary,
        "profiled": profiled,
        "title": summary["model"]["title"],
        "header": _header(entries) | {"model": summary["model"]["name"]},
        "metrics": summary["metrics"],
        "agreement": agreement_of(summary),
        "classified": classified,
        "why": [in_words(node["reasons"]) for node in (summary.get("precision") or {}).get("nodes", ())],
        "contents": {part: words for part, words in _CONTENTS.items() if shown.get(part, True)},
        "references": _references(summary),
        "worst": worst,
        "best": _best(batches),
        "flips": summary.get("flipped_count", 0),
        "guide": guide,
        "has": {
            "p90": any(batch["latency_ms"].get("p90") for batch in measured),
            "transfer": any(batch["latency_ms"].get("h2d") for batch in measured),
            "besides": any(batch.get(name) for batch in measured for name in ("drift", "sensors", "end_to_end")),
        },
        "previous": previous and _changes(previous, measured),
        "timeline": every,
        "total_s": sum(step["seconds"] for step in every),
        "run": run,
        "drawings": {str(sample): drawing for sample, drawing in (drawings.samples or {}).items()},
        "skeleton": drawings.skeleton,
        "figures": _figures(measured, guide, summary["device"]["simulated"]),
        "figures_of_accuracy": {
            "margins": _inline(charts.margins(**batches[worst]["margins"])) if "margins" in batches[worst] else ""
        },
        "csv": _embedded(to_csv(summary)),
        "embedded": _embedded(summary),
    }


def _header(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What was run, on what: from the entries that are there."""

    def found(step: str, *path: str) -> Any:
        value: Any = entries.get(step, {})
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    conversions = [name for name in entries if name.startswith("convert/")]
    flags = (found(conversions[0], "inputs", "flags") if conversions else None) or {}
    precision = next((flags[name] for name in ("precision_mode", "precision_mode_v2") if name in flags), None)
    devices = {entry["host"] for name, entry in entries.items() if name.startswith(("accuracy/", "throughput/"))}
    last = found("score", "started") or max((entry["started"] for entry in entries.values()), default="")
    return {
        "checkpoint": found("export", "inputs", "checkpoint", "name") or "?",
        "checkpoint_sha256": found("export", "inputs", "checkpoint", "sha256") or "?",
        "precision": precision or "force_fp16",
        "variant": found("export", "inputs", "variant") or "reference",
        "dataset": _argument(found("preprocess", "commands"), "--data_path") or "?",
        "devices": sorted(devices),
        "date": str(last)[:16].replace("T", " "),
        "signer": found("score", "inputs", "signer"),
        "revision": found("score", "revision") or next((e["revision"] for e in entries.values()), "?"),
    }


def _argument(commands: Sequence[Sequence[str]] | None, flag: str) -> str | None:
    """The name of the file that a step's command was given with `flag`."""
    words = [word for argv in commands or () for word in argv]
    following = words[words.index(flag) + 1 :] if flag in words else []
    return PurePosixPath(following[0]).name if following else None


def _timeline(entries: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The steps in the order of time, each with its place in the time that all of them took, one after the other."""
    ordered = sorted(entries.items(), key=lambda item: str(item[1]["started"]))
    total = sum(entry["seconds"] for _, entry in ordered) or 1.0
    timeline, passed = [], 0.0
    for name, entry in ordered:
        timeline.append(
            {
                "name": name,
                "host": entry["host"],
                "by": entry["by"],
                "started": str(entry["started"])[:19].replace("T", " "),
                "seconds": entry["seconds"],
                "begin": passed / total,
                "share": entry["seconds"] / total,
                "key": entry["key"][:12],
                "versions": versions(entry),
                "commands": [shlex.join(bare(argv)) for argv in entry["commands"]],
            }
        )
        passed += entry["seconds"]
    return timeline


def _references(summary: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str, str, str]]:
    """(figures, English, Chinese, path in the summary) of what the accuracy is compared with."""
    rows = [(summary["reference"], "fp32", "fp32 基准", "reference.")]
    if published := summary["reference"]["published"]:
        rows.append((published, "published", "公布值", "reference.published."))
    if not summary["device"]["simulated"] and "chip" in summary["guide"]:
        rows.append((summary["guide"], "the guide", "指南", "guide."))
    return rows


def _changes(previous: Previous, measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    changes = {}
    for batch in measured:
        if before := previous.throughput.get(batch["batch_size"]):
            changes[str(batch["batch_size"])] = f"{before:.2f} ({batch['throughput']['median'] / before - 1:+.1%})"
    return {"run": previous.run, "throughput": changes}


def _figures(measured: Sequence[Mapping[str, Any]], guide: Mapping[int, float], simulated: bool) -> dict[str, Markup]:
    """Empty where nothing was measured."""
    if not measured:
        return {}
    found = {"throughput": charts.throughput(measured, guide, simulated), "latency": charts.latency(measured)}
    return {name: _inline(svg) for name, svg in found.items()}


def _inline(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704 (ours, and wordless)


def _embedded(value: Any) -> Markup:
    return Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))  # noqa: S704 (escaped)


def embedded_summary(page: str) -> Any:
    """The summary that a page was made of; ValueError where it holds none."""
    return _read_back(page, "summary")


def embedded_drawings(page: str) -> Drawings:
    """The drawings that a page has; ValueError where it holds none."""
    found = _read_back(page, "drawings")
    return Drawings(found["skeleton"], {int(sample): drawing for sample, drawing in found["clips"].items()})


def _read_back(page: str, name: str) -> Any:
    _, marker, rest = page.partition(f'<script type="application/json" id="{name}">')
    if not marker:
        raise ValueError(f"it holds no {name}")
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
    return Markup('<data value="{}" data-path="{}">{}</data>').format(json.dumps(value), path, _FORMATS[form](value))


def _maybe(summary: Mapping[str, Any], path: str, form: str) -> Markup:
    """A number of the summary; a dash where there is none."""
    try:
        return _number(summary, path, form)
    except (KeyError, TypeError):
        return Markup("–")


def _bilingual(english: str, chinese: str) -> Markup:
    """Both languages; the page shows one. Markup in either is the template's own."""
    return Markup('<span lang="en">{}</span><span lang="zh">{}</span>').format(Markup(english), Markup(chinese))  # noqa: S704


def _worst(batches: Sequence[Mapping[str, Any]]) -> int:
    """The place of the batch size farthest from its gate."""
    return max(
        range(len(batches)), key=lambda i: batches[i]["decisive"]["relative_error"] / batches[i]["decisive"]["gate"]
    )


def _best(batches: Sequence[Mapping[str, Any]]) -> int | None:
    """The place of the batch size with the greatest throughput."""
    measured = [i for i, batch in enumerate(batches) if batch["throughput"]]
    return max(measured, key=lambda i: float(batches[i]["throughput"]["median"]), default=None)
