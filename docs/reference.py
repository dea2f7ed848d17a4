"""docs/commands.md, made of the tasks themselves: `make docs` and a test hold it.

python -m docs.reference
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fabfile
from deploy.tasks import Task
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
    tasks = [fabfile.TASKS[name] for name in sorted(fabfile.TASKS)]
    return HEAD + "".join("\n" + "\n".join(_section(task)) + "\n" for task in tasks)


def _section(task: Task) -> Iterator[str]:
    yield f"## fab {task.usage}"
    yield task.summary
    if task.options:
        yield ""
        yield "| option | meaning |"
        yield "|---|---|"
        yield from (f"| `{option.usage}` | {option.help} |" for option in task.options.values())


def main() -> None:
    with atomic_write(DOCUMENT) as file:
        file.write(commands().encode())


if __name__ == "__main__":
    main()
