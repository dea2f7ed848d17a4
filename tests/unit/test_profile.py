"""A device's time put to the nodes and blocks of the graph, whatever the profiler called its operators."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.evidence import compare, profile
from deploy.evidence.costs import PUBLISHED, Cost, Limits, Node
from deploy.evidence.profile import Change
from deploy.npu import op_summary

LIMITS = Limits(flops=1e12, bandwidth=1e11)
NODES = [
    Node("Conv_0", "Conv", ("x",), Cost(4e6, 1e3), "1"),
    Node("Relu_1", "Relu", ("y",), Cost(), "1"),
    Node("Transpose_2", "Transpose", ("z",), Cost(0, 2e6), "2"),
    Node("Conv_3", "Conv", ("12",), Cost(1e5, 1e3), "2"),
    Node("Add_4", "Add", ("13",), Cost(), "2"),
    Node("/head/MatMul", "MatMul", ("output1",), Cost(1e3, 1e3), "head"),
]
HEADINGS = "Op Name,OP Type,Task Type,Task Start Time(us),Task Duration(us),mac_ratio,mte2_ratio"


def made(*rows: str, headings: str = HEADINGS, **how: Any) -> Any:
    operators = op_summary.parse("\n".join((headings, *rows)))
    return profile.profile(operators, NODES, 1, LIMITS, **how)


ONE = (
    'trans_TransData_0,TransData,AI_CORE,"1000.0\t",2,N/A,N/A',
    "Conv_0Relu_1,Conv2D,AI_CORE,1002,5,0.8,0.2",
    "PartitionedCall_Conv_0_Transpose_2,TransposeD,AI_CORE,1007,1,0,0.9",
    "Transpose_2,Transpose,AI_CORE,1008,30,0,0.9",
    "Conv_3_Add_4,Conv2D,AI_CORE,1038,60,0.1,0.1",
    "/head/MatMul,MatMulV2,AI_CORE,1098,1,0.1,0.1",
    "trans_Cast_9,Cast,AI_CPU,1099,1,N/A,N/A",
)


def test_every_operator_is_of_a_node_or_of_the_compiler() -> None:
    found = made(*ONE)
    assert found["device_us"] == 100
    assert found["elapsed_us"] == 100
    assert [row["nodes"] for row in found["operators"]] == [
        ["Conv_0", "Relu_1"],
        ["Transpose_2"],
        ["Conv_3", "Add_4"],
        ["/head/MatMul"],
    ]
    assert found["compiler"] == {
        "us": 4,
        "share": 0.04,
        "count": 3,
        "kinds": {"Cast": 1, "TransData": 2, "TransposeD": 1},
    }
    assert found["attributed"] == 1
    assert found["unattributed"]["count"] == 0


def test_a_block_is_bound_by_what_its_time_is_near_to() -> None:
    one, two, head = made(*ONE)["blocks"]
    assert (one["block"], one["us"], one["compute_us"], one["bound"]) == ("1", 5, 4, "compute")
    assert (two["block"], two["us"], two["bandwidth_us"], two["bound"]) == ("2", 90, pytest.approx(20.01), "neither")
    assert one["ratios"] == {"mac_ratio": 0.8, "mte2_ratio": 0.2}
    assert two["ratios"]["mte2_ratio"] == pytest.approx((30 * 0.9 + 60 * 0.1) / 90)
    assert head["bound"] == "neither"
    near = made(*(row.replace(",60,", ",5,") for row in ONE))["blocks"][1]
    assert near["bound"] == "bandwidth"


def test_a_chip_without_published_limits_is_judged_by_none() -> None:
    operators = op_summary.parse("\n".join((HEADINGS, *ONE)))
    found = profile.profile(operators, NODES, 1, PUBLISHED.get("Ascend910_9392"))
    assert (found["limits"], {block["bound"] for block in found["blocks"]}) == (None, {None})


def test_what_no_node_explains_is_told_with_its_share() -> None:
    found = made(
        *ONE, "aclnnInplaceCopy,TensorMove,AI_VECTOR_CORE,1100,100,0,0", "hcom_1,N/A,COMMUNICATION,1200,50,0,0"
    )
    assert found["device_us"] == 250
    assert found["attributed"] == pytest.approx(0.4)
    assert found["communication"]["us"] == 50
    assert [row["name"] for row in found["unattributed"]["operators"]] == ["aclnnInplaceCopy"]


def test_the_first_iteration_is_warm_up_whether_numbered_or_not() -> None:
    def later(rows: tuple[str, ...], by: int, factor: int) -> list[str]:
        moved = []
        for row in rows:
            name, kind, core, start, us, *rest = row.split(",")
            start = str(float(start.strip('"\t')) + by)
            moved.append(",".join((name, kind, core, start, str(int(us) * factor), *rest)))
        return moved

    rows = [*later(ONE, 0, 50), *later(ONE, 10000, 1), *later(ONE, 20000, 3)]
    assert (made(*rows)["iterations"], made(*rows)["device_us"]) == (2, 200)
    numbered = [f"{i // len(ONE)},{row}" for i, row in enumerate(rows)]
    found = made(*numbered, headings=f"Infer ID,{HEADINGS}")
    assert (found["iterations"], found["device_us"]) == (2, 200)


def test_the_profilers_own_word_on_a_fusion_counts_more_than_its_name() -> None:
    found = made("fused_17,Conv2D,AI_CORE,0,10,0,0", fusions={"fused_17": ("Conv_3", "Add_4")})
    assert found["operators"][0]["nodes"] == ["Conv_3", "Add_4"]
    text = "Model Name,Fusion Op,Original Ops,Memory Input(KB)\nm,fused_17,Conv_3; Add_4,1\n"
    assert op_summary.parse_fusions(text) == {"fused_17": ("Conv_3", "Add_4")}
    (row,) = made("x,10,Conv_0;Relu_1", headings="Name,Duration(us),Original Op Names")["operators"]
    assert row["nodes"] == ["Conv_0", "Relu_1"]


@pytest.mark.parametrize(
    "name",
    ["Conv_3+Add_4", "Conv_3;Add_4", "Conv_3__Add_4", "conv_3_add_4", "sub_graph_1/Conv_3/Add_4", "Conv_3|Add_4"],
)
def test_names_of_a_fusion_in_the_forms_of_the_releases(name: str) -> None:
    assert op_summary.Members([node.name for node in NODES]).of(name) == ["Conv_3", "Add_4"]


def test_one_device_of_several_is_read_and_the_others_are_named() -> None:
    rows = [f"{device},{row}" for device in (0, 1) for row in ONE]
    found = made(*rows, headings=f"Device_id,{HEADINGS}")
    assert (found["device_us"], found["other_devices"]) == (100, [1])


def test_one_model_of_several_is_read_and_the_others_are_named() -> None:
    rows = [f"1,{row}" for row in ONE] + [f"{2**32 - 1},aclnnCopy,Copy,AI_CORE,2000,100,0,0"]
    rows += [f"2,{row.replace('_', '_7').replace('MatMul', 'X')}" for row in (*ONE, *ONE)]
    found = made(*rows, headings=f"Model ID,{HEADINGS}")
    assert (found["device_us"], found["unattributed"]["us"], found["other_models"]) == (200, 100, [2])


def test_what_was_put_in_and_fused_with_a_node_is_the_nodes() -> None:
    found = made("trans_Cast_3Transpose_2,Cast,AI_CORE,0,10,0,0", "graph_0/trans_Cast_4,N/A,N/A,10,5,0,0")
    assert [row["nodes"] for row in found["operators"]] == [["Transpose_2"]]
    assert found["compiler"]["kinds"] == {"Cast": 5}
    assert op_summary.put_in_as("atomic_memset9" * 99 + "\n") == "memset"  # at once, whatever the name


def test_two_profiles_are_compared_node_by_node_however_they_are_fused() -> None:
    a = made(*ONE)
    b = made("Conv_0,Conv2D,AI_CORE,0,3,0,0", "Relu_1,Relu,AI_CORE,3,4,0,0", "Conv_3,Conv2D,AI_CORE,7,99,0,0")
    blocks, nodes = profile.changes(a, b)
    assert nodes[0] == Change("Conv_3 + Add_4", 60, 99)
    assert Change("Conv_0 + Relu_1", 5, 7) in nodes
    assert Change("Transpose_2", 30, None) in nodes
    assert Change("(compiler)", 4, 0) in blocks


def test_profiles_of_two_batch_sizes_are_sorted_by_what_a_sample_takes(capsys: pytest.CaptureFixture[str]) -> None:
    one = made("Conv_0,Conv2D,AI_CORE,0,10,0,0", "Conv_3,Conv2D,AI_CORE,900,5,0,0")
    ten = made("Conv_0,Conv2D,AI_CORE,0,100,0,0", "Conv_3,Conv2D,AI_CORE,900,20,0,0")
    compare.print_profiles(one, {**ten, "batch_size": 10}, "bs1")
    of_nodes = capsys.readouterr().out.partition("by nodes")[2]
    assert of_nodes.index("Conv_3") < of_nodes.index("Conv_0")
