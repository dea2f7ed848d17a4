"""`fab`: the tasks of fabfile.py, with help.

    python deploy/program.py TASK [--OPTION] [TASK [--OPTION]]...

is what .venv/bin/fab runs. Fabric's program reads the same fabfile.py; loading it costs more than most commands do.
"""

# ruff: noqa: E402
from __future__ import annotations

import os
import signal
import sys


def _end(*_: object) -> None:
    """Answer an interrupt until a task begins (deploy/interrupt.py does from then on)."""
    os.write(2, b"interrupted before anything had begun; run the command again\n")
    os._exit(130)


for _number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(_number, _end)

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    import site

    site.main()  # `fab` starts Python without (-S): an interrupt while that loads would be a traceback

import atexit
import gc
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

gc.set_threshold(50_000)  # of objects: collecting at every 700 is a tenth of what loading costs
atexit.register(gc.freeze)  # what lives until the end is not looked through for what might be freed before it
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else the metadata of every package is read

from deploy.errors import KitError
from deploy.tasks import Task, find, read
from stgcn.errors import sentence

USAGE = "Usage: fab TASK [--OPTION...] [TASK [--OPTION...]]...\n"
OF_ALL = (
    ("-h, --help [TASK]", "show this, or what a task does and takes"),
    ("-l, --list", "show this"),
)


def run(tasks: Mapping[str, Task], argv: Sequence[str]) -> None:
    """Run the tasks that a command line names, or show what it asks to see.

    Raises:
        KitError: it names none.
        SystemExit: one failed.
    """
    wanted = _help_wanted(argv, tasks)
    if wanted is None:
        _print(_overview(tasks))
    elif wanted:
        _print(_help(find(wanted, tasks)))
    else:
        for call in read(argv, tasks):
            call.task.body(**call.values)


def _help_wanted(argv: Sequence[str], tasks: Mapping[str, Task]) -> str | None:
    """The task whose help is asked for, None for that of all, "" for no help."""
    for number, word in enumerate(argv):
        flag, _, value = word.partition("=")
        if flag in ("-h", "--help"):
            before = [each for each in argv[:number] if each in tasks]
            return value or next(iter([*before[-1:], *argv[number + 1 : number + 2]]), None)
    return "" if argv and argv[0] not in ("-l", "--list") else None


def _overview(tasks: Mapping[str, Task]) -> Iterator[str]:
    yield USAGE
    yield from _columns(OF_ALL)
    yield "\nTasks (INVENTORY=FILE before `fab` chooses another inventory than inventory.yaml):\n"
    yield from _columns((name, tasks[name].summary) for name in sorted(tasks))


def _help(task: Task) -> Iterator[str]:
    options = task.options.values()
    yield f"Usage: fab {task.usage}{' [--OPTION...]' if options else ''}\n"
    yield from textwrap.wrap(task.summary, shutil.get_terminal_size().columns)
    if options:
        yield ""
        yield from _columns((option.usage, option.help) for option in options)


def _columns(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    found = list(rows)
    left = max(len(name) for name, _ in found) + 5
    width = max(shutil.get_terminal_size().columns - left, 40)
    for name, text in found:
        lines = textwrap.wrap(text, width) or [""]
        yield f"  {name:{left - 2}}{lines[0]}".rstrip()
        yield from (" " * left + line for line in lines[1:])


def _print(lines: Iterable[str]) -> None:
    print("\n".join(lines), flush=True)


def main() -> None:
    """Run this process's command line; a status that is not 0 comes with a sentence on stderr."""
    import fabfile

    try:
        run(fabfile.TASKS, sys.argv[1:])
    except KitError as error:
        sys.exit(sentence(f"error: {error}"))
    except OSError as error:  # of the output
        from deploy.console import let_go_of_output

        let_go_of_output()
        sys.exit(sentence(f"error: the output: {error.strerror}"))


if __name__ == "__main__":
    main()
