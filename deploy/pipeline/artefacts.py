"""What the GPU stage left in a workspace or a kept run, read once it is what the manifest says."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from deploy.errors import KitError
from deploy.pipeline import graph
from deploy.pipeline.index import FILES, Index, read_index
from deploy.pipeline.manifest import OK, Manifest
from deploy.pipeline.model import CARD, Card, read_card


def exported_card(manifest: Manifest) -> Card:
    """The card that the export wrote.

    Raises:
        KitError: it is missing or was changed; or the run is of a version of the kit that wrote none.
    """
    entry = manifest.steps.get("export")
    if entry and entry["state"] == OK and f"gpu/{CARD}" not in entry["outputs"]:
        raise KitError(
            f"{manifest.workspace}: made by a version of the kit that left no gpu/{CARD} (revision {entry['revision']})"
            "; audit or compare it with that version, or make it again with `make gpu-stage` and what follows"
        )
    return read_card(graph.output(manifest, "export", f"gpu/{CARD}"))


def dataset_index(manifest: Manifest, persons: str = "both") -> Index:
    path = graph.output(manifest, "preprocess", name := f"gpu/{FILES[persons]}")
    return _index(path, manifest.steps["preprocess"]["outputs"][name]["sha256"])


@lru_cache(maxsize=4)  # every step of a verdict asks for it, and a dataset has thousands of names
def _index(path: Path, _sha256: str) -> Index:
    return read_index(path)


def reference_names(card: Card) -> list[str]:
    """The files of the reference outputs, in gpu/."""
    return ["reference.npy", *(f"reference.{output.name}.npy" for output in card.outputs[1:])]


def onnx_path(manifest: Manifest) -> Path:
    """The ONNX. Raises KitError where it is not made yet or was changed."""
    return graph.output(manifest, "export", f"gpu/{exported_card(manifest).stem}.onnx")
