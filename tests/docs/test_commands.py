"""The commands that documents and errors name exist; tests/pipeline/test_readme.py runs the README's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from deploy.inventory import ROOT
from tests.docs.markdown import commands, faults, spans

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "docker/**/*.md", "benchmarks/**/*.md")
    for path in ROOT.glob(pattern)
)

HOLE = "…"
PROGRAMS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("benchmarks", "deploy", "docker/npu/simulator", "stgcn")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_names_commands_that_exist(document: str) -> None:
    path = ROOT / document
    lines = [*(command.line for command in commands(path)), *spans(path.read_text(encoding="utf-8"))]
    assert not [(line, fault) for line in lines for fault in faults(line)]


def texts(tree: ast.Module) -> Iterator[str]:
    """What a program can say, HOLE for what varies."""
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_s_texts_name_commands_that_exist(program: str) -> None:
    named = [
        span
        for text in texts(ast.parse((ROOT / program).read_text()))
        for span in spans(text)
        if HOLE not in span.replace("...", HOLE)
    ]
    assert not [(span, fault) for span in named for fault in faults(span)]


@pytest.mark.parametrize(
    "line",
    [
        "make dmo",
        "make DEVISE=1 demo",
        "fab npu-banch",
        "fab npu-bench --farce",
        ".venv/bin/fab score --keep 3",
        "python -m stgcn.scor",
    ],
)
def test_a_wrong_command_is_told(line: str) -> None:
    assert list(faults(line))


PAIRS = [path for path in DOCUMENTS if (ROOT / path).with_suffix(".zh.md").exists()]


@pytest.mark.parametrize("document", PAIRS)
def test_the_tables_in_both_languages_are_of_the_same_things(document: str) -> None:
    english, chinese = (
        [spans(cell) for cell in re.findall(r"^\| (.*?) \|", path.read_text(encoding="utf-8"), re.M)]
        for path in (ROOT / document, (ROOT / document).with_suffix(".zh.md"))
    )
    assert english == chinese


def test_the_readmes_show_the_same_commands_and_output() -> None:
    english, chinese = (
        [(command.line.partition("#")[0].strip(), command.shown) for command in commands(ROOT / name)]
        for name in ("README.md", "README.zh.md")
    )
    assert english == chinese
