"""A user's mistake, and how a program reports it."""

from __future__ import annotations

import io
import sys
from typing import Callable, List, Optional


class InputError(Exception):
    """A user's mistake: its text is one sentence that names the thing, its value and the way out."""


def run_main(main: Callable[[Optional[List[str]]], None]) -> None:
    """Run a program's `main(argv)`; a user's mistake or a refused file becomes one line on stderr and exit status 1."""
    tolerate_narrow_output()
    try:
        main(None)
    except InputError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or 'input or output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)


def tolerate_narrow_output() -> None:
    """From now on what the output's encoding lacks, as ✓ in Latin-1, is printed as `?` and ends no program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
