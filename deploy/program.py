"""`fab`: Invoke's tasks without what Fabric's own program adds, options for SSH that the kit does not honour.

    python deploy/program.py TASK [--OPTION] [TASK [--OPTION]]...

is what .venv/bin/fab runs. Fabric's program reads the same fabfile.py; loading it costs more than most commands do.
"""

# ruff: noqa: E402
from __future__ import annotations

import os
import signal
import sys
import types


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
    # Invoke has it for its users' tests alone, and it brings asyncio: a quarter of what loading Invoke costs.
    sys.modules["unittest.mock"] = types.SimpleNamespace(Mock=None)  # type: ignore[assignment]

import atexit
import gc
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator

gc.set_threshold(50_000)  # of objects: collecting at every 700 is a tenth of what loading costs
atexit.register(gc.freeze)  # what lives until the end is not looked through for what might be freed before it
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else the metadata of every package is read

from invoke import Collection, Executor, Exit, ParseError, Parser, Task
from invoke.parser import ParserContext

if __name__ == "__main__":
    del sys.modules["unittest.mock"]

from deploy.errors import did_you_mean
from stgcn.errors import sentence

USAGE = "Usage: fab TASK [--OPTION...] [TASK [--OPTION...]]...\n"
OF_ALL = (
    ("-h, --help [TASK]", "show this, or what a task does and takes"),
    ("-l, --list", "show this"),
)
_UNKNOWN = re.compile(r"No idea what (['\"])(.*)\1 is!", re.DOTALL)
_VALUELESS = re.compile(r"Flag <Argument: ([\w-]+)")


def run(tasks: Collection, argv: list[str]) -> None:
    """Run the tasks that a command line names, or show what it asks to see.

    Raises:
        Exit: it names none, or one failed.
    """
    parser = Parser(tasks.to_contexts(), ParserContext())
    wanted = _help_wanted(argv, tasks)
    if wanted is None:
        _print(_overview(tasks))
    elif wanted in tasks.task_names:
        _print(_help(tasks[wanted], parser.contexts[wanted]))
    elif wanted:
        raise Exit(sentence(f"error: {_no_task(wanted, tasks)}"), code=1)
    else:
        try:
            result = parser.parse_argv(argv)
        except ParseError as error:
            raise Exit(sentence(f"error: {_reason(error, tasks)}"), code=1) from None
        Executor(tasks, core=result).execute(*result[1:])


def _help_wanted(argv: list[str], tasks: Collection) -> str | None:
    """The task whose help is asked for, None for that of all, "" for no help. Invoke's parser would first want a task's
    words that must follow."""
    for number, word in enumerate(argv):
        flag, _, value = word.partition("=")
        if flag in ("-h", "--help"):
            before = [each for each in argv[:number] if each in tasks.task_names]
            return value or next(iter([*before[-1:], *argv[number + 1 : number + 2]]), None)
    return "" if argv and argv[0] not in ("-l", "--list") else None


def _reason(error: ParseError, tasks: Collection) -> str:
    """What is wrong with a command line, and the way out."""
    context, text = error.context, str(error)
    task = context.name if context else None
    unknown, valueless = _UNKNOWN.fullmatch(text), _VALUELESS.match(text)
    if unknown and not unknown[2].startswith("-"):
        return _no_task(unknown[2], tasks)
    if unknown:
        command, flags = (f"fab {task}", context.flags) if task else ("fab", ("--help", "--list"))
        return f"{command} has no option {unknown[2]}{did_you_mean(unknown[2], flags)} `{command} --help` lists them"
    if valueless:
        return f"fab {task}: --{valueless[1]} needs a value; see `fab {task} --help`"
    if context and (missing := [argument.name.upper() for argument in context.missing_positional_args]):
        return f"fab {task}: {' and '.join(missing)} must follow; see `fab {task} --help`"
    return f"{text}; see `fab --help`"


def _no_task(name: str, tasks: Collection) -> str:
    return f"{name}: no such task{did_you_mean(name.replace('_', '-'), tasks.task_names)} `fab --list` names them all"


def _overview(tasks: Collection) -> Iterator[str]:
    yield USAGE
    yield from _columns(OF_ALL)
    yield "\nTasks (INVENTORY=FILE before `fab` chooses another inventory than inventory.yaml):\n"
    yield from _columns((name, _summary(task)) for name, task in tasks.tasks.items())


def _help(task: Task, context: ParserContext) -> Iterator[str]:
    words = [task.name.replace("_", "-"), *(argument.name.upper() for argument in context.positional_args)]
    options = context.help_tuples()
    yield f"Usage: fab {' '.join(words)}{' [--OPTION...]' if options else ''}\n"
    yield from textwrap.wrap(_summary(task), shutil.get_terminal_size().columns)
    if options:
        yield ""
        yield from _columns(options)


def _summary(task: Task) -> str:
    return " ".join((task.__doc__ or "").split())


def _columns(rows: Iterable[tuple[str, str | None]]) -> Iterator[str]:
    found = list(rows)
    left = max(len(name) for name, _ in found) + 5
    width = max(shutil.get_terminal_size().columns - left, 40)
    for name, text in found:
        lines = textwrap.wrap(text or "", width) or [""]
        yield f"  {name:{left - 2}}{lines[0]}".rstrip()
        yield from (" " * left + line for line in lines[1:])


def _print(lines: Iterable[str]) -> None:
    print("\n".join(lines), flush=True)


def main() -> None:
    """Run this process's command line; a status that is not 0 comes with a sentence on stderr."""
    import fabfile

    try:
        run(Collection.from_module(fabfile), sys.argv[1:])
    except Exit as end:
        if end.message:
            print(end.message, file=sys.stderr)
        sys.exit(end.code)
    except OSError as error:  # of the output
        from deploy.console import let_go_of_output

        let_go_of_output()
        sys.exit(sentence(f"error: the output: {error.strerror}"))


if __name__ == "__main__":
    main()
