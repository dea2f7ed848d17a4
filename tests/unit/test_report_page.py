"""report.html, without a browser: it needs nothing, says everything twice, and its numbers are the summary's."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from deploy.errors import KitError
from deploy.hosts import transfer
from deploy.report import charts, page
from deploy.report.drawings import Drawings
from deploy.report.summary import of_precision
from deploy.workspace import Workspace
from tests.unit import made_up


class Read(HTMLParser):
    """Every tag with its attributes, and the `data` elements with their text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: list[tuple[str, str, str]] = []
        self.words = {"en": "", "zh": ""}
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("data", "span"):
            self._open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("data", "span"):
            self._open.pop()

    def handle_data(self, data: str) -> None:
        for tag, attributes in self._open:
            if tag == "data":
                self.numbers.append((attributes["data-path"] or "", attributes["value"] or "", data))
            elif attributes.get("lang") in self.words:
                self.words[attributes["lang"] or ""] += data


@pytest.fixture(scope="module")
def text(scored: Workspace) -> str:
    return (scored.folder / "report/report.html").read_text()


def test_every_number_is_the_summary_s_and_is_written_as_it_is(scored: Workspace, text: str) -> None:
    summary = made_up.read(scored.folder / "report/summary.json")
    numbers = Read(text).numbers
    assert len(numbers) > 60
    for path, value, shown in numbers:
        expected = made_up.at(summary, path)
        assert json.loads(value) == expected, path
        factor = 100 if shown.endswith("%") else 1
        digits = shown.rstrip("%")
        decimals = len(digits.partition(".")[2].partition("e")[0])
        close = pytest.approx(
            factor * made_up.at(summary, path), rel=0.06 if decimals < 3 else 1e-9, abs=0.51 * 10**-decimals
        )
        assert float(digits) == close, path


def test_what_the_precision_doctor_found_is_told_in_both_languages(scored: Workspace) -> None:
    summary = made_up.read(scored.folder / "report/summary.json")
    entries = scored.manifest.steps
    kept = made_up.precision()
    not_precision = {
        **kept,
        "explained": False,
        "nodes": [],
        "file": None,
        "throughput": {},
        "matrix": ["/fcn/Conv"],
        "blocks": [{"mode": "force_fp16", "first_past": "3", "refused": False}],
        "verdicts": {way: kept["verdicts"][way] for way in ("fp16", "fp32")},
    }

    def words(found: dict[str, Any]) -> dict[str, str]:
        told = {**summary, "precision": of_precision(found)}
        return Read(page.render(told, entries, [], "run", Drawings())).words

    assert "98% of its results vanish below 2^-25" in words(kept)["en"]
    assert "结果有 98% 低于 2^-25 而归零" in words(kept)["zh"]
    assert "权重有 12% 超过 65504" not in words(kept)["en"]
    assert "首个超出容差的是" in words(not_precision)["zh"]
    assert "矩阵单元" in words(not_precision)["zh"]


def test_every_figure_of_the_summary_is_on_the_page(text: str) -> None:
    paths = {path for path, _, _ in Read(text).numbers}
    batch = ("top1", "top5", "top1_hits", "top5_hits", "top1_agreement", "cosine_min", "cosine_median", "max_abs_err")
    for i in range(len(made_up.SIZES)):
        expected = [*batch, "mean_abs_err", "relative_error", "throughput.median", "throughput.min", "throughput.max"]
        assert {f"batches.{i}.{name}" for name in [*expected, "latency_ms.median", "latency_ms.p99"]} <= paths
    assert {"reference.top1", "metrics.0.gate", "samples"} <= paths


def test_the_charts_label_the_summary_s_medians(scored: Workspace, text: str) -> None:
    summary = made_up.read(scored.folder / "report/summary.json")
    shown = set(re.findall(r"<text[^>]*>([^<]*)</text>", text))
    expected = {str(batch["batch_size"]) for batch in summary["batches"]}
    for name in ("throughput", "latency_ms"):
        expected |= {charts.number(batch[name]["median"]) for batch in summary["batches"]}
    assert expected | {"0", "samples/s", "ms"} <= shown


class TestThroughputChart:
    BATCH: ClassVar[Any] = {
        "batch_size": 8,
        "throughput": {"median": 5.0, "values": [4.9, 5.0, 5.4], "idle": True, "noisy": False},
    }

    def test_every_repeat_is_a_dot_and_the_axis_begins_at_zero(self) -> None:
        svg = charts.throughput([self.BATCH], {}, simulated=False)
        assert svg.startswith("<svg")
        assert svg.count("<use ") == 3
        assert re.findall(r"<text[^>]*>([\d.]+)</text>", svg)[1] == "0"
        assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg)
        assert svg == charts.throughput([self.BATCH], {}, simulated=False)

    def test_dots_and_labels_are_as_high_as_their_values(self) -> None:
        batches = [{**self.BATCH, "batch_size": size} for size in range(1, 13)]
        for batch in batches:
            batch["throughput"] = {**self.BATCH["throughput"], "values": [float(batch["batch_size"]), 3.0]}
        svg = charts.throughput(batches, {}, simulated=False)
        drawn = [float(y) for y in re.findall(r'<use [^>]*y="([\d.]+)"', svg)]
        values = [value for batch in batches for value in batch["throughput"]["values"]]
        slope, base = np.polyfit(values, drawn, 1)
        assert slope < 0
        assert drawn == pytest.approx([slope * value + base for value in values], abs=0.01)
        assert svg.count("rotate(-90)") == 12  # twelve labels do not fit beside each other

    def test_a_guide_is_drawn_where_there_is_one(self) -> None:
        assert "--guide" in charts.throughput([self.BATCH], {8: 222.46}, simulated=False)
        assert "--guide" not in charts.throughput([self.BATCH], {1: 381.1}, simulated=False)

    @pytest.mark.parametrize("mark", [{"noisy": True}, {"idle": False}])
    def test_a_figure_not_to_be_relied_on_is_open(self, mark: dict[str, bool]) -> None:
        marked = {**self.BATCH, "throughput": {**self.BATCH["throughput"], **mark}}
        assert "stroke-dasharray" in charts.throughput([marked], {}, simulated=False)
        assert "stroke-dasharray" not in charts.throughput([self.BATCH], {}, simulated=False)


def test_nothing_is_asked_of_a_network(text: str) -> None:
    for tag, attributes in Read(text).tags:
        assert tag not in ("iframe", "object", "embed", "base", "img", "audio", "video")
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,")), (tag, attributes)
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.S))
    assert "@import" not in style
    assert "url(" not in style
    assert "default-src 'none'" in text


def test_both_languages_are_there_side_by_side(text: str) -> None:
    spans = [attributes["lang"] for tag, attributes in Read(text).tags if tag == "span" and "lang" in attributes]
    assert spans.count("en") == spans.count("zh") > 60
    words = Read(text).words
    assert not re.search(r"[\u4e00-\u9fff]", words["en"])
    assert len(re.findall(r"[\u4e00-\u9fff]", words["zh"])) > 300


def test_ids_are_unique(text: str) -> None:
    ids = [attributes["id"] for _, attributes in Read(text).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_real_device_does_not_look_simulated(scored: Workspace, text: str) -> None:
    summary = made_up.read(scored.folder / "report/summary.json")
    summary["device"]["simulated"] = False
    html = page.render(summary, scored.manifest.steps, ["export"], "20260101T000000-00000000", Drawings())
    shown = html[html.index("</style>") : html.index('<script type="application/json"')]
    assert 'class="badge simulated"' not in shown
    assert "played" not in shown
    assert "<canvas" not in shown
    paths = {path for path, _, _ in Read(html).numbers}
    assert {"guide.throughput.1", "guide.top1"} <= paths  # beside a real device alone
    assert "guide.throughput.1" not in {path for path, _, _ in Read(text).numbers}


def test_what_a_host_or_dataset_calls_itself_stays_text(scored: Workspace) -> None:
    summary = made_up.read(scored.folder / "report/summary.json")
    evil = "</script><script>alert(1)</script>"
    summary["noted"][0]["name"] = summary["device"]["cann"] = evil
    entry = scored.manifest.steps["export"] | {"host": evil, "commands": [[evil]]}
    html = page.render(summary, {"export": entry}, ["export"], "run", Drawings())
    assert "<script>alert" not in html
    assert page.embedded_summary(html) == summary


def test_a_failed_verdict_shows_what_flipped(tmp_path: Path) -> None:
    workspace = made_up.make(tmp_path, flip=2)
    with pytest.raises(Exception, match="batch size 4"):
        made_up.score(workspace)
    html = (workspace.folder / "report/report.html").read_text()
    assert 'id="verdict" class="failed"' in html
    summary = made_up.read(workspace.folder / "report/summary.json")
    assert ("batches.1.relative_error", json.dumps(summary["batches"][1]["relative_error"])) in {
        (path, value) for path, value, _ in Read(html).numbers
    }
    assert "fab npu-precision" in html
    assert html.count('<li class="flipped">') == 1
    assert html.count("<canvas data-sample") == 3


def test_a_page_that_lacks_a_drawing_is_made_again_once_its_clip_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise KitError("the host is gone")

    workspace = made_up.make(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "read_row", refuse)
        made_up.score(workspace)
    steps = workspace.manifest.steps
    assert steps["report"]["facts"]["drawn"] == []
    made_up.report(workspace)
    assert len(steps["report"]["facts"]["drawn"]) == 3
    written = (workspace.artefact("report") / "report.html").stat()
    made_up.report(workspace)
    assert (workspace.artefact("report") / "report.html").stat() == written
