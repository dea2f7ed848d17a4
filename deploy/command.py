"""How a command ends: its exit status and its sentence, and what it found, for those who asked.

A user's mistake is a sentence and a status, never a traceback. With `json` standard output holds one JSON document and
nothing else: whatever this process or its children print there goes to standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace

from invoke import Exit

from deploy import interrupt
from deploy.console import let_go_of_output, say
from deploy.errors import ERROR, INTERRUPTED, KitError, status_of
from deploy.outcome import Ending, Outcome, document, junit, step_summary
from stgcn.errors import InputError, sentence
from stgcn.files import FULL, write_whole

SUMMARY = "GITHUB_STEP_SUMMARY"  # the variable that names the file which GitHub shows


def carry_out(
    name: str,
    body: Callable[[], Outcome | None],
    *,
    json: bool = False,
    quiet: bool = False,
    junit_file: str = "",
    summarised: bool = False,
) -> None:
    """Run the task `name`.

    `json` prints the document; `quiet` leaves standard output to another task's; `summarised` appends to GitHub's step
    summary, where there is one.

    Raises:
        Exit: it failed; with the sentence and the status.
    """
    interrupt.install()
    with _documents_alone(json or quiet) as write:
        try:
            ending = _ending(name, body)
        except Exception as error:
            if json:
                write(document(Ending(name, ERROR, f"a fault of the kit's own: {sentence(repr(error))}")))
            raise
        if junit_file:
            ending = _also(ending, lambda: write_whole(junit_file, junit(ending)))
        if summarised and os.environ.get(SUMMARY):
            ending = _also(ending, lambda: _append(os.environ[SUMMARY], step_summary(ending)))
        if json:
            ending = _also(ending, lambda: write(document(ending)))
        if ending.status == INTERRUPTED:
            say(str(ending.error), "yellow")
            raise Exit(code=INTERRUPTED)
    if ending.status:
        raise Exit(f"error: {ending.error}", code=ending.status)


def _also(ending: Ending, publish: Callable[[], None]) -> Ending:
    """The ending, where it was told; else one with that error too."""
    try:
        publish()
    except InputError as error:
        fault = str(error)
    except OSError as error:
        fault = _of_system(error)
    else:
        return ending
    return replace(ending, error="; ".join(filter(None, (ending.error, fault))), status=ending.status or ERROR)


def _append(path: str, text: str) -> None:
    with open(path, "a", encoding="utf-8") as stream:  # noqa: PTH123 (as the environment spells it)
        stream.write(text)


def _ending(name: str, body: Callable[[], Outcome | None]) -> Ending:
    try:
        return Ending(name, outcome=body())
    except InputError as error:
        return Ending(name, status_of(error), str(error), error.outcome if isinstance(error, KitError) else None)
    except OSError as error:
        let_go_of_output()
        return Ending(name, ERROR, _of_system(error))
    except MemoryError:
        return Ending(name, ERROR, "out of memory; close other programs, or run this on a machine with more")
    except KeyboardInterrupt:
        return Ending(name, INTERRUPTED, "interrupted; run the command again to resume")


def _of_system(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    way_out = "; make room and run the command again" if error.errno in FULL else ""
    return sentence(f"{error.filename or 'input or output'}: {reason}{way_out}")


@contextmanager
def _documents_alone(wanted: bool) -> Iterator[Callable[[str], None]]:
    """Yield what writes to standard output. Where documents are `wanted`, all else goes to standard error inside."""
    if not wanted:
        yield print
        return
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)  # of children

    def write(text: str) -> None:
        with os.fdopen(os.dup(real), "w", encoding="ascii") as stream:
            stream.write(text + "\n")

    try:
        with redirect_stdout(sys.stderr):
            yield write
    finally:
        os.dup2(real, 1)
        os.close(real)
