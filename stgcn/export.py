"""A checkpoint as ONNX, checked before it is handed on:

    python -m stgcn.export --ckpt st_gcn.kinetics-6fa43f73.pth --onnx st_gcn.onnx [--model NAME] [--variant fused]

Input `input1` of (batch, 3, 300, 18, 2) and output `output1` of (batch, 400), float32, with a dynamic batch; another
model has the shapes of its card. With `--persons nonempty` a row is one person, (batch, 3, 300, 18, 1), and a clip's
logits are the mean of its persons'. `--card model.json` writes the model's card too (docs/own-model.md).
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
import torch
from torch import nn

from stgcn.cards import INPUT, KINETICS, OUTPUT, Card, card_of, program
from stgcn.checkpoint import load_model, load_state_dict
from stgcn.errors import InputError, run_main
from stgcn.files import PathLike, atomic_write, write_whole
from stgcn.fused import FusedSTGCN
from stgcn.onnx_model import CHECKED_BATCH_SIZES, OPSETS

VARIANTS: Dict[str, Callable[[Any], nn.Module]] = {
    "reference": lambda model: model,
    "fused": FusedSTGCN,
    "winograd": lambda model: FusedSTGCN(model, winograd=WINOGRAD_BLOCKS),
}
WINOGRAD_BLOCKS = 3  # the last, of 256 channels: the more channels, the more their products outweigh the transforms
MMSKELETON_LAYOUTS = {18: "openpose", 25: "ntu-rgb+d"}
LEGACY_TORCH = torch.__version__.startswith("1.2.")
DEFAULT_OPSET = 9 if LEGACY_TORCH else 11
HIGHEST_OPSET = 10 if LEGACY_TORCH else OPSETS[-1]


def export_onnx(
    checkpoint: PathLike,
    onnx: PathLike,
    variant: str = "reference",
    opset: int = DEFAULT_OPSET,
    source: str = "stgcn",
    persons: str = "both",
    card: Card = KINETICS,
) -> None:
    """Write the checkpoint's model to `onnx` once ONNX Runtime gives torch's logits with it; prints a checklist.

    `variant`: `reference` is the network as written, `fused` as stgcn.fused rewrites it,
    `winograd` that with fewer products in its last blocks. `source`: whose network, the
    kit's or the patched mmskeleton's (as written alone). `persons`: what a row is, see Card.shape. Raises
    InputError for an opset that CANN or this torch doesn't take, a form that the model hasn't, a bad checkpoint (see
    load_state_dict), a place that can't be written, or a model that fails its checks.
    """
    for option, value, offered in (
        ("variant", variant, card.variants),
        ("persons", persons, card.persons),
        ("source", source, card.sources),
    ):
        if value not in offered:
            raise InputError(f"--{option} {value} isn't one of {card.name}: give {' or '.join(offered)}")
    if opset not in OPSETS:
        raise InputError(f"--opset {opset} is outside {OPSETS[0]}..{OPSETS[-1]}, which CANN takes: choose one of them")
    if opset > HIGHEST_OPSET:
        raise InputError(f"--opset {opset} is beyond torch {torch.__version__}: give at most {HIGHEST_OPSET}")
    if source == "mmskeleton" and variant != "reference":
        raise InputError(f"--variant {variant} is of stgcn's own network: leave it out, or --source mmskeleton")
    if source == "stgcn":
        model = load_model(checkpoint, card)
    else:
        model = _mmskeleton_model(load_state_dict(checkpoint, card), card)
    shape = card.shape(persons)
    with tempfile.TemporaryDirectory() as scratch, atomic_write(onnx) as file:
        traced, expected, tidied = (Path(scratch, name) for name in ("traced.onnx", "expected.npz", "tidied.onnx"))
        np.savez(expected, **_expected(model, shape, card))  # type: ignore[arg-type]  # the stub takes them for its own flag
        if persons == "nonempty":
            model.persons = 1
        traced.write_bytes(_traced(VARIANTS[variant](model), shape, opset))
        # A process of its own: importing onnx after torch 1.2 has exported ends in a segmentation fault.
        command = [sys.executable, "-m", "stgcn.onnx_model", str(traced), str(expected), str(tidied)]
        command += ["--model", card.name]
        path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
        if subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode:
            raise InputError(f"the exported model failed a check, so {onnx} isn't written: see the line above")
        file.write(tidied.read_bytes())


def _mmskeleton_model(state: Dict[str, torch.Tensor], card: Card) -> Any:
    """mmskeleton's own ST_GCN_18 in evaluation mode, as its configuration for the dataset makes it."""
    try:
        from mmskeleton.models.backbones.st_gcn_aaai18 import ST_GCN_18 as Network  # noqa: N811
    except ImportError as error:
        raise InputError(f"--source mmskeleton needs mmskeleton ({error}): run in the GPU image") from error
    layout = MMSKELETON_LAYOUTS[card.joints]
    model = Network(card.row_shape[0], card.classes, {"layout": layout, "strategy": "spatial"})
    model.load_state_dict(state)
    return model.eval()


def _traced(module: nn.Module, shape: Tuple[int, ...], opset: int) -> bytes:
    buffer = io.BytesIO()
    batch = {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}
    # The only exporter that both torches have. Batch-norms stay nodes, as torch 1.2 leaves them: one graph from either,
    # so a device rounds the same.
    exporter: Dict[str, Any] = {}
    if not LEGACY_TORCH:
        exporter = {"dynamo": False, "training": torch.onnx.TrainingMode.PRESERVE}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(1, *shape),),
            buffer,  # type: ignore[arg-type]  # this exporter writes to any file
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes=batch,
            opset_version=opset,
            **exporter,
        )
    return buffer.getvalue()


def _expected(model: nn.Module, shape: Tuple[int, ...], card: Card) -> Dict[str, np.ndarray]:
    """Random samples and torch's logits for them, under the names `<INPUT>_<batch size>` and `<OUTPUT>_<batch size>`.

    They are the whole network's: those of a single person are of a clip that has it as every person.
    """
    random = np.random.RandomState(0)
    arrays = {}
    for batch_size in CHECKED_BATCH_SIZES:
        samples = random.uniform(-0.5, 0.5, size=(batch_size, *shape)).astype(np.float32)
        clips = np.repeat(samples, card.row_shape[-1] // shape[-1], axis=-1)
        with torch.no_grad():
            logits = model(torch.from_numpy(clips)).numpy()
        arrays[f"{INPUT}_{batch_size}"], arrays[f"{OUTPUT}_{batch_size}"] = samples, logits
    return arrays


def main(argv: Optional[List[str]] = None) -> None:
    """Export a checkpoint to ONNX."""
    parser = program("export", main.__doc__)
    parser.add_argument(
        "--ckpt", required=True, help="checkpoint of the model, for instance st_gcn.kinetics-6fa43f73.pth"
    )
    parser.add_argument("--onnx", required=True, help="file to write")
    parser.add_argument("--card", help="file to write the model's card to, for instance model.json")
    parser.add_argument(
        "--variant", choices=VARIANTS, default="reference", help="form of the graph (default reference)"
    )
    parser.add_argument("--persons", choices=KINETICS.persons, default="both", help="of a clip in a row (default both)")
    parser.add_argument("--source", choices=KINETICS.sources, default="stgcn", help="whose network (default stgcn)")
    parser.add_argument("--opset", type=int, default=DEFAULT_OPSET, help=f"ONNX operator set (default {DEFAULT_OPSET})")
    options = parser.parse_args(argv)
    card = card_of(options.model)
    export_onnx(options.ckpt, options.onnx, options.variant, options.opset, options.source, options.persons, card)
    if options.card:
        write_whole(options.card, (json.dumps(card.as_json(options.persons), indent=1) + "\n").encode())


if __name__ == "__main__":
    run_main(main)
