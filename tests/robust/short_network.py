"""Plays `python -m stgcn.export` and `python -m stgcn.reference`, for a network that takes no hours over 19796 clips.

    python -m tests.robust.short_network {export,reference} OPTIONS...

The network is the function that the simulator's NPU_SIM_SHORTCUT computes, so ONNX, reference and inference agree.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.pipeline.manifest import write_json
from stgcn.cards import INPUT, KINETICS, OUTPUT
from stgcn.dataset import read_clips
from stgcn.files import atomic_write
from stgcn.sources import open_rows

BLOCK_CLIPS = 64
PARTS = (-1, int(np.prod(KINETICS.row_shape)) // KINETICS.classes, KINETICS.classes)
_PYTHON = """#!/bin/bash
case "$3" in stgcn.export|stgcn.reference)
    set -- -u -m tests.robust.short_network "${{3#stgcn.}}" "${{@:4}}" ;;
esac
exec {python} "$@"
"""


def network() -> onnx.ModelProto:
    """Clips (batch, 3, 300, 18, 2) to logits (batch, 400): the sum of every 400th value."""
    inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *KINETICS.row_shape])]
    outputs = [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", KINETICS.classes])]
    nodes = [
        helper.make_node("Reshape", [INPUT, "parts"], ["parted"]),
        helper.make_node("ReduceSum", ["parted"], [OUTPUT], axes=[1], keepdims=0),
    ]
    shape = [numpy_helper.from_array(np.array(PARTS), "parts")]
    graph = helper.make_graph(nodes, "short", inputs, outputs, shape)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


def logits(clips: np.ndarray) -> np.ndarray:
    """What `network` makes of clips, float32."""
    summed: np.ndarray = clips.reshape(PARTS).sum(axis=1)
    return summed


def python(path: Path) -> Path:
    """Write a program that stands for a GPU host's Python and has this network."""
    path.write_text(_PYTHON.format(python=sys.executable))
    path.chmod(0o755)
    return path


def export(onnx_path: Path, card: Path) -> None:
    onnx.save(network(), onnx_path)
    write_json(card, KINETICS.as_json())


def reference(data: Path, output: Path) -> None:
    clips = open_rows(data, None, KINETICS)
    expected = np.empty((len(clips), KINETICS.classes), np.float32)
    for first in range(0, len(clips), BLOCK_CLIPS):
        block = read_clips(clips, first, BLOCK_CLIPS)
        expected[first : first + len(block)] = logits(block)
    with atomic_write(output) as file:
        np.save(file, expected)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("export", "reference"))
    for name in ("--onnx", "--card", "--data_path", "--output"):
        parser.add_argument(name, type=Path)
    options = parser.parse_known_args()[0]  # the checkpoint, variants and so on are of no matter here
    if options.command == "export":
        export(options.onnx, options.card)
    else:
        reference(options.data_path, options.output)
    print(f"shortened: the {options.command} is of a network of one sum", file=sys.stderr)


if __name__ == "__main__":
    main()
