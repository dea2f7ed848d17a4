"""The steps, each declared once: what it reads, which settings and files it depends on, which command runs it.

Its key, `--dry`, status, what the audit checks and in which order, reproduce.sh and the kept runs follow from here.
What only the hosts know (the facts of a step's key: SoC, CANN, driver, tools) is added by the stage that runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from deploy.errors import KitError
from deploy.inventory import Inventory
from deploy.pipeline.build import FILE_FLAGS, MODE_FLAGS, Build
from deploy.pipeline.build import FILES as ATC_FILES
from deploy.pipeline.index import FILES
from deploy.pipeline.manifest import OK, Manifest, digest_of
from deploy.pipeline.model import CARD
from stgcn.files import sha256_file

Entry = Mapping[str, Any]
Settings = Callable[[Inventory, Build], Mapping[str, Any]]

CLOCK_S = 5.0  # by which the clocks that one run goes by may differ
AHEAD_S = 3600.0  # by which the clock of who audits a run may be behind

_PARTS = ("key", "inputs", "outputs", "facts", "commands", "host", "by", "revision", "started", "seconds")


@dataclass(frozen=True)
class Read:
    """An input that an earlier step made: the output whose path ends with `output`, or that step's own input."""

    name: str  # among the inputs of the reader
    step: str  # {build} stands for the reader's
    output: str = ""  # {index} stands for the file of the index for the reader's `persons`
    title: str = ""  # in sentences


@dataclass(frozen=True)
class Kind:
    """A step, or one per build (`convert/bs8`)."""

    name: str
    command: str  # that runs it
    folder: str  # of its outputs, logs and reproduce.sh
    outputs: Sequence[str] = ()  # the names of the files that it makes there, as patterns
    beside: Sequence[str] = ()  # of its logs and of what else it brings back, which a kept run has too
    per_build: bool = False
    required: bool = True  # for a verdict
    apart: bool = False  # from the whole job: a verdict is whole without it, and rests on it where it was made before
    files: Sequence[str] = ()  # from outside the workspace: data, labels, checkpoint
    package: bool = False  # runs a command of the model's package, whose sources count
    reads: Sequence[Read] = ()
    of_inventory: Callable[[Inventory], Mapping[str, Any]] = lambda _: {}
    of_build: Settings = lambda _inventory, _build: {}


def _convert(inventory: Inventory, build: Build) -> Mapping[str, Any]:
    tuned = {"aoe_job_type": build.aoe_job_type} if build.aoe_job_type else {}
    files = {"files": {flag: sha256_file(path) for flag, path in build.files.items()}} if build.files else {}
    return {
        "flags": dict(build.flags),
        "batch_size": build.batch_size,
        "persons": build.persons,
        **tuned,
        **files,
        **inventory.environment,
    }


def _accuracy(inventory: Inventory, build: Build) -> Mapping[str, Any]:
    return {"batch_size": build.batch_size, "persons": build.persons, **inventory.environment}


def _throughput(inventory: Inventory, build: Build) -> Mapping[str, Any]:
    return {**_accuracy(inventory, build), **inventory.benchmark.decisive}


_ONNX = Read("onnx", "export", ".onnx", "ONNX")
_OM = Read("om", "convert/{build}", ".om", "OM")
# fp16 can hide a change of the weights: what is reported of a changed checkpoint must have been measured with it.
_ONNX_OF_OM = Read("onnx", "convert/{build}", title="ONNX")
_INDEX = Read("dataset", "preprocess", "{index}", "dataset")
_VERDICT = Read("summary", "score", "report/summary.json", "summary")

GRAPH = (
    Kind(
        "preprocess",
        "make gpu-stage",
        "gpu",
        ("labels.npy", *FILES.values()),
        ("preprocess.log",),
        files=("data", "labels"),
        package=True,
    ),
    Kind(
        "export",
        "make gpu-stage",
        "gpu",
        ("*.onnx", CARD),
        ("export.log",),
        files=("checkpoint",),
        package=True,
        of_inventory=lambda inventory: {"variant": inventory.variant, "persons": inventory.persons},
    ),
    Kind(
        "reference",
        "make gpu-stage",
        "gpu",
        ("reference.npy", "reference.*.npy"),
        ("reference.log",),
        files=("checkpoint", "data"),
        package=True,
        reads=(Read("checkpoint", "export", title="checkpoint"), Read("data", "preprocess", title="data")),
    ),
    Kind(
        "gpu-throughput",
        "fab gpu-bench",
        "gpu",
        ("benchmark.json",),
        ("gpu-throughput.log",),
        required=False,
        apart=True,
        files=("checkpoint",),
        package=True,
        of_inventory=lambda inventory: {
            "batch_sizes": list(inventory.batch_sizes),
            **inventory.benchmark.model_dump(exclude={"idle_timeout_s", "threads"}),
        },
    ),
    Kind(
        "convert",
        "fab npu-convert",
        "npu/{build}",
        ("*.om", "atc.log", "aoe.log"),
        per_build=True,
        reads=(_ONNX,),
        of_build=_convert,
    ),
    Kind(
        "accuracy",
        "fab npu-bench",
        "npu/{build}",
        ("logits.npy", "logits.*.npy", "results.tsv"),
        ("ais_bench-*.log", "ais_bench-*.times.json"),
        per_build=True,
        reads=(_OM, _ONNX_OF_OM, _INDEX),
        of_build=_accuracy,
    ),
    Kind(
        "throughput",
        "fab npu-bench",
        "npu/{build}",
        ("benchmark.json",),
        ("benchmark-*.log", "benchmark-*.times.json"),
        per_build=True,
        required=False,
        reads=(_OM, _ONNX_OF_OM),
        of_build=_throughput,
    ),
    Kind(
        "profile",
        "fab npu-profile",
        "npu/{build}",
        ("op_summary.csv", "profile.json"),
        ("profile.log", "export-profile.log", "fusion_op.csv"),
        per_build=True,
        required=False,
        apart=True,
        reads=(_OM, _ONNX_OF_OM),
        of_build=_accuracy,
    ),
    Kind(
        "precision",
        "fab npu-precision",
        "precision",
        ("precision.json", "inventory.yaml", *ATC_FILES.values()),
        required=False,
        apart=True,
        reads=(_ONNX, _INDEX),
        of_inventory=lambda inventory: {
            "persons": inventory.persons,
            "flags": {flag: value for flag, value in inventory.atc.items() if flag not in (*MODE_FLAGS, *FILE_FLAGS)},
            **inventory.environment,
        },
    ),
    Kind(
        "score",
        "make score",
        "report",
        ("summary.json", "summary.csv"),
        of_inventory=lambda inventory: {"gate": inventory.gate},
    ),
    Kind(
        "report", "make report", "report", ("report.html",), reads=(_VERDICT, Read("data", "preprocess", title="data"))
    ),
)
_BY_NAME = {kind.name: kind for kind in GRAPH}
VERDICT = ("score", "report")  # what follows from the other steps


def kind_of(step: str) -> Kind:
    """The declaration of a step; one that `npu-tune` or another export runs has its kind's."""
    return _BY_NAME.get(step.partition("/")[0]) or Kind(step, f"fab {step}", step)


def steps(batch_sizes: Sequence[int]) -> list[str]:
    """The names of the steps that a verdict rests on, makers before users; of some only where they ran."""
    single = [kind.name for kind in GRAPH if not kind.per_build and kind.name not in VERDICT]
    each = [kind.name for kind in GRAPH if kind.per_build]
    return [*single, *(f"{name}/bs{size}" for size in batch_sizes for name in each)]


def of_verdict(entries: Mapping[str, Entry]) -> list[str]:
    """The steps of `entries` that their verdict rests on: of those asked for apart, only what was there before it."""
    inputs = entries["score"]["inputs"]
    return [
        step
        for step in steps(inputs["batch_sizes"])
        if step in entries and (not kind_of(step).apart or step in inputs["entries"])
    ]


def line(batch_sizes: Sequence[int]) -> list[str]:
    """Every step up to the page, stage by stage, but for those that are asked for apart."""
    stages = list(dict.fromkeys(kind.command for kind in GRAPH))
    every = [step for step in (*steps(batch_sizes), *VERDICT) if not kind_of(step).apart]
    return sorted(every, key=lambda step: stages.index(command_of(step)))


def stage_of(step: str) -> str:
    """The stage that runs a step, as the last word of its command names it."""
    return command_of(step).split()[-1]


def folder_of(step: str) -> str:
    """Where a step's files lie, relative to the workspace; a build of another command has a folder of its own."""
    build = step.partition("/")[2]
    folder = kind_of(step).folder
    return build if build and not build.startswith("bs") and "{build}" in folder else folder.format(build=build)


def command_of(step: str) -> str:
    """The command that runs a step."""
    return kind_of(step).command


def output(manifest: Manifest, step: str, name: str) -> Path:
    """The file of that name in the workspace, which `step` made, checked against its entry as Manifest.output does."""
    return manifest.output(step, manifest.workspace / name, command_of(step))


def reads_of(step: str, persons: str = "both") -> Iterator[Read]:
    """What a step reads, its build and index filled in."""
    build = step.partition("/")[2].partition("/threads-")[0]  # npu-tune measures a build with several numbers of them
    for read in kind_of(step).reads:
        output = read.output.format(build=build, index=f"/{FILES[persons]}")
        yield Read(read.name, read.step.format(build=build), output, read.title)


def made(entries: Mapping[str, Entry], read: Read) -> Any:
    """What is read, as the step before recorded it: a sha256, or that step's own input; None where there is none."""
    entry = entries.get(read.step)
    if entry is None:
        return None
    if not read.output:
        return entry["inputs"].get(read.name)
    found = (output["sha256"] for path, output in entry["outputs"].items() if path.endswith(read.output))
    return next(found, None)


def is_current(entries: Mapping[str, Entry], step: str) -> bool:
    """Whether what a step read is what the steps before it have made since."""
    found = entries[step]["inputs"]
    return all(found.get(read.name) == made(entries, read) for read in reads_of(step, found.get("persons", "both")))


def inputs(entries: Mapping[str, Entry], step: str, inventory: Inventory, build: Build | None = None) -> dict[str, Any]:
    """The inputs of a step's key that this side knows, but for files and sources."""
    kind = kind_of(step)
    read = {read.name: made(entries, read) for read in reads_of(step, build.persons if build else inventory.persons)}
    return {**read, **kind.of_inventory(inventory), **(kind.of_build(inventory, build) if build else {})}


def check_time(entries: Mapping[str, Entry], step: str) -> None:
    """Whether `step` began after what it reads was there: since when a path holds its bytes is in the manifest.

    Raises:
        KitError: it did not.
    """
    began = datetime.fromisoformat(entries[step]["started"])
    reads = [(r.step, r.output) for r in reads_of(step, entries[step]["inputs"].get("persons", "both")) if r.output]
    reads += [(name, "") for name in entries[step]["inputs"].get("entries", ())]
    for maker, output in reads:
        made = [made for path, made in entries[maker]["outputs"].items() if path.endswith(output)]
        end = max((_since(entries[maker], each) for each in made), default=began)
        if began + timedelta(seconds=CLOCK_S) < end:
            raise KitError(
                f"{step}: began at {began.isoformat()}, before {maker} had made what it reads ({end.isoformat()}); "
                f"run `{command_of(step)} --fresh`"
            )


def check_alone(entries: Mapping[str, Entry], step: str) -> None:
    """Whether a figure was taken while no other step was at work on the devices: one command works at a time.

    Raises:
        KitError: another step ran meanwhile.
    """
    began, ended = _span(entries[step])
    for name, entry in entries.items():
        if name == step or not kind_of(name).per_build or entry["state"] != OK:
            continue
        other_began, other_ended = _span(entry)
        if min(ended, other_ended) - max(began, other_began) > timedelta(seconds=CLOCK_S):
            raise KitError(f"{step}: ran from {began} to {ended}, while {name} did; run `{command_of(step)} --fresh`")


def refuse_future(entries: Mapping[str, Entry]) -> None:
    """Raises KitError for a step that has not begun yet."""
    for name, entry in entries.items():
        if _span(entry)[0] > datetime.now(timezone.utc) + timedelta(seconds=AHEAD_S):
            raise KitError(f"{name}: began at {entry['started']}, which is yet to come; correct this machine's clock")


def _span(entry: Entry) -> tuple[datetime, datetime]:
    began = datetime.fromisoformat(entry["started"])
    return began, began + timedelta(seconds=entry["seconds"])


def _since(entry: Entry, made: Mapping[str, Any]) -> datetime:
    """Since when an output is there; of a record of an earlier version, when its step ended."""
    if "made" in made:
        return datetime.fromisoformat(made["made"])
    return _span(entry)[1]


def folders(entries: Mapping[str, Entry]) -> dict[str, list[str]]:
    """The workspace's folders that hold a reproduce.sh, and the steps of each, in their order."""
    found: dict[str, list[str]] = {}
    sizes = [int(name[len("convert/bs") :]) for name in entries if name.startswith("convert/bs")]
    resting = of_verdict(entries)
    for step in (*steps(sorted(sizes)), *VERDICT):
        if kind_of(step).apart and step not in resting:
            continue
        found.setdefault(folder_of(step), []).append(step)
    return found


def check(entries: Mapping[str, Entry], step: str) -> None:
    """Whether `step` ran to its end on what the steps before it made.

    Raises:
        KitError: its entry is missing, of a run that failed, altered, or of other files than the manifest's.
    """
    entry, command = entries.get(step), command_of(step)
    if entry is None:
        raise KitError(f"{step}: manifest.json has no entry for it; run `{command}` first")
    if entry["state"] != OK:
        why = f" ({entry['error']})" if "error" in entry else ""
        raise KitError(f"{step}: its last run failed{why}; run `{command}` again")
    if missing := [part for part in _PARTS if part not in entry]:
        raise KitError(f"{step}: its manifest entry lacks {', '.join(missing)}; run `{command} --fresh`")
    if digest_of(entry["inputs"]) != entry["key"]:
        raise KitError(f"{step}: the inputs in its manifest entry are not those that its key was made of")
    for path in entry["outputs"]:
        folder, _, name = path.rpartition("/")
        if folder != folder_of(step) or not any(fnmatchcase(name, own) for own in kind_of(step).outputs):
            raise KitError(f"{path}: none of what {step} makes, although its manifest entry has it")
    for read in reads_of(step, entry["inputs"].get("persons", "both")):
        found, expected = entry["inputs"][read.name], made(entries, read)
        if found != expected:
            raise KitError(
                f"{step}: its {read.title} (sha256 {str(found)[:12]}) is not that of {read.step} "
                f"({str(expected)[:12]}); run `{command}` again"
            )
