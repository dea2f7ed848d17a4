"""Files into batches: which files make one run of the model, and what is read from them."""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import legality

logger = logging.getLogger(__name__)
PURE = "pure_infer_data"  # a file name that stands for zeros or random bytes
PADDING = "padding_infer_fake_file"  # one that stands for the first file of its batch
SUFFIXES = (".npy", ".NPY", ".bin", ".BIN")

Batch = list[list[str]]  # file names by model input


def make(inputs: str, sizes: Sequence[int], era: str) -> list[Batch]:
    """The batches of `--input`: one folder per model input, or files; sizes are the inputs' bytes.

    Files per batch = bytes of input 0 / bytes of its first file. RuntimeError where the real tool raises it.
    """
    return _group(_listed(inputs, sizes, era), sizes[0], era)


def whole(inputs: str, sizes: Sequence[int], era: str) -> list[list[str]]:
    """The batches of `--input` for a pipeline: a file holds a batch. RuntimeError where it does not."""
    files = _listed(inputs, sizes, era)
    for number, (names, size) in enumerate(zip(files, sizes, strict=True)):
        if (found := read(names[0]).nbytes) != size:
            logger.error(f"tensor_num:{number} tensorsize:{size} filesize:{found} not match")
            raise RuntimeError
    return [list(batch) for batch in zip(*files, strict=False)]


def _listed(inputs: str, sizes: Sequence[int], era: str) -> list[list[str]]:
    """The files of each model input."""
    names = inputs.split(",")
    if Path(names[0]).is_file():
        chunk = max(1, len(names) // len(sizes))
        files = [names[start : start + chunk] for start in range(0, len(names), chunk)]
        if lost := [name for name in names if not Path(name).is_file()]:
            logger.error(f"Invalid args. file_path:{lost[0]} realpath:{lost[0]} not exist")
            raise RuntimeError
    elif Path(names[0]).is_dir():
        if len(names) != len(sizes):
            logger.error(f"Invalid args. args input dir num:{len(names)} not equal to model inputs num:{len(sizes)}")
            raise RuntimeError
        files = [folder(name, era) for name in names]
    else:
        logger.error(f"Invalid args. {names[0]}  of --input is invalid")
        raise RuntimeError
    if len(files) != len(sizes):
        logger.error(f"fileslist:{len(files)} intensor:{len(sizes)} not match")
        raise RuntimeError
    return files


def under(parent: str, name: str) -> str:
    """A path spelt as the user spelt its folder: it appears in the summary."""
    return os.path.join(parent, name)  # noqa: PTH118


def folder(name: str, era: str) -> list[str]:
    """The .npy and .bin files of a folder, not of those below it, in the order of the era."""
    entries = [path.name for path in Path(name).iterdir()]
    if era >= "2024":
        for entry in entries:
            legality.check_file(Path(name, entry))
    found = [under(name, entry) for entry in entries if entry.endswith(SUFFIXES)]
    if not found:
        formats = " ".join(f"*{suffix}" for suffix in SUFFIXES)
        if era >= "2023":
            logger.error(f"{name} of input args not find valid file,valid file format:[{formats}]")
        else:
            logger.error(f"not find valid [{formats}] files:[]")
        raise RuntimeError
    return sorted(found) if era < "2022-07" else sorted(sorted(found), key=_natural)


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", name)]


def _group(files: Sequence[Sequence[str]], tensor_size: int, era: str) -> list[Batch]:
    file_size = read(files[0][0]).nbytes if files[0][0].lower().endswith(".npy") else Path(files[0][0]).stat().st_size
    if file_size == 0 or tensor_size % file_size:
        logger.error(f"arg0 tensorsize: {tensor_size} filesize: {file_size} not match")
        raise RuntimeError
    per_batch = tensor_size // file_size
    whole, rest = divmod(len(files[0]), per_batch)
    runs = whole if era < "2022-07" else whole + bool(rest)
    logger.info(
        f"get filesperbatch files0 size:{file_size} tensor0size:{tensor_size} filesperbatch:{per_batch} runcount:{runs}"
    )
    if runs == 0:
        logger.error("create_infileslist_from_fileslist return infileslist size: 0")
        raise RuntimeError
    batches = [[list(part[run * per_batch : (run + 1) * per_batch]) for part in files] for run in range(runs)]
    for part in batches[-1]:
        part += [PADDING] * (per_batch - len(part))
    return batches


def read(path: str) -> NDArray[Any]:
    """A file as the tool sees it: an .npy's array, any other file's bytes."""
    return np.load(path) if path.lower().endswith(".npy") else np.fromfile(path, np.int8)


def real_files(names: Sequence[str]) -> list[str]:
    """The files of a batch for `--run_mode files`, which takes .bin files only."""
    if names[0] == PURE:
        raise RuntimeError("not support pure infer")
    if arrays := [name for name in names if name.lower().endswith(".npy")]:
        raise RuntimeError(f"not support npy file:{arrays[0]}")
    return [names[0] if name == PADDING else name for name in names]


def join(names: Sequence[str], size: int, pure: str) -> NDArray[Any]:
    """One model input of `size` bytes from the files of a batch; RuntimeError if they make another size."""
    if names[0] == PURE:
        return np.frombuffer(os.urandom(size), np.uint8) if pure == "random" else np.zeros(size, np.uint8)
    arrays = [read(names[0] if name == PADDING else name) for name in names]
    if len(arrays) == 1:
        return np.ascontiguousarray(arrays[0])  # its size is checked by aclruntime, in other words
    joined = np.concatenate(arrays)
    if joined.nbytes != size:
        logger.error(f"ndata size:{joined.nbytes} not match {size}")
        raise RuntimeError
    return joined
