"""The graph as ONNX, and the card. A real package has its framework write the graph."""

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from twin.common import INPUTS, options, run

TYPES = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}


def main() -> None:
    given = options("ckpt", "onnx", "card", "variant", "persons")
    with np.load(given.ckpt) as weights:
        constants = {name: weights[name].astype(np.float32) for name in ("position", "spread")}
    constants.update(flat=np.array([-1, 24]), triple=np.array([-1, 3, 2]))
    nodes = [
        helper.make_node("Reshape", ["signal", "flat"], ["row"]),
        helper.make_node("Cast", ["length"], ["divisor"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["row", "divisor"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "position_weights"], ["position"]),
        helper.make_node("MatMul", ["scaled", "spread_weights"], ["six"]),
        helper.make_node("Reshape", ["six", "triple"], ["spread"]),
    ]
    renamed = {"position": "position_weights", "spread": "spread_weights"}
    initializers = [numpy_helper.from_array(value, renamed.get(name, name)) for name, value in constants.items()]
    ins = [helper.make_tensor_value_info(n, TYPES[dtype], ["batch", *shape]) for n, (dtype, shape) in INPUTS.items()]
    outs = [
        helper.make_tensor_value_info("position", TensorProto.FLOAT, ["batch", 2]),
        helper.make_tensor_value_info("spread", TensorProto.FLOAT, ["batch", 3, 2]),
    ]
    graph = helper.make_graph(nodes, "twin", ins, outs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    onnx.save(model, given.onnx)
    shutil.copyfile(Path(__file__).parents[1] / "model.json", given.card)


run(main)
