"""Every sample through an OM on simulated hosts: in every era, on any number of devices, and whatever fails."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.errors import KitError
from deploy.execution import rows
from deploy.inventory import ROOT
from deploy.stages import accuracy
from tests.pipeline.conftest import FAB
from tests.pipeline.npu_job import SAMPLES, NpuJob, logits

TOLERANCE = 2e-3  # of fp16 weights in `network`


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> NpuJob:
    """Never changed: take a copy."""
    job = NpuJob(tmp_path_factory.mktemp("converted"))
    job.convert()
    return job


@pytest.fixture
def job(converted: NpuJob, tmp_path: Path) -> NpuJob:
    return converted.copy(tmp_path)


@pytest.fixture(scope="module")
def expected(converted: NpuJob, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """logits.npy of batch size 8 as one device makes it."""
    job = converted.copy(tmp_path_factory.mktemp("expected"))
    job.accuracy()
    return job.path(8, "logits.npy").read_bytes()


def python_that(job: NpuJob, before: str = "", after: str = "") -> None:
    """Have the host's Python do something `before` it infers and `after` it; $results is where its results lie."""
    path = job.folder / "python"
    path.write_text(
        f"""#!/bin/bash
case "$*" in *--input*) ;; *) exec python3 "$@" ;; esac
{before}
python3 "$@" || exit
results=output/results
{after}
"""
    )
    path.chmod(0o755)
    job.inventory["npu"][0]["tools"]["python"] = str(path)


def test_a_unit_is_laid_out_while_another_runs_and_only_one_runs(
    job: NpuJob, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "UNIT_ROWS", 8)
    busy, seen = job.folder / "busy", job.folder / "seen"
    wait = f"for ((i = 0; i < 100; i++)); do [ $(ls .. | wc -l) -lt 2 ] || {{ touch {seen}; break; }}; sleep 0.1; done"
    python_that(job, f"mkdir {busy} || exit 9; [ -e {seen} ] || {wait}", f"rmdir {busy}")
    job.accuracy(8)
    assert seen.exists()
    assert job.entry("accuracy/bs8")["facts"]["units"] == {"npu-a:0": -(-SAMPLES // 8)}
    assert job.path(8, "logits.npy").read_bytes() == expected


@pytest.mark.full
def test_rows_in_memory_give_what_the_model_makes_of_them_not_a_number_included(job: NpuJob) -> None:
    clips = job.clips[:11].copy()
    clips[3, 0, 0, 0, 0] = np.nan
    connections = job.connections()
    (outputs,) = accuracy.outputs_of(connections, connections.workspace.build(8), [clips])
    assert np.isnan(outputs[3]).all()
    others = np.arange(11) != 3
    assert np.abs(outputs[others] - logits(clips)[others]).max() < TOLERANCE
    assert not list(job.path(8, "").glob("*input*"))
    assert not job.left_on("npu-a")


@pytest.mark.full
def test_two_devices_by_fab_give_the_logits_of_one(tmp_path: Path) -> None:
    sizes = [1, 8, 16, 64]
    job = NpuJob(tmp_path, batch_sizes=sizes, benchmark={"loop": 1, "max_repeats": 1})
    job.play(CHIPS="6:310P3,7:310P3")
    job.inventory["npu"][0]["devices"] = [0, 1]
    job.connections()
    done = subprocess.run(
        [str(FAB), "npu-convert", "npu-bench"],
        cwd=ROOT,
        env={**os.environ, "INVENTORY": str(job.folder / "inventory.yaml")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    together = {size: job.path(size, "logits.npy").read_bytes() for size in sizes}
    shared = [unit for size in sizes for unit in job.entry(f"accuracy/bs{size}")["facts"]["units"].items()]
    assert {device for device, units in shared if units} == {"npu-a:0", "npu-a:1"}
    job.inventory["npu"][0]["devices"] = [1]
    for size in sizes:
        job.accuracy(size, fresh=True)
        assert job.path(size, "logits.npy").read_bytes() == together[size]
        assert job.logits(size).shape == (SAMPLES, 400)
        assert np.abs(job.logits(size) - logits(job.clips)).max() < TOLERANCE


def test_three_devices_of_two_hosts_give_the_logits_of_one(job: NpuJob, expected: bytes, capsys: Any) -> None:
    job.play(CHIPS="6:310P3,7:310P3")
    job.inventory["npu"][0]["devices"] = "all"
    job.inventory["npu"].append(job.host("npu-b"))
    job.accuracy()
    assert job.path(8, "logits.npy").read_bytes() == expected
    assert "bs8: 77 samples, each once, over 3 devices, " in capsys.readouterr().out
    facts = job.entry("accuracy/bs8")["facts"]
    assert set(facts["units"]) == {"npu-a:0", "npu-a:1", "npu-b:0"}
    together = facts["aggregate"]
    assert together["samples"] == SAMPLES
    assert together["samples_per_s"] == pytest.approx(SAMPLES / together["seconds"], rel=0.01)
    assert job.left_on("npu-a") == job.left_on("npu-b") == []


@pytest.mark.parametrize(
    ("era", "summary"),
    [
        pytest.param("2022-06", "whole", marks=pytest.mark.full),  # whose file names say nothing of the sample
        ("2024", "torn"),
        *(
            pytest.param(era, summary, marks=pytest.mark.full)
            for era in ("2022-12", "2023-06", "2024")
            for summary in ("whole", "torn", "lost")
            if (era, summary) != ("2024", "torn")
        ),
    ],
)
def test_every_era_gives_the_same_logits(job: NpuJob, expected: bytes, era: str, summary: str) -> None:
    job.play(ERA=era)
    spoil = {"whole": ":", "torn": "truncate -s 40", "lost": "rm"}[summary]
    python_that(job, after=f'for f in "$results"_summary.json; do [ ! -e "$f" ] || {spoil} "$f"; done')
    job.accuracy()
    assert job.path(8, "logits.npy").read_bytes() == expected


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("crash@3", "npu-a:0: .*segmentation fault"),
        pytest.param(
            "hang@3",
            r"npu-a: python3 -m ais_bench .* did not end within 3 s and was stopped; .*`npu-smi info`",
            marks=pytest.mark.full,
        ),
        pytest.param("lost@3", r"npu-a:0: the device failed in mid-run", marks=pytest.mark.full),
        ("nan@3", "npu-a:0: .*sample 8 .*NaN.*8 of 77"),
        (
            "short@3",
            "npu-a:0: .*sample 8 .*800.*8_0.bin.*1600.* 7 more",
        ),
    ],
)
def test_a_fault_ends_in_its_sentence_and_the_next_run_is_whole(
    job: NpuJob, expected: bytes, fault: str, sentence: str
) -> None:
    job.inventory["timeout_s"] = 3 if fault.startswith("hang") else 60
    job.play(FAULT=fault)
    with pytest.raises(KitError, match=rf"^{sentence}"):
        job.accuracy()
    assert job.entry("accuracy/bs8")["state"] == "FAILED"
    assert not job.path(8, "logits.npy").exists()
    assert job.left_on("npu-a") == []
    job.play(FAULT="")
    job.inventory["timeout_s"] = 60
    job.accuracy()
    assert job.path(8, "logits.npy").read_bytes() == expected


@pytest.mark.parametrize(
    "fault",
    ["crash@2:1", *(pytest.param(f, marks=pytest.mark.full) for f in ("hang@2:1", "lost@2:1", "nan@2:1", "short@3:1"))],
)
def test_what_a_failing_device_had_goes_to_the_other(job: NpuJob, expected: bytes, fault: str, capsys: Any) -> None:
    job.inventory["timeout_s"] = 8 if fault.startswith("hang") else 60
    job.inventory["npu"][0]["devices"] = [0, 1]
    job.play(CHIPS="6:310P3,7:310P3", FAULT=fault, STATE=str(job.folder / "state"))
    job.accuracy()
    assert job.path(8, "logits.npy").read_bytes() == expected
    assert job.entry("accuracy/bs8")["facts"]["units"]["npu-a:1"] == 0
    assert "npu-a:1 retires, its work goes to another" in capsys.readouterr().out


@pytest.mark.full
def test_what_was_done_before_every_device_failed_is_not_done_again(job: NpuJob, expected: bytes) -> None:
    job.play(CHIPS="6:310P3,7:310P3")
    job.inventory["npu"][0]["devices"] = [0, 1]
    python_that(
        job,
        before=f"""echo >> {job.folder}/runs
case "$*" in *"--device 1"*) exit 1 ;; esac
[ $(wc -l < {job.folder}/runs) -le 3 ] || exit 1""",
    )
    with pytest.raises(KitError, match=r"^npu-a:[01]: .*exit status 1"):
        job.accuracy()
    kept = len(list(job.path(8, "").glob(".units-*/*.npy")))
    assert kept > 0
    (job.folder / "runs").unlink()
    python_that(job, before=f"echo >> {job.folder}/runs")
    job.accuracy()
    assert len((job.folder / "runs").read_text()) == 5 - kept
    assert job.path(8, "logits.npy").read_bytes() == expected
    assert not list(job.path(8, "").glob(".units-*"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("rm $results/5_0.bin", "sample 5 "),
        pytest.param(
            "cp $results/5_0.bin $results/500_0.bin",
            "500_0.bin",
            marks=pytest.mark.full,
        ),
        pytest.param("truncate -s 400 $results/5_0.bin", "sample 5 .*400", marks=pytest.mark.full),
        pytest.param(
            "rm ${results}_summary.json; mv $results/5_0.bin $results/5_1.bin",
            "sample 5 ",
            marks=pytest.mark.full,
        ),
        ("sed -i 's,/5_0.bin,/6_0.bin,' ${results}_summary.json; rm $results/5_0.bin", "sample (5|6) "),
        pytest.param("rm -r $results", "sample 0 .* 76 more", marks=pytest.mark.full),
    ],
)
def test_a_result_that_is_not_one_a_sample_is_named(job: NpuJob, change: str, sentence: str) -> None:
    python_that(job, after=change)
    with pytest.raises(KitError, match=sentence):
        job.accuracy()


def test_files_of_an_earlier_run_are_never_counted(job: NpuJob, expected: bytes) -> None:
    job.accuracy()
    key = job.entry("accuracy/bs8")["key"]
    for name in ("input", "output/results"):
        stale = job.folder / f"npu-a/runs/accuracy-bs8-0-{key[:12]}" / name
        stale.mkdir(parents=True)
        (stale / "0.bin").write_bytes(b"\0" * 129600)
        (stale / "999_0.bin").write_bytes(b"\0" * 1600)
    job.accuracy(fresh=True)
    assert job.path(8, "logits.npy").read_bytes() == expected


def test_an_om_of_another_batch_size_than_its_name_says_is_refused(tmp_path: Path) -> None:
    job = NpuJob(tmp_path)
    atc = tmp_path / "wrong-atc"
    atc.write_text('#!/bin/bash\nexec atc "${@/input1:8,/input1:4,}"\n')
    atc.chmod(0o755)
    job.inventory["npu"][0]["tools"]["atc"] = str(atc)
    job.convert()
    with pytest.raises(KitError, match=r"^npu-a:0: st_gcn_bs8.om .*4.*8"):
        job.accuracy()


@pytest.mark.parametrize("damage", ["torn", pytest.param("other", marks=pytest.mark.full)])
def test_a_kept_unit_that_is_not_whole_is_run_again(job: NpuJob, expected: bytes, damage: str) -> None:
    job.accuracy()
    kept = job.path(8, f".units-{job.entry('accuracy/bs8')['key'][:12]}")
    kept.mkdir()
    np.save(kept / "0+77.npy", np.zeros((77, 400), np.float64 if damage == "other" else np.float32))
    if damage == "torn":
        (kept / "0+77.npy").write_bytes((kept / "0+77.npy").read_bytes()[:5000])
    job.path(8, "logits.npy").unlink()
    job.accuracy()
    assert job.path(8, "logits.npy").read_bytes() == expected


@pytest.mark.full
def test_fresh_takes_nothing_that_was_kept(job: NpuJob, expected: bytes) -> None:
    job.accuracy()
    kept = job.path(8, f".units-{job.entry('accuracy/bs8')['key'][:12]}")
    kept.mkdir()
    np.save(kept / "0+77.npy", np.zeros((77, 400), np.float32))
    job.accuracy(fresh=True)
    assert job.path(8, "logits.npy").read_bytes() == expected


def test_without_an_om_the_way_to_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"st_gcn_bs8.om: .*`fab npu-convert`"):
        NpuJob(tmp_path).accuracy()
