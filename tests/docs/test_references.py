"""What the documents refer to is there: files, names in files, links; and the worked example of a stage runs."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from deploy.inventory import ROOT
from deploy.options import Options
from tests.docs.markdown import BLOCK
from tests.docs.test_commands import DOCUMENTS
from tests.unit import made_up

FOLDERS = "benchmarks|deploy|docker|docs|requirements|stgcn|tests"
FILE = re.compile(rf"`((?:{FOLDERS})/[\w./-]+?)/?`( \(new\))?")
NAME_IN_FILE = re.compile(r"`(\w+)` in\s+`([\w./]+\.\w+)`(?! \(new\))")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)")


def text_of(document: str) -> str:
    return BLOCK.sub("", (ROOT / document).read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_its_files_are_there(document: str) -> None:
    text = text_of(document)
    new = {path for path, mark in FILE.findall(text) if mark}
    lacking = [path for path, _ in FILE.findall(text) if path not in new and not (ROOT / path).exists()]
    assert not lacking
    assert not [path for path in new if (ROOT / path).exists()], "no longer new"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_its_names_are_in_the_files_it_says(document: str) -> None:
    named = NAME_IN_FILE.findall(text_of(document))
    assert not [
        (name, path) for name, path in named if not re.search(rf"\b{name}\b", (ROOT / path).read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_its_links_lead_somewhere(document: str) -> None:
    for path, anchor in LINK.findall(text_of(document)):
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), path
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings], anchor


def test_the_example_of_a_stage_runs(tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)
    assert example
    source = tmp_path / "deploy/stages/classes.py"
    source.parent.mkdir(parents=True)
    source.write_text(textwrap.dedent(example[1]))
    stage: dict[str, Any] = {}
    exec(compile(source.read_text(), str(source), "exec"), stage)
    stage["ROOT"] = tmp_path
    workspace = made_up.make(tmp_path / "made-up")
    stage["run"](workspace, Options())
    counts = json.loads(workspace.artefact("report/classes.json").read_bytes())
    assert sum(samples for _, samples in counts.values()) == made_up.SAMPLES
