"""What an OM says of itself. Pure: bytes in, facts out.

Of a real one the header alone is public: CANN's `ModelFileHeader` [GE, framework/common/types.h], 256 bytes,
little-endian, whose `length` is that of what follows, modulo 2^32. The simulated host's is an ONNX with a fixed batch
(or a list of them) and its versions in the metadata [docker/npu/simulator/README.md].
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_HEADER = struct.Struct("<III64sI")  # magic, head size, version, checksum, length
_MAGIC, HEAD_BYTES = b"IMOD", 256


@dataclass(frozen=True)
class Om:
    """None stands for what the format does not tell."""

    simulated: bool
    batch_sizes: tuple[int, ...] | None = None
    soc_version: str | None = None
    cann: str | None = None


def parse(content: bytes) -> Om:
    """Raises ValueError for what is no OM, or a torn one."""
    if content.startswith(_MAGIC):
        return _of_device(content)
    return _of_simulator(content)


def _of_device(content: bytes) -> Om:
    if len(content) < HEAD_BYTES:
        raise ValueError("its header is cut short")
    _, head, _, _, length = _HEADER.unpack_from(content)
    if head != HEAD_BYTES or length != (len(content) - HEAD_BYTES) % (1 << 32):
        raise ValueError(f"its header announces {head} + {length} bytes, and it has {len(content)}")
    return Om(simulated=False)


def _of_simulator(content: bytes) -> Om:
    import onnx  # takes a moment, and few commands need it

    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # protobuf's own errors have no common base
        raise ValueError("neither CANN's header nor a simulated host's graph") from None
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value.type.tensor_type.shape.dim for value in model.graph.input if value.name not in weights]
    told = {prop.key: prop.value for prop in model.metadata_props}
    if not model.graph.node or not inputs or not inputs[0] or "soc_version" not in told:
        raise ValueError("neither CANN's header nor a simulated host's graph")
    gears = told.get("dynamic_batch_size", "").replace(",", " ").split() or [str(inputs[0][0].dim_value)]
    sizes = tuple(int(gear) for gear in gears if gear.isdecimal())
    return Om(True, sizes, told["soc_version"], told.get("cann"))
