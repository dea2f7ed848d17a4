"""`fab npu-precision`: the search takes few tests and leaves nothing superfluous; the ranking sees what fp16 spoils."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence

import pytest
from onnx import ModelProto, TensorProto, helper

from deploy.precision import ways
from deploy.precision.reasons import REASONS, in_words
from deploy.precision.search import smallest
from deploy.precision.units import name_nodes, units


class Device:
    """Passes where all that is needed is kept, and remembers what it was asked."""

    def __init__(self, needed: set[str]) -> None:
        self.needed, self.tests = needed, []  # type: ignore[var-annotated]

    def __call__(self, kept: Sequence[str]) -> bool:
        self.tests.append(frozenset(kept))
        return self.needed <= self.tests[-1]


@pytest.mark.parametrize("count", [1, 2, 5, 40, 127])
@pytest.mark.parametrize("culprits", [1, 2, 3, 8])
def test_the_search_finds_the_culprits_wherever_they_are(count: int, culprits: int) -> None:
    names = [str(i) for i in range(count)]
    for seed in range(30):
        needed = set(random.Random(seed).sample(names, min(culprits, count)))
        device = Device(needed)
        assert set(smallest(names, device, culprits)) == needed
        assert len(device.tests) == len(set(device.tests))
        assert len(device.tests) <= len(needed) * (math.log2(count) + 3)


@pytest.mark.parametrize("guess", [1, 2, 5])
def test_one_culprit_that_the_ranking_misses_stays_within_the_bound(guess: int) -> None:
    """mmaction2's graph: 142 nodes, of which 127 are choices; float32 throughout is one conversion more."""
    names = [str(i) for i in range(127)]
    for culprit in names:
        device = Device({culprit})
        assert smallest(names, device, guess) == [culprit]
        assert 1 + len(device.tests) <= math.log2(142) + 3


@pytest.mark.parametrize("culprits", [1, 2, 8])
def test_a_right_guess_takes_a_test_for_each(culprits: int) -> None:
    names = [str(i) for i in range(100)]
    device = Device(set(names[:culprits]))
    assert sorted(smallest(names, device, culprits), key=int) == names[:culprits]
    assert len(device.tests) == (1 if culprits == 1 else 1 + culprits)


def test_nothing_superfluous_is_left_where_more_does_harm() -> None:
    """A set that passes need not pass with more in it."""
    good = [frozenset("a"), frozenset("abcd")]
    assert smallest(list("abcd"), lambda kept: frozenset(kept) in good, 4) in (["a"], list("dcba"))


def graph(*nodes: tuple[str, str]) -> ModelProto:
    """A chain of nodes, each of a type and a name that may be empty."""
    made = [helper.make_node(kind, [f"t{i}"], [f"t{i + 1}"], name=name) for i, (kind, name) in enumerate(nodes)]
    ends = [helper.make_tensor_value_info(f"t{i}", TensorProto.FLOAT, ["n"]) for i in (0, len(nodes))]
    return helper.make_model(helper.make_graph(made, "chain", ends[:1], ends[1:]))


def test_nodes_without_a_name_are_counted_alone() -> None:
    model = graph(("Relu", "first"), ("Relu", ""), ("Abs", "third"), ("Abs", ""))
    name_nodes(model)
    assert [node.name for node in model.graph.node] == ["first", "Relu_0", "third", "Abs_1"]


def test_a_list_of_types_says_what_becomes_of_each_and_tells_none_apart_that_ascend_does_not() -> None:
    way = ways.by_type(units(graph(("Gemm", "a"), ("Relu", "b"), ("MatMul", "c"), ("Softmax", "d"))))
    assert way.naming(["d", "c", "a"]) == ["Softmax", "MatMul"]
    assert way.units(["MatMul"]) == {"a", "c"}
    lists = json.loads(way.text(["MatMul"]))
    assert "GEMM" in lists["black-list"]["to-add"]
    assert lists["white-list"]["to-add"] == ["Relu", "SoftmaxV2"]
    assert way.flags({"precision_mode": "force_fp16", "log": "info"}, "list") == {
        "precision_mode": "allow_mix_precision",
        "log": "info",
        "modify_mixlist": "list",
    }
    assert way.flags({"precision_mode_v2": "fp16"}, "list")["precision_mode_v2"] == "mixed_float16"


def test_every_reason_is_told_in_both_languages() -> None:
    english, chinese = in_words([{"cause": cause, "figure": 0.25} for cause in REASONS])
    assert english.isascii()
    assert not any(word in chinese for word in ("its", "ATC keeps"))
    assert english.count("25%") == chinese.count("25%") == 6  # shares; the others are a magnitude, bits, an error
    assert english.count("0.25") == chinese.count("0.25") == 2
