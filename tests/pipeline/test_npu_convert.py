"""`fab npu-convert` on simulated hosts: what is kept, what converts again, and the sentence for what fails."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from deploy.errors import KitError
from tests.pipeline.npu_job import SET_ENV, NpuJob, simulator_script


@pytest.fixture
def job(tmp_path: Path) -> NpuJob:
    return NpuJob(tmp_path, samples=2)


def test_each_batch_size_gets_an_om_with_its_log_beside_it(tmp_path: Path, capsys: Any) -> None:
    job = NpuJob(tmp_path, samples=2, batch_sizes=[1, 16])
    job.convert()
    for size in (1, 16):
        om = job.path(size, f"st_gcn_bs{size}.om")
        assert om.stat().st_mode & 0o777 == 0o600
        assert "ATC run success" in job.path(size, "atc.log").read_text()
    assert job.left_on("npu-a") == []
    capsys.readouterr()
    job.convert()
    key = job.entry("convert/bs16")["key"]
    assert f"CACHED  convert/bs16     key {key[:12]}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        "onnx",
        "cann",
        "damaged",
        *(pytest.param(name, marks=pytest.mark.full) for name in ("flag", "soc", "lost", "fresh")),
    ],
)
def test_what_an_om_depends_on_converts_it_again(job: NpuJob, change: str, capsys: Any) -> None:
    job.convert()
    om = job.path(8, "st_gcn_bs8.om")
    if change == "onnx":
        job.write_onnx(seed=1)
    elif change == "flag":
        job.inventory["atc"] = {"precision_mode": "must_keep_origin_dtype"}
    elif change == "cann":
        job.play(CANN="7.0.0")
    elif change == "soc":
        job.play(CHIPS="0:310P1")
    elif change == "lost":
        om.unlink()
    elif change == "damaged":
        om.write_bytes(om.read_bytes()[:-1])
    capsys.readouterr()
    job.convert(fresh=change == "fresh")
    assert "OK      convert/bs8" in capsys.readouterr().out


def test_flags_of_the_inventory_reach_atc_and_the_record(job: NpuJob) -> None:
    job.inventory["atc"] = {"precision_mode": "allow_mix_precision", "op_select_implmode": "high_precision"}
    job.convert()
    entry = job.entry("convert/bs8")
    assert entry["inputs"]["flags"] == job.inventory["atc"]
    assert "--op_select_implmode=high_precision" in entry["commands"][0]


@pytest.mark.parametrize(
    ("code", "way_out"),
    [
        pytest.param("E10001", "correct that value", marks=pytest.mark.full),
        pytest.param("E10016", "export the ONNX again", marks=pytest.mark.full),
        pytest.param("E19010", "export with an opset that this CANN reads", marks=pytest.mark.full),
        ("EZ3003", "set `variant: reference`"),
        pytest.param("EE1001", "does not know the chip", marks=pytest.mark.full),
        pytest.param("EC0010", "pip install 'numpy<2' decorator", marks=pytest.mark.full),
    ],
)
def test_one_batch_size_fails_with_a_sentence_and_the_others_are_made(tmp_path: Path, code: str, way_out: str) -> None:
    job = NpuJob(tmp_path, samples=2, batch_sizes=[1, 8])
    job.play(ATC_ERROR=f"{code}@1")
    sentence = rf"^batch size 1 .*npu-a: .*{code} .*{way_out}"
    with pytest.raises(KitError, match=sentence):
        job.convert()
    assert job.entry("convert/bs1")["state"] == "FAILED"
    assert code in job.path(1, "atc.log").read_text()
    assert job.entry("convert/bs8")["state"] == "OK"
    assert job.left_on("npu-a") == []


def test_every_batch_size_that_failed_is_named(tmp_path: Path) -> None:
    job = NpuJob(tmp_path, samples=2, batch_sizes=[4, 1])
    job.play(ATC_ERROR="EZ3003")
    with pytest.raises(KitError, match="batch size 4, 1 "):
        job.convert()


def test_an_environment_that_was_not_sourced_is_told(job: NpuJob, tmp_path: Path) -> None:
    script = simulator_script(tmp_path, "unset ASCEND_TOOLKIT_HOME\n")
    job.inventory["npu"][0]["tools"]["env_scripts"] = [SET_ENV, script]
    with pytest.raises(KitError, match="E10001 .*host_env_os.*`tools.env_scripts`"):
        job.convert()


def test_a_missing_atc_and_one_that_dies_are_told(job: NpuJob, tmp_path: Path) -> None:
    tools = job.inventory["npu"][0]["tools"]
    tools["atc"] = "no-such-atc"
    with pytest.raises(KitError, match="^batch size 8 .*npu-a: no-such-atc .*`tools`"):
        job.convert()
    killed = tmp_path / "killed-atc"
    killed.write_text("#!/bin/bash\necho ATC start working now, please wait for a moment.\nkill -9 $$\n")
    killed.chmod(0o755)
    tools["atc"] = str(killed)
    with pytest.raises(KitError, match="npu-a: .*memory"):
        job.convert()


def test_an_atc_that_claims_success_and_leaves_nothing_is_told(job: NpuJob, tmp_path: Path) -> None:
    boasting = tmp_path / "boasting-atc"
    boasting.write_text("#!/bin/bash\necho ATC run success, welcome to the next use.\n")
    boasting.chmod(0o755)
    job.inventory["npu"][0]["tools"]["atc"] = str(boasting)
    with pytest.raises(KitError, match=r"npu-a: atc .*st_gcn_bs\d.om"):
        job.convert()


def test_an_atc_that_hangs_is_stopped_at_its_deadline(job: NpuJob, tmp_path: Path) -> None:
    hung = tmp_path / "hung-atc"
    hung.write_text("#!/bin/bash\nsleep 1000\n")
    hung.chmod(0o755)
    job.inventory |= {"timeout_s": 1}
    job.inventory["npu"][0]["tools"]["atc"] = str(hung)
    with pytest.raises(KitError, match=rf"npu-a: {hung} .* 1 s"):
        job.convert()


def test_the_detailed_log_of_a_failure_comes_back(job: NpuJob, tmp_path: Path) -> None:
    failing = tmp_path / "failing-atc"
    failing.write_text(
        "#!/bin/bash\nmkdir -p $ASCEND_PROCESS_LOG_PATH/debug/plog && "
        "echo '[ERROR] TBE: the reason' >$ASCEND_PROCESS_LOG_PATH/debug/plog/plog-1.log\n"
        "echo 'ATC run failed, Please check the detail log'; exit 255\n"
    )
    failing.chmod(0o755)
    tools = job.inventory["npu"][0]["tools"]
    tools["atc"] = str(failing)
    with pytest.raises(KitError, match=r"atc\.detail\.log"):
        job.convert()
    detail = job.path(8, "atc.detail.log")
    assert "[ERROR] TBE: the reason" in detail.read_text()
    assert job.left_on("npu-a") == []
    del tools["atc"]
    job.convert()
    assert not detail.exists()


def test_a_flag_of_the_kits_own_is_refused(job: NpuJob) -> None:
    job.inventory["atc"] = {"soc_version": "Ascend910"}
    with pytest.raises(KitError, match=r"`atc\.soc_version`"):
        job.convert()


def test_two_hosts_share_the_batch_sizes(tmp_path: Path) -> None:
    job = NpuJob(tmp_path, samples=2, batch_sizes=[1, 2, 4, 8])
    job.inventory["npu"].append(job.host("npu-b"))
    job.convert()
    assert {job.entry(f"convert/bs{size}")["host"] for size in (1, 2, 4, 8)} == {"npu-a", "npu-b"}


def test_a_dry_run_prints_the_command_and_makes_nothing(job: NpuJob, capsys: Any) -> None:
    job.convert(dry=True)
    out = capsys.readouterr().out
    assert "convert/bs8 would run on npu-a" in out
    assert "--input_shape=input1:8,3,300,18,2" in out
    assert not os.path.lexists(job.path(8, "st_gcn_bs8.om"))
