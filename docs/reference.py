"""docs/commands.md, made of the tasks themselves: `make docs` and a test hold it.

python -m docs.reference
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from invoke import Argument, Collection

import fabfile
from stgcn.files import atomic_write

DOCUMENT = Path(__file__).with_name("commands.md")
HEAD = """# Commands

Made of the tasks themselves (`python -m docs.reference`). `fab` is `.venv/bin/fab`; `INVENTORY=FILE` before any of them
chooses another inventory than `inventory.yaml`. Several tasks in one command run one after the other, each with its own
options: `fab npu-convert npu-bench --force`. For the stages `make score ARGS=--dry` is the same as `fab score --dry`.

Exit status: 0 passed, 1 error, 2 the gate failed, 3 a host is unfit, 130 after Ctrl-C; each but 0 and 130 with one
sentence that begins `error: ` ([ci.md](ci.md)).
"""


def commands() -> str:
    """The document."""
    tasks = Collection.from_module(importlib.reload(fabfile))  # Invoke hands out each option's help once
    return HEAD + "".join("\n" + "\n".join(_section(tasks, name)) + "\n" for name in sorted(tasks.task_names))


def _section(tasks: Collection, name: str) -> Iterator[str]:
    task = tasks[name]
    arguments = task.get_arguments()
    words = [argument.name.upper() for argument in arguments if argument.positional]
    yield f"## fab {' '.join([name, *words])}"
    yield " ".join((task.__doc__ or "").split())
    if options := [argument for argument in arguments if not argument.positional]:
        yield ""
        yield "| option | meaning |"
        yield "|---|---|"
        yield from (f"| `{_spelt(option)}` | {option.help or ''} |" for option in options)


def _spelt(option: Argument) -> str:
    flag = f"--{option.name.replace('_', '-')}"
    return f"{flag} VALUE" if option.takes_value else flag


def main() -> None:
    with atomic_write(DOCUMENT) as file:
        file.write(commands().encode())


if __name__ == "__main__":
    main()
