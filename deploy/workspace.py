"""The control's folder of artefacts: what lies where, what the manifest says of it, whose command works in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from deploy.errors import KitError
from deploy.hosts.remote.folders import make_folders
from deploy.inventory import Inventory, local_path
from deploy.options import Options
from deploy.pipeline import graph
from deploy.pipeline.artefacts import dataset_index, exported_card, onnx_path, reference_names
from deploy.pipeline.build import Build, files_of
from deploy.pipeline.index import Index
from deploy.pipeline.manifest import Manifest, Step
from deploy.pipeline.model import CARD, Card, Files, Model, find, input_files
from stgcn.files import sweep


@dataclass
class Workspace:
    """The workspace of an inventory, as the inventory has it now. No host is asked of anything.

    Raises:
        KitError: it cannot be made.
    """

    inventory: Inventory
    folder: Path = field(init=False)
    manifest: Manifest = field(init=False)

    def __post_init__(self) -> None:
        self.folder = local_path(self.inventory.workspace)
        try:
            make_folders(str(self.folder))
        except OSError as error:
            raise KitError(
                f"{self.folder}: the workspace cannot be made ({error.strerror}); correct `workspace` in the inventory"
            ) from None
        self.manifest = Manifest(self.folder)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the workspace: no other command works in it meanwhile. An interrupt also stops what runs there.

        Raises:
            KitError: another operator holds it, named.
        """
        from deploy.hosts.local import LocalHost  # commands that only read do not wait for it

        lock, interrupted = LocalHost("control", self.folder), False
        try:
            lock.hold()
            sweep(self.folder, depth=3)
            self.manifest = Manifest(self.folder)  # as the last holder left it
            self.manifest.holds.append(lock.verify_hold)
            yield
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            lock.close(interrupted)

    def run_step(self, step: Step, options: Options, *, fresh: bool = False) -> dict[str, Any]:
        """Run a step, or find it CACHED; see `Manifest.run_step`."""
        return self.manifest.run_step(step, fresh=options.fresh or fresh, dry=options.dry)

    @cached_property
    def model(self) -> Model:
        """The model that the inventory names. Raises KitError where there is none."""
        return find(self.inventory.model, local_path(self.inventory.model))

    @cached_property
    def files(self) -> Files:
        """What the model reads: as the inventory names it, else as the card does."""
        return input_files(self.inventory, self.model.card)

    def local_files(self) -> dict[str, Path]:
        """data, labels and checkpoint, where they lie on this machine."""
        if self.inventory.gpu.connection == "ssh":
            return {}
        return {name: local_path(file) for name, file in self.files.model_dump().items()}

    def artefact(self, name: str) -> Path:
        return self.folder / name

    def batch_folder(self, batch_size: int) -> Path:
        return self.artefact(f"npu/bs{batch_size}")

    def samples(self, persons: str = "both") -> Index:
        """The dataset's index, as the GPU stage left it: the samples' own rows, or the single persons of `nonempty`."""
        return dataset_index(self.manifest, persons)

    def index_sha256(self, index: Index) -> str:
        """Of the file that an index was read from."""
        return str(self.manifest.steps["preprocess"]["outputs"][f"gpu/{index.file}"]["sha256"])

    def labels(self) -> Path:
        """The samples' labels. Raises KitError where they are not made yet or were changed, as `reference` does."""
        return graph.output(self.manifest, "preprocess", "gpu/labels.npy")

    def reference(self, card: Card) -> list[Path]:
        """The fp32 reference, a file per output of the model."""
        return [graph.output(self.manifest, "reference", f"gpu/{name}") for name in reference_names(card)]

    def card(self) -> Card:
        """The card of the graph that was exported.

        Raises:
            KitError: it was not, or it is another model's than the inventory's.
        """
        card = exported_card(self.manifest)
        if card.name != self.model.card.name:
            raise KitError(
                f"{self.artefact(f'gpu/{CARD}')}: of {card.name}, and the inventory says {self.inventory.model}; "
                "run `make gpu-stage`"
            )
        return card

    def onnx(self) -> Path:
        """The ONNX. Raises KitError where it is not made yet, or of other persons than the inventory's."""
        path = onnx_path(self.manifest)
        exported = self.manifest.steps["export"]["inputs"].get("persons", "both")
        if exported != self.inventory.persons:
            raise KitError(
                f"{path}: exported for persons: {exported}, and the inventory says {self.inventory.persons}; "
                "run `make gpu-stage`"
            )
        return path

    def build(self, batch_size: int) -> Build:
        """The OM of a batch size, as the inventory has it. Raises KitError where the ONNX is not made yet."""
        folder = self.batch_folder(batch_size)
        flags, aoe = self.inventory.atc, self.inventory.aoe
        name, onnx, card = f"bs{batch_size}", self.onnx(), self.card()
        persons, files = self.inventory.persons, files_of(flags)
        return Build(name, folder, onnx, "export", batch_size, flags, card, persons, aoe, files)

    def om(self, build: Build) -> Path:
        """A build's OM. Raises KitError where it is not made yet or was changed."""
        return self.manifest.output(f"convert/{build.name}", build.om, graph.command_of("convert"))
