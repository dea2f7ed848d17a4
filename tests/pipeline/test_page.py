"""The page at real size in headless Chromium: nothing clipped, no finding of axe, every number the summary's."""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.evidence.scores import Score
from deploy.pipeline.model import Model, find
from deploy.report import page
from deploy.report.drawings import draw
from deploy.report.summary import Evidence, summary
from stgcn.cards import CARDS
from stgcn.metrics import score
from tests.pipeline.browser import Browser
from tests.unit import made_up

pytestmark = pytest.mark.full

SIZES = (1, 4, 8, 16, 32, 64)
# Every width in both languages, every language in both themes.
VIEWS = [
    (width, language, (i + j) % 2 == 0)
    for i, width in enumerate((390, 768, 1440))
    for j, language in enumerate(("en", "zh"))
]
MOST_BYTES = 1 << 20
READ_OVERFLOW = """[...document.querySelectorAll("body *")].filter((n) => !n.closest("pre, svg, caption"))
    .filter((n) => n.getBoundingClientRect().right > innerWidth + 1).map((n) => n.outerHTML.slice(0, 120))"""
READ_CLIPPED = """[...document.querySelectorAll("body *")].filter((n) => n.offsetParent && n.clientWidth)
    .filter((n) => !n.closest("svg, caption, .track, .meter") && getComputedStyle(n).display !== "inline")
    .filter((n) => n.scrollWidth > n.clientWidth + 1).map((n) => n.outerHTML.slice(0, 120))"""
RUN_AXE = """axe.run().then((found) => found.violations.filter((v) => ["serious", "critical"].includes(v.impact))
    .map((v) => [v.id, v.nodes.map((n) => n.html.slice(0, 120))]))"""


# Where numbers outside `data` stand that are of no version, command or name.
READ_OTHERS = """(() => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walk.nextNode()) {
    const at = walk.currentNode.parentElement;
    const counts = at.checkVisibility() && !at.closest("data, svg, code, pre, script, .version");
    if (counts) found.push(walk.currentNode.data);
  }
  return found;
})()"""
NUMBER = re.compile(r"(?<![\w.^-])-?\d+(?:\.\d+)?(?![\w^])")
OF_SENTENCES = {"65504", "0.01", "2"}  # float16's largest, the trend test's p, a drift's percent and 2^-25


def verdict(
    model: str,
    samples: int,
    simulated: bool,
    bad: int | None,
    sizes: Sequence[int] = SIZES,
    measured: bool = True,
    hostile: bool = False,
) -> dict[str, Any]:
    """A summary of made-up logits; batch size `bad` is far off fp32, and 16 is noisy."""
    card = find(model, Path("no folder")).card
    assert card.classes
    if hostile:
        names = [f"{name} {'very_long' * 111} <b>&amp;</b>" for name in card.classes]
        card = card.model_copy(update={"classes": names, "title": "<script>alert(1)</script>" + "</style>long" * 20})
    random = np.random.default_rng(samples)
    labels = random.integers(0, len(card.classes), samples)
    reference = random.standard_normal((samples, len(card.classes))).astype(np.float32)
    reference[np.arange(samples), labels] += random.choice([4, 0.5], samples, p=[0.4, 0.6])
    logits, figures = {}, {}
    for size in sizes:
        error = 0.35 if size == bad else 1e-3
        logits[size] = [reference + np.float32(error) * random.standard_normal(reference.shape, np.float32)]
        figures[size] = None
        if not measured:
            continue
        spread = 0.08 if size == 16 else 0.004
        rates = sorted(1000 * size / (2.6 + 4.4 * size) * (1 + spread * random.uniform(-1, 1, 3)))
        ms = 1000 * size / rates[1]
        figures[size] = {
            "simulated": simulated,
            "throughput": {
                "median": rates[1],
                "min": rates[0],
                "max": rates[2],
                "repeats": 3,
                "values": rates,
                "spread": (rates[2] - rates[0]) / rates[1],
                "idle": size != bad,
                "noisy": size == 16,
                **({"threads": 4} if size == 4 else {}),
            },
            "latency_ms": {
                "min": 0.9 * ms,
                "median": ms,
                "mean": ms,
                "p90": 1.05 * ms,
                "p99": 1.1 * ms,
                "max": 1.2 * ms,
                "h2d": {"median": 0.1 * ms, "share": 0.09, "count": 3},
                "d2h": {"median": 0.01 * ms, "share": 0.009, "count": 3},
            },
            "drift": {
                "within": {"change": 0.034, "p": 1e-5, "drifts": size == 16},
                "between": {"change": -0.001, "p": 0.6, "drifts": False},
            },
            "sensors": {
                "readings": 9,
                "power_w": {"mean": 31.5, "min": 30.1, "max": 33.0} if size != 1 else None,
                "temperature_c": {"min": 51, "max": 58},
                "joules_per_sample": 0.25 if size != 1 else None,
            },
            "end_to_end": {"ms": 9.1, "device_ms": 7.0, "host_ms": 2.1},
        }
    device = {"chip": "310P3", "soc_version": "Ascend310P3", "cann": "8.0.RC3", "driver": "24.1.rc3"}
    return summary(
        Evidence(
            card=card,
            device={**device, "simulated": simulated},
            names=[f"clip-{i:05}" for i in range(samples)],
            labels=labels,
            reference=[reference],
            logits=logits,
            reference_score=Score(**score(reference, labels)),
            scores={size: Score(**score(outputs[0], labels)) for size, outputs in logits.items()},
            figures=figures,
            profiles={1: a_profile(simulated)} if measured else {},
            precision=made_up.precision() if measured else None,
            gpu=a_gpu(sizes) if measured else None,
            gate=0.01,
            published=None,
        )
    )


def a_gpu(sizes: Sequence[int]) -> dict[str, Any]:
    """A GPU host's figures, of a busy GPU and noisy."""
    rate = {"median": 90.5, "min": 90.0, "max": 91.0, "repeats": 3, "noisy": True}
    device = {"kind": "cuda", "name": "NVIDIA GeForce RTX 2080 Ti", "torch": "1.2.0"}
    batches = [{"batch_size": size, "throughput": rate} for size in sizes]
    return {"host": "gpu", "device": device, "idle": False, "batches": batches}


def a_profile(simulated: bool) -> dict[str, Any]:
    """A profile of ten blocks; without limits where the device is simulated."""
    blocks = [
        {
            "block": str(i),
            "us": 100.0 * i,
            "share": i / 60,
            "operators": 3,
            "compute_us": None if simulated else 20.0,
            "bandwidth_us": None if simulated else 200.0,
            "bound": None if simulated else "bandwidth" if i < 5 else "neither",
        }
        for i in range(1, 11)
    ]
    apart = {name: {"us": 250.0, "share": 0.04} for name in ("compiler", "communication", "unattributed")}
    return {"device_us": 6250.0, "iterations": 5, "attributed": 0.92, "blocks": blocks, **apart}


def walker(model: Model, sample: int) -> np.ndarray:
    """A row of two persons whose joints swing about a pose."""
    shape = model.card.inputs[0].shape
    frames = np.arange(shape[1])
    row = np.random.default_rng(sample).uniform(-0.3, 0.3, (shape[0], 1, *shape[2:])) + np.zeros(shape)
    swing = 0.03 * np.sin(frames / 10)
    return (np.abs(row) + swing[None, :, None, None]).astype(np.float32)


def entries(devices: int, sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """The manifest's entries of such a run, with commands as long as real ones."""
    names = [
        "preprocess",
        "export",
        "reference",
        *(f"{s}/bs{n}" for s in ("convert", "accuracy", "throughput") for n in sizes),
    ]
    found = {}
    for i, name in enumerate(names):
        host = "npu-a" if name.startswith("convert") else f"npu-a:{i % devices}" if "/" in name else "gpu"
        command = [
            "python3",
            "-m",
            "ais_bench",
            "--model",
            "/home/ascend/stgcn-work/" + "0123456789abcdef" * 4 + "/st_gcn.om",
        ]
        tools = {"tools": {"python": "3.11.2", "numpy": "2.4.6"}, "cann": "8.0.RC3", "driver": "24.1.rc3"}
        found[name] = {
            "inputs": tools,
            "host": host,
            "by": "ascend@control",
            "started": f"2026-01-01T10:{i:02}:00+00:00",
            "seconds": 7.5 * (i + 1),
            "key": f"{i:064x}",
            "revision": "0" * 40,
            "commands": [command, command],
        }
    found["export"]["inputs"] |= {"checkpoint": {"name": "st_gcn.kinetics-6fa43f73.pth", "sha256": "6f" * 32}}
    return found


KINETICS = "st_gcn.kinetics"
RUN = "20260101T100000-0123456789abcdef"
PREVIOUS = ("20251231T235959-0123456789abcdef", dict.fromkeys(SIZES, 200.0))
CASES: dict[str, dict[str, Any]] = {
    "demo": {"model": KINETICS, "samples": 48, "simulated": True, "bad": None},
    "passed": {"model": KINETICS, "samples": 19796, "simulated": False, "bad": None},
    "failed": {"model": KINETICS, "samples": 19796, "simulated": False, "bad": 8},
}
EDGES: dict[str, dict[str, Any]] = {
    "bare": {**CASES["demo"], "sizes": (1,), "measured": False},
    "hostile": {**CASES["passed"], "samples": 600, "bad": 16, "sizes": range(16, 28), "hostile": True},
}
WHOLE = [(name, view) for name in CASES for view in VIEWS] + [(name, view) for name in EDGES for view in VIEWS[::5]]
OTHERS = [name for name in CARDS if name != KINETICS]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pages")

    @functools.cache
    def make(name: str) -> tuple[Path, dict[str, Any], dict[str, Any]]:
        case = {**CASES, **EDGES}.get(name) or {**CASES["demo"], "model": name}
        found, model = verdict(**case), find(case["model"], Path("no folder"))
        ran = entries(1 if case["simulated"] else 4, case.get("sizes", SIZES))
        drawings = draw(model, {noted["sample"]: walker(model, noted["sample"]) for noted in found["noted"]})
        previous = page.Previous(*PREVIOUS) if name != "bare" else None
        text = page.render(found, ran, list(ran), RUN, drawings, previous)
        path = folder / f"{name}.html"
        path.write_text(text)
        return path, json.loads(json.dumps(found)), ran

    return make


def known(value: Any) -> set[str]:
    """The numbers in a JSON value and in its texts, as a page may write them."""
    if isinstance(value, dict):
        return known([*value, *value.values()])
    if isinstance(value, list):
        return set().union(*map(known, value))
    return set(NUMBER.findall(str(value)))


def beside(found: dict[str, Any], ran: dict[str, Any]) -> list[str]:
    """What the page works out itself: durations of steps, the change from the previous run, shares in percent."""
    seconds = [step["seconds"] for step in ran.values()]
    (previous, rates), measured = PREVIOUS, [batch for batch in found["batches"] if batch["throughput"]]
    changes = [
        f"{before:.2f} ({batch['throughput']['median'] / before - 1:+.1%})"
        for batch in measured
        if (before := rates.get(batch["batch_size"]))
    ]
    times = [step["started"].replace("T", " ") for step in ran.values()]
    nodes = (found.get("precision") or {}).get("nodes", ())
    shares = [f"{100 * reason['figure']:.3g}" for node in nodes for reason in node["reasons"] if reason["figure"]]
    own = [f"{sum(seconds):.0f}", str(len(seconds)), RUN, previous]
    return [*own, *changes, *times, *map("{:.1f}".format, seconds), *shares]


@pytest.mark.parametrize(("name", "view"), WHOLE)
def test_the_page_is_whole_accessible_and_true(
    browser: Browser, pages: Any, name: str, view: tuple[int, str, bool]
) -> None:
    (path, found, ran), (width, language, dark) = pages(name), view
    browser.problems.clear()
    browser.requests.clear()
    browser.open(path, language, width, 900, dark)
    browser.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    assert browser.evaluate(READ_OVERFLOW) == []
    assert browser.evaluate(READ_CLIPPED) == []
    assert browser.check_numbers(found) > (20 if name == "bare" else 100)
    shown = NUMBER.findall("\n".join(browser.evaluate(READ_OTHERS)))
    assert set(shown) <= known([found, ran, *beside(found, ran)]) | OF_SENTENCES
    browser.evaluate((importlib.resources.files("axe_core_python") / "axe.min.js").read_text() + "; 1")
    assert browser.evaluate(RUN_AXE) == []
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [path.as_uri()]


@pytest.mark.parametrize("name", CASES)
def test_the_page_stays_small(pages: Any, name: str) -> None:
    assert pages(name)[0].stat().st_size < MOST_BYTES


@pytest.mark.parametrize("name", OTHERS)
def test_every_model_s_bodies_are_drawn(browser: Browser, pages: Any, name: str) -> None:
    path, found, _ = pages(name)
    browser.problems.clear()
    browser.open(path, "zh", 1440, 900, dark=False)
    drawn = browser.evaluate("[...document.querySelectorAll('canvas')].map((n) => n.toDataURL().length)")
    assert len(drawn) == len(found["noted"])
    assert min(drawn) > 3000
    assert found["model"]["title"] in browser.evaluate("document.querySelector('h1').innerText")
    assert browser.problems == []


def test_a_failure_says_which_batch_size_by_how_much_and_what_next(browser: Browser, pages: Any) -> None:
    path, found, _ = pages("failed")
    browser.open(path, "en", 1440, 900, dark=False)
    said = browser.evaluate("document.querySelector('#verdict').innerText")
    (missed,) = [batch for batch in found["batches"] if not batch["passed"]]
    assert f"batch size {missed['batch_size']}" in said
    assert f"{missed['relative_error']:.2%}" in said
    assert "fab npu-precision" in said


def test_what_is_folded_is_open_on_paper(browser: Browser, pages: Any) -> None:
    browser.open(pages("passed")[0], "zh", 718, 900, dark=True)  # A4 within its margins
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.evaluate(READ_OVERFLOW) == []
        assert browser.evaluate(READ_CLIPPED) == []
        heights = browser.evaluate("[...document.querySelectorAll('pre')].map((n) => n.getBoundingClientRect().height)")
        colour = browser.evaluate("getComputedStyle(document.querySelector('section')).backgroundColor")
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
    assert len(heights) > 20
    assert min(heights) > 10
    assert colour == "rgb(255, 255, 255)"  # dark is for screens


def test_the_theme_can_be_chosen(browser: Browser, pages: Any) -> None:
    browser.open(pages("demo")[0], "en", 1440, 900, dark=False)
    read = "getComputedStyle(document.body).backgroundColor"
    light = browser.evaluate(read)
    browser.evaluate("document.querySelector('[data-theme-choice=dark]').click()")
    assert browser.evaluate(read) != light
    browser.evaluate("document.querySelector('[data-theme-choice=light]').click()")
    assert browser.evaluate(read) == light


def test_the_downloads_are_the_summary_s_own(browser: Browser, pages: Any) -> None:
    path, found, _ = pages("demo")
    browser.open(path, "en", 1440, 900, dark=False)
    browser.evaluate("window.saved = []; URL.createObjectURL = (blob) => { saved.push(blob); return '#'; }; 1")
    for kind in ("json", "csv"):
        browser.evaluate(f"document.querySelector('[data-download={kind}]').click()")
    text, table = browser.evaluate("Promise.all(saved.map((blob) => blob.text()))")
    assert json.loads(text) == found
    assert table.splitlines()[0].startswith("batch_size,samples,top1")
    assert len(table.splitlines()) == 1 + len(SIZES)
