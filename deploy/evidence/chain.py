"""What is checked of the steps that a verdict rests on: by `make score` before it is reached, by `fab audit` after it.

Each step ran to its end, after those that it reads from and on what they made; its files are those that it made; and
what its record says follows from these files (deploy/evidence/links.py).
"""

from __future__ import annotations

from collections.abc import Collection

from deploy.errors import KitError
from deploy.evidence import links
from deploy.evidence.logits import DIGESTS, read_logits
from deploy.pipeline import graph
from deploy.pipeline.artefacts import dataset_index, exported_card
from deploy.pipeline.manifest import OK, Manifest
from deploy.pipeline.model import Model


def check_step(manifest: Manifest, step: str, model: Model) -> None:
    """One step of the chain.

    Raises:
        KitError: naming the file that does not hold, and of changed logits the sample.
    """
    graph.check(manifest.steps, step)
    graph.check_time(manifest.steps, step)
    for path, output in manifest.steps[step]["outputs"].items():
        check_output(manifest, step, path, output["sha256"])
    links.check(manifest, step, model)


def check_output(manifest: Manifest, step: str, relative: str, recorded: str) -> None:
    """One output of a step.

    Raises:
        KitError: naming, beyond the file, the sample of changed logits.
    """
    path = manifest.workspace / relative
    if not path.is_file():
        raise KitError(f"{path}: missing, although {step} made it; run `{graph.command_of(step)}`")
    found = manifest.digest(path)
    if found == recorded:
        return
    if step.startswith("accuracy/") and (path.suffix == ".npy" or path.name == DIGESTS):
        read_logits(path.parent, dataset_index(manifest).names, exported_card(manifest))
    raise KitError(f"{path}: not the file that {step} made (sha256 {found[:12]}, then {recorded[:12]})")


def check_others(manifest: Manifest, model: Model, resting_on: Collection[str]) -> None:
    """The steps on which no verdict rests (of npu-tune, of an earlier setting), as far as their files are there.

    Raises:
        KitError: naming the file that its step did not make, or what does not follow from such files.
    """
    for name, entry in manifest.steps.items():
        if name in resting_on or name in graph.VERDICT or entry["state"] != OK:
            continue
        there = {path: manifest.workspace / path for path in entry["outputs"] if (manifest.workspace / path).is_file()}
        for relative, path in there.items():
            if manifest.digest(path) != entry["outputs"][relative]["sha256"]:
                raise KitError(f"{path}: not the file that {name} made; run `{graph.command_of(name)} --fresh`")
        if len(there) == len(entry["outputs"]):
            links.check(manifest, name, model)
