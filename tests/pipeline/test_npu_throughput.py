"""Figures on simulated hosts: taken on an idle device, marked on a busy one, steady, and never one that contradicts
itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.errors import HostUnfit, KitError
from deploy.evidence import figure
from deploy.npu import device, measure
from tests.pipeline.npu_job import NpuJob
from tests.pipeline.test_npu_accuracy import python_that


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> NpuJob:
    """Never changed: take a copy."""
    folder = tmp_path_factory.mktemp("converted")
    job = NpuJob(folder, samples=3)
    job.play(STATE=str(folder / "state"), SHORTCUT="0.5")  # ms a clip, reported alike in every run
    job.convert()
    return job


@pytest.fixture
def job(converted: NpuJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NpuJob:
    monkeypatch.setattr(device, "POLL_S", 0.1)
    monkeypatch.setattr(measure, "SETTLE_S", 1.0)
    return converted.copy(tmp_path)


@pytest.mark.parametrize("driver", ["22.0.2", pytest.param("23.0.3", marks=pytest.mark.full)])
def test_a_device_that_stays_busy_ends_in_its_process_and_accuracy_still_runs(
    job: NpuJob, driver: str, capsys: Any
) -> None:
    job.play(BUSY="0:train.py:forever", DRIVER=driver)
    with pytest.raises(HostUnfit) as caught:
        job.bench()
    assert str(caught.value).startswith(
        "throughput/bs8: npu-a:0: the device was not idle within 1 s (train.py (pid 4200, 3072 MB), AICore at 87 %)"
    )
    assert "`fab npu-bench --force`" in str(caught.value)
    assert "waiting for npu-a:0: train.py" in capsys.readouterr().out
    assert job.entry("accuracy/bs8")["state"] == "OK"
    assert job.entry("throughput/bs8")["state"] == "FAILED"
    assert not job.path(8, "benchmark.json").exists()


@pytest.mark.full
def test_the_deadline_is_waited_for_once_a_command(tmp_path: Path, capsys: Any) -> None:
    job = NpuJob(tmp_path, samples=3, batch_sizes=[1, 2, 3])
    job.play(BUSY="0:train.py:forever")
    job.convert()
    with pytest.raises(KitError, match=r"throughput/bs1: .*\(and 2 more, above\)"):
        job.bench()
    assert capsys.readouterr().out.count("waiting for npu-a:0") == 1


def test_a_forced_figure_is_marked_and_serves_only_who_asks_for_one(job: NpuJob) -> None:
    job.play(BUSY="0:train.py:forever")
    job.throughput(force=True)
    figure = job.figure(8)
    assert figure["throughput"]["idle"] is False
    assert figure["idle_checks"]["before"]["busy"].startswith("train.py")
    started = job.entry("throughput/bs8")["seconds"]
    job.throughput(force=True)
    assert job.entry("throughput/bs8")["seconds"] == started
    with pytest.raises(KitError, match=r"npu-a:0: .*train\.py"):
        job.throughput()
    job.play(BUSY="")
    job.throughput()
    assert job.figure(8)["throughput"]["idle"] is True


@pytest.mark.full
def test_an_idle_figure_serves_a_forced_run_too(job: NpuJob, capsys: Any) -> None:
    job.throughput()
    job.throughput(force=True)
    assert "CACHED  throughput/bs8" in capsys.readouterr().out


@pytest.mark.full
def test_a_device_that_frees_up_is_waited_for(job: NpuJob, capsys: Any) -> None:
    job.inventory["benchmark"]["idle_timeout_s"] = 60
    job.play(BUSY="0:train.py:8q")
    job.throughput()
    assert job.figure(8)["throughput"]["idle"] is True
    assert "waiting for npu-a:0: train.py" in capsys.readouterr().out


@pytest.mark.full
def test_a_device_that_is_taken_while_it_is_measured_gives_no_figure(job: NpuJob) -> None:
    smi = job.folder / "smi"
    smi.write_text(
        f'#!/bin/bash\n[ ! -e {job.folder}/measured ] || export NPU_SIM_BUSY=0:train.py:forever\nexec npu-smi "$@"\n'
    )
    smi.chmod(0o755)
    loop = job.folder / "python"
    loop.write_text(f'#!/bin/bash\ncase "$*" in *--loop*) touch {job.folder}/measured ;; esac\nexec python3 "$@"\n')
    loop.chmod(0o755)
    job.inventory["npu"][0]["tools"] |= {"npu_smi": str(smi), "python": str(loop)}
    with pytest.raises(KitError, match=r"^npu-a:0: .*\(train.py"):
        job.throughput()
    (job.folder / "measured").unlink()
    job.throughput(force=True)
    assert job.figure(8)["throughput"]["idle"] is False


@pytest.mark.parametrize(
    "era", ["2024", *(pytest.param(era, marks=pytest.mark.full) for era in ("2022-06", "2022-12", "2023-06"))]
)
def test_every_era_gives_a_figure_with_its_latency_and_the_device_state(job: NpuJob, era: str) -> None:
    job.play(ERA=era)
    job.throughput()
    figure = job.figure(8)
    rate, latency = figure["throughput"], figure["latency_ms"]
    assert rate["repeats"] == len(figure["runs"]) == len(figure["logs"]) == 2
    assert rate["min"] <= rate["median"] <= rate["max"]
    assert latency["min"] <= latency["median"] <= latency["p99"] <= latency["max"]
    assert rate["median"] == pytest.approx(8000 / latency["mean"]) == pytest.approx(2000, rel=0.01)
    assert (figure["temperature_c"], figure["power_w"], figure["device"]) == (42, 15.8, 0)


@pytest.mark.parametrize(("steady", "repeats"), [pytest.param(True, 2, marks=pytest.mark.full), (False, 4)])
def test_it_repeats_until_the_spread_or_the_cap(job: NpuJob, steady: bool, repeats: int) -> None:
    job.inventory["benchmark"] |= {"spread": 0.02, "min_repeats": 2, "max_repeats": 4}
    if not steady:  # each run of ais_bench is slower than the one before
        python = job.folder / "python"
        slower = f"echo >> {job.folder}/runs; export NPU_SIM_SHORTCUT=$(wc -l < {job.folder}/runs)"
        python.write_text(f'#!/bin/bash\n{slower}\nexec python3 "$@"\n')
        python.chmod(0o755)
        job.inventory["npu"][0]["tools"]["python"] = str(python)
    job.throughput()
    assert job.figure(8)["throughput"]["repeats"] == repeats


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ('"${@/#8/4}"', "batch size of 4, .* 8 "),
        ('"$@" | sed "s/: [0-9.]*$/: 99999/"', "99999.* 8 "),
        pytest.param('"$@" | grep -v throughput', "ended without its figures", marks=pytest.mark.full),
    ],
)
def test_a_figure_that_contradicts_itself_is_an_error(job: NpuJob, arguments: str, sentence: str) -> None:
    python = job.folder / "python"
    python.write_text(f'#!/bin/bash\ncase "$*" in *--loop*) python3 {arguments} ;; *) exec python3 "$@" ;; esac\n')
    python.chmod(0o755)
    job.inventory["npu"][0]["tools"]["python"] = str(python)
    with pytest.raises(KitError, match=rf"npu-a:0: .*{sentence}"):
        job.throughput()
    assert not job.path(8, "benchmark.json").exists()


@pytest.mark.full
def test_a_device_that_is_lost_costs_its_figure_alone(job: NpuJob) -> None:
    job.play(CHIPS="6:310P3,7:310P3", FAULT="lost@2:0")
    job.inventory["npu"][0]["devices"] = [0, 1]
    with pytest.raises(KitError, match="^throughput/bs8: npu-a: device 0 "):
        job.bench()
    assert job.entry("accuracy/bs8")["state"] == "OK"
    with pytest.raises(KitError, match=r"^npu-a: .*device 0: .*1 \(310P3, NPU 7\)"):
        job.bench()
    job.inventory["npu"][0]["devices"] = [1]
    job.bench()


def test_a_device_that_is_lost_while_it_is_measured_is_told(job: NpuJob) -> None:
    job.play(FAULT="lost@2")
    with pytest.raises(KitError, match="^npu-a:0: .*device"):
        job.throughput()


def test_a_batch_size_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    job = NpuJob(tmp_path, samples=3, batch_sizes=[1, 2])
    job.convert()
    python_that(job, before='case "$*" in *bs1.om*) exit 3 ;; esac')
    with pytest.raises(KitError, match="^accuracy/bs1: npu-a:0: .*exit status 3"):
        job.bench()
    states = {step: job.entry(step)["state"] for step in ("accuracy/bs1", "accuracy/bs2", "throughput/bs1")}
    assert states == {"accuracy/bs1": "FAILED", "accuracy/bs2": "OK", "throughput/bs1": "OK"}


@pytest.mark.parametrize("era", ["2022-12", pytest.param("2022-06", marks=pytest.mark.full), "2024"])
def test_times_that_are_planted_are_found_again(job: NpuJob, era: str) -> None:
    job.play(ERA=era, SHORTCUT="0.5", COPIES="0.08,0.01")  # ms a clip; a batch is 8
    job.inventory["benchmark"] |= {"loop": 20}
    job.throughput()
    latency = job.figure(8)["latency_ms"]
    assert latency["median"] == pytest.approx(4.0, rel=0.02)
    assert latency["p90"] == pytest.approx(4.0, rel=0.02)
    assert latency["h2d"]["median"] == pytest.approx(0.64, rel=0.02)
    assert latency["d2h"]["median"] == pytest.approx(0.08, rel=0.02)
    assert latency["h2d"]["share"] == pytest.approx(0.64 / 4.72, rel=0.02)
    assert [len(repeat["compute_list"]) for repeat in job.figure(8)["repeats"]] == [20, 20]
    assert job.figure(8)["drift"]["within"]["drifts"] is False


def test_times_that_grow_are_told(job: NpuJob) -> None:
    job.play(DRIFT="0.005")
    job.inventory["benchmark"] |= {"loop": 30}
    job.throughput()
    drift = job.figure(8)["drift"]
    assert drift["within"]["drifts"] is True
    assert drift["within"]["change"] == pytest.approx(0.13, rel=0.1)
    assert drift["between"]["drifts"] is False  # each repeat begins anew


@pytest.mark.full
def test_threads_that_the_inventory_asks_for(job: NpuJob) -> None:
    job.play(CANN="8.0.0", ERA="2024", DRIVER="24.1.0", LANES="2")
    job.inventory["benchmark"] |= {"threads": 4, "loop": 10, "max_repeats": 2}
    job.convert()
    job.throughput()
    found = job.figure(8)
    assert found["throughput"]["threads"] == 4
    assert found["throughput"]["median"] == pytest.approx(2 * 1000 / 0.5, rel=0.02)  # two lanes of 0.5 ms a clip
    assert found["latency_ms"]["p99"] == pytest.approx(2 * 8 * 0.5, rel=0.02)
    assert len(found["repeats"][0]["compute_list"]) == 40
    figure.check(job.path(8, ""), job.entry("throughput/bs8"), None)
    assert job.left_on("npu-a") == []
