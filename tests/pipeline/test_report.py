"""The verdict's page in a browser, its audit, and the search for a bad block, on a finished job."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deploy.errors import GATE_FAILED
from tests.pipeline.browser import Browser
from tests.pipeline.conftest import SAMPLES, Job

WINDOW = (1280, 900)
CJK = re.compile(r"[\u4e00-\u9fff]")
WAIT = "new Promise((done) => setTimeout(done, 400))"


@pytest.mark.full
def test_the_page_opens_clean_with_the_summary_s_numbers(
    finished: tuple[Job, str], browser: Browser, tmp_path: Path
) -> None:
    """Of a real run; that every width, language and theme is whole, tests/pipeline/test_page.py looks at real size."""
    page = finished[0].workspace / "report/report.html"
    summary = json.loads(page.with_name("summary.json").read_text())
    browser.requests.clear()
    browser.open(page, "en", *WINDOW, dark=False)
    text = browser.evaluate("document.querySelector('main').innerText")
    assert not CJK.search(text)
    assert browser.check_numbers(summary) > 60
    assert browser.evaluate("document.querySelectorAll('figure svg').length") == 3
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 50_000
    assert browser.problems == []
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}
    assert sum(url.startswith("file:") for url in browser.requests) == 1


@pytest.mark.full
def test_the_switch_changes_the_language(finished: tuple[Job, str], browser: Browser) -> None:
    browser.open(finished[0].workspace / "report/report.html", "en", *WINDOW, dark=False)
    browser.evaluate("document.querySelector('button[data-set=zh]').click()")
    assert "吞吐量" in browser.evaluate("document.querySelector('main').innerText")
    browser.evaluate("document.querySelector('button[data-set=en]').click()")
    assert "Throughput" in browser.evaluate("document.querySelector('main').innerText")


@pytest.mark.full
def test_skeletons_move_and_stop_at_a_click(finished: tuple[Job, str], browser: Browser) -> None:
    browser.open(finished[0].workspace / "report/report.html", "en", *WINDOW, dark=False)
    browser.evaluate("document.querySelector('canvas').scrollIntoView()")
    read = "document.querySelector('canvas').toDataURL()"
    still = browser.evaluate(f"{WAIT}.then(() => {read})")
    moved = browser.evaluate(f"{WAIT}.then(() => {read})")
    assert moved != still
    browser.evaluate("document.querySelector('canvas').click()")
    stopped = browser.evaluate(f"{WAIT}.then(() => {read})")
    assert browser.evaluate(f"{WAIT}.then(() => {read})") == stopped
    assert len(stopped) > 3000


def one_logits_byte(work: Path) -> None:
    path = work / "npu/bs4/logits.npy"
    data = bytearray(path.read_bytes())
    data[-1600 * 3 + 5] ^= 1
    path.write_bytes(data)


def one_label(work: Path) -> None:
    labels = np.load(work / "gpu/labels.npy")
    labels[2] += -1 if labels[2] else 1
    np.save(work / "gpu/labels.npy", labels)


def a_row_of_the_csv(work: Path) -> None:
    path = work / "report/summary.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def a_throughput(work: Path) -> None:
    path = work / "report/summary.json"
    summary = json.loads(path.read_bytes())
    summary["batches"][0]["throughput"]["median"] *= 2
    path.write_text(json.dumps(summary, indent=1))


def the_om(work: Path) -> None:
    shutil.copy2(work / "npu/bs1/st_gcn_bs1.om", work / "npu/bs4/st_gcn_bs4.om")


def a_manifest_entry(work: Path) -> None:
    path = work / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["steps"]["convert/bs4"]
    path.write_text(json.dumps(manifest))


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (one_logits_byte, rf"bs4/logits\.npy: the row of sample {SAMPLES - 3} \(.+\) was changed"),
    (one_label, r"gpu/labels\.npy: the label of sample 2 is \d+ and was \d+"),
    (a_row_of_the_csv, r"summary\.csv: the row of batch size 4 is missing"),
    (a_throughput, r"summary\.json: batches\[0\]\.throughput\.median is"),
    (the_om, r"st_gcn_bs4\.om: not the file that convert/bs4 made"),
    (a_manifest_entry, r"convert/bs4: manifest\.json has no entry for it"),
]


@pytest.mark.parametrize(("damage", "sentence"), DAMAGE, ids=[damage.__name__ for damage, _ in DAMAGE])
def test_audit_names_what_does_not_hold(copy: Job, damage: Callable[[Path], None], sentence: str) -> None:
    damage(copy.workspace)
    assert re.search(rf"error: .*{sentence}", copy.fab("audit", status=1))


def test_audit_holds_where_nothing_was_changed(copy: Job) -> None:
    assert f"holds: {SAMPLES} samples" in copy.fab("audit")


@pytest.mark.full
def test_runs_are_listed_compared_and_pruned(copy: Job) -> None:
    (run,) = (copy.workspace / "runs").iterdir()
    assert run.name in copy.fab("runs")
    output = copy.fab("compare", "latest", str(copy.workspace))
    assert "inputs and versions: the same" in output
    assert "the same measurement" in output
    assert "holds" in copy.fab("audit", "--run", "latest")
    assert run.name not in copy.fab("prune", "--keep", "1")
    assert "names no run" in copy.fab("compare", "nosuch", "latest", status=1)


@pytest.mark.full
def test_reproduce_gives_the_same_om_and_logits(copy: Job, finished: tuple[Job, str]) -> None:
    """The script names absolute places, here the copy's."""
    script, host = copy.workspace / "npu/bs4/reproduce.sh", copy.folder / "npu-host"
    script.write_text(script.read_text().replace(str(finished[0].folder), str(copy.folder)))
    subprocess.run(["bash", str(script)], check=True, stdout=subprocess.DEVNULL, timeout=600)
    (om,) = host.glob(".stgcn-kit/runs/convert-bs4-*/*.om")
    assert om.read_bytes() == (copy.workspace / "npu/bs4/st_gcn_bs4.om").read_bytes()
    (results,) = host.glob(".stgcn-kit/runs/accuracy-bs4-*/output/results")
    again = np.stack([np.fromfile(results / f"{i}_0.bin", np.float32) for i in range(SAMPLES)])
    assert again.tobytes() == np.load(copy.workspace / "npu/bs4/logits.npy").tobytes()


@pytest.mark.full
def test_a_device_that_rounds_block_7_badly_fails_and_is_located(copy: Job) -> None:
    copy.inventory["batch_sizes"] = [1]
    copy.npu["tools"]["env"] = {"NPU_SIM_BAD_BLOCK": "7"}
    copy.fab("npu-convert", "--fresh")
    output = copy.fab("npu-bench", "score", status=GATE_FAILED)
    assert "verdict (simulated): FAILED" in output
    assert "`fab npu-precision` says" in output
    output = " ".join(copy.fab("npu-precision", "--samples", "4", status=1).split())
    assert "precision does not explain it" in output
    assert "block 7 is the first past the tolerance" in output
    assert "must_keep_origin_dtype does not change it" in output
    located = json.loads((copy.workspace / "precision/blocks.json").read_text())
    blocks = {b["block"]: b for b in located["modes"]["force_fp16"]["blocks"]}
    assert [blocks[str(i)]["passed"] for i in range(1, 8)] == [True] * 6 + [False]
    assert blocks["6"]["relative_error"] < 0.01 < 0.1 < blocks["7"]["relative_error"]
    assert json.loads((copy.workspace / "precision/precision.json").read_text())["explained"] is False
