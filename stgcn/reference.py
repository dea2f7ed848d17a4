"""The logits that every other way of running the model is compared with, in float32 by torch:

    python -m stgcn.reference --ckpt X.pth --data_path val_data.npy --output reference.npy [--model NAME] [--device cpu]

An interrupted run resumes, if checkpoint, data, torch and device are the same.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, List, Optional

import numpy as np
import torch

from stgcn.accuracy import mean_softmax
from stgcn.cards import KINETICS, Card, card_of, program
from stgcn.checkpoint import load_model
from stgcn.dataset import check_finite, read_clips
from stgcn.errors import InputError, run_main
from stgcn.files import PathLike, atomic_write, remove, sha256_file, unwritable
from stgcn.progress import Progress
from stgcn.sources import open_rows

LOGITS_DTYPE = np.dtype("<f4")
BATCH_SIZE = 8


def write_reference(
    checkpoint: PathLike,
    data: PathLike,
    output: PathLike,
    batch_size: int = BATCH_SIZE,
    device: str = "cpu",
    card: Card = KINETICS,
    array_dir: Optional[PathLike] = None,
) -> None:
    """Write the logits of all samples, float32 (N, classes), as .npy.

    Where a model has several rows per sample, what is written is their softmax's mean, as stgcn.fold makes it.
    Raises InputError for a bad checkpoint or array (see load_state_dict, open_rows), a clip or logits with NaN or
    infinity, a device that torch hasn't, or a place that can't be written.
    """
    if batch_size < 1:
        raise InputError(f"--batch_size {batch_size} takes no clips: give 1 or more")
    model, clips = load_model(checkpoint, card).to(torch_device(device)), open_rows(data, array_dir, card)
    inputs = " ".join([card.name, sha256_file(checkpoint), sha256_file(str(clips.filename)), torch.__version__, device])
    output = Path(output)
    part = output.with_name(f".{output.name}.{hashlib.sha256(inputs.encode()).hexdigest()[:16]}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        for other in output.parent.glob(f".{output.name}.*.part"):
            if other != part:
                other.unlink()  # of other inputs
        _infer(model, clips, part, batch_size, device, card.classes)
    except OSError as error:
        raise unwritable(part, error) from error
    with atomic_write(output) as file, part.open("rb") as rows:
        samples = len(clips) // card.rows_per_sample
        header = {"descr": LOGITS_DTYPE.str, "fortran_order": False, "shape": (samples, card.classes)}
        np.lib.format.write_array_header_1_0(file, header)
        if card.rows_per_sample == 1:
            shutil.copyfileobj(rows, file)
        else:
            logits = np.fromfile(rows, LOGITS_DTYPE).reshape(samples, card.rows_per_sample, card.classes)
            file.write(mean_softmax(logits).astype(LOGITS_DTYPE).data)
    remove(part)


def _infer(model: Any, clips: np.memmap, part: Path, batch_size: int, device: str, classes: int) -> None:
    """Append the logits that `part` misses to it: each batch is on disk before the next begins."""
    row_bytes = classes * LOGITS_DTYPE.itemsize
    with part.open("ab") as file:
        done = file.tell() // row_bytes
        file.truncate(done * row_bytes)
        progress = Progress("clips", len(clips), done)
        for first in range(done, len(clips), batch_size):
            block = read_clips(clips, first, batch_size)
            check_finite(block, first, clips.filename)
            with torch.no_grad():
                logits = model(torch.from_numpy(block).to(device)).cpu().numpy()
            bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
            if len(bad):
                raise InputError(f"the logits of sample {first + bad[0]} are NaN or infinite: check the checkpoint")
            file.write(logits.astype(LOGITS_DTYPE).tobytes())
            file.flush()
            os.fsync(file.fileno())
            progress.advance(len(block))


def torch_device(name: str) -> torch.device:
    """A device that is there, set to compute in float32 proper. Raises InputError where there is none."""
    # The reference is float32 proper; newer torch would let a GPU round to 10 bits of mantissa.
    torch.backends.cudnn.allow_tf32 = False
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"--device {name} isn't one that this torch can use: give cpu, or cuda where it works"
        ) from error
    return device


def main(argv: Optional[List[str]] = None) -> None:
    """Write the model's float32 logits for a dataset."""
    parser = program("reference", main.__doc__)
    parser.add_argument("--ckpt", required=True, help="checkpoint of the model")
    parser.add_argument("--data_path", required=True, help="val_data.npy, or the rows.npy of stgcn.index")
    parser.add_argument("--array_dir", help="folder of the arrays that stgcn.index made of the data")
    parser.add_argument("--output", required=True, help=".npy file to write")
    parser.add_argument("--batch_size", type=int, default=BATCH_SIZE, help=f"clips at a time (default {BATCH_SIZE})")
    parser.add_argument("--device", default="cpu", help="torch's name of the device (default cpu)")
    options = parser.parse_args(argv)
    card = card_of(options.model)
    write_reference(
        options.ckpt, options.data_path, options.output, options.batch_size, options.device, card, options.array_dir
    )


if __name__ == "__main__":
    run_main(main)
