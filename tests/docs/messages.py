"""Every error and warning that the kit can print, read from its sources: a template each, `…` for what varies."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.inventory import ROOT

HOLE = "…"
# Sentences that reach an error or a warning through a variable: (file, function or table).
THROUGH_A_VARIABLE = (
    ("deploy/execution/fleet/engine.py", "REASONS"),
    ("deploy/inventory.py", "_sentence"),
    ("deploy/inventory.py", "_unknown_key"),
    ("deploy/npu/ais_bench.py", "_FAILURES"),
    ("deploy/npu/atc.py", "_ADVICE"),
    ("deploy/npu/versions.py", "mismatch"),
    ("deploy/stages/throughput.py", "_became_busy"),
    ("deploy/stages/throughput.py", "_was_busy"),
)
# Where any exception's text is shown: a host's own operations, and the inventory's validators.
TEXTS_SHOWN = ("deploy/hosts/remote/", "deploy/inventory.py")
# What fab itself says of a command line; tests/robust/test_first_contact.py sees it say so.
OF_FAB = (
    "Can't find any collection named 'fabfile'!",
    "No idea what '…' is!",
    "'…' did not receive required positional arguments: …",
    "Flag … needed value and was not given one!",
)
OTHER_KINDS = {"TimeoutError", "ValueError"}


@dataclass(frozen=True)
class Message:
    place: str  # file:line
    template: str

    @property
    def passed_through(self) -> bool:
        """Whether it has no words of its own."""
        return not re.search(r"[A-Za-z]", self.template)


def messages() -> list[Message]:
    """In the order of the files."""
    programs = sorted(path for folder in ("deploy", "stgcn") for path in (ROOT / folder).rglob("*.py"))
    trees = {_name(path): ast.parse(path.read_text()) for path in [*programs, ROOT / "fabfile.py"]}
    kinds = _kinds(trees.values())
    found = [
        Message(f"{name}:{line}", template)
        for name, tree in trees.items()
        for line, template in _of_program(tree, kinds | (OTHER_KINDS if name.startswith(TEXTS_SHOWN) else set()))
    ]
    for name, definition in THROUGH_A_VARIABLE:
        found += [Message(f"{name}:{line}", template) for line, template in _of_definition(trees[name], definition)]
    for path in (*sorted((ROOT / "docker").rglob("*")), *sorted((ROOT / "requirements").glob("*.sh"))):
        if path.is_file() and path.read_bytes()[:2] == b"#!":
            found += [Message(f"{_name(path)}:{line}", template) for line, template in _of_script(path.read_text())]
    return found + [Message("fab", text) for text in OF_FAB]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _kinds(trees: Iterable[ast.Module]) -> set[str]:
    """The names of InputError and of every class below it."""
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    kinds = {"InputError"}
    while more := {each.name for each in classes if kinds & {ast.unparse(base) for base in each.bases}} - kinds:
        kinds |= more
    return kinds


def _of_program(tree: ast.AST, kinds: set[str]) -> Iterator[tuple[int, str]]:
    """(line, template) of each error that is made and each warning that is said."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func).rpartition(".")[2]
            styles = [ast.unparse(value) for value in (*node.args[1:], *(keyword.value for keyword in node.keywords))]
            if name in kinds or (name == "say" and "'yellow'" in styles):
                yield node.lineno, template(node.args[0])
        elif isinstance(node, ast.Assign) and isinstance(node.value, (ast.Constant, ast.JoinedStr)):
            yield from _of_embedded(node)


def _of_embedded(node: ast.Assign) -> Iterator[tuple[int, str]]:
    """A program in a string, for a host without the kit: Python's replies `{"error": ...}`, bash's echoes."""
    text = template(node.value, hole="None")
    for said in re.findall(r'echo "([^"]+)" >&2', text):
        yield node.lineno, re.sub(r"\$\w+", HOLE, said)
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    for reply in ast.walk(tree):
        if isinstance(reply, ast.Dict) and [getattr(key, "value", None) for key in reply.keys] == ["error"]:
            yield node.lineno + reply.lineno - 1, template(reply.values[0])


def _of_definition(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    """The sentences of a function or a table of a module."""
    for part in ast.walk(next(node for node in tree.body if _defines(node) == name)):
        if isinstance(part, ast.Return) and part.value and template(part.value) != HOLE:
            yield part.lineno, template(part.value)
        elif isinstance(part, ast.Dict):  # code: advice
            for key, value in zip(part.keys, part.values, strict=True):
                yield value.lineno, f"{HOLE} failed with {getattr(key, 'value', HOLE)} ({HOLE}): {template(value)}"
        elif isinstance(part, ast.Tuple) and len(part.elts) == 2:  # (pattern, sentence)
            sentence = template(part.elts[1])
            if " " in sentence:
                yield part.lineno, re.sub(r"(\{\d\})+", HOLE, sentence)


def _defines(node: ast.stmt) -> str | None:
    match node:
        case (
            ast.FunctionDef(name=name)
            | ast.Assign(targets=[ast.Name(id=name)])
            | ast.AnnAssign(target=ast.Name(id=name))
        ):
            return name
    return None


def _of_script(text: str) -> Iterator[tuple[int, str]]:
    """What a shell script says with `fail "..."` and `echo "error: ..."`."""
    for number, line in enumerate(text.splitlines(), 1):
        for quoted in re.findall(r'\b(?:fail "|echo "error: )((?:\$\(.*\)|[^"])*)"', line):
            yield number, re.sub(r"\$\(.*?\)|\$\{[^}]*\}|\$\w+", HOLE, quoted)


def template(node: ast.expr, hole: str = HOLE) -> str:
    """The text of an expression, `hole` for each part that varies."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(value.value if isinstance(value, ast.Constant) else hole for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left, hole) + template(right, hole)
        case ast.BinOp(left=left, op=ast.Mod()):
            return re.sub(r"%[-0-9.]*[a-z]", hole, template(left, hole))
        case ast.Call(func=ast.Attribute(value=left, attr="format")):
            return re.sub(r"\{[^}]*\}", hole, template(left, hole))
    return hole
