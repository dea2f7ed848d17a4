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
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np

from stgcn.cards import INPUT, KINETICS, Card, card_of, program
from stgcn.dataset import CLIP_DTYPE, check_finite
from stgcn.errors import InputError, run_main, sentence
from stgcn.files import PathLike, atomic_write, remove, write_whole
from stgcn.preflight import Preflight
from stgcn.sources import ROWS, Source, open_source

FORMAT = 2
SHARD_CLIPS = 1024  # 127 MiB
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


def _blocks(clips: Source, *looks: Callable[[np.ndarray], None]) -> Iterator[Tuple[int, np.ndarray]]:
    """Blocks of clips, each with its first one's number; every one of `looks` is at a block beside who takes it."""
    with ThreadPoolExecutor(len(looks)) as beside:
        for start in range(0, clips.samples, clips.block):
            block = clips.read(start, clips.block)
            check_finite(block, start, clips.path)
            looking = [beside.submit(look, block) for look in looks]
            yield start, block
            for look in looking:
                look.result()


def _indices(
    card: Card,
    clips: Source,
    names: List[str],
    shard_clips: int,
    preflight: Preflight,
    rows_file: Optional[BinaryIO],
) -> Dict[str, Dict[str, Any]]:
    """What dataset.json and, of a model that takes single persons, persons.json hold, in one pass.

    A shard of persons is of the same clips as a shard of clips. Persons are in the clips' order, without those who are
    all zeros but the first of these: its logits are every such one's.
    """
    persons = card.row_shape[-1] if "nonempty" in card.persons else 0
    whole, single = _Rows(), _Rows()

    def add_clips(block: np.ndarray) -> None:
        for values in block:
            whole.add(values)
            if whole.count % shard_clips == 0:
                whole.cut()

    rows: List[List[int]] = []
    places: List[List[int]] = []
    empty: Optional[int] = None  # the row that stands for all empty persons
    for start, block in _blocks(clips, preflight.add, add_clips):
        if rows_file is not None:
            rows_file.write(block.data)
        if not persons:
            continue
        alone = np.ascontiguousarray(block.reshape(len(block), -1, persons).transpose(0, 2, 1))
        seen = alone.any(axis=2)
        for i, clip in enumerate(range(start, start + len(block))):
            rows.append([])
            for person in range(persons):
                if empty is not None and not seen[i, person]:
                    rows[-1].append(empty)
                    continue
                rows[-1].append(single.add(alone[i, person]))
                places.append([clip, person])
                if not seen[i, person]:
                    empty = rows[-1][-1]
            if (clip + 1) % shard_clips == 0:
                single.cut()
    whole.cut()
    single.cut()
    file = ROWS if clips.conversion else None
    every = card.rows_per_sample
    of_sample = [list(range(first, first + every)) for first in range(0, whole.count, every)] if every > 1 else None
    contents = {DATASET: _content(card, "both", {"file": file, "shards": whole.as_json()}, names, of_sample)}
    if persons:
        array = {"file": file, "step": persons, "places": places, "shards": single.as_json()}
        contents[PERSONS_FILE] = _content(card, "nonempty", array, names, rows)
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
