"""What the other stages need to know of a dataset, found in one pass over its clips:

    python -m stgcn.index --data_path val_data.npy --label_path val_label.pkl --output_dir DIR [--model NAME]
        [--array_dir DIR] [--shard_clips 512]

takes clips and labels in any form of stgcn.sources and stgcn.dataset. Clips in another form than val_data.npy's are
written as `rows.npy` into the array folder, for what reads them after this. It warns of what stgcn.preflight finds, and
writes `labels.npy` (int64), `persons.json` and, last, `dataset.json`: the samples' names, and the dataset's shards. A
shard is a slice of the samples, the unit of transfer and of work. `persons.json` is the same of the persons who are
seen, each a sample of its own: for a model that takes single persons (`persons: nonempty`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Dict, List, Optional, Tuple, Type, TypeVar

import numpy as np

from stgcn import plain_json
from stgcn.cards import KINETICS, Card, add_model_option, card_of
from stgcn.dataset import CLIP_DTYPE, PERSONS, SAMPLE_SHAPES, check_finite, is_name
from stgcn.errors import InputError, run_main, sentence
from stgcn.files import PathLike, atomic_write, remove
from stgcn.preflight import Preflight
from stgcn.sources import ROWS, Source, open_source

FORMAT = 1
SHARD_CLIPS = 1024  # 127 MiB

AnyIndex = TypeVar("AnyIndex", bound="Index")


@dataclass(frozen=True)
class Shard:
    """Samples `first` to `first + count - 1`; `sha256` is of their raw float32 bytes."""

    first: int
    count: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """What `dataset.json` holds (format 1). The shards follow one another and cover the samples.

    `file` names the array of the clips in the array folder, or is None where it is the dataset's own. Beside these
    `dataset.json` has what stgcn.preflight found, under `preflight`.
    """

    FILE: ClassVar[str] = "dataset.json"
    SHAPE: ClassVar[Tuple[int, ...]] = SAMPLE_SHAPES["both"]

    samples: int
    names: List[str]
    shards: List[Shard]
    file: Optional[str]

    @property
    def sample_bytes(self) -> int:
        return 4 * int(np.prod(self.SHAPE))

    @property
    def clips(self) -> int:
        """How many clips the samples are of."""
        return self.samples

    @property
    def samples_a_clip(self) -> float:
        return self.samples / self.clips

    def head(self, clips: int) -> Index:
        """The samples of the first `clips` clips; the last shard may hold more."""
        return self._cut(min(clips, self.samples))

    def of_clips(self, logits: np.ndarray) -> np.ndarray:
        """The clips' logits, float32 (clips, 400), from those of all samples."""
        return logits

    def is_whole(self) -> bool:
        """Whether the fields are of their types, and the shards follow one another and cover the samples."""
        end = 0
        for shard in self.shards:
            numbers = type(shard.first) is int and type(shard.count) is int and shard.count > 0
            if not numbers or shard.first != end or not isinstance(shard.sha256, str):
                return False
            end += shard.count
        names = isinstance(self.names, list) and all(is_name(name) for name in self.names) and self.file in (None, ROWS)
        return names and type(self.samples) is int and len(self.names) == self.samples == end

    def _cut(self: AnyIndex, samples: int) -> AnyIndex:
        shards = [shard for shard in self.shards if shard.first < samples]
        return replace(self, samples=samples, names=self.names[:samples], shards=shards)


@dataclass(frozen=True)
class PersonIndex(Index):
    """What `persons.json` holds: an index whose samples are single persons.

    They are in the clips' order, without those who are all zeros but the first of these: its logits are every such
    one's. `rows` has, for each clip, the samples that are its persons; `places`, for each sample that is in a shard,
    the clip and which of its persons.
    """

    FILE: ClassVar[str] = "persons.json"
    SHAPE: ClassVar[Tuple[int, ...]] = SAMPLE_SHAPES["nonempty"]

    rows: List[List[int]]
    places: List[List[int]]

    @property
    def clips(self) -> int:
        return len(self.rows)

    def head(self, clips: int) -> PersonIndex:
        rows = self.rows[:clips]
        return replace(self._cut(1 + max(sample for row in rows for sample in row)), rows=rows)

    def is_whole(self) -> bool:
        persons = {sample for row in self.rows for sample in row} == set(range(self.samples))
        placed = all(sample == self.rows[clip][person] for sample, (clip, person) in enumerate(self.places))
        whole = super().is_whole() and len(self.places) == self.samples
        return whole and persons and placed and {len(row) for row in self.rows} == {PERSONS}

    def of_clips(self, logits: np.ndarray) -> np.ndarray:
        mean: np.ndarray = logits[np.array(self.rows)].mean(axis=1, dtype=np.float32)
        return mean


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
        index, persons = _indices(source, named.names, shard_clips, preflight, rows)
    warnings = preflight.warnings(named.names, named.labels)
    found = {"conversion": source.conversion, "warnings": warnings, **preflight.facts(named.labels)}
    with atomic_write(folder / "labels.npy") as file:
        remove(folder / Index.FILE)  # an earlier one: it is written last, so it stands for all three
        np.save(file, named.labels)
    content = {"format": FORMAT, **asdict(index), "preflight": found}
    for name, each in ((persons.FILE, {"format": FORMAT, **asdict(persons)}), (index.FILE, content)):
        with atomic_write(folder / name) as file:
            file.write(json.dumps(each).encode())
    return content


def load_index(path: PathLike) -> Index:
    """Read a `dataset.json`. Raises InputError if it is missing, damaged or of another format."""
    return _load(path, Index)


def load_persons(path: PathLike) -> PersonIndex:
    """Read a `persons.json`. Raises InputError as load_index does."""
    return _load(path, PersonIndex)


def _load(path: PathLike, kind: Type[AnyIndex]) -> AnyIndex:
    try:
        content = plain_json.load(path)
        if content.pop("format") != FORMAT:
            raise ValueError
        content.pop("preflight", None)
        index = kind(**{"file": None, **content, "shards": [Shard(**shard) for shard in content["shards"]]})
        if not index.is_whole():
            raise ValueError
    except OSError as error:
        raise InputError(f"can't read {path} ({error.strerror}): index the dataset again") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path} isn't an index of format {FORMAT}: index the dataset again") from error
    return index


class _Samples:
    """Samples as they come, cut into shards."""

    def __init__(self) -> None:
        self.names: List[str] = []
        self.shards: List[Shard] = []
        self._end_shard()

    def add(self, name: str, values: np.ndarray) -> int:
        """The sample's index."""
        self.names.append(name)
        self._digest.update(values.reshape(-1).data)
        return len(self.names) - 1

    def cut(self) -> None:
        """End a shard, if it holds any sample."""
        if len(self.names) > self._first:
            self.shards.append(Shard(self._first, len(self.names) - self._first, self._digest.hexdigest()))
        self._end_shard()

    def _end_shard(self) -> None:
        self._first, self._digest = len(self.names), hashlib.sha256()


def _indices(
    clips: Source, names: List[str], shard_clips: int, preflight: Preflight, rows_file: Optional[BinaryIO]
) -> Tuple[Index, PersonIndex]:
    """Both indices in one pass; a shard of persons is of the same clips as a shard of clips."""
    whole, single = _Samples(), _Samples()
    rows: List[List[int]] = []
    places: List[List[int]] = []
    empty: Optional[int] = None  # the sample that stands for all empty persons
    for start in range(0, clips.samples, clips.block):
        block = clips.read(start, clips.block)
        check_finite(block, start, clips.path)
        preflight.add(block)
        if rows_file is not None:
            rows_file.write(block.data)
        for clip, values in enumerate(block, start):
            whole.add(names[clip], values)
            rows.append([])
            for person in range(PERSONS):
                alone = np.ascontiguousarray(values[..., person])
                if empty is not None and not alone.any():
                    rows[-1].append(empty)
                    continue
                rows[-1].append(single.add(f"{names[clip]}, person {person}", alone))
                places.append([clip, person])
                if not alone.any():
                    empty = rows[-1][-1]
            if (clip + 1) % shard_clips == 0:
                whole.cut()
                single.cut()
    whole.cut()
    single.cut()
    file = ROWS if clips.conversion else None
    index = Index(clips.samples, whole.names, whole.shards, file)
    return index, PersonIndex(len(single.names), single.names, single.shards, file, rows, places)


def main(argv: Optional[List[str]] = None) -> None:
    """Check a dataset and write its index."""
    parser = argparse.ArgumentParser(prog="python -m stgcn.index", description=main.__doc__)
    add_model_option(parser)
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
    shards = f"{len(index['shards'])} shard{'s' * (len(index['shards']) != 1)}"
    print(sentence(f"{index['samples']} samples in {shards}, indexed in {output}"))


if __name__ == "__main__":
    run_main(main)
