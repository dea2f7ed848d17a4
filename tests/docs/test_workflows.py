"""GitHub's workflows, the kit's own and the example: pinned, commands that exist, in shell that passes shellcheck."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.inventory import ROOT
from tests.docs.markdown import faults

WORKFLOWS = sorted([*ROOT.glob(".github/workflows/*.yml"), *ROOT.glob("examples/ci/*.yml")])
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
EXPRESSION = re.compile(r"\$\{\{.*?\}\}")


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        assert job["timeout-minutes"]
        yield from job["steps"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_and_commands_exist(path: Path, tmp_path: Path) -> None:
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", step["uses"])
            continue
        assert not EXPRESSION.search(step["run"])  # what others can set reaches a shell through `env` alone
        lines = re.findall(r"(?:^|(?<=\s)|(?<=\())((?:make|(?:\.venv/bin/)?fab) .*?)(?=$|[)\n|;])", step["run"], re.M)
        assert not [(line, fault) for line in lines if "$" not in line for fault in faults(line)]
        script = tmp_path / "step.sh"
        given = "".join(f"export {name}=x\n" for name in step.get("env", {}))
        script.write_text(f"#!/bin/bash -e\n{given}{step['run']}")
        subprocess.run([SHELLCHECK, script], check=True)


def test_an_expression_in_a_script_would_be_found() -> None:
    assert EXPRESSION.search("echo ${{ github.head_ref }}")
