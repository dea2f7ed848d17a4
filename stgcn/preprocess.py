"""The dataset as the files that ais_bench reads:

    python -m stgcn.preprocess --data_path val_data.npy --label_path val_label.pkl --output_dir DIR

writes `val_data/<i>.bin` (float32, 129600 bytes) and `val_label/<i>.bin` (int64) for every sample i, in one pass.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import List, Optional

import numpy as np

from stgcn.beside import beside
from stgcn.cards import KINETICS, Card, card_of, program
from stgcn.dataset import check_finite
from stgcn.errors import InputError, run_main, sentence
from stgcn.files import PathLike, aside_of, sweep, unwritable
from stgcn.sources import Source, open_source

DATA_FOLDER, LABEL_FOLDER = "val_data", "val_label"
OWN_NAME = re.compile(r"\d+\.bin")


def preprocess(data: PathLike, labels: PathLike, output_dir: PathLike, card: Card = KINETICS) -> int:
    """Write both folders and return the number of samples; they appear whole, the labels' last, or not at all.

    Folders of an earlier run are replaced. The files aren't fsynced one by one, as they can be made again: after a
    power cut, run this again. Raises InputError for anything wrong with the dataset (see open_source), a clip with NaN
    or infinity, a folder that holds files of other programs, or a place that can't be written.
    """
    clips, named = open_source(data, labels, card)
    output = Path(output_dir)
    sweep(output)
    aside = aside_of(output / "preprocess")
    try:
        aside.mkdir(parents=True)
        descriptor = os.open(str(aside), os.O_RDONLY)
        try:
            with suppress(OSError):  # as atomic_write does
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            for name in (DATA_FOLDER, LABEL_FOLDER):
                _check_own(output / name)
                (aside / name).mkdir()
            _write_samples(aside, clips, named.labels)
            for name in (LABEL_FOLDER, DATA_FOLDER):
                if (output / name).exists():
                    (output / name).rename(aside / f"earlier_{name}")
            for name in (DATA_FOLDER, LABEL_FOLDER):
                (aside / name).rename(output / name)
        finally:
            shutil.rmtree(str(aside))
            os.close(descriptor)
    except OSError as error:
        raise unwritable(output, error) from error
    return clips.samples


def _check_own(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but files of an earlier run."""
    if folder.exists():
        for entry in os.scandir(str(folder)):
            if not OWN_NAME.fullmatch(entry.name) or entry.is_dir(follow_symlinks=False):
                raise InputError(
                    f"{entry.path} isn't of this program, which would replace it: choose another --output_dir"
                )


def _write_samples(folder: Path, clips: Source, labels: np.ndarray) -> None:
    def write(blocks: range) -> bytes:
        for first in blocks:
            block = clips.read(first, clips.block)
            check_finite(block, first, clips.path)
            for index, clip in enumerate(block, first):
                _write(f"{folder}/{DATA_FOLDER}/{index}.bin", clip)
                _write(f"{folder}/{LABEL_FOLDER}/{index}.bin", labels[index])
        return b"written"

    blocks = range(0, clips.samples, clips.block)
    half = len(blocks) // 2
    with beside(lambda: write(blocks[half:])) as answer:  # threads would wait for each other at every file
        write(blocks[:half])
        if not answer():
            write(blocks[half:])


def _write(path: str, values: np.ndarray) -> None:
    """A file of `values` by three system calls, where Python's own file objects take twice as many."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
    try:
        if os.write(file, values.data) != values.nbytes:  # a disk that is all but full takes a part, without an error
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(file)


def main(argv: Optional[List[str]] = None) -> None:
    """Write a dataset as the files that ais_bench reads."""
    parser = program("preprocess", main.__doc__)
    parser.add_argument("--data_path", required=True, help="val_data.npy, or clips in a form of stgcn.sources")
    parser.add_argument("--label_path", required=True, help="val_label.pkl")
    parser.add_argument("--output_dir", required=True, help="folder for val_data/ and val_label/")
    options = parser.parse_args(argv)
    card = card_of(options.model)
    samples = preprocess(options.data_path, options.label_path, options.output_dir, card)
    print(sentence(f"{samples} samples in {options.output_dir}/{DATA_FOLDER} and {options.output_dir}/{LABEL_FOLDER}"))


if __name__ == "__main__":
    run_main(main)
