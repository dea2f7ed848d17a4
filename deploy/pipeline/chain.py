"""The steps that a verdict rests on, and how one's outputs are the next one's inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deploy.errors import KitError
from deploy.pipeline.manifest import OK, key_of
from stgcn.index import Index, PersonIndex

Entry = Mapping[str, Any]

_PARTS = ("key", "inputs", "outputs", "facts", "commands", "host", "by", "revision", "started", "seconds")
GPU_STEPS = ("preprocess", "export", "reference")


def batch_steps(batch_size: int) -> tuple[str, ...]:
    return tuple(f"{kind}/bs{batch_size}" for kind in ("convert", "accuracy", "throughput"))


def steps(batch_sizes: Sequence[int]) -> list[str]:
    """The names of a verdict's steps, makers before users."""
    return [*GPU_STEPS, *(name for size in batch_sizes for name in batch_steps(size))]


def maker(step: str) -> str:
    """The command that runs a step."""
    kind = step.partition("/")[0]
    if kind in GPU_STEPS:
        return "make gpu-stage"
    return {"convert": "fab npu-convert", "score": "make score", "report": "make report"}.get(kind, "fab npu-bench")


def check(entries: Mapping[str, Entry], step: str) -> None:
    """Whether `step` ran to its end on what the steps before it made.

    Raises:
        KitError: its entry is missing, of a run that failed, altered, or of other files than the manifest's.
    """
    entry = entries.get(step)
    if entry is None:
        raise KitError(f"{step}: manifest.json has no entry for it; run `{maker(step)}` first")
    if entry["state"] != OK:
        why = f" ({entry['error']})" if "error" in entry else ""
        raise KitError(f"{step}: its last run has not ended well{why}; run `{maker(step)}` again")
    if missing := [part for part in _PARTS if part not in entry]:
        raise KitError(f"{step}: its manifest entry lacks {', '.join(missing)}; run `{maker(step)} --fresh`")
    if key_of(entry["inputs"]) != entry["key"]:
        raise KitError(f"{step}: the inputs in its manifest entry are not those that its key was made of")
    for what, found, source, expected in _links(entries, step, entry["inputs"]):
        if found != expected:
            raise KitError(
                f"{step}: its {what} (sha256 {str(found)[:12]}) is not that of {source} ({str(expected)[:12]}); "
                f"run `{maker(step)}` again"
            )


def _links(entries: Mapping[str, Entry], step: str, inputs: Entry) -> Iterator[tuple[str, Any, str, Any]]:
    """(what, sha256 read, the step it comes from, sha256 there) of each file that `step` shares with one before."""
    kind, _, batch = step.partition("/")
    if kind == "reference":
        yield "checkpoint", inputs["checkpoint"], "export", _input(entries, "export", "checkpoint")
        yield "data", inputs["data"], "preprocess", _input(entries, "preprocess", "data")
    elif kind == "convert":
        yield "ONNX", inputs["onnx"], "export", _output(entries, "export", "gpu/st_gcn.onnx")
    elif kind in ("accuracy", "throughput"):
        om = f"npu/{batch}/st_gcn_{batch}.om"
        yield "OM", inputs["om"], f"convert/{batch}", _output(entries, f"convert/{batch}", om)
    if kind == "accuracy":
        index = PersonIndex if inputs.get("persons") == "nonempty" else Index
        yield "dataset", inputs["dataset"], "preprocess", _output(entries, "preprocess", f"gpu/{index.FILE}")


def _input(entries: Mapping[str, Entry], step: str, name: str) -> Any:
    return entries[step]["inputs"][name] if step in entries else None


def _output(entries: Mapping[str, Entry], step: str, path: str) -> Any:
    return entries[step]["outputs"].get(path, {}).get("sha256") if step in entries else None
