from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from deploy.errors import KitError
from deploy.npu import smi

from .mutation import damaged

GUIDE = """\
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
# NPU ids 6 and 7 are the logical devices 0 and 1; a release with a banner and a process table; power not measured.
WITH_PROCESSES = """\
DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)
+--------------------------------------------------------------------------------------------------------+
| npu-smi 23.0.rc2                     Version: 23.0.rc2                                                 |
+-------------------------------+-----------------+------------------------------------------------------+
| NPU     Name                  | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device                | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
+===============================+=================+======================================================+
| 6       310P3                 | OK              | NA           47                0     / 0             |
| 0       0                     | 0000:82:00.0    | 0            1693 / 21527                            |
+===============================+=================+======================================================+
| 7       310P3                 | Warning         | NA           51                15    / 15            |
| 0       1                     | 0000:89:00.0    | 97           2931 / 21527                            |
+===============================+=================+======================================================+
+-------------------------------+-----------------+------------------------------------------------------+
| NPU     Chip                  | Process id      | Process name             | Process memory(MB)        |
+===============================+=================+======================================================+
| No running processes found in NPU 6                                                                    |
+===============================+=================+======================================================+
| 7       0                     | 1333928         | python3                  | 1180                      |
| 7       0                     | 1333930         |                          | 58                        |
+===============================+=================+======================================================+
"""
# No Device column, HBM, two chips a card, a Phy-ID that is no logical device, and a container's process ids.
TRAINING = """\
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 3     Ascend910           | OK            | 178.5       36                0    / 0             |
| 0     6                   | 0000:9D:00.0  | 0           0    / 0          3416 / 65536         |
+------------------------------------------------------------------------------------------------+
| 3     Ascend910           | OK            | -           36                0    / 0             |
| 1     7                   | 0000:9F:00.0  | 0           0    / 0          31877/ 65536         |
+===========================+===============+====================================================+
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip     | Process id    | Process name    | Process memory(MB) | Process id in container |
+===========================+===============+====================================================+
| 3       1        | 632268        | python3.1       | 28461              | NA                      |
+===========================+===============+====================================================+
"""
TRAINING_ONE_CHIP = """\
| NPU   Name      | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip            | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+=================+===============+====================================================+
| 4     910B3     | OK            | 91.0        36                0    / 0             |
| 0               | 0000:41:00.0  | 0           0    / 0          3401 / 65536         |
| 5     910B3     | OK            | 95.4        37                0    / 0             |
| 0               | 0000:42:00.0  | 0           0    / 0          3400 / 65536         |
"""
A3 = """\
+------------------------------------------------------------------------------------------------------------------+
| npu-smi 26.1.0                              Version: 26.1.0                                                      |
+---------------------------+---------------+----------------------------------------------------------------------+
| NPU   Name                | Health        | Power(W)             Temp(C)                 Hugepages-Usage(page)   |
| Chip  Phy-ID              | Bus-Id        | AICore(%)            Memory-Usage(MB)        HBM-Usage(MB)           |
+===========================+===============+======================================================================+
| 2     Ascend910           | OK            | 160.1                35                      0    / 0                |
| 0     4                   | 0000:9D:00.0  | 0                    0    / 0                3400 / 65536            |
+------------------------------------------------------------------------------------------------------------------+
| 2     Ascend910           | OK            | -                    35                      0    / 0                |
| 1     5                   | 0000:9F:00.0  | 0                    0    / 0                2800 / 65536            |
+===========================+===============+======================================================================+
"""
A3_BOARD = """
        NPU ID                         : 2
        NPU Name                       : 9382
        Chip ID                        : 0
        Chip Name                      : Ascend910
        PCIe Bus Info                  : 0000:9D:00.0
"""
A5 = """\
+--------+------------------+---------------+----------------------------------------------------------------------+
| NPU ID | Name             | Health        | Power(W)              Temp(C)                  Hugepages-Usage(page) |
|        |                  | Bus-Id        | NPU Util(%)           Memory-Usage(MB)         HBM-Usage(MB)         |
+========+==================+===============+======================================================================+
| 0      | Ascend950DT      | OK            | 380.7                 44                       0     / 0             |
|        |                  | NA            | 0                     0     / 0                6600  / 98304         |
+===========================+===============+======================================================================+
| 5      | Ascend950DT      | Alarm         | 380.3                 51                       0     / 0             |
|        |                  | NA            | 15                    0     / 0                6711  / 98304         |
+===========================+===============+======================================================================+
+----------------+---------------+---------------------------------------------------------------------------------+
| NPU ID         | Process id    | Process name       | Process memory(MB)    | Process id in container            |
+================+===============+=================================================================================+
| No running processes found in NPU 0                                                                              |
+================+===============+=================================================================================+
| 5              | 812           | infer              | 400                   | NA                                 |
+================+===============+=================================================================================+
"""
MAPPING = """\
\tNPU ID                         Chip ID                        Chip Logic ID                  Chip Name
\t4                              0                              1                              Ascend 910B3
\t4                              1                              -                              Mcu
\t5                              0                              0                              Ascend 910B3
\t5                              1                              -                              Mcu
"""


def test_what_asks_about_a_chip() -> None:
    first, *_ = smi.parse_info(A3)
    assert smi.of_chip("proc-mem", first) == ["info", "-t", "proc-mem", "-i", str(first.npu_id), "-c", "0"]


class TestInfo:
    def test_the_guides_table(self) -> None:
        assert smi.parse_info(GUIDE) == [
            smi.Chip(0, 0, 0, "310P3", "OK", "0000:82:00.0", 15.8, 42, 0, 1074, 21534),
            smi.Chip(1, 0, 1, "310P3", "OK", "0000:89:00.0", 15.8, 43, 0, 1070, 21534),
        ]

    def test_processes_npu_ids_and_unmeasured_power(self) -> None:
        free, busy = smi.parse_info(WITH_PROCESSES)
        assert (free.npu_id, free.device, free.power_w, free.processes) == (6, 0, None, ())
        assert (busy.npu_id, busy.device, busy.health, busy.aicore_percent) == (7, 1, "Warning", 97)
        assert busy.processes == (smi.Process(1333928, "python3", 1180), smi.Process(1333930, "", 58))

    def test_a_table_without_devices(self) -> None:
        first, second = smi.parse_info(TRAINING)
        assert (first.device, first.hbm_used_mb, first.hbm_total_mb, first.processes) == (0, 3416, 65536, ())
        assert (second.device, second.chip_id, second.power_w) == (1, 1, None)
        assert second.processes == (smi.Process(632268, "python3.1", 28461),)
        assert second.model_memory_mb == (31877, 65536)

    def test_the_mapping_tells_the_devices_then(self) -> None:
        chips = smi.parse_info(TRAINING_ONE_CHIP, smi.parse_mapping(MAPPING))
        assert [(chip.npu_id, chip.device) for chip in chips] == [(4, 1), (5, 0)]
        assert [chip.device for chip in smi.parse_info(GUIDE, smi.parse_mapping(MAPPING))] == [0, 1]

    def test_other_frames_and_missing_columns(self) -> None:
        framed = GUIDE.replace("-+-", "-|-").replace("            Hugepages-Usage(page)", "").replace("0    / 0", "")
        assert smi.parse_info(framed) == smi.parse_info(GUIDE)
        assert smi.parse_info(f"\x1b[0m{GUIDE}".replace("\n", "\r\n")) == smi.parse_info(GUIDE)

    def test_an_npu_that_the_process_table_does_not_mention_is_unknown(self) -> None:
        text = WITH_PROCESSES.replace("| No running processes found in NPU 6", "| No running processes found in NPU 9")
        assert smi.parse_info(text)[0].processes is None

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("dcmi module initialize failed. ret is -8005\n", "-8005, no access to the device: source"),
            (
                "dcmi model initialized failed, because the device is used. ret is -8020\n",
                "-8020, the device is in use",
            ),
            ("dcmi model initialized failed, because the device is used. ret is -802\n", "-8020, the device is in use"),
            ("dcmi module initialize failed. ret is -8001\n", r"ret is -8001\)"),
            ("npu-smi: symbol lookup error: npu-smi: undefined symbol: dcmi_get_x\n", "another driver.*dcmi_get_x"),
            ("npu-smi: cannot execute binary file: Exec format error\n", "another architecture"),
            ("sudo: a password is required\n", "without a password"),
            ("[Worker PID:381] Initialize SchedulerClient...\n", r"vNPU.*libvnpu\.so"),
            ("dcmi module initialize failed. ret is -8002\n", "may not ask for that: join the group HwHiAiUser"),
            ("npu get board type failed. ret is -9005\n", "what board this is: in a container mount"),
            ("\n".join(GUIDE.splitlines()[:4]), "a table without a chip: check .*lspci"),
            (
                "npu-smi: error while loading shared libraries: libdcmi.so: cannot open shared",
                "lacks .* libdcmi.so: put",
            ),
            ("DrvMngGetConsoleLogLevel failed. (ret=4)\n", "join the group HwHiAiUser"),
            ("There is no NPU card on this server.\n", "sees no card .*lspci"),
            ("bash: line 1: npu-smi: command not found\n", "'bash: line 1: npu-smi: command not found'.*tools.npu_smi"),
            ("", "shows no chip"),
            (GUIDE.replace("| 0       1 ", "| 0       0 "), "a logical device twice"),
            (GUIDE.replace("| 0       1 ", "| 0         "), "do not tell the logical device of NPU 1"),
            (GUIDE.replace("1070 / 21534", "1070"), "cannot read"),
            (GUIDE.replace("| 0            1070", "| some         1070"), "cannot read"),
            (GUIDE.replace("| 1       310P3", "|         310P3"), "cannot read"),
            (GUIDE.replace("| OK              | 15.8         43 ", "| OK | x | 15.8 43 "), "cannot read"),
            (WITH_PROCESSES.replace("1333928", "many"), "cannot read"),
            ("\n".join(GUIDE.splitlines()[:-2]), "cannot read"),
        ],
    )
    def test_what_it_cannot_read_is_a_sentence(self, text: str, says: str) -> None:
        with pytest.raises(KitError, match=says):
            smi.parse_info(text)

    def test_a_chip_that_the_mapping_lacks(self) -> None:
        with pytest.raises(KitError, match="NPU 5 chip 0"):
            smi.parse_info(TRAINING_ONE_CHIP, {(4, 0): 0})

    def test_an_a3_and_its_board(self) -> None:
        first, second = smi.parse_info(A3)
        assert [(chip.chip_id, chip.device, chip.power_w) for chip in (first, second)] == [(0, 0, 160.1), (1, 1, None)]
        assert smi.is_family(first.name)
        assert smi.board_soc_version(first, smi.parse_board(A3_BOARD)) == "Ascend910_9382"

    def test_a_950_has_neither_chip_ids_nor_logical_ones(self) -> None:
        free, busy = smi.parse_info(A5, smi.parse_mapping("NPU ID Slot ID Chip ID Chip Phy-ID Chip Name\n5 2 0 5 x\n"))
        assert [(chip.npu_id, chip.chip_id, chip.device) for chip in (free, busy)] == [(0, None, 0), (5, None, 5)]
        assert (free.aicore_percent, free.model_memory_mb, free.processes) == (0, (6600, 98304), ())
        assert not free.shares_host_memory  # no bus, but memory of its own
        assert busy.processes == (smi.Process(812, "infer", 400),)
        assert smi.of_chip("proc-mem", busy)[-2:] == ["-i", "5"]
        assert smi.board_soc_version(free, {"Chip Name": "Ascend950DT", "NPU Name": "9591"}) == "Ascend950DT_9591"

    @pytest.mark.parametrize("board", ["", "NPU Name : NA\nChip Name : Ascend910\n", "NPU Name : not support"])
    def test_a_board_that_names_no_soc(self, board: str) -> None:
        with pytest.raises(KitError, match=r"-t board -i 2 -c 0.*`chip` in the inventory"):
            smi.board_soc_version(smi.parse_info(A3)[0], smi.parse_board(board))

    def test_headings_and_cells_of_other_widths_and_more_columns(self) -> None:
        text = GUIDE.replace("Temp(C) ", "Temp(C)  Fan(%) ").replace("15.8         42 ", "15.8         42   30 ")
        assert (
            smi.parse_info(text)
            == [replace(chip) for chip in smi.parse_info(GUIDE)[:1]]
            + smi.parse_info(text.replace("43 ", "43  30 "))[1:]
        )

    def test_a_table_without_headings(self) -> None:
        for text in (GUIDE, TRAINING_ONE_CHIP):
            bare = "\n".join(line for line in text.splitlines() if "Name" not in line and "Bus-Id" not in line)
            assert smi.parse_info(bare) == smi.parse_info(text)

    def test_a_slice_of_a_chip_behind_the_lines_of_its_limiter(self) -> None:
        """A container whose vNPU is kept by a preloaded library: its NPU id is none of the host's."""
        table = GUIDE.replace("| 0       310P3", "| 32768   310P3").replace("1074 / 21534", "0    / 8192 ")
        chip = smi.parse_info("[INFO limiter::manager] [Manager] Registered (PID: 10). Memory limit: 8192\n" + table)[0]
        assert (chip.npu_id, chip.device, chip.model_memory_mb, smi.busy_reason(chip)) == (32768, 0, (0, 8192), None)

    def test_memory_of_a_board_that_tells_no_use(self) -> None:
        chip = smi.parse_info(GUIDE.replace("0000:82:00.0", "NA          ").replace("1074 / 21534", "NA / 11577"))[0]
        assert (chip.memory_used_mb, chip.memory_total_mb, smi.busy_reason(chip)) == (None, 11577, None)

    def test_a_chip_without_its_second_row_is_not_lost(self) -> None:
        lines = GUIDE.splitlines()
        with pytest.raises(KitError, match=r"cannot read \('0       310P3 \| OK"):
            smi.parse_info("\n".join([*lines[:5], *lines[6:]]))

    def test_a_process_whose_name_holds_a_bar_or_spaces(self) -> None:
        text = WITH_PROCESSES.replace("| python3                  |", "| sh -c a | b             |")
        assert [p.name for p in smi.parse_info(text)[1].processes or ()] == ["sh -c a|b", ""]


class TestMapping:
    @pytest.mark.parametrize(
        ("text", "mapping"),
        [
            (MAPPING, {(4, 0): 1, (5, 0): 0}),
            (
                "NPU ID Chip ID Chip Logic ID Chip Phy-ID Chip Name\n3 0 0 6 910\n3 1 1 7 910\n3 2 - - Mcu\n",
                {(3, 0): 0, (3, 1): 1},
            ),
            ("NPU ID  Slot ID  Chip ID  Chip Phy-ID  Chip Name\n5 22 0 5 Ascend950PR\n", {}),
            ("", {}),
        ],
    )
    def test_forms(self, text: str, mapping: dict[tuple[int, int], int]) -> None:
        assert smi.parse_mapping(text) == mapping

    def test_a_failure_maps_nothing(self) -> None:
        assert smi.parse_mapping("dcmi module initialize failed. ret is -8005") == {}


@pytest.mark.parametrize(
    ("text", "processes"),
    [
        ("\tNPU ID : 0\n\tNo process in device.\n", ()),
        (
            "\tProcess id:4242   Process name:python3   Process memory(MB):118\n"
            "\tProcess id:4243   Process name:   Process memory(MB):7\n",
            (smi.Process(4242, "python3", 118), smi.Process(4243, "", 7)),
        ),
        ("This device does not support querying proc-mem.\n", None),
    ],
)
def test_proc_mem(text: str, processes: tuple[smi.Process, ...] | None) -> None:
    assert smi.parse_proc_mem(text) == processes


@pytest.mark.parametrize(
    ("name", "soc"),
    [
        ("310P3", "Ascend310P3"),
        ("Ascend310P3", "Ascend310P3"),
        ("Ascend 910B3", "Ascend910B3"),
        ("910ProA", "Ascend910ProA"),
        (" 310 ", "Ascend310"),
    ],
)
def test_soc_version(name: str, soc: str) -> None:
    assert smi.soc_version(name) == soc == smi.soc_version(soc)


@pytest.mark.parametrize("name", ["", " ", "Ascend"])
def test_no_name_has_no_soc_version(name: str) -> None:
    with pytest.raises(KitError, match="chip"):
        smi.soc_version(name)


class TestSelect:
    chips = smi.parse_info(GUIDE)

    @pytest.mark.parametrize(("wanted", "devices"), [([0], [0]), ([1, 0], [1, 0]), ("all", [0, 1])])
    def test_in_the_wanted_order(self, wanted: Any, devices: list[int]) -> None:
        assert [chip.device for chip in smi.select(self.chips, wanted)] == devices

    @pytest.mark.parametrize(
        ("chips", "wanted", "says"),
        [
            (chips, [0, 3], r"no device 3: it has 0 \(310P3, NPU 0\), 1 \(310P3, NPU 1\)"),
            ([chips[0], replace(chips[1], name="910B3")], [0, 1], "different kinds"),
            (
                [replace(chips[0], health="Critical"), chips[1]],
                "all",
                r"device 0 \(310P3, NPU 0\) reports .*'Critical'",
            ),
            ([replace(chips[0], health="UNKNOWN"), chips[1]], "all", "'UNKNOWN'"),
        ],
    )
    def test_what_it_refuses(self, chips: list[smi.Chip], wanted: Any, says: str) -> None:
        with pytest.raises(KitError, match=says):
            smi.select(chips, wanted)

    def test_the_health_of_a_chip_not_wanted_does_not_matter(self) -> None:
        assert smi.select([replace(self.chips[0], health="Critical"), self.chips[1]], [1]) == [self.chips[1]]

    @pytest.mark.parametrize("health", ["Warning", "Alarm"])
    def test_a_chip_that_works_though_it_ails_is_taken_and_told_of(self, health: str) -> None:
        ailing = replace(self.chips[0], health=health)
        assert smi.select([ailing], [0]) == [ailing]
        assert health in (smi.ailment_warning(ailing) or "")
        assert smi.ailment_warning(self.chips[0]) is None


NOTHING_TOLD = "npu-smi tells neither its processes nor its AICore use nor its memory"


class TestBusyReason:
    idle = smi.parse_info(GUIDE)[0]
    training = smi.parse_info(TRAINING)

    @pytest.mark.parametrize(
        ("change", "baseline", "says"),
        [
            ({}, None, None),
            ({}, 1074, None),
            ({"aicore_percent": None}, None, None),
            ({"processes": ()}, None, None),
            ({"memory_used_mb": 1200}, 1074, None),  # jitter
            ({"aicore_percent": 3}, None, "AICore at 3 %"),
            ({"processes": (smi.Process(7, "python3", 900),)}, None, "python3 (pid 7, 900 MB)"),
            (
                {"processes": (smi.Process(7, "", 900),), "aicore_percent": 9},
                1074,
                "a process (pid 7, 900 MB), AICore at 9 %",
            ),
            ({"memory_used_mb": 1500}, 1074, "1500 of 21534 MB of memory held, 1074 MB when idle"),
            ({"memory_used_mb": 1500}, None, None),  # an idle 310P3 of another board holds as much
            ({"memory_used_mb": 9000, "processes": ()}, None, "9000 of 21534 MB of memory held"),  # hidden from us
            ({"memory_used_mb": 5000}, None, "5000 of 21534 MB of memory held"),
            ({"name": "310", "memory_used_mb": 2703, "memory_total_mb": 8192}, None, None),  # idle
            ({"memory_used_mb": 20000, "bus_id": "NA"}, 1000, None),  # the host's own memory
            ({"memory_used_mb": 20000, "bus_id": "NA", "aicore_percent": 2}, None, "AICore at 2 %"),
            ({"memory_used_mb": None, "aicore_percent": None}, None, NOTHING_TOLD),
        ],
    )
    def test_reasons(self, change: dict[str, Any], baseline: int | None, says: str | None) -> None:
        assert smi.busy_reason(replace(self.idle, **change), baseline) == says

    def test_models_live_in_hbm_where_there_is_some(self) -> None:
        assert smi.busy_reason(self.training[0]) is None
        for used, says in ((5900, None), (15516, "15516 of 65536 MB of memory held")):  # a small model is someone's too
            assert smi.busy_reason(replace(self.training[1], processes=(), hbm_used_mb=used)) == says


@given(damaged([GUIDE, WITH_PROCESSES, TRAINING, TRAINING_ONE_CHIP, MAPPING, A3, A3_BOARD, A5]))
def test_only_a_kit_error_is_raised_on_any_text(text: str) -> None:
    for parse in (smi.parse_info, smi.parse_mapping, smi.parse_proc_mem, smi.parse_board):
        with suppress(KitError):
            parse(text)
