"""Whether a throughput figure (benchmark.json) follows from its logs and from the readings of its device."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from deploy.errors import KitError
from deploy.evidence import logs, records
from deploy.evidence.differences import refuse_any_difference, refuse_difference
from deploy.npu import ais_bench, measure
from deploy.npu.device import IdleCheck
from deploy.pipeline.graph import CLOCK_S
from stgcn import plain_json
from stgcn.files import sha256_file

NAME = "benchmark.json"
_FLAGS = {"--batchsize": "batch_size", "--loop": "loop", "--warmup_count": "warmup", "--threads": "threads"}
_READ = ("logs", "times", "idle_checks", "temperature_c", "power_w", "sensors")  # kept, not computed of the logs


def check(folder: Path, entry: Mapping[str, Any], persons_per_clip: float | None) -> None:
    """Whether a folder's benchmark.json follows from its logs and readings; `entry` is that of its step.

    Raises:
        KitError: naming the file, and what does not follow.
    """
    path, inputs = folder / NAME, entry["inputs"]
    figure = plain_json.load(path)
    if entry["host"] != f"{inputs['host']}:{inputs['device']}":
        raise KitError(f"{path}: measured on {entry['host']}, and its inputs say {inputs['host']}:{inputs['device']}")
    for flag, name in _FLAGS.items():
        if (had := logs.option(entry, flag)) and had != str(inputs.get(name, 1)):
            raise KitError(f"{path}: its command had {flag} {had}, and its inputs say {inputs.get(name, 1)}")
    _check_idleness(path, figure, entry)
    runs = _runs(folder, figure, entry)
    rates = [run.throughput for run in runs]
    limits = inputs.get("min_repeats", 2), inputs["max_repeats"], inputs["spread"]  # earlier versions took two
    if not measure.ends(rates, *limits):
        raise KitError(f"{path}: of {len(rates)} repeats, which is not when repeating ends (spread {limits[2]:g})")
    expected = measure.figures(inputs["batch_size"], runs, persons_per_clip)
    if "times" not in figure:  # of an earlier version
        expected = {name: value for name, value in expected.items() if name not in ("drift", "repeats")}
        expected["latency_ms"] = {k: v for k, v in expected["latency_ms"].items() if k in figure["latency_ms"]}
    if inputs.get("threads", 1) > 1:
        expected["throughput"]["threads"] = inputs["threads"]
    expected["throughput"] |= {"noisy": measure.spread(rates) > limits[2], "idle": figure["throughput"]["idle"]}
    expected["throughput"]["health"] = figure["throughput"]["health"]
    expected |= {"host": inputs["host"], "device": inputs["device"], "simulated": entry["facts"]["simulated"]}
    refuse_any_difference(
        path, expected, {k: v for k, v in figure.items() if k not in _READ}, "the logs of its repeats"
    )
    records.check(path, figure, records.Benchmark)
    _check_sensors(path, figure)


def _check_idleness(path: Path, figure: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    """Whether the device was read before and after, within the step's time, and is idle as the readings have it."""
    checks = figure.get("idle_checks")
    readings: list[IdleCheck] = []
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
        readings.append(reading)
    _check_same_chip(path, entry["inputs"]["soc_version"], *readings)
    told: dict[str, Any] = {"idle": [reading.busy for reading in readings] == [None, None]}
    ailments = [reading.chip.ailment for reading in readings]
    if any(ailments) and not figure["throughput"].get("health"):
        told["health"] = next(filter(None, ailments))
    refuse_difference(path, told, figure["throughput"], "its idle checks", "throughput")
    if entry["facts"]["idle"] is not told["idle"]:
        raise KitError(f"{path}: its manifest entry says idle {entry['facts']['idle']}, and its idle checks otherwise")


def _check_same_chip(path: Path, soc_version: str, before: IdleCheck, after: IdleCheck) -> None:
    """Whether both readings are of one chip, of the kind that was measured, in their order."""
    first, second = (
        (chip.npu_id, chip.chip_id, chip.name, chip.bus_id, chip.model_memory_mb[1])
        for chip in (before.chip, after.chip)
    )
    if first != second:
        raise KitError(f"{path}: idle_checks.before is of chip {first}, and idle_checks.after of {second}")
    # The name in the table may be a family's, or the inventory's `chip` says what ATC calls it: the number is the same.
    if _number(before.chip.name) != _number(soc_version):
        raise KitError(f"{path}: its idle checks are of a {before.chip.name}, and the figure is of an {soc_version}")
    if datetime.fromisoformat(before.at) > datetime.fromisoformat(after.at):
        raise KitError(f"{path}: idle_checks.before is of {before.at}, later than idle_checks.after")


def _number(name: str) -> str:
    """The number in a chip's name: 310 of 310P3."""
    found = re.search("[0-9]+", name)
    return found[0] if found else name


def _check_sensors(path: Path, figure: Mapping[str, Any]) -> None:
    """Whether what follows from the sensors' mean power does, and each mean lies within its range."""
    sensors = figure.get("sensors") or {}
    power = sensors.get("power_w")
    joules = None
    if power and power.get("chips", 1) == 1 and sensors.get("at_work", True):
        joules = power["mean"] / figure["throughput"]["median"]
    refuse_difference(
        path, {"joules_per_sample": joules} if sensors else {}, sensors, "power and throughput", "sensors"
    )
    for name, told in (("power_w", power), ("temperature_c", sensors.get("temperature_c"))):
        if told and not told["min"] <= told.get("mean", told["min"]) <= told["max"]:
            raise KitError(f"{path}: sensors.{name} is {told}, whose mean is not within its range")


def _runs(folder: Path, figure: Mapping[str, Any], entry: Mapping[str, Any]) -> list[ais_bench.Performance]:
    """What each of the logs tells, which must be of the entry's OM and device; there may be no others."""
    told, times = figure["logs"], figure.get("times") or {}
    names = [measure.log_name(repeat) for repeat in range(1, len(told) + 1)]
    if not told or list(told) != names:
        raise KitError(f"{folder / NAME}: its logs are not named {measure.log_name(1)} and on, one per repeat")
    if figure.get("times") is None and logs.option(entry, "--output"):
        raise KitError(f"{folder / NAME}: without `times`, although its command left a summary of each repeat")
    for pattern, known in ((measure.log_name("*"), told), (measure.times_name("*"), times)):
        for path in sorted(folder.glob(pattern)):
            if path.name not in known:
                raise KitError(f"{path}: of no repeat of {NAME}; run `fab npu-bench --fresh`")
        for name, recorded in known.items():
            if not (folder / name).is_file() or sha256_file(folder / name) != recorded:
                raise KitError(f"{folder / name}: missing, or changed since a figure was read from it")
    runs = []
    for repeat, name in enumerate(names, start=1):
        of_batches = folder / measure.times_name(repeat)
        batches = dict(plain_json.load(of_batches)) if of_batches.name in times else {}
        text, inputs = logs.read(folder / name, entry), entry["inputs"]
        runs.append(ais_bench.performance(text, inputs["batch_size"], batches, inputs.get("threads", 1)))
    return runs
