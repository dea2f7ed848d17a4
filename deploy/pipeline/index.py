"""The index of a dataset, as a model's `index` command leaves it: the samples, and where each input's rows lie.

docs/own-model.md has the format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from deploy.errors import KitError
from deploy.pipeline.model import DTYPES
from stgcn import plain_json

FORMAT = 2
FILES = {"both": "dataset.json", "nonempty": "persons.json"}
NAME_LIMIT = 255


@dataclass(frozen=True)
class Shard:
    """Rows `first` to `first + count - 1` of one input; `sha256` is of their raw bytes."""

    first: int
    count: int
    sha256: str

    @property
    def end(self) -> int:
        return self.first + self.count


@dataclass(frozen=True)
class Array:
    """One input's rows: a .npy of the GPU host, cut into shards, which are the unit of transfer."""

    name: str
    file: str | None  # in the array folder of the GPU host; None: the dataset's own
    dtype: str
    shape: tuple[int, ...]  # of a row
    shards: tuple[Shard, ...]
    step: int = 1  # a row is every `step`-th value of an item of the file
    places: Sequence[Sequence[int]] | None = None  # of each row: the item, and its first value there

    @property
    def row_bytes(self) -> int:
        values = 1
        for size in self.shape:
            values *= size
        return DTYPES[self.dtype] * values

    @property
    def rows(self) -> int:
        return self.shards[-1].end


@dataclass(frozen=True)
class Index:
    """`rows` has the rows of each sample, None where row i is sample i."""

    file: str  # its name in gpu/
    samples: int
    names: Sequence[str]
    inputs: Sequence[Array]
    rows: Sequence[Sequence[int]] | None = None

    @cached_property
    def row_count(self) -> int:
        return self.samples if self.rows is None else 1 + max(row for rows in self.rows for row in rows)

    @property
    def rows_per_sample(self) -> float:
        """On average."""
        return self.row_count / self.samples

    @property
    def persons_per_clip(self) -> float | None:
        """What a rate of rows is divided by for one of samples: single persons or a model's own clips of a sample."""
        return None if self.rows is None else self.rows_per_sample

    @cached_property
    def _owners(self) -> Mapping[int, tuple[int, int]]:
        every = reversed(list(enumerate(self.rows or ())))
        return {row: (sample, place) for sample, rows in every for place, row in enumerate(rows)}

    def row_name(self, row: int) -> str:
        """The sample that a row belongs to, by its name."""
        if self.rows is None:
            return self.names[row]
        sample, place = self._owners[row]
        return f"{self.names[sample]}, row {place}"

    def head(self, samples: int) -> Index:
        """The first so many samples; the last shard may hold rows of others."""
        if samples >= self.samples:
            return self
        rows = None if self.rows is None else self.rows[:samples]
        cut = replace(self, samples=samples, names=self.names[:samples], rows=rows)
        kept = [replace(a, shards=tuple(s for s in a.shards if s.first < cut.row_count)) for a in self.inputs]
        return replace(cut, inputs=kept)


def read_index(path: Path) -> Index:
    """Read a `dataset.json` or `persons.json`.

    Raises:
        KitError: it is missing, damaged or of another format.
    """
    try:
        content = plain_json.load(path)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        arrays = [_array(each) for each in content["inputs"]]
        index = Index(path.name, content["samples"], content["names"], arrays, content["rows"])
        if not _is_whole(index):
            raise ValueError("its rows and shards do not fit together")
    except OSError as error:
        raise KitError(f"{path}: cannot be read ({error.strerror}); run `make gpu-stage --fresh`") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise KitError(f"{path}: not an index of format {FORMAT} ({error}); run `make gpu-stage --fresh`") from None
    return index


def _array(content: Mapping[str, Any]) -> Array:
    shards = tuple(Shard(**shard) for shard in content["shards"])
    file = content["file"]
    if file is not None and (file in ("", ".", "..") or "/" in file or "\0" in file):
        raise ValueError(f"{file!r} is no name of a file")
    step, places = content.get("step", 1), content.get("places")
    return Array(content["name"], file, content["dtype"], tuple(content["shape"]), shards, step, places)


def _is_whole(index: Index) -> bool:
    """Whether fields are of their types, shards follow one another and cover the rows, alike in all inputs."""
    names = isinstance(index.names, list) and all(map(_is_name, index.names))
    if not (names and type(index.samples) is int and len(index.names) == index.samples > 0 and index.inputs):
        return False
    rows = index.rows
    if rows is not None:
        every = {row for own in rows for row in own}
        if len(rows) != index.samples or not all(rows) or every != set(range(len(every))):
            return False
    bounds = {tuple((shard.first, shard.count) for shard in array.shards) for array in index.inputs}
    return len(bounds) == 1 and all(_is_array(array, index.row_count) for array in index.inputs)


def _is_array(array: Array, rows: int) -> bool:
    end = 0
    for shard in array.shards:
        if type(shard.count) is not int or shard.count < 1 or shard.first != end or not isinstance(shard.sha256, str):
            return False
        end = shard.end
    sizes = all(type(size) is int and size > 0 for size in (*array.shape, array.step))
    places = array.places is None or (
        len(array.places) == rows and all(type(i) is int and i >= 0 for place in array.places for i in place)
    )
    return isinstance(array.name, str) and array.dtype in DTYPES and sizes and places and end == rows


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= NAME_LIMIT
