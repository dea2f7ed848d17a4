"""`make demo MODEL=NAME`: sample data of a model, and the demo's inventory for it.

    python -m deploy.demo NAME_OR_FOLDER

writes work/demo-NAME/sample/ by the model's `sample` command, unless it is there, and the demo's inventory with this
model in it, work/demo-NAME/inventory.yaml.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from deploy.errors import KitError
from deploy.inventory import ROOT, local_path
from deploy.pipeline.model import find, run_command
from stgcn import plain_json
from stgcn.files import write_whole

INVENTORY = ROOT / "inventory.demo.yaml"


def prepare(name: str) -> Path:
    """The inventory of a model's demo, in a folder of its own below work/.

    Raises:
        KitError: there is no such model, or it makes no sample data.
    """
    model = find(name, local_path(name))
    if "sample" not in model.card.capabilities:
        raise KitError(
            f"model {model.card.name}: its package has no `sample` command, so there is no data to demonstrate"
        )
    folder = ROOT / "work" / f"demo-{Path(name).name}"
    sample = folder / "sample"
    if not (sample / "sample.json").is_file():
        run_command(model, "sample", "--output_dir", str(sample))
    files = plain_json.load(sample / "sample.json")
    write_whole(folder / "inventory.yaml", yaml.safe_dump(_inventory(name, folder, files), sort_keys=False).encode())
    return folder / "inventory.yaml"


def _inventory(name: str, folder: Path, files: dict[str, str]) -> dict[str, Any]:
    """The demo's inventory, its paths and model exchanged."""
    demo: dict[str, Any] = yaml.safe_load(INVENTORY.read_text(encoding="utf-8"))
    place = folder.relative_to(ROOT)
    (host,) = demo["npu"]
    return {
        **demo,
        "workspace": str(place / "work"),
        "model": name,
        "npu": [{**host, "workspace": str(place / "npu-host")}],
        "dataset": {key: str(place / "sample" / files[key]) for key in ("data", "labels")},
        "checkpoint": str(place / "sample" / files["checkpoint"]),
    }


def main() -> None:
    try:
        prepare(sys.argv[1])
    except KitError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
