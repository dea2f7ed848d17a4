"""One pass of an ONNX graph, unit by unit in ONNX Runtime, in float32 and as a device in float16 would do it.

A device takes weights and inputs rounded to float16, sums in float32, and rounds what it writes: beyond 65504 lies
infinity, below 2^-25 zero. Only the tensors that are still needed are held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deploy.errors import KitError
from deploy.precision.units import Unit, name_nodes, units
from stgcn.onnx_model import session

Tensors = dict[str, np.ndarray]
LARGEST = 65504.0  # of float16
SMALLEST = 2.0**-25  # what is no larger rounds to zero
NORMAL = 2.0**-14  # below it float16 has less than its 11 bits
EXACT, HALF, FIRST, MAGNITUDES = "exact", "half", "first", "magnitudes"  # how a unit is run
NARROW = "narrow"  # what it is given is rounded, its results are not
MATRIX = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])  # of the matrix unit, which on some chips is so


class Network:
    """A graph that runs unit by unit."""

    def __init__(self, model: Any) -> None:
        """Raises KitError where ONNX does not know the types within."""
        import onnx
        from onnx import numpy_helper

        name_nodes(model)
        try:
            self.model = onnx.shape_inference.infer_shapes(model)
        except Exception as error:  # onnx's own errors have no common base
            raise KitError(f"the ONNX cannot be read node by node ({error}): export it again") from None
        graph = self.model.graph
        self.units = units(self.model)
        self.weights: Tensors = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
        self.inputs = [value.name for value in graph.input if value.name not in self.weights]
        self.outputs = [value.name for value in graph.output]
        self._tensors = {weight.name: weight for weight in graph.initializer}
        self._types = {value.name: value for value in (*graph.value_info, *graph.output, *graph.input)}
        self._uses = Counter(name for unit in self.units for name in self._inputs_of(unit))
        self._uses.update(self.outputs)
        self._sessions: dict[tuple[str, str], Any] = {}

    @property
    def choices(self) -> list[Unit]:
        """The units whose precision is a choice."""
        return [unit for unit in self.units if unit.kept and self._gives_floats(unit)]

    def run(
        self, inputs: Sequence[np.ndarray], kept: Collection[str] | None = None, how: str = HALF
    ) -> list[np.ndarray]:
        """The outputs for one batch of rows; all in float32, or in float16 (HALF or NARROW) but for those in `kept`."""
        half = None if kept is None else (lambda unit: unit.name not in kept)
        *_, (_, _, tensors) = self.steps(inputs, half, how)
        return [tensors[name] for name in self.outputs]

    def steps(
        self, inputs: Sequence[np.ndarray], half: Callable[[Unit], bool] | None = None, how: str = HALF
    ) -> Iterator[tuple[Unit, Tensors, Tensors]]:
        """Each unit when it has run, what it was given, and all that is still needed, its results among it."""
        tensors: Tensors = dict(zip(self.inputs, inputs, strict=True))
        left = Counter(self._uses)
        for unit in self.units:
            given = {name: tensors[name] for name in self._inputs_of(unit) if name in tensors}
            lowered = half is not None and unit.kept and half(unit)
            tensors |= self.of_unit(unit, given, how if lowered else EXACT)
            yield unit, given, tensors
            for name in given:
                left[name] -= 1
                if not left[name]:
                    del tensors[name]

    def of_unit(self, unit: Unit, given: Mapping[str, np.ndarray], how: str) -> Tensors:
        """What a unit makes of `given`, EXACT, HALF or NARROW; its FIRST node alone, that of all MAGNITUDES."""
        running = self._session(unit, how)
        names = [value.name for value in running.get_outputs()]
        try:
            values = running.run(names, {value.name: given[value.name] for value in running.get_inputs()})
        except Exception as error:  # ONNX Runtime's own errors have no common base
            raise KitError(f"ONNX Runtime does not run {unit.name} ({unit.kind}) alone ({error})") from None
        return dict(zip(names, values, strict=True))

    def weights_of(self, unit: Unit) -> Tensors:
        """The float weights that a unit takes rounded: not a batch-norm's statistics."""
        names = [name for name in self._rounded_inputs(unit) if name in self.weights]
        return {name: self.weights[name] for name in names}

    def _rounded_inputs(self, unit: Unit) -> list[str]:
        node = unit.nodes[0]
        names = node.input[:1] if node.op_type == "BatchNormalization" else node.input
        return [name for name in dict.fromkeys(names) if name and self._is_float(name)]

    def _inputs_of(self, unit: Unit) -> list[str]:
        """The tensors that a unit takes of other units, or of the graph's inputs."""
        own = {name for node in unit.nodes for name in node.output}
        names = dict.fromkeys(name for node in unit.nodes for name in node.input if name)
        return [name for name in names if name not in own and name not in self.weights]

    def _is_float(self, name: str) -> bool:
        from onnx import TensorProto

        if name in self._tensors:
            return bool(self._tensors[name].data_type == TensorProto.FLOAT)
        value = self._types.get(name)
        return value is not None and value.type.tensor_type.elem_type == TensorProto.FLOAT

    def _gives_floats(self, unit: Unit) -> bool:
        return any(self._is_float(name) for name in unit.outputs if name)

    def _session(self, unit: Unit, how: str) -> Any:
        key = (unit.name, how)
        if key not in self._sessions:
            # The idle threads of hundreds would spin.
            self._sessions[key] = session(self._model_of(unit, how), threads=1)
        return self._sessions[key]

    def _model_of(self, unit: Unit, how: str) -> Any:
        """The unit as a graph of its own, its weights within."""
        import onnx
        from onnx import helper, numpy_helper

        nodes = []
        for node in unit.nodes[: 1 if how in (FIRST, MAGNITUDES) else None]:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            nodes.append(copy)
        ends = [name for name in nodes[-1].output if name]
        given = [name for name in self._inputs_of(unit) if any(name in node.input for node in nodes)]
        used = dict.fromkeys(name for node in nodes for name in node.input)
        weights = [self._tensors[name] for name in used if name in self._tensors]
        if how == MAGNITUDES:
            floats = {name: np.abs(array) for name, array in self.weights_of(unit).items()}
            weights = [numpy_helper.from_array(floats[w.name], w.name) if w.name in floats else w for w in weights]
            nodes[0].op_type = {"Sub": "Add"}.get(nodes[0].op_type, nodes[0].op_type)
        if how in (HALF, NARROW):
            nodes = self._rounded(unit, nodes, how)
        graph = helper.make_graph(
            nodes,
            "unit",
            [self._end(name) for name in given],
            [self._end(name) for name in ends],
            weights,
        )
        made = helper.make_model(graph, opset_imports=self.model.opset_import)
        made.ir_version = self.model.ir_version
        return made

    def _rounded(self, unit: Unit, nodes: list[Any], how: str) -> list[Any]:
        """The nodes between what rounds the unit's inputs and, HALF, what rounds its results."""
        twins = {name: f"{name}/half" for name in self._rounded_inputs(unit)}
        before = [cast for name, twin in twins.items() for cast in _casts(name, twin)]
        nodes[0].input[:] = [twins.get(name, name) for name in nodes[0].input]
        after = []
        for place, name in enumerate(nodes[-1].output):
            if how == HALF and name and self._is_float(name):
                nodes[-1].output[place] = f"{name}/wide"
                after += _casts(f"{name}/wide", name)
        return [*before, *nodes, *after]

    def _end(self, name: str) -> Any:
        """A tensor as an end of a graph: its type, of any shape."""
        from onnx import helper

        value = self._types.get(name)
        if value is None:
            return helper.make_empty_tensor_value_info(name)
        return helper.make_tensor_value_info(name, value.type.tensor_type.elem_type, None)


def _casts(source: str, target: str) -> list[Any]:
    from onnx import TensorProto, helper

    return [
        helper.make_node("Cast", [source], [f"{target}/16"], to=int(TensorProto.FLOAT16)),
        helper.make_node("Cast", [f"{target}/16"], [target], to=int(TensorProto.FLOAT)),
    ]
