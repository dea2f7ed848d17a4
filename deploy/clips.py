"""Single clips of the dataset, from the host where it lies."""

from __future__ import annotations

import base64

import numpy as np

from deploy.context import Context
from deploy.errors import KitError
from stgcn.dataset import CLIP_BYTES, CLIP_DTYPE, CLIP_SHAPE

# The clip at a place of a .npy file: NEP 1 has the header's length behind the magic and the version.
_READ = """
import base64, sys
path, sample, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open(path, "rb") as stream:
    major = bytearray(stream.read(8))[6]
    width = 2 if major == 1 else 4
    stream.seek(8 + width + int.from_bytes(stream.read(width), "little") + sample * size)
    print(base64.b64encode(stream.read(size)).decode())
"""


def read(context: Context, sample: int) -> np.ndarray:
    """One clip, float32 (3, 300, 18, 2).

    Raises:
        KitError: its host does not give it up.
    """
    host = context.gpu.host
    done = host.run(["python3", "-c", _READ, str(context.data), str(sample), str(CLIP_BYTES)], timeout_s=60)
    content = base64.b64decode(done.output) if done.status == 0 else b""
    if len(content) != CLIP_BYTES:
        raise KitError(f"{host.name}: sample {sample} cannot be read from {context.data}; check `dataset.data`")
    return np.frombuffer(content, CLIP_DTYPE).reshape(CLIP_SHAPE)
