"""What the other stages need to know of a dataset, found in one pass over its clips:

    python -m stgcn.index --data_path val_data.npy --label_path val_label.pkl --output_dir DIR [--model NAME]
        [--array_dir DIR] [--shard_clips 512]

takes clips and labels in any form of stgcn.sources and stgcn.dataset. Clips in another form than val_data.npy's are
written as `rows.npy` into the array folder, for what reads them after this. It warns of what stgcn.preflight finds, and
writes `labels.npy` (int64), `persons.json` and, last, `dataset.json`: the samples' names, and the dataset's shards. A
shard is a slice of the rows, the unit of transfer and of work. `persons.json` is the same of the persons who are
seen, each a row of its own: for a model that takes single persons (`persons: nonempty`).
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Deque, Dict, List, Optional

import numpy as np

from stgcn.cards import INPUT, KINETICS, Card, card_of, program
from stgcn.dataset import CLIP_DTYPE, check_finite
from stgcn.errors import InputError, run_main, sentence
from stgcn.files import PathLike, atomic_write, remove, write_whole
from stgcn.preflight import Preflight
from stgcn.sources import ROWS, Source, open_source

FORMAT = 2
SHARD_CLIPS = 1024  # 127 MiB
AHEAD = 2  # blocks that are read before the slowest look is done with one
DATASET, PERSONS_FILE = "dataset.json", "persons.json"


@dataclass(frozen=True)
class Shard:
    """Samples `first` to `first + count - 1`; `sha256` is of their raw float32 bytes."""

    first: int
    count: int
    sha256: str


def write_index(
    data: PathLike,
    labels: PathLike,
    output_dir: PathLike,
    shard_clips: int = SHARD_CLIPS,
    array_dir: Optional[PathLike] = None,
    card: Card = KINETICS,
) -> Dict[str, Any]:
    """Write `labels.npy`, `persons.json` and `dataset.json` into `output_dir`; what `dataset.json` holds.

    `rows.npy` goes into `array_dir`, by default the same folder. Raises InputError for anything wrong with the dataset
    (see open_source), a clip with NaN or infinity, or a place that can't be written.
    """
    if shard_clips < 1:
        raise InputError(f"--shard_clips {shard_clips} makes no shard: give 1 or more")
    source, named = open_source(data, labels, card)
    preflight, folder = Preflight(card), Path(output_dir)
    with ExitStack() as stack:
        rows = None
        if source.conversion:
            rows = stack.enter_context(atomic_write(Path(array_dir or folder) / ROWS))
            header = {"descr": CLIP_DTYPE.str, "fortran_order": False, "shape": (source.samples, *card.row_shape)}
            np.lib.format.write_array_header_1_0(rows, header)
        contents = _indices(card, source, named.names, shard_clips, preflight, rows)
    warnings = preflight.warnings(named.names, named.labels)
    found = {"conversion": source.conversion, "warnings": warnings, **preflight.facts(named.labels)}
    with atomic_write(folder / "labels.npy") as file:
        remove(folder / DATASET)  # an earlier one: it is written last, so it stands for all three
        np.save(file, named.labels)
    contents[DATASET]["preflight"] = found
    for name in sorted(contents, reverse=True):
        write_whole(folder / name, json.dumps(contents[name]).encode())
    return contents[DATASET]


def _content(card: Card, persons: str, array: Dict[str, Any], names: List[str], rows: Any = None) -> Dict[str, Any]:
    """An index as JSON; its format is in docs/own-model.md."""
    array = {"name": INPUT, "dtype": CLIP_DTYPE.name, "shape": list(card.shape(persons)), **array}
    return {"format": FORMAT, "samples": len(names), "names": names, "rows": rows, "inputs": [array]}


class _Rows:
    """Rows as they come, cut into shards."""

    def __init__(self) -> None:
        self.count = 0
        self.shards: List[Shard] = []
        self._end_shard()

    def add(self, values: np.ndarray) -> int:
        """The row's index."""
        self.count += 1
        self._digest.update(values.reshape(-1).data)
        return self.count - 1

    def as_json(self) -> List[Dict[str, Any]]:
        return [asdict(shard) for shard in self.shards]

    def cut(self) -> None:
        """End a shard, if it holds any row."""
        if self.count > self._first:
            self.shards.append(Shard(self._first, self.count - self._first, self._digest.hexdigest()))
        self._end_shard()

    def _end_shard(self) -> None:
        self._first, self._digest = self.count, hashlib.sha256()


class _Clips:
    """Every clip a row."""

    def __init__(self, shard_clips: int) -> None:
        self.rows, self._shard_clips = _Rows(), shard_clips

    def add(self, block: np.ndarray) -> None:
        for values in block:
            self.rows.add(values)
            if self.rows.count % self._shard_clips == 0:
                self.rows.cut()


class _Persons:
    """Every person a row, in the clips' order, without those who are all zeros but the first of these: its logits are
    every such one's. A shard is of the same clips as a shard of clips."""

    def __init__(self, persons: int, shard_clips: int) -> None:
        self.rows, self._persons, self._shard_clips = _Rows(), persons, shard_clips
        self.of_clip: List[List[int]] = []
        self.places: List[List[int]] = []
        self._empty: Optional[int] = None  # the row that stands for all empty persons

    def add(self, block: np.ndarray) -> None:
        alone = np.ascontiguousarray(block.reshape(len(block), -1, self._persons).transpose(0, 2, 1))
        seen: Any = np.any(alone, axis=2)
        for i in range(len(block)):
            self.of_clip.append([self._row(*each) for each in zip(range(self._persons), alone[i], seen[i])])
            if len(self.of_clip) % self._shard_clips == 0:
                self.rows.cut()

    def _row(self, person: int, values: np.ndarray, seen: bool) -> int:
        """Of a person of the next clip."""
        if self._empty is not None and not seen:
            return self._empty
        row = self.rows.add(values)
        self.places.append([len(self.of_clip), person])
        if not seen:
            self._empty = row
        return row


def _indices(
    card: Card,
    clips: Source,
    names: List[str],
    shard_clips: int,
    preflight: Preflight,
    rows_file: Optional[BinaryIO],
) -> Dict[str, Dict[str, Any]]:
    """What dataset.json and, of a model that takes single persons, persons.json hold, in one pass."""
    persons = card.row_shape[-1] if "nonempty" in card.persons else 0
    whole, single = _Clips(shard_clips), _Persons(persons, shard_clips)
    looks = [preflight.add, whole.add, *([single.add] if persons else [])]
    with ExitStack() as stack:
        # Each look has a thread of its own, which takes the blocks in their order.
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in looks]
        under_way: Deque[Future[None]] = deque()
        for start in range(0, clips.samples, clips.block):
            block = clips.read(start, clips.block)
            check_finite(block, start, clips.path)
            under_way.extend(thread.submit(look, block) for thread, look in zip(threads, looks))
            if rows_file is not None:
                rows_file.write(block.data)
            while len(under_way) > AHEAD * len(looks):
                under_way.popleft().result()
        for look in under_way:
            look.result()
    whole.rows.cut()
    single.rows.cut()
    file = ROWS if clips.conversion else None
    every, count = card.rows_per_sample, whole.rows.count
    of_sample = [list(range(first, first + every)) for first in range(0, count, every)] if every > 1 else None
    contents = {DATASET: _content(card, "both", {"file": file, "shards": whole.rows.as_json()}, names, of_sample)}
    if persons:
        array = {"file": file, "step": persons, "places": single.places, "shards": single.rows.as_json()}
        contents[PERSONS_FILE] = _content(card, "nonempty", array, names, single.of_clip)
    return contents


def main(argv: Optional[List[str]] = None) -> None:
    """Check a dataset and write its index."""
    parser = program("index", main.__doc__)
    parser.add_argument("--data_path", required=True, help="val_data.npy, or clips in another form (see above)")
    parser.add_argument("--label_path", required=True, help="val_label.pkl, or labels in JSON")
    parser.add_argument("--output_dir", required=True, help="folder for labels.npy and dataset.json")
    parser.add_argument("--array_dir", help=f"folder for {ROWS} where clips are converted (default: the output's)")
    parser.add_argument("--shard_clips", type=int, default=SHARD_CLIPS, help=f"clips a shard (default {SHARD_CLIPS})")
    options = parser.parse_args(argv)
    data, labels, output, card = options.data_path, options.label_path, options.output_dir, card_of(options.model)
    index = write_index(data, labels, output, options.shard_clips, options.array_dir, card)
    for warning in index["preflight"]["warnings"]:
        print(sentence(f"warning: {warning}"))
    conversion = index["preflight"]["conversion"]
    if conversion:
        print(sentence(f"{data}: {conversion}; converted to {Path(options.array_dir or output) / ROWS}"))
    count = len(index["inputs"][0]["shards"])
    shards = f"{count} shard{'s' * (count != 1)}"
    print(sentence(f"{index['samples']} samples in {shards}, indexed in {output}"))


if __name__ == "__main__":
    run_main(main)
