"""What the kit asks of a host before anything is copied there, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.errors import HostUnfit, KitError
from tests.pipeline.npu_job import SET_ENV, NpuJob, simulator_script


@pytest.fixture
def job(tmp_path: Path) -> NpuJob:
    return NpuJob(tmp_path, samples=2)


def copied(job: NpuJob) -> list[Path]:
    return [path for path in (job.folder / "npu-a").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("knobs", "host", "sentence"),
    [
        ({"CHIPS": "6:310P3,7:310P3"}, {"devices": [6]}, r"device 6: .*0 \(310P3, NPU 6\), 1 \(310P3, NPU 7\)"),
        ({"HEALTH": "0:Critical"}, {}, "health 'Critical'"),
        ({"CHIPS": "0:310P3,1:910B3"}, {"devices": "all"}, "are of different kinds"),
        pytest.param(
            {"SMI_ERROR": "-8005"},
            {},
            "-8005.*set_env.sh",
            marks=pytest.mark.full,
        ),
        ({"SMI_ERROR": "-8020"}, {}, "-8020.*container"),
        pytest.param({"LOST": "0"}, {}, "-8005", marks=pytest.mark.full),
    ],
)
def test_a_host_that_is_unfit_is_refused_before_anything_is_copied(
    job: NpuJob, knobs: dict[str, str], host: dict[str, Any], sentence: str
) -> None:
    job.play(**knobs)
    job.inventory["npu"][0] |= host
    with pytest.raises(HostUnfit, match=rf"^npu-a: .*{sentence}"):
        job.convert()
    assert copied(job) == []


@pytest.mark.parametrize(
    "knobs",
    [
        pytest.param({"CHIPS": "6:310P3", "POWER": "NA"}, marks=pytest.mark.full),
        {"CHIPS": "6:310P3", "DRIVER": "23.0.3"},
        pytest.param({"CHIPS": "4:910B3", "DRIVER": "24.1.0"}, marks=pytest.mark.full),
        pytest.param({"CHIPS": "4:910A"}, marks=pytest.mark.full),
    ],
)
def test_every_table_of_chips_leads_to_an_om(job: NpuJob, knobs: dict[str, str]) -> None:
    job.play(**knobs)
    job.convert()
    assert job.entry("convert/bs8")["inputs"]["soc_version"] == "Ascend" + knobs["CHIPS"][2:]


@pytest.mark.parametrize(
    ("knobs", "host", "soc"),
    [
        ({"CHIPS": "0:Ascend910_9392,0:Ascend910_9392", "CANN": "9.0.1"}, {"devices": [1]}, "Ascend910_9392"),
        ({"CHIPS": "5:Ascend950PR_9579", "CANN": "8.5.0"}, {"devices": [5]}, "Ascend950PR_9579"),
        pytest.param({"CHIPS": "0:310P3"}, {"chip": "310P1"}, "Ascend310P1", marks=pytest.mark.full),
        pytest.param({"CHIPS": "0:310P3"}, {"chip": "Ascend310P1"}, "Ascend310P1", marks=pytest.mark.full),
    ],
)
def test_atc_is_given_what_the_board_or_the_inventory_says(
    job: NpuJob, knobs: dict[str, str], host: dict[str, Any], soc: str
) -> None:
    job.play(DRIVER="26.0.0", **knobs)
    job.inventory["npu"][0] |= host
    job.convert()
    assert job.entry("convert/bs8")["inputs"]["soc_version"] == soc


@pytest.mark.full
def test_a_board_that_is_always_in_alarm_is_used_and_what_it_gives_is_marked(job: NpuJob, capsys: Any) -> None:
    job.play(CHIPS="0:310B4", DRIVER="23.0.3")
    job.convert()
    job.bench()
    out = capsys.readouterr().out
    assert "npu-a: device 0 (310B4, NPU 0) reports health 'Alarm'" in out
    assert "(simulated, device health Alarm)" in out
    assert job.entry("accuracy/bs8")["facts"]["health"] == "Alarm"
    assert job.entry("throughput/bs8")["facts"]["health"] == "Alarm"


@pytest.mark.parametrize(
    ("package", "sentence"),
    [
        pytest.param(
            None,
            "npu-a: .*ais_bench",
            marks=pytest.mark.full,
        ),
        ("import aclruntime", "npu-a: `tools.python` .*aclruntime"),
        pytest.param(
            "print('usage: ais_bench [--datasets DATASETS]')",
            "ais_bench_benchmark",
            marks=pytest.mark.full,
        ),
    ],
)
def test_converting_needs_no_ais_bench_and_benching_says_so_before_clips_are_copied(
    job: NpuJob, tmp_path: Path, package: str | None, sentence: str
) -> None:
    if package:
        (tmp_path / "packages/ais_bench").mkdir(parents=True)
        (tmp_path / "packages/ais_bench/__init__.py").touch()
        (tmp_path / "packages/ais_bench/__main__.py").write_text(package)
    script = simulator_script(tmp_path, f"PYTHONPATH={tmp_path}/packages\n")
    job.inventory["npu"][0]["tools"]["env_scripts"] = [SET_ENV, script]
    job.convert()
    with pytest.raises(KitError, match=sentence):
        job.bench()
    assert not list((job.folder / "npu-a").glob("data/*"))


def test_a_version_that_is_not_told_is_unknown_with_a_warning(job: NpuJob, tmp_path: Path, capsys: Any) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\nASCEND_DRIVER_PATH=/none exec python3 "$@"\n')
    python.chmod(0o755)
    job.inventory["npu"][0]["tools"]["python"] = str(python)
    job.convert()
    job.accuracy()
    assert job.entry("accuracy/bs8")["inputs"]["driver"] == "unknown"
    assert "npu-a: driver version unknown (no version file" in capsys.readouterr().out


def test_a_driver_older_than_its_cann_is_warned_of(job: NpuJob, capsys: Any) -> None:
    job.play(CANN="8.0.0")
    job.convert()
    assert "npu-a: driver 22.0.2-simulated is older than" in capsys.readouterr().out


def test_hosts_of_two_kinds_make_no_verdict(job: NpuJob) -> None:
    job.inventory["npu"].append(job.host("npu-b"))
    job.play(1, CHIPS="0:310P1")
    with pytest.raises(KitError, match="npu-a .*Ascend310P3 .*npu-b .*Ascend310P1"):
        job.convert()
