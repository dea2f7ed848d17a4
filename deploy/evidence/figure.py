"""Whether a throughput figure (benchmark.json) follows from its logs and from the readings of its device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from deploy.errors import KitError
from deploy.evidence import records
from deploy.evidence.differences import refuse_difference
from deploy.npu import ais_bench, measure
from deploy.npu.device import IdleCheck
from deploy.pipeline.graph import CLOCK_S
from deploy.pipeline.prelude import bare
from stgcn import plain_json
from stgcn.files import read_record, sha256_file

NAME = "benchmark.json"


def check(folder: Path, entry: Mapping[str, Any], persons_per_clip: float | None) -> None:
    """Whether a folder's benchmark.json follows from its logs and readings; `entry` is that of its step.

    Raises:
        KitError: naming the file, and what does not follow.
    """
    path, inputs = folder / NAME, entry["inputs"]
    figure = plain_json.load(path)
    _check_idleness(path, figure, entry)
    runs = _runs(folder, figure, entry)
    rates = [run.throughput for run in runs]
    limits = inputs.get("min_repeats", 2), inputs["max_repeats"], inputs["spread"]  # earlier versions took two
    if [measure.is_complete(rates[:count], *limits) for count in range(1, len(rates) + 1)].count(True) != 1:
        raise KitError(f"{path}: of {len(rates)} repeats, which is not when repeating ends (spread {limits[2]:g})")
    expected = measure.figures(inputs["batch_size"], runs, persons_per_clip)
    threads = {"threads": inputs.get("threads", 1)}
    refuse_difference(path, threads, {"threads": figure["throughput"].get("threads", 1)}, "its step's inputs")
    if "times" not in figure:  # of an earlier version
        expected = {name: value for name, value in expected.items() if name not in ("drift", "repeats")}
        expected["latency_ms"] = {k: v for k, v in expected["latency_ms"].items() if k in figure["latency_ms"]}
    expected["throughput"]["noisy"] = measure.spread(rates) > limits[2]
    expected |= {"host": inputs["host"], "device": inputs["device"], "simulated": entry["facts"]["simulated"]}
    refuse_difference(path, expected, figure, "the logs of its repeats")
    records.check(path, figure, records.Benchmark)


def _check_idleness(path: Path, figure: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    """Whether the device was read before and after, within the step's time, and is idle as the readings have it."""
    checks = figure.get("idle_checks")
    busy, ailments = [], []
    began = datetime.fromisoformat(entry["started"]) - timedelta(seconds=CLOCK_S)
    ended = datetime.fromisoformat(entry["started"]) + timedelta(seconds=entry["seconds"] + CLOCK_S)
    for when in ("before", "after"):
        record = checks.get(when) if isinstance(checks, dict) else None
        if not isinstance(record, dict) or "chip" not in record:
            raise KitError(f"{path}: a figure without an idle check {when} it was taken; run `fab npu-bench --fresh`")
        reading = IdleCheck.of_record(record)
        refuse_difference(path, reading.record(), record, "the readings of its idle check", f"idle_checks.{when}")
        if reading.chip.device != entry["inputs"]["device"]:
            raise KitError(f"{path}: idle_checks.{when} is of device {reading.chip.device}, not of the one measured")
        if not began <= datetime.fromisoformat(reading.at) <= ended:
            raise KitError(f"{path}: idle_checks.{when} is of {reading.at}, which is not when the figure was taken")
        busy.append(reading.busy)
        ailments.append(reading.chip.ailment)
    told: dict[str, Any] = {"idle": busy == [None, None]}
    if any(ailments) and not figure["throughput"].get("health"):
        told["health"] = next(filter(None, ailments))
    refuse_difference(path, told, figure["throughput"], "its idle checks", "throughput")
    if entry["facts"]["idle"] is not told["idle"]:
        raise KitError(f"{path}: its manifest entry says idle {entry['facts']['idle']}, and its idle checks otherwise")


def _runs(folder: Path, figure: Mapping[str, Any], entry: Mapping[str, Any]) -> list[ais_bench.Performance]:
    """What each of the logs tells, which must be of the entry's OM and device."""
    logs = figure["logs"]
    if not logs or list(logs) != [measure.log_name(repeat) for repeat in range(1, len(logs) + 1)]:
        raise KitError(f"{folder / NAME}: its logs are not named {measure.log_name(1)} and on, one per repeat")
    runs: list[ais_bench.Performance] = []
    for name, recorded in logs.items():
        path = folder / name
        if not path.is_file():
            raise KitError(f"{path}: missing, although a figure was read from it")
        if sha256_file(path) != recorded:
            raise KitError(f"{path}: changed since a figure was read from it")
        text = read_record(path).decode("utf-8", "replace")
        _check_session(path, ais_bench.parse_session(text), entry)
        times = _times(folder / measure.times_name(len(runs) + 1), figure)
        inputs = entry["inputs"]
        runs.append(ais_bench.performance(text, inputs["batch_size"], times, inputs.get("threads", 1)))
    if surplus := figure.get("times", {}).keys() - {measure.times_name(n + 1) for n in range(len(runs))}:
        raise KitError(f"{folder / NAME}: it has times of no repeat ({', '.join(sorted(surplus))})")
    return runs


def _times(path: Path, figure: Mapping[str, Any]) -> dict[str, Any]:
    """A repeat's times, as the figure's record has them; none where it has none, as earlier versions."""
    recorded = figure.get("times", {}).get(path.name)
    if recorded is None:
        return {}
    if not path.is_file() or sha256_file(path) != recorded:
        raise KitError(f"{path}: missing, or changed since a figure was read from it")
    return dict(plain_json.load(path))


def _check_session(path: Path, session: ais_bench.Session, entry: Mapping[str, Any]) -> None:
    """Whether a log is of the OM and on the device of the recorded command. Hosts keep an OM under its sha256."""
    words = [word for argv in entry["commands"] for word in bare(argv)]
    model, device = (PurePosixPath(_option(words, "--model")), _option(words, "--device"))
    loaded, wanted = PurePosixPath(session.om or ""), (entry["inputs"]["om"][:16], model.name)
    if loaded.name != wanted[1] or loaded.parent.name not in (wanted[0], *([""] if len(loaded.parts) == 1 else [])):
        raise KitError(f"{path}: it loaded {session.om or 'no OM'}, and the figure is of {'/'.join(wanted)}")
    if session.device is None or str(session.device) != device:
        raise KitError(f"{path}: it opened device {session.device}, and the figure is of device {device}")


def _option(words: Sequence[str], flag: str) -> str:
    """The value of an option in a recorded command, "" where it has none."""
    following = words[words.index(flag) + 1 :] if flag in words else []
    return following[0] if following else ""
