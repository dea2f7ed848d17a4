"""What an exported model must be, checked in a process that has never exported:

    python -m stgcn.onnx_model TRACED.onnx EXPECTED.npz TIDIED.onnx [--model NAME]

writes TIDIED if TRACED, tidied, gives the logits in EXPECTED (see stgcn.export).
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any, Iterator, List, Optional, Tuple

import numpy as np

from stgcn.cards import INPUT, KINETICS, OUTPUT, Card, card_of, program
from stgcn.errors import InputError, printable, run_main
from stgcn.files import PathLike, open_regular

OPSETS = range(9, 14)  # CANN 5.0.4 and 6.0
CHECKED_BATCH_SIZES = (1, 3)  # one, and another: the batch is the graph's only free dimension
TOLERANCE = 1e-5  # of the largest logit, or of 1 where logits are small

MODEL_BYTES = 1 << 28  # twenty times the model
MEMORY_BYTES = 1 << 32  # that a model may take to be folded and run, four times what the network does
THREADS = 8  # that run it: the stack of each counts as memory, and a host may have hundreds of cores

# What torch 1.2 leaves to the runtime of the graph convolutions' A, and later torches compute when they export.
FOLDED = {
    "Gather": lambda inputs, attributes: np.take(inputs[0], inputs[1], axis=attributes.get("axis", 0)),
    "Identity": lambda inputs, _: inputs[0],  # of a weight that two nodes share
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
}


def load(path: PathLike) -> Any:
    """An ONNX file as a ModelProto, all of it in that file: data outside it is never opened.

    Raises InputError for a file that is missing, too large or no model, that refers to data outside, or whose nodes
    hold graphs or functions: these can loop for ever.
    """
    import onnx

    try:
        with open_regular(path) as file:
            content = file.read(MODEL_BYTES + 1)
        if len(content) > MODEL_BYTES:
            raise ValueError(f"it is larger than {MODEL_BYTES} bytes")
        model = onnx.load_model_from_string(content)
        if not model.graph.node:
            raise ValueError("it has no graph")
    except OSError as error:
        raise InputError(f"can't read {path} ({error.strerror}): check the path") from error
    except Exception as error:  # protobuf's own errors have no common base
        raise InputError(f"{path} isn't an ONNX model ({error}): export it again") from error
    for node in model.graph.node:
        if any(attribute.graphs or attribute.HasField("g") for attribute in node.attribute):
            raise InputError(f"{path} has a graph in its {node.op_type}, and ST-GCN's graph is plain: export it again")
    if getattr(model, "functions", ()):  # which onnx 1.7 does not know
        raise InputError(f"{path} has functions of its own, and ST-GCN's graph is plain: export it again")
    for tensor in _tensors(model.graph):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise InputError(f"{path} keeps {tensor.name or 'a tensor'} in another file: export it whole")
    return model


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor of a plain graph."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)


def fold(graph: Any) -> None:
    """Compute the FOLDED operators that have weights alone for inputs, so that every torch's graph is the same one."""
    from onnx import helper, numpy_helper

    weights = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    for node in list(graph.node):
        if node.op_type in FOLDED and all(name in weights for name in node.input):
            attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            result = FOLDED[node.op_type]([weights[name] for name in node.input], attributes)  # type: ignore[no-untyped-call]
            weights[node.output[0]] = np.ascontiguousarray(result)
            graph.initializer.add().CopyFrom(numpy_helper.from_array(weights[node.output[0]], node.output[0]))
            graph.node.remove(node)


def tidy(model: Any) -> None:
    """Leave weights as constants only, and constants as weights.

    torch 1.2 lists weights among the graph's inputs too, and keeps ones that nothing uses; every torch writes small
    constants as nodes.
    """
    graph = model.graph
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        graph.initializer.add().CopyFrom(node.attribute[0].t)
        graph.initializer[-1].name = node.output[0]
        graph.node.remove(node)
    fold(graph)
    used = {name for node in graph.node for name in node.input}
    weights = {weight.name for weight in graph.initializer}
    for field, unwanted in ((graph.input, weights), (graph.initializer, weights - used)):
        kept = [item for item in field if item.name not in unwanted]
        del field[:]
        field.extend(kept)


def limit_memory() -> None:
    """Let this process take no more than MEMORY_BYTES from now on: a few bytes of a model can ask for any number."""
    held = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")  # data, by proc(5)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = held + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def ends(model: Any) -> List[Tuple[str, Tuple[Any, ...]]]:
    """Name and shape of a model's inputs and outputs."""
    return [(value.name, _shape(value)) for value in (*model.graph.input, *model.graph.output)]


def network_ends(row_shape: Tuple[int, ...], card: Card = KINETICS) -> List[Tuple[str, Tuple[Any, ...]]]:
    """The `ends` of a model whose rows are of `row_shape`."""
    return [(INPUT, ("batch", *row_shape)), (OUTPUT, ("batch", card.classes))]


def session(model: Any, threads: int = THREADS) -> Any:
    """An ONNX Runtime session of a model that says nothing of its own: warnings quote the model's names as they are.

    It runs on no more than so many threads.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = min(threads, os.cpu_count() or 1)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def check(model: Any, expected: Any, card: Card = KINETICS) -> None:
    """Print a checklist of what holds; raise InputError, after a line that says what, for the first that doesn't.

    `model` is an onnx ModelProto; `expected` maps `input1_<batch size>` and `output1_<batch size>` to arrays.
    """
    import onnx

    onnx.checker.check_model(model)
    _tell(True, "onnx.checker accepts the model")
    opset = {entry.domain: entry.version for entry in model.opset_import}[""]
    _tell(opset in OPSETS, f"opset {opset} is one that CANN takes ({OPSETS[0]}..{OPSETS[-1]})")
    operators = {node.op_type for node in model.graph.node}
    _tell("Einsum" not in operators, f"no Einsum among its {len(model.graph.node)} nodes")
    found = ends(model)
    _tell(
        found == network_ends(expected[f"{INPUT}_1"].shape[1:], card),
        ", ".join(f"{name} {dims}" for name, dims in found),
    )
    running = session(model)
    for batch_size in CHECKED_BATCH_SIZES:
        reference = expected[f"{OUTPUT}_{batch_size}"]
        logits = running.run([OUTPUT], {INPUT: expected[f"{INPUT}_{batch_size}"]})[0]
        _tell(logits.shape == reference.shape, f"output shape {logits.shape} at batch size {batch_size}")
        error, largest = np.abs(logits - reference).max(), np.abs(reference).max()
        _tell(
            bool(error <= TOLERANCE * max(1.0, largest)),
            f"ONNX Runtime against torch at batch size {batch_size}: max abs error {error:.1e} "
            f"(logits up to {largest:.2g}, tolerance {TOLERANCE:.0e} of that, at least {TOLERANCE:.0e})",
        )


def _tell(holds: bool, what: str) -> None:
    print(f"{'✓' if holds else '✗'} {printable(what)}", flush=True)
    if not holds:
        raise InputError(f"the model fails a check: {what}")


def _shape(value: Any) -> Any:
    return tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)


def main(argv: Optional[List[str]] = None) -> None:
    """Tidy and check an exported model."""
    parser = program("onnx_model", main.__doc__)
    for name in ("traced", "expected", "tidied"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args(argv)
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(f"the check needs onnx and onnxruntime ({error}): install them beside torch") from error
    limit_memory()
    model = load(options.traced)
    try:
        tidy(model)
        with np.load(options.expected) as expected:
            check(model, expected, card_of(options.model))
    except InputError:
        raise
    except Exception as error:  # onnx's and ONNX Runtime's own errors have no common base
        raise InputError(f"{options.traced} isn't a model that can be checked ({error}): export it again") from error
    onnx.save(model, str(options.tidied))


if __name__ == "__main__":
    run_main(main)
