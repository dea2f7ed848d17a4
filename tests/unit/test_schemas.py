"""docs/schemas/: current, and true of what the kit writes and of the inventories that it comes with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, FormatChecker

from deploy.errors import KitError
from deploy.evidence import records
from deploy.evidence.runs import find
from deploy.inventory import ROOT
from deploy.workspace import Workspace
from docs import schemas
from tests.unit import made_up

ARTEFACTS = {
    "manifest": "manifest.json",
    "model": "gpu/model.json",
    "benchmark": "npu/bs4/benchmark.json",
    "summary": "report/summary.json",
    "seal": "seal.json",
}
INVENTORIES = sorted(ROOT.glob("inventory*.yaml"))


@cache
def validator(name: str) -> Draft202012Validator:
    schema = json.loads(schemas.path(name).read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FormatChecker())


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_a_schema_is_current(name: str) -> None:
    assert schemas.path(name).read_text() == schemas.schema(name), "run python -m docs.schemas"


def test_there_are_no_others() -> None:
    assert {path.name for path in schemas.FOLDER.iterdir()} == {f"{name}.schema.json" for name in schemas.SCHEMAS}


@pytest.mark.parametrize("name", ARTEFACTS)
def test_what_the_kit_writes_is_of_its_schema(scored: Workspace, name: str) -> None:
    validator(name).validate(made_up.read(find(scored.folder, "latest").folder / ARTEFACTS[name]))


@pytest.mark.parametrize("path", INVENTORIES, ids=lambda path: path.name)
def test_an_inventory_names_its_schema_and_is_of_it(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={schemas.path('inventory').relative_to(ROOT)}"
    validator("inventory").validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "text",
    [
        "npu: []",
        "npu: [{name: a}]\nbatchsizes: [1]",
        "npu: [{name: a, devcies: [0]}]",
        "npu: [{name: a}]\nbatch_sizes: [0]",
        "npu: [{name: a}]\ngate: 2",
        "gpu: {}",
    ],
)
def test_a_mistaken_inventory_is_not_of_it(text: str) -> None:
    assert not validator("inventory").is_valid(yaml.safe_load(text))


def test_a_flag_of_atc_may_be_a_number(tmp_path: Path) -> None:
    assert validator("inventory").is_valid({"npu": [{"name": "a"}], "atc": {"op_debug_level": 1, "fusion": True}})


def objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of the objects in a JSON text, one of each form: of a list, its first item."""
    if isinstance(value, dict):
        yield path
        for key, item in value.items():
            yield from objects(item, (*path, key))
    elif isinstance(value, list) and value:
        yield from objects(value[0], (*path, 0))


# What a record may hold beside its own keys: the inputs and facts of a step, metrics by their name, files by theirs.
OPEN = {"inputs", "facts", "earlier", "repeats"}


@pytest.mark.parametrize("name", ["benchmark", "summary", "manifest"])
def test_a_broken_record_is_not_of_its_schema(scored: Workspace, name: str) -> None:
    """A key of another type, at every place, and a key that is unknown, where there is no choice of them."""
    path = find(scored.folder, "latest").folder / ARTEFACTS[name]
    text = path.read_text()
    places = [place for place in objects(json.loads(text)) if not OPEN & set(place)]
    assert len(places) > 5
    for place in places:
        for change in ("another type", "unknown"):
            content = json.loads(text)
            inner = content
            for part in place:
                inner = inner[part]
            if change == "unknown":
                inner["Unknown"] = {"no": "figure"}
            elif inner and set(inner) - OPEN:
                inner[next(key for key in inner if key not in OPEN)] = {"of": {"another": "type"}}
            else:
                continue
            assert not validator(name).is_valid(content), (place, change)
            with pytest.raises(KitError, match=path.name):
                records.check(path, content, schemas.SCHEMAS[name])


@pytest.mark.parametrize("content", [{"/etc/passwd": "0" * 64}, {"a": "0" * 63}, {"a": 1}, ["a"]])
def test_a_broken_seal_is_not_of_its_schema(content: Any) -> None:
    assert not validator("seal").is_valid(content)
