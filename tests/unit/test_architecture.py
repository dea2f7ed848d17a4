"""docs/architecture.md has the rooms in rows; a module imports from its own row and those below."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.inventory import ROOT

DIAGRAM = (ROOT / "docs/architecture.md").read_text().split("```")[1]
ROWS = [re.split("  +", line)[:-1] or [line] for line in DIAGRAM.strip().splitlines()]
MODULES = [path for folder in ("deploy", "stgcn") for path in sorted((ROOT / folder).rglob("*.py"))]


def row(path: Path) -> int | None:
    name = path.relative_to(ROOT).as_posix()
    found = [(len(room), i) for i, rooms in enumerate(ROWS) for room in rooms if name == room or name.startswith(room)]
    return max(found)[1] if found else None


def imports(path: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("deploy", "stgcn"):
            module = ROOT.joinpath(*node.module.split("."))
            for name in node.names:
                candidates = [module / f"{name.name}.py", module.with_suffix(".py"), module / name.name / "__init__.py"]
                yield next((file for file in candidates if file.exists()), module / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_down(path: Path) -> None:
    here = row(path)
    rows = {each.relative_to(ROOT).as_posix(): row(each) for each in imports(path)}
    assert not [name for name, there in rows.items() if here is not None and there is not None and there < here]


def test_every_module_has_a_row() -> None:
    assert [path for path in MODULES if row(path) is None and path != ROOT / "deploy/__init__.py"] == []


def test_the_rooms_exist() -> None:
    assert len(ROWS) > 5
    assert [room for rooms in ROWS for room in rooms if not (ROOT / room).exists()] == []


# A model's own numbers, names and files: what deploy/ must know comes from gpu/model.json (docs/own-model.md).
OF_A_MODEL = re.compile(r"\bCLASSES\b|\bCLIP_|\btop[15]\b|\bst_gcn\b|\b400\b|129600")
UTILITIES = {"files", "errors", "npy", "plain_json", "onnx_model", "cards", "skeletons"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "deploy").rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_deploy_knows_no_model(path: Path) -> None:
    """Images are built of the kit's own package, so they may name it."""
    used = {module.stem for module in imports(path) if module.parent == ROOT / "stgcn"} - UTILITIES - {"__init__"}
    assert not used
    if "containers" not in path.parts:
        assert not OF_A_MODEL.findall(path.read_text())
