"""The profiler's table in the column forms of its releases, and which ONNX nodes an operator's name is made of."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given

from deploy.errors import KitError
from deploy.npu import op_summary

from .mutation import damaged

OLD = """\
Model ID,Task ID,Stream ID,OP Name,OP Type,Task Type,Task Start Time,Task Duration(us),Task Wait Time(us),Block Dim,\
Input Shapes,Input Data Types,Input Formats,Output Shapes,Output Data Types,Output Formats
4.29E+09,2,7,Cast_1,Cast,AI_CPU,542118179416190,338.93,0,1,\"\"\"2,5\"\"\",DT_INT16,ND,\"\"\"2,5\"\"\",DT_INT32,ND
"""
UNIFIED = """\
Model Name,Model ID,Task ID,Stream ID,Infer ID,Op Name,OP Type,Task Type,Task Start Time(us),Task Duration(us),\
Task Wait Time(us),Block Dim,aicore_time(us),total_cycles,mac_ratio,mte2_ratio
st_gcn,1,3,5,0,conv1,Conv2D,AI_CORE,"1781169279071010.880\t",654.25,0.5,8,266.1,266100,0.41,0.62
st_gcn,1,4,5,1,conv1,Conv2D,AI_CORE,"1781169279071999.001\t",600.00,0.5
"""
SPLIT = """\
Device_id,Op Name,OP Type,OP State,Task Type,Task Start Time(us),Task Duration(us),Block Num,Mix Block Num,\
Input Shapes,Input Data Types,Input Formats,aic_mac_ratio,aiv_vec_ratio,aic_main_mem_read_bw(GB/s)
3,gmm,GroupedMatmul,dynamic,MIX_AIC,1787504054396378.391\t,25.861,20,40,\
\"\"\"512,16;8,2048,16;;8\"\"\",DT_BF16;DT_BF16;FLOAT;INT64,ND;NCL;ND;ND,0.5,N/A,1.25
3,hcom_1,N/A,N/A,COMMUNICATION,1787504054396500.1\t,7,0,0,N/A,N/A,N/A,N/A,N/A,N/A
"""
FRAMEWORK = """\
Step Id,Name,Type,Accelerator Core,Start Time(us),Duration(us),Wait Time(us),Block Dim
50,trans_TransData_0,N/A,N/A,1736405443881410.320\t,50.621,0,0
"""


def test_an_old_table_with_a_models_number_that_a_spreadsheet_spoilt() -> None:
    (cast,) = op_summary.parse(OLD)
    assert (cast.name, cast.kind, cast.core, cast.stream) == ("Cast_1", "Cast", "AI_CPU", 7)
    assert (cast.duration_us, cast.start_us) == (Decimal("338.93"), Decimal("542118179416.190"))


def test_unified_cores_exact_times_and_a_row_that_lacks_its_last_fields() -> None:
    first, second = op_summary.parse("\ufeff" + UNIFIED.replace("\n", "\r\n"))
    assert first.start_us == Decimal("1781169279071010.880")
    assert first.duration_us == Decimal("654.25")  # the task's, not the core's
    assert first.ratios == {"mac_ratio": 0.41, "mte2_ratio": 0.62}
    assert (second.step, second.ratios) == (1, {})
    assert first.step == 0


def test_split_cores_left_out_inputs_and_rows_that_have_no_counters() -> None:
    gmm, communication = op_summary.parse(SPLIT)
    assert gmm.device == 3
    assert gmm.ratios == {"mac_ratio": 0.5}
    assert (communication.kind, communication.ratios) == ("", {})


def test_what_stands_before_the_headings_and_headings_again_are_passed_over() -> None:
    appended = f"# exported\n\n{SPLIT}{SPLIT}"
    assert [operator.name for operator in op_summary.parse(appended)] == ["gmm", "hcom_1"] * 2
    (only,) = op_summary.parse("Name,Duration(us),ai*_mac_ratio\nx,1,0.25\n")  # the manuals' headings for both cores
    assert only.ratios == {"mac_ratio": 0.25}


def test_a_frameworks_table_and_other_units() -> None:
    (moved,) = op_summary.parse(FRAMEWORK)
    assert (moved.name, moved.kind, moved.step, moved.duration_us) == ("trans_TransData_0", "", 50, Decimal("50.621"))
    (in_ms,) = op_summary.parse("op name,TASK DURATION(ms)\nx,1.5\n")
    assert in_ms.duration_us == 1500


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n", "empty"),
        ("OP Type,Core Type,Count,Total Time(us)\nConv2D,AI_CORE,3,9\n", "another of the profiler's tables"),
        (UNIFIED.replace("654.25", "x"), "line 2 has no duration"),
        (FRAMEWORK.replace("50.621,0,0", "50.621,0,0,9"), "9 cells under 8 headings"),
    ],
)
def test_what_is_no_such_table_is_refused(text: str, says: str) -> None:
    with pytest.raises(KitError, match=says):
        op_summary.parse(text)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("/b.1/conv/Conv/b.1/act/Mul", ["/b.1/conv/Conv", "/b.1/act/Mul"]),
        ("Conv_12Relu_13", ["Conv_12", "Relu_13"]),
        ("PartitionedCall_Conv_12_Transpose_3", ["Conv_12"]),
        ("/b.1/conv/Conv/Muls", ["/b.1/conv/Conv"]),
        ("trans_TransData_12", []),
        ("trans_Cast_0", []),
        ("aclnnInplaceCopy", []),
        ("atomic_memset-1_Conv_12_1_0", []),
        ("PartitionedCall_Conv_12_Conv2D_3PartitionedCall_Relu_13_Relu_4", ["Conv_12", "Relu_13"]),
        ("PartitionedCall_Conv_12_random_normal_3Relu_13", ["Conv_12", "Relu_13"]),
        ("trans_Cast_10PartitionedCall_Conv_12_Conv2D_15", ["Conv_12"]),  # of an OM of CANN 5
        ("Conv_12/SquarePartitionedCall_Relu_13_Relu_163", ["Conv_12", "Relu_13"]),  # likewise
        ("trans_Cast_10trans_TransData_8", []),
        ("graph_0/trans_TransData_3/b.1/conv/Conv", ["/b.1/conv/Conv"]),
        ("/b.1/conv/Conv+/b.1/act/Mul", ["/b.1/conv/Conv", "/b.1/act/Mul"]),
        ("part_0_sgt_graph_0//b.1/conv/Conv_lxslice1", ["/b.1/conv/Conv"]),
        ("/b.1/act/Mul_1", []),
        ("PartitionedCall_Add_7_Relu_13", []),
    ],
)
def test_a_fused_operators_members(name: str, found: list[str]) -> None:
    nodes = ["/b.1/conv/Conv", "/b.1/conv", "/b.1/act/Mul", "Conv_1", "Conv_12", "Relu_13", "TransData_12", ""]
    assert op_summary.Members(nodes).of(name) == found


@given(damaged([OLD, UNIFIED, SPLIT, FRAMEWORK]))
def test_only_a_kit_error_is_raised_on_any_text(text: str) -> None:
    with suppress(KitError):
        assert all(operator.duration_us >= 0 for operator in op_summary.parse(text))


@pytest.mark.parametrize("bom", ["utf-8-sig", "utf-16", "utf-8"])
def test_a_table_that_a_spreadsheet_saved(bom: str) -> None:
    text = " Op Name ;OP Type; Task Duration (us) \r\nConv_1;Conv2D;1.5\r\n\r\n"
    (only,) = op_summary.parse(op_summary.decode(text.encode(bom)))
    assert (only.name, only.kind, only.duration_us) == ("Conv_1", "Conv2D", Decimal("1.5"))


def test_cells_that_a_spreadsheet_or_another_code_page_changed() -> None:
    text = "Op Name;Task Start Time(us);Task Duration(us)\n图/卷积;1781169279071010,880;1,5\nx;1;N/A\n"
    (only,) = op_summary.parse(op_summary.decode(text.encode("gbk")))
    assert (only.name, only.start_us, only.duration_us) == ("图/卷积", Decimal("1781169279071010.880"), Decimal("1.5"))
    (grouped,) = op_summary.parse('Op Name,Task Duration(us)\nx,"1,234.5"\n')
    assert grouped.duration_us == Decimal("1234.5")
