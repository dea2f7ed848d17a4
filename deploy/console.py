"""What the operator sees: one console, whose text is text.

rich is loaded when something asks for `console`, or a line is said to a terminal: it costs more than most commands do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from stgcn.errors import in_encoding, tolerate_narrow_output
from stgcn.errors import printable as printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console: Console

tolerate_narrow_output()


def __getattr__(name: str) -> Any:
    """`console`, made when it is first asked for."""
    if name != "console":
        raise AttributeError(name)
    from rich.console import Console

    class TextConsole(Console):
        """Text is text, in lines and in tables: no control sequence, markup or emoji code in it means anything.

        What the terminal's encoding lacks is in words before it is measured, so that columns stay under each other.
        """

        def render_str(self, text: str, **options: Any) -> Text:
            shown = in_encoding(printable(text), self.encoding)
            return super().render_str(shown, **{**options, "markup": False, "emoji": False})

    made = globals()[name] = TextConsole(highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = max(made.width, 120)  # of a log; rich would cut its tables to 80 without COLUMNS
    return made


def say(text: str, style: str | None = None) -> None:
    """Print one line of the kit's own."""
    if (sys.stdout and sys.stdout.isatty()) or os.environ.get("FORCE_COLOR"):
        from deploy.console import console

        console.print(text, style=style)
    else:
        print(printable(text) + "\n", end="", flush=True)  # whole, whichever threads print; there may be no output


def mark(simulated: bool, health: str | None = None) -> str:
    """What follows each figure of a simulated host, and of a device whose health is not OK."""
    words = [*(["simulated"] if simulated else []), *([f"device health {health}"] if health else [])]
    return f" ({', '.join(words)})" if words else ""


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str | Text]], title: str | None = None, right: Collection[str] = ()
) -> Table:
    """A table, its too long words folded; what stands under the headings in `right` is flush right."""
    from rich.table import Table

    made = Table(title=title, title_justify="left")
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def check_mark(passed: bool) -> Text:
    """✓ or ✗, or a word where the terminal has no such character."""
    from deploy.console import console

    return console.render_str("✓" if passed else "✗", style="green" if passed else "red")


def let_go_of_output() -> None:
    """After a failure: what the output did not take is not tried again at the very end, where it makes a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
