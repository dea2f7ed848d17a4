"""npu-smi: the tables of the contract, processes, and failures."""

from pathlib import Path

import pytest

from .conftest import Run

GUIDE_TABLE = """\
+-------------------+-----------------+------------------------------------------------------+
| NPU     Name      | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device    | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
+===================+=================+======================================================+
| 0       310P3     | OK              | 15.8         42                0    / 0              |
| 0       0         | 0000:82:00.0    | 0            1074 / 21534                            |
+===================+=================+======================================================+
| 1       310P3     | OK              | 15.8         43                0    / 0              |
| 0       1         | 0000:89:00.0    | 0            1070 / 21534                            |
+===================+=================+======================================================+
"""


def table(run: Run, **knobs: str) -> str:
    done = run("npu-smi", "info", **knobs)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_guides_host_to_the_letter(run: Run) -> None:
    assert table(run, CHIPS="0:310P3,1:310P3").endswith(GUIDE_TABLE)


@pytest.mark.parametrize(
    ("knobs", "lines"),
    [
        ({"CHIPS": "6:310P3,7:310P3"}, ["| 7       310P3     | OK", "| 0       1         | 0000:89:00.0"]),
        ({"POWER": "NA"}, ["| 0       310P3     | OK              | NA           42 "]),
        ({"HEALTH": "0:Alarm"}, ["| 0       310P3     | Alarm           |"]),
        (
            {"CHIPS": "0:910B3"},
            [
                "| Chip                      | Bus-Id ",
                "HBM-Usage(MB)",
                "| 0                         | 0000:82:00.0  | 0 ",
            ],
        ),
        ({"DRIVER": "23.0.3"}, ["Process name", "| No running processes found in NPU 0 "]),
        (
            {"DRIVER": "23.0.3", "BUSY": "0:python:forever"},
            ["| 0       0                     | 0000:82:00.0    | 87 ", "| 4200            | python "],
        ),
        ({"CHIPS": "0:310P3,1:310P3", "LOST": "0"}, ["| 0       1         | 0000:89:00.0"]),
    ],
)
def test_tables(run: Run, knobs: dict[str, str], lines: list[str]) -> None:
    text = table(run, **knobs)
    for line in lines:
        assert line in text
    assert len({len(line) for line in text.splitlines()}) == 1, "the bars are not under each other"


@pytest.mark.parametrize(
    ("knobs", "lines"),
    [
        (
            {"CHIPS": "0:Ascend910_9392,0:Ascend910_9392"},
            ["| Chip  Phy-ID ", "| 1     1  ", "| 0     Ascend910           | OK            | -  "],
        ),
        (
            {"CHIPS": "0:Ascend950PR_9579,5:Ascend950PR_9579", "BUSY": "5:python:forever"},
            ["| NPU ID | Name ", "NPU Util(%)", "| 5      | Ascend950PR ", "| 5                         | 4205 "],
        ),
        ({"CHIPS": "0:310B4"}, ["| 0       310B4                 | Alarm ", "| 0       0                     | NA "]),
    ],
)
def test_boards_of_today(run: Run, knobs: dict[str, str], lines: list[str]) -> None:
    text = table(run, DRIVER="26.0.0", **knobs)
    for line in lines:
        assert line in text
    assert len({len(line) for line in text.splitlines()}) == 1, "the bars are not under each other"
    assert ("Process id in container" in text) is ("310B" not in text)


def test_a_release_without_process_table_has_none(run: Run) -> None:
    assert "Process" not in table(run, BUSY="0:python:forever")


def test_lost_chips_do_not_answer(run: Run) -> None:
    text = table(run, CHIPS="6:310P3,7:310P3", LOST="0")
    assert "| 7       310P3" in text
    assert "| 6       310P3" not in text


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (["-m"], ["NPU ID", "Chip Logic ID", "6 0 0 Ascend 310P3", "6 1 - Mcu", "7 0 1 Ascend 310P3"]),
        (["-l"], ["Total Count : 2", "NPU ID : 7", "Chip Count : 1"]),
        (["-t", "usages", "-i", "6", "-c", "0"], ["Aicore Usage Rate(%) : 0", "Memory Capacity(MB) : 21534"]),
        (["-t", "usages", "-i", "7"], ["NPU ID : 7", "Aicore Usage Rate(%) : 87", "Chip ID : 0"]),
        (["-t", "board", "-i", "6", "-c", "0"], ["Chip Name : 310P3"]),
        (["-t", "proc-mem", "-i", "6", "-c", "0"], ["No process in device."]),
        (["-t", "proc-mem", "-i", "7", "-c", "0"], ["Process id:4201 Process name:python Process memory(MB):3072"]),
        (["-t", "health", "-i", "6", "-c", "0"], ["Health : OK"]),
        (["-t", "temp", "-i", "6", "-c", "0"], ["Temperature(C) : 42"]),
        (["-t", "power", "-i", "6", "-c", "0"], ["Power Dissipation(W) : 15.8"]),
    ],
)
def test_queries(run: Run, arguments: list[str], pieces: list[str]) -> None:
    done = run("npu-smi", "info", *arguments, CHIPS="6:310P3,7:310P3", BUSY="1:python:forever")
    words = " ".join(done.stdout.split())
    assert done.returncode == 0
    for piece in pieces:
        assert piece in words


@pytest.mark.parametrize(
    ("name", "arguments", "pieces"),
    [
        ("Ascend910_9392", ["-t", "board", "-i", "0", "-c", "0"], ["NPU Name : 9392", "Chip Name : Ascend910"]),
        ("Ascend950PR_9579", ["-t", "board", "-i", "0"], ["NPU Name : 9579", "Chip Name : Ascend950PR"]),
        ("Ascend950PR_9579", ["-m"], ["NPU ID Slot ID Chip ID Chip Phy-ID Chip Name"]),
        ("Ascend910_9392", ["-m"], ["Chip Logic ID Chip Phy-ID Chip Name 0 0 0 0 Ascend910"]),
    ],
)
def test_queries_of_boards_of_today(run: Run, name: str, arguments: list[str], pieces: list[str]) -> None:
    words = " ".join(run("npu-smi", "info", *arguments, CHIPS=f"0:{name}").stdout.split())
    for piece in pieces:
        assert piece in words


@pytest.mark.parametrize(
    ("arguments", "knobs", "message"),
    [
        (["info"], {"SMI_ERROR": "-8005"}, "dcmi module initialize failed. ret is -8005"),
        (["info", "-m"], {"SMI_ERROR": "-8020"}, "dcmi module initialize failed. ret is -8020"),
        (["info"], {"LOST": "0"}, "dcmi module initialize failed. ret is -8005"),
        (["info", "-t", "usages", "-i", "9", "-c", "0"], {}, "Error parameter of -i"),
        (["info", "-t", "usages", "-i", "0", "-c", "9"], {}, "Error parameter of -c"),
        (["info", "-t", "colour", "-i", "0"], {}, "Usage: npu-smi info"),
        (["info", "-t", "usages", "-i", "0", "-c", "0"], {"CHIPS": "0:Ascend950DT_9591"}, "Error parameter of -c"),
        (["list"], {}, "Usage: npu-smi info"),
    ],
)
def test_failures(run: Run, arguments: list[str], knobs: dict[str, str], message: str) -> None:
    done = run("npu-smi", *arguments, **knobs)
    assert done.returncode == 1
    assert message in done.stdout


def test_a_device_frees_up_after_three_queries(run: Run, tmp_path: Path) -> None:
    knobs = {"BUSY": "0:python:3q", "STATE": str(tmp_path / "state"), "DRIVER": "23.0.3"}
    assert ["python" in table(run, **knobs) for _ in range(5)] == [True, True, True, False, False]


def test_a_device_frees_up_after_a_while(run: Run, tmp_path: Path) -> None:
    knobs = {"BUSY": "0:python:60s", "STATE": str(tmp_path), "DRIVER": "23.0.3"}
    assert "python" in table(run, **knobs)
    (tmp_path / "queries").write_text("[1, 0.0]")  # as if the first query had been in 1970
    assert "python" not in table(run, **knobs)
