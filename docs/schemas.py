"""docs/schemas/: JSON Schemas of what the kit reads and writes, made of its code; a test holds that they are current.

python -m docs.schemas
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from deploy.evidence import records
from deploy.inventory import Inventory
from deploy.pipeline.model import Card
from stgcn.files import atomic_write

FOLDER = Path(__file__).with_name("schemas")
DIALECT = "https://json-schema.org/draft/2020-12/schema"  # which pydantic writes
SCHEMAS: dict[str, type[BaseModel]] = {
    "inventory": Inventory,
    "model": Card,
    "manifest": records.ManifestFile,
    "benchmark": records.Benchmark,
    "summary": records.Summary,
    "seal": records.Seal,
}
_ROW = re.compile(r"^\| `([\w.\[\]]+)` \|.*?\| (.*) \|$", re.MULTILINE)


def schema(name: str) -> str:
    """The text of one of them."""
    content: dict[str, Any] = {"$schema": DIALECT, **SCHEMAS[name].model_json_schema()}
    if name == "inventory":
        _describe(content)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _describe(content: dict[str, Any]) -> None:
    """What docs/inventory.md says of each key, for editors to show."""
    text = FOLDER.with_name("inventory.md").read_text(encoding="utf-8")
    for key, meaning in _ROW.findall(text):
        *section, name = key.replace("npu[]", "Npu").split(".")
        properties = content["$defs"][section[0]]["properties"] if section else content["properties"]
        if name in properties:
            properties[name]["description"] = meaning


def path(name: str) -> Path:
    return FOLDER / f"{name}.schema.json"


def main() -> None:
    for name in SCHEMAS:
        with atomic_write(path(name)) as file:
            file.write(schema(name).encode())


if __name__ == "__main__":
    main()
