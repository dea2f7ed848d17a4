"""NPU_SIM_* variables: what they mean, and that nonsense is named."""

import pytest

import scenario
from scenario import AtcError, Busy, Chip, Fault

from .conftest import SIMULATOR, Run


def load(**knobs: str) -> scenario.Scenario:
    return scenario.load({f"NPU_SIM_{name}": value for name, value in knobs.items()} | {"PATH": "/bin"})


@pytest.mark.parametrize(
    ("knobs", "field", "value"),
    [
        ({}, "chips", (Chip(0, 0, 0, "310P3"),)),
        ({"CHIPS": "6:310P3,7:310P3"}, "chips", (Chip(6, 0, 0, "310P3"), Chip(7, 0, 1, "310P3"))),
        ({"CHIPS": "2:310P3,2:310P3"}, "chips", (Chip(2, 0, 0, "310P3"), Chip(2, 1, 1, "310P3"))),
        ({}, "era", "2022-12"),
        ({"ERA": "2024"}, "era", "2024"),
        ({"ERA": ""}, "era", "2022-12"),
        ({"BUSY": "0:python:forever"}, "busy", (Busy(0, "python"),)),
        ({"BUSY": "1:vllm:30s", "STATE": "/x"}, "busy", (Busy(1, "vllm", seconds=30),)),
        ({"BUSY": "0:a:3q,1:b:forever", "STATE": "/x"}, "busy", (Busy(0, "a", queries=3), Busy(1, "b"))),
        ({"FAULT": "crash@3"}, "faults", (Fault("crash", 3),)),
        ({"FAULT": "nan@2:1,hang@4"}, "faults", (Fault("nan", 2, 1), Fault("hang", 4))),
        ({"HEALTH": "1:Alarm"}, "health", {1: "Alarm"}),
        ({"LOST": "0,2"}, "lost", frozenset({0, 2})),
        ({"POWER": "NA"}, "power_shown", False),
        ({"SMI_ERROR": "-8020"}, "smi_error", -8020),
        ({"ATC_ERROR": "EZ3003"}, "atc_error", AtcError("EZ3003")),
        ({"ATC_ERROR": "E10001@8"}, "atc_error", AtcError("E10001", 8)),
        ({"BAD_BLOCK": "7"}, "bad_block", 7),
        ({"SHORTCUT": "2.6"}, "shortcut_ms", 2.6),
    ],
)
def test_meaning(knobs: dict[str, str], field: str, value: object) -> None:
    assert getattr(load(**knobs), field) == value


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        ({"CHIP": "0:310P3"}, "NPU_SIM_CHIP "),
        ({"CHIPS": "310P3"}, "NPU_SIM_CHIPS='310P3'"),
        ({"ERA": "2023"}, "NPU_SIM_ERA='2023'"),
        ({"BUSY": "0:python"}, "NPU_SIM_BUSY='0:python'"),
        ({"BUSY": "0:python:30s"}, "NPU_SIM_STATE"),
        ({"FAULT": "explode@1"}, "NPU_SIM_FAULT='explode@1'"),
        ({"POWER": "yes"}, "NPU_SIM_POWER='yes'"),
        ({"ATC_ERROR": "broken"}, "NPU_SIM_ATC_ERROR='broken'"),
        ({"BAD_BLOCK": "seven"}, "NPU_SIM_BAD_BLOCK='seven'"),
    ],
)
def test_nonsense_is_named(knobs: dict[str, str], named: str) -> None:
    with pytest.raises(scenario.ScenarioError, match=named):
        load(**knobs)


@pytest.mark.parametrize(
    "command", [["npu-smi", "info"], ["atc", "--model=x"], ["aoe", "--job_type=1"], ["python3", "-m", "ais_bench"]]
)
def test_every_program_ends_with_the_sentence(run: Run, command: list[str]) -> None:
    done = run(*command, ERA="now")
    assert done.returncode == 1
    assert "NPU_SIM_ERA='now'" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_set_env_names_versions_that_it_does_not_play(run: Run) -> None:
    done = run("npu-smi", "info", CANN="5.0")
    assert done.returncode == 1
    assert "NPU_SIM_CANN=5.0" in done.stderr


def test_version_files_say_simulated(run: Run) -> None:
    done = run("bash", "-c", 'cat "$ASCEND_TOOLKIT_HOME"/*.info "$ASCEND_DRIVER_PATH"/version.info', CANN="7.0.0")
    assert "\nversion=7.0.0-simulated\n" in done.stdout
    assert "Version=22.0.2-simulated\n" in done.stdout


def test_the_readme_lists_every_variable() -> None:
    listed = {
        line.split("`")[1] for line in (SIMULATOR / "README.md").read_text().splitlines() if "| `NPU_SIM_" in line
    }
    assert listed == {f"NPU_SIM_{name}" for name in scenario.KNOBS}
