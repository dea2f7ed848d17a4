"""What ais_bench's logs say of a step: which OM it loaded, on which device, and how many rows it ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from deploy.errors import KitError
from deploy.evidence.differences import refuse_difference
from deploy.execution.rows import end_to_end
from deploy.npu import ais_bench
from deploy.npu.infer import Unit, log_name, times_name
from deploy.pipeline.prelude import bare
from stgcn.files import read_record


def read(path: Path, entry: Mapping[str, Any]) -> str:
    """A log of a step of that entry, which must be of the OM and on the device of its command.

    Raises:
        KitError: it is not there, or of another OM or device.
    """
    try:
        text = read_record(path).decode("utf-8", "replace")
    except OSError as error:
        raise KitError(f"{path}: cannot be read ({error.strerror}); run the step again with --fresh") from None
    session, model = ais_bench.parse_session(text), PurePosixPath(option(entry, "--model"))
    # Hosts keep an OM under its sha256.
    loaded, wanted = PurePosixPath(session.om or ""), (entry["inputs"]["om"][:16], model.name)
    folder = wanted[0] if len(loaded.parts) > 1 else ""  # the tool of 2026 names no folder
    if (loaded.parent.name, loaded.name) != (folder, wanted[1]):
        raise KitError(f"{path}: it loaded {session.om or 'no OM'}, and the step is of {'/'.join(wanted)}")
    devices = _devices(entry)
    if str(session.device) not in devices:
        raise KitError(f"{path}: it opened device {session.device}, and the step was on {' and '.join(devices)}")
    return text


def check_accuracy(folder: Path, entry: Mapping[str, Any], rows: int, rows_per_sample: float) -> None:
    """Whether an accuracy run's logs are of its OM and devices and of every row once, and its times are theirs.

    Raises:
        KitError: naming the log.
    """
    size, facts = entry["inputs"]["batch_size"], entry["facts"]
    if not set(entry["host"].split(", ")) <= set(facts["units"]):
        raise KitError(f"{folder}: the step ran on {entry['host']}, and its units on {', '.join(facts['units'])}")
    firsts = sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob(log_name("[0-9]*")))
    if not firsts or firsts[0] != 0:
        raise KitError(
            f"{folder / log_name(0)}: missing, although results were read from it; run `fab npu-bench --fresh`"
        )
    units = [Unit(first, end - first) for first, end in zip(firsts, [*firsts[1:], rows], strict=True)]
    for unit in units:
        path = folder / log_name(unit.first)
        told = ais_bench.parse_batches(read(path, entry))
        wanted = (size, -(-unit.count // size))
        if told is not None and told != wanted:
            raise KitError(
                f"{path}: it ran {told[1]} batches of {told[0]}, and rows {unit.first} to {unit.end - 1} are "
                f"{wanted[1]} of {size}; run `fab npu-bench --fresh`"
            )
    again, recorded = end_to_end(folder, units, size, rows_per_sample), facts.get("end_to_end")
    if recorded and not (folder / times_name(0)).exists():  # as runs of older kits left it
        raise KitError(f"{folder / times_name(0)}: missing, although figures came of it; run `fab npu-bench --fresh`")
    refuse_difference(folder / log_name(0), {"end_to_end": again}, {"end_to_end": recorded}, "logs and times")


def option(entry: Mapping[str, Any], flag: str) -> str:
    """The value of an option in a recorded command, "" where it has none."""
    words = [word for argv in entry["commands"] for word in bare(argv)]
    following = words[words.index(flag) + 1 :] if flag in words else []
    return following[0] if following else ""


def _devices(entry: Mapping[str, Any]) -> Sequence[str]:
    """The numbers by which the tools know the step's devices. The recorded command is of the first alone."""
    own, others = option(entry, "--device"), list(entry["facts"].get("units", ()))
    return [own] if len(others) < 2 else list(dict.fromkeys([own, *(unit.rpartition(":")[2] for unit in others)]))
