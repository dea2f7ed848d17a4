"""ais_bench, the runner of OMs: command lines, its era, its figures, and what its failures mean.

Facts are of the front end's sources of 2022-06 to 2024-11, whose `--version` says the same throughout: an era is told
by what the tool prints or leaves on disk. 2026 is the fork that calls itself 0.1.0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from deploy.errors import KitError
from deploy.hosts.host import Completed
from deploy.npu import cann_error, causes, drift, transcript
from stgcn import plain_json

# Generations of the front end, each named by a release; 2022-12 is the guide's.
Era: TypeAlias = Literal["2022-06", "2022-12", "2023-06", "2024", "2026"]

_DEFAULT_WARMUP = 1  # ais_bench's own


@dataclass(frozen=True)
class Latency:
    """Milliseconds a batch."""

    min: float
    max: float
    mean: float
    median: float
    p99: float
    count: int | None = None  # of times that these are of, where the tool's summary tells it


@dataclass(frozen=True)
class Performance:
    """The figures of one benchmark run, checked against each other."""

    batch_size: int
    throughput: float  # samples/s
    compute: Latency
    h2d: Latency | None = None  # host to device; shown in every era before 2022-08, and on demand since
    d2h: Latency | None = None
    compute_list: tuple[float, ...] = ()  # ms of each batch in order; empty where the tool left no summary


def help_argv(python: str) -> list[str]:
    return [python, "-m", "ais_bench", "--help"]


# One module after another, so that the first that fails is named; a JSON line of their versions where none does.
_IMPORTS = """
import importlib, json
found = {}
for name in ("numpy", "aclruntime", "ais_bench"):
    found[name] = str(getattr(importlib.import_module(name), "__version__", ""))
print(json.dumps(found))
"""


def imports_argv(python: str) -> list[str]:
    """The command that imports what ais_bench runs on, in the Python that will run it."""
    return [python, "-c", _IMPORTS]


def parse_imports(done: Completed) -> str:
    """What was imported, with versions where a module has one. Raises KitError where one cannot be."""
    line = (done.output.strip().splitlines() or [""])[-1]
    try:
        if done.status != 0:
            raise ValueError(done.status)
        return ", ".join(f"{name} {version}".strip() for name, version in plain_json.loads(line).items())
    except (ValueError, AttributeError):
        raise failure(done.output, done.status) from None


def infer_argv(
    python: str,
    om: str,
    input_dirs: Sequence[str],
    output_dir: str,
    dirname: str,
    device: int,
    batch_size: int,
    era: Era,
) -> list[str]:
    """The command that runs every file of the folders and writes `<output_dir>/<dirname>/<stem>_<output>.bin`."""
    files = ["--input", ",".join(input_dirs), "--output", output_dir, "--output_dirname", dirname, "--outfmt", "BIN"]
    return _spelled([*_run_argv(python, om, device, batch_size), *files], era)


THREADS_SINCE = "2024"  # before, the tool's throughput of several threads leaves out that they overlap


def benchmark_argv(
    python: str,
    om: str,
    device: int,
    batch_size: int,
    loop: int,
    warmup: int,
    era: Era,
    output: tuple[str, str] | None = None,
    threads: tuple[int, Sequence[str]] | None = None,
) -> list[str]:
    """The command that runs `loop` batches of zeros. `warmup` other than 1 needs an ais_bench of 2022-11 or later.

    `output` is a folder and a name in it, beside or in which the summary lies then, with the time of every batch.
    `threads` are how many, and the folder of each input, a file of which is a whole batch: for batches that it makes
    up itself the tool uses one thread. It needs an ais_bench of THREADS_SINCE or later.
    """
    argv = _run_argv(python, om, device, batch_size)
    if threads:
        switch = ["--pipeline"] if era == "2026" else ["--pipeline", "1"]
        argv += ["--input", ",".join(threads[1]), *switch, "--threads", str(threads[0])]
    else:
        argv += ["--loop", str(loop)]
    argv += [] if warmup == _DEFAULT_WARMUP else ["--warmup_count", str(warmup)]
    return _spelled([*argv, "--output", output[0], "--output_dirname", output[1]] if output else argv, era)


_TIMES = {"NPU_compute_time": "compute", "H2D_latency": "h2d", "D2H_latency": "d2h"}
_LIST = "npu_compute_time_list"


def times_of(summary: Any) -> dict[str, Any]:
    """What of a summary is about times; the rest names every file."""
    return {name: summary[name] for name in (*_TIMES, _LIST) if name in summary} if isinstance(summary, dict) else {}


def performance(text: str, batch_size: int, times: Mapping[str, Any], threads: int = 1) -> Performance:
    """The figures of a benchmark run, by what it printed and the times of its summary (`times_of`; none: not told).

    Raises KitError as parse_stdout and with_times; and where several threads' times are not told.
    """
    if threads > 1:
        return _of_threads(text, batch_size, times)
    printed = parse_stdout(text, batch_size)
    return with_times(printed, times) if times else printed


def _of_threads(text: str, batch_size: int, times: Mapping[str, Any]) -> Performance:
    """Of threads that overlap: the tool's mean is the time in which any of them computes, by the number of batches.

    A batch's latency, of its own start and end, has the time in it that it waits for the device.
    """
    stream = "\n".join(transcript.lines(text))
    means = re.findall(rf"NPU_compute_time \(ms\): mean = ({_NUMBER})", stream)
    means += [values[2] for name, *values in _LATENCY.findall(stream) if name == "NPU_compute_time"]  # of 2026
    throughput = _throughput(text, stream, means, batch_size)
    told = times.get(_LIST)
    spans = sorted(told) if isinstance(told, list) and all(_batch_ms(each) for each in told) else []
    if not spans or not all(isinstance(each, list) for each in spans):
        raise KitError("ais_bench's summary does not tell when each thread computed: see its log, and benchmark again")
    covered, reached = 0.0, 0.0
    for start, end in spans:
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    if not math.isclose(covered / len(spans), _number(means[0]), rel_tol=1e-3):
        raise KitError(
            f"ais_bench's summary has {covered / len(spans):.6g} ms of computing per batch, and it printed "
            f"{means[0]}: the summary is of another run, so benchmark again with --fresh"
        )
    each = tuple(end - start for start, end in spans)
    middle, p99 = (drift.percentile(each, q) for q in (50, 99))
    latency = Latency(min(each), max(each), math.fsum(each) / len(each), middle, p99, len(each))
    return Performance(batch_size, throughput, latency, compute_list=each)


def with_times(printed: Performance, times: Mapping[str, Any]) -> Performance:
    """A run's figures with what its summary tells besides: the time of each batch, and the copies.

    Keys are `percentile(99%)`, in today's tool `P99`; a batch is its time or its start and end. What is not there, or
    not of this form, stays unknown.

    Raises KitError where the batches' times are not those that were printed: the summary is another run's.
    """
    each = tuple(filter(None, map(_batch_ms, times.get(_LIST) or ()))) if isinstance(times.get(_LIST), list) else ()
    if each and not math.isclose(math.fsum(each) / len(each), printed.compute.mean, rel_tol=1e-3):
        raise KitError(
            f"ais_bench's summary has batches of {math.fsum(each) / len(each):.6g} ms on average, and it printed "
            f"{printed.compute.mean:.6g}: the summary is of another run, so benchmark again with --fresh"
        )
    told = {ours: _told_latency(times.get(theirs)) for theirs, ours in _TIMES.items()}
    return replace(printed, compute_list=each, h2d=told["h2d"] or printed.h2d, d2h=told["d2h"] or printed.d2h)


def device_seconds(summary: Any) -> float | None:
    """What computing and both copies took in all, by a run's summary; None where it does not tell."""
    times = times_of(summary)
    each = [_batch_ms(value) for value in times[_LIST]] if isinstance(times.get(_LIST), list) else []
    copies = [_told_latency(times.get(name)) for name in ("H2D_latency", "D2H_latency")]
    if not each or None in each or not all(copy and copy.count for copy in copies):
        return None
    copied = math.fsum(copy.mean * (copy.count or 0) for copy in copies if copy)
    return (math.fsum(filter(None, each)) + copied) / 1000


def _batch_ms(value: Any) -> float | None:
    if isinstance(value, list) and len(value) == 2 and all(map(_is_time, value)):
        value = value[1] - value[0]
    return float(value) if _is_time(value) and value > 0 else None


def _told_latency(value: Any) -> Latency | None:
    if not isinstance(value, dict):
        return None
    found = [value.get(name) for name in ("min", "max", "mean", "median")]
    found.append(value.get("percentile(99%)", value.get("P99")))
    count = value.get("count")
    if not all(map(_is_time, found)) or (type(count) is int and count < 1):
        return None
    least, most, mean, median, p99 = (float(each) for each in found if each is not None)
    return Latency(least, most, mean, median, p99, count if type(count) is int else None)


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


_PROGRESS = re.compile(r"\|\s*([0-9]{1,9})/\1\b[^\]\n]{0,40}?([0-9.]{1,12})\s?(it/s|s/it)")


def loop_seconds(text: str) -> float | None:
    """How long the tool was at its batches, files and copies included, by its progress bar's last state (tqdm's, whose
    rate is then of the whole); None where it shows none."""
    found = _PROGRESS.findall(text)
    if not found or not _is_number(found[-1][1]):
        return None
    count, rate, unit = int(found[-1][0]), float(found[-1][1]), found[-1][2]
    return count * rate if unit == "s/it" else count / rate


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) is not None and float(text) > 0


def profile_argv(python: str, om: str, device: int, batch_size: int, loop: int, output_dir: str, era: Era) -> list[str]:
    """The command that runs `loop` batches of zeros under msprof, whose tables are below `<output_dir>/profiler`.

    Raises KitError of an era that calls itself under msprof by flags that it does not know.
    """
    if era == "2026":
        raise KitError("this ais_bench (0.1.0) cannot profile: install one of 2022-11 to 2025 for `tools.python`")
    argv = [*_run_argv(python, om, device, batch_size), "--loop", str(loop)]
    return [*argv, "--output", output_dir, "--profiler", "1"]


def parse_help(text: str, status: int) -> Era:
    """The era, from the flags that `--help` offers. Raises KitError where this is no ais_bench that runs OMs."""
    flags = set(re.findall(r"--[A-Za-z][\w-]*", text))
    if status != 0 or not {"--model", "--loop", "--batchsize"} <= flags:
        raise failure(text, status)
    if "--warmup-count" in flags:
        return "2024" if "--warmup_count" in flags else "2026"
    if flags & {"--divide_input", "--threads"}:
        return "2023-06"
    return "2022-12" if "--warmup_count" in flags else "2022-06"


def _run_argv(python: str, om: str, device: int, batch_size: int) -> list[str]:
    """Flags that every era knows. `--batchsize` only feeds the throughput's formula: the OM has its own."""
    return [python, "-m", "ais_bench", "--model", om, "--device", str(device), "--batchsize", str(batch_size)]


def _spelled(argv: list[str], era: Era) -> list[str]:
    """A command line as its era writes flags, which is with dashes alone in 2026."""
    dashed = era == "2026"
    return [word.replace("_", "-") if dashed and word.startswith("--") else word for word in argv]


_NUMBER = r"[^\s,()]{1,64}"
_LATENCY = re.compile(  # in a sentence, since 2026 in the row of a table
    rf"(NPU_compute_time|H2D_latency|D2H_latency) \(ms\)(?:: min = | *│ *)({_NUMBER})(?:, max = | *│ *)({_NUMBER})"
    rf"(?:, mean = | *│ *)({_NUMBER})(?:, median = | *│ *)({_NUMBER})(?:, percentile\(99%\) = | *│ *)({_NUMBER})"
)
# To 2022-07 `throughput (1000*batchsize/NPU_compute_time): X`, then `throughput 1000*batchsize(B)/
# NPU_compute_time.mean(c): X`, since 2023-01-18 with `batchsize.mean(B)`.
_THROUGHPUT = re.compile(
    rf"(?<!summary )throughput \(?1000\*batchsize(?:\.mean)?(?:\(({_NUMBER})\))?"
    rf"/NPU_compute_time(?:\.mean\(({_NUMBER})\))?\)?: ({_NUMBER})",
    re.IGNORECASE,
)


def parse_stdout(text: str, batch_size: int) -> Performance:
    """The figures of a benchmark of one OM of `batch_size` on one device.

    Raises KitError where they are lacking, come twice (two devices' rates must not be summed), or contradict each
    other: throughput must be 1000 * batch_size / mean to within the rounding of the printed numbers.
    """
    # C and Python share the stream, so that a line of one may begin behind the other's: nothing is tied to line starts.
    stream = "\n".join(transcript.lines(text))
    latencies = _LATENCY.findall(stream)
    by_name = {name: values for name, *values in latencies}
    if len(latencies) > len(by_name):
        raise KitError(_SEVERAL)
    means = [values[2] for name, values in by_name.items() if name == "NPU_compute_time"]
    return Performance(
        batch_size=batch_size,
        throughput=_throughput(text, stream, means, batch_size),
        compute=_latency(by_name["NPU_compute_time"]),
        h2d=_latency(by_name["H2D_latency"]) if "H2D_latency" in by_name else None,
        d2h=_latency(by_name["D2H_latency"]) if "D2H_latency" in by_name else None,
    )


@dataclass(frozen=True)
class Session:
    """Which OM a run loaded and which device it opened, None where it does not say."""

    om: str | None
    device: int | None


def parse_session(text: str) -> Session:
    """What a run says before its work: `open device 0 success`, `load model X.om success`, lately `Load model`.

    The era of 2026 says `aclmdlLoadFromFile X.om` without a folder.
    """
    stream = "\n".join(transcript.lines(text))
    # A path may have spaces.
    models = re.findall(
        r"\b(?:load model |aclmdlLoadFromFile )(.+(?= success\b)|.+\.om$)", stream, re.IGNORECASE | re.MULTILINE
    )
    devices = re.findall(r"\bopen device ([0-9]{1,9}) success", stream)
    om, device = (each[0] if len(set(each)) == 1 else None for each in (models, devices))  # a thread says it again
    return Session(om, None if device is None else int(device))


def parse_batches(text: str) -> tuple[int, int] | None:
    """The OM's true batch size, which an inference run prints after comparing OM and clip, and how many batches it
    makes of the files; None where it does not."""
    found = re.search(r"filesperbatch:([0-9]{1,9}) runcount:([0-9]{1,9})", text)
    return (int(found[1]), int(found[2])) if found else None


_SEVERAL = "ais_bench printed the figures of more than one run: benchmark one device at a time"


def _throughput(text: str, stream: str, means: Sequence[str], batch_size: int) -> float:
    """The one throughput that was printed, checked against the one mean."""
    throughputs = _THROUGHPUT.findall(stream)
    if not throughputs or not means:
        raise failure(text, 0)
    if len(throughputs) > 1 or len(means) > 1:
        raise KitError(_SEVERAL)
    _check_throughput(*throughputs[0], compute_mean=means[0], batch_size=batch_size)
    return _number(throughputs[0][2])


def _check_throughput(batch: str, mean: str, throughput: str, *, compute_mean: str, batch_size: int) -> None:
    """The throughput line's own `batch` and `mean` ("" in the oldest form) and its figure, against the rest."""
    if batch and _number(batch) != batch_size:
        raise KitError(
            f"ais_bench reckoned its throughput with a batch size of {batch}, not with the {batch_size} of the OM: "
            "benchmark again with --fresh"
        )
    if mean and not _equal(mean, compute_mean, _number(compute_mean)):
        raise KitError(
            f"ais_bench reckoned its throughput with a mean of {mean} ms, but NPU_compute_time has {compute_mean}: "
            "benchmark again with --fresh"
        )
    expected = 1000 * batch_size / _number(compute_mean)
    if not _equal(throughput, compute_mean, expected):
        raise KitError(
            f"ais_bench printed a throughput of {throughput}, but batches of {batch_size} in {compute_mean} ms make "
            f"{expected:.6g} samples/s: its --batchsize is not the OM's, so benchmark again with --fresh"
        )


def _equal(printed: str, source: str, value: float) -> bool:
    """Whether `printed` is `value`, which was computed from the printed `source`, but for the rounding of the two."""
    return math.isclose(_number(printed), value, rel_tol=1e-9 + _rounding(printed) + _rounding(source))


def _rounding(printed: str) -> float:
    """The relative error that rounding can have made of a printed number: half a unit of its last place."""
    number = Decimal(printed)
    exponent = int(number.as_tuple().exponent)  # finite: _number has seen to that
    return float(Decimal(5).scaleb(exponent - 1) / number)


def _number(printed: str) -> float:
    """A printed number that is finite and above 0."""
    if re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,30})?(e[+-]?[0-9]{1,2})?", printed) and float(printed) > 0:
        return float(printed)
    raise KitError(f"ais_bench printed {printed!r} where a number above 0 is expected: see its log")


def _latency(values: Sequence[str]) -> Latency:
    """A transfer may take no measurable time, a batch may not: `_check_throughput` has seen to its mean."""
    least, most, mean, median, p99 = (0.0 if re.fullmatch(r"0(\.0+)?", value) else _number(value) for value in values)
    return Latency(least, most, mean, median, p99)


_ERROR_LINES = (  # the best words for an unknown failure: the tool's own, then argparse's, then Python's
    re.compile(r"\[ERROR\] *(\S.*)"),
    re.compile(r": error: (\S.*)"),
    re.compile(r"^(\w[\w.]*(?:Error|Exception)\b.*)"),
    re.compile(r"^│ *(\S.*?) *│$"),  # typer's refusal; its tracebacks are framed too, and end in Python's line
)


def failure(output: str, status: int) -> KitError:
    """The sentence for a run of ais_bench that failed, or that ended without what was asked of it."""
    lines = transcript.lines(output)
    if unwhole := causes.find("python", [output]):
        return KitError(f"`tools.python` {unwhole[1]}")
    if known := causes.find("ais_bench", lines, cause=_cause(lines)):
        return KitError(known[1])
    if host := causes.find("host", lines):
        return KitError(f"ais_bench failed ({transcript.quote(host[0].strip(': '))}): {host[1]}")
    errors = [found[1] for pattern in _ERROR_LINES for line in lines if (found := pattern.search(line))]
    coded = next(iter(cann_error.errors(lines)), None)
    said, advice = f"'{transcript.quote(errors[0])}'" if errors else transcript.last(output), None
    if coded:
        said, advice = f"'{coded.code}: {transcript.quote(coded.message)}'", coded.advice("host codes")
    how = transcript.ending(status) or ("ended without its figures" if status == 0 else "failed")
    return KitError(f"ais_bench {how} (exit status {status}, it last said {said}): {advice or 'see its log'}")


def _cause(lines: Sequence[str]) -> str:
    """`; E19999: words`, or what the runtime's exception says, or nothing."""
    if coded := next(iter(cann_error.errors(lines)), None):
        return f"; {coded.code}: {transcript.quote(coded.message)}"
    raised = next(
        filter(None, (re.search(r"RuntimeError: ?\[([0-9]+)\]\[(?:ACL: ?)?(.*?)\]", line) for line in lines)), None
    )
    if raised:
        return f"; {raised[1]}: {transcript.quote(raised[2])}"
    reason = next(filter(None, (re.search(r"\breason=\[([^\]]+)\]", line) for line in lines)), None)
    return f"; {transcript.quote(reason[1])}" if reason else ""
