"""What a Markdown file of the kit says in code: blocks, spans, and the kit's commands in them.

Blocks: `sh` holds commands, `console` a command behind `$ ` and what it prints, `text` and others neither.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from invoke import Collection

import fabfile
from deploy.inventory import ROOT

BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
SPAN = re.compile(r"(`+)(.+?)\1(?!`)")


@dataclass(frozen=True)
class Command:
    line: str
    shown: str | None = None  # the output that the file shows of it


def commands(path: Path) -> list[Command]:
    """Those of the blocks, in order."""
    found = []
    for _, language, text in BLOCK.findall(path.read_text(encoding="utf-8")):
        lines = textwrap.dedent(text).splitlines()
        if language == "sh":
            found += [Command(line) for line in lines if line.strip() and not line.startswith("#")]
        elif language == "console":
            found.append(Command(lines[0].removeprefix("$ "), "\n".join(lines[1:])))
    return found


def spans(text: str) -> list[str]:
    """Inline code."""
    return [span.strip() for _, span in SPAN.findall(BLOCK.sub("", text))]


def faults(line: str) -> Iterator[str]:
    """What a command line names that the kit does not have; a program that is not the kit's has none."""
    for part in re.split(r"&&|;", re.sub(r"[\[\]]|#.*", "", line)):
        try:
            words = shlex.split(part)
        except ValueError:  # no command line
            continue
        program = Path(words[0]).name if words else ""
        if program == "make":
            yield from _faults_of_make(words[1:])
        elif program == "fab":
            yield from _faults_of_fab(words[1:])
        elif program in ("python", "python3") and words[1:2] == ["-m"]:
            ours = (ROOT / words[2].partition(".")[0]).is_dir()
            if ours and not find_spec(words[2]):
                yield f"no module {words[2]}"


def _faults_of_make(words: list[str]) -> Iterator[str]:
    for word in words:
        name, assigned, _ = word.partition("=")
        if assigned and not re.search(rf"\b{name}\b", _settings()):
            yield f"make knows no {name}"
        elif not assigned and not word.startswith("-"):
            target = re.escape(word.replace(".venv/", "$(VENV)/"))
            if not re.search(rf"^{target}:", _makefile(), re.M):
                yield f"make has no {word}"


def _faults_of_fab(words: list[str]) -> Iterator[str]:
    tasks, task = Collection.from_module(fabfile), ""
    for word in words:
        if word.startswith("--") and task:
            if word[2:] not in {name for argument in tasks[task].get_arguments() for name in argument.names}:
                yield f"fab {task} has no {word}"
        elif word in tasks.task_names:
            task = word
        elif not task and not word.startswith("-"):
            yield f"fab has no {word}"


@cache
def _makefile() -> str:
    return (ROOT / "Makefile").read_text()


@cache
def _settings() -> str:
    return _makefile() + (ROOT / "deploy/containers/images.py").read_text()
