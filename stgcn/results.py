"""Results as ais_bench leaves them: `<row>_<output>.bin` in a folder, a row's float32 logits each.

Any other file there is left alone. Nothing here needs numpy, so that files can be read while it starts.
"""

from __future__ import annotations

import mmap
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, Dict, Iterator, List, Sequence

from stgcn.beside import beside
from stgcn.errors import InputError

if TYPE_CHECKING:
    from stgcn.files import PathLike

LOGIT_BYTES = 4
RESULT_NAME = re.compile(r"(\d+)_\d+\.bin")
Read = Callable[[Sequence[str]], memoryview]


def read(result_dir: PathLike, names: Sequence[str], classes: int) -> memoryview:
    """The bytes of all results, `classes` logits each, in the order of the `names` of their samples.

    Raises InputError, naming the sample, for a result that is missing, surplus, doubled or of another size.
    """
    rows = memoryview(bytearray(len(names) * LOGIT_BYTES * classes))
    _fill(rows, result_dir, _by_sample(result_dir, _listed(result_dir)), names, LOGIT_BYTES * classes)
    return rows


@contextmanager
def read_ahead(result_dir: PathLike, classes: int) -> Iterator[Read]:
    """`read` of a folder, which a second process begins at once, when the names may not be known yet."""
    listed, size = _listed(result_dir), LOGIT_BYTES * classes
    shared = memoryview(mmap.mmap(-1, (len(listed) + 1) * size))  # one more: none would be no mapping

    def fill() -> bytes:
        files = _by_sample(result_dir, listed)
        _fill(shared, result_dir, files, range(len(files)), size)
        return b"%d" % len(files)

    with beside(fill) as answer:
        yield (
            lambda names: (
                shared[: len(names) * size] if answer() == b"%d" % len(names) else read(result_dir, names, classes)
            )
        )


def _listed(result_dir: PathLike) -> List[str]:
    try:
        return os.listdir(str(result_dir))  # noqa: PTH208 - names are all that is wanted of 19796 entries
    except OSError as error:
        raise InputError(f"can't read {result_dir} ({error.strerror}): give the folder of the results") from error


def _by_sample(result_dir: PathLike, listed: List[str]) -> Dict[int, str]:
    """Sample index to file name."""
    files: Dict[int, str] = {}
    for entry in listed:
        named = RESULT_NAME.fullmatch(entry)
        if named is None:
            continue
        index = int(named.group(1))
        if index in files:
            raise InputError(
                f"sample {index} has two results in {result_dir}, {files[index]} and {entry}: infer again into an "
                "empty folder"
            )
        files[index] = entry
    return files


def _fill(rows: memoryview, result_dir: PathLike, files: Dict[int, str], names: Sequence[object], size: int) -> None:
    for index, name in enumerate(names):
        if index not in files:
            raise InputError(f"{result_dir} misses the result of sample {index} ({name}): infer again")
    surplus = sorted(files.keys() - range(len(names)))
    if surplus:
        raise InputError(
            f"{result_dir} holds {files[surplus[0]]} and there are only {len(names)} samples: give the labels of the "
            "dataset that was inferred, or infer again into an empty folder"
        )
    beyond = bytearray(1)
    folder = os.open(str(result_dir), os.O_RDONLY | os.O_DIRECTORY)
    try:
        for index, name in enumerate(names):
            # Two system calls a file: opening by folder, without waiting for a pipe's other end, and one read, with a
            # byte to notice a file that is too long
            try:
                file = os.open(files[index], os.O_RDONLY | os.O_NONBLOCK, dir_fd=folder)
                try:
                    found = os.readv(file, [rows[index * size : (index + 1) * size], beyond])
                finally:
                    os.close(file)
            except OSError as error:
                raise InputError(
                    f"can't read the result of sample {index} ({name}), {files[index]} in {result_dir} "
                    f"({error.strerror}): infer again"
                ) from error
            if found != size:
                raise InputError(
                    f"the result of sample {index} ({name}) in {result_dir} isn't {size} bytes, which "
                    f"{size // LOGIT_BYTES} float32 logits are: infer again"
                )
    finally:
        os.close(folder)
