"""What the other stages need to know of a dataset, found in one pass over its clips:

    python -m stgcn.index --data_path val_data.npy --label_path val_label.pkl --output_dir DIR [--shard_clips 512]

writes `labels.npy` (int64), `persons.json` and, last, `dataset.json`: the samples' names, and the dataset's shards. A
shard is a slice of the samples, the unit of transfer and of work. `persons.json` is the same of the persons who are
seen, each a sample of its own: for a model that takes single persons (`persons: nonempty`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, List, Optional, Tuple, Type, TypeVar

import numpy as np

from stgcn import plain_json
from stgcn.dataset import PERSONS, SAMPLE_SHAPES, check_finite, is_name, open_dataset, read_clips
from stgcn.errors import InputError, run_main, sentence
from stgcn.files import PathLike, atomic_write, remove

FORMAT = 1
SHARD_CLIPS = 1024  # 127 MiB
READ_CLIPS = 16

AnyIndex = TypeVar("AnyIndex", bound="Index")


@dataclass(frozen=True)
class Shard:
    """Samples `first` to `first + count - 1`; `sha256` is of their raw float32 bytes."""

    first: int
    count: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """What `dataset.json` holds (format 1). The shards follow one another and cover the samples."""

    FILE: ClassVar[str] = "dataset.json"
    SHAPE: ClassVar[Tuple[int, ...]] = SAMPLE_SHAPES["both"]

    samples: int
    names: List[str]
    shards: List[Shard]

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
        names = isinstance(self.names, list) and all(is_name(name) for name in self.names)
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


def write_index(data: PathLike, labels: PathLike, output_dir: PathLike, shard_clips: int = SHARD_CLIPS) -> Index:
    """Write `labels.npy`, `persons.json` and `dataset.json` into `output_dir`; the index of the clips.

    Raises InputError for anything wrong with the dataset (see open_dataset), a clip with NaN or infinity, or a place
    that can't be written.
    """
    if shard_clips < 1:
        raise InputError(f"--shard_clips {shard_clips} makes no shard: give 1 or more")
    clips, named = open_dataset(data, labels)
    index, persons = _indices(clips, named.names, shard_clips)
    folder = Path(output_dir)
    with atomic_write(folder / "labels.npy") as file:
        remove(folder / Index.FILE)  # an earlier one: it is written last, so it stands for all three
        np.save(file, named.labels)
    for each in (persons, index):
        with atomic_write(folder / each.FILE) as file:
            file.write(json.dumps({"format": FORMAT, **asdict(each)}).encode())
    return index


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
        index = kind(**{**content, "shards": [Shard(**shard) for shard in content["shards"]]})
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


def _indices(clips: np.memmap, names: List[str], shard_clips: int) -> Tuple[Index, PersonIndex]:
    """Both indices in one pass; a shard of persons is of the same clips as a shard of clips."""
    whole, single = _Samples(), _Samples()
    rows: List[List[int]] = []
    places: List[List[int]] = []
    empty: Optional[int] = None  # the sample that stands for all empty persons
    for start in range(0, len(clips), READ_CLIPS):
        block = read_clips(clips, start, READ_CLIPS)
        check_finite(block, start, clips.filename)
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
    index = Index(len(clips), whole.names, whole.shards)
    return index, PersonIndex(len(single.names), single.names, single.shards, rows, places)


def main(argv: Optional[List[str]] = None) -> None:
    """Check a dataset and write its index."""
    parser = argparse.ArgumentParser(prog="python -m stgcn.index", description=main.__doc__)
    parser.add_argument("--data_path", required=True, help="val_data.npy")
    parser.add_argument("--label_path", required=True, help="val_label.pkl")
    parser.add_argument("--output_dir", required=True, help="folder for labels.npy and dataset.json")
    parser.add_argument("--shard_clips", type=int, default=SHARD_CLIPS, help=f"clips a shard (default {SHARD_CLIPS})")
    options = parser.parse_args(argv)
    index = write_index(options.data_path, options.label_path, options.output_dir, options.shard_clips)
    shards = f"{len(index.shards)} shard{'s' * (len(index.shards) != 1)}"
    print(sentence(f"{index.samples} samples in {shards}, indexed in {options.output_dir}"))


if __name__ == "__main__":
    run_main(main)
