"""`make bench`: every comparison in one run.

    python -m benchmarks [NAME ...]

writes benchmarks/results.json and the table of docs/benchmark.md, unless one fails; with names it makes these
comparisons alone, and shows them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from benchmarks import demo, figures, fleet, graphs, preprocess, push, score, whole_job
from benchmarks.harness import LeftOutError, Scratch, Spread, has_sha, machine, scratch
from deploy import interrupt
from deploy.console import console, say
from deploy.errors import KitError

COMPARISONS: dict[str, Callable[[Scratch], dict[str, Spread]]] = {
    "preprocess": preprocess.compare,
    "push": push.compare,
    "whole_job": whole_job.compare,
    "score": score.compare,
    "graphs": graphs.compare,
    "demo": demo.compare,
    "fleet": fleet.compare,
}


def main() -> None:
    """Measure the kit against the guide's way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(COMPARISONS)} (default: all)")
    names = parser.parse_args().names
    if unknown := [name for name in names if name not in COMPARISONS]:
        parser.error(f"there is no comparison {unknown[0]!r}; choose of {', '.join(COMPARISONS)}")
    spreads: dict[str, Spread] = {}
    failed = False
    with scratch() as place:
        where = machine(place)
        for name in names or COMPARISONS:
            say(f"{name} ...")
            try:
                spreads |= COMPARISONS[name](place)
            except LeftOutError as error:
                say(f"{name} is left out: {error}", "yellow")
            except KitError as error:  # what the others take half an hour for is shown all the same
                say(f"error: {name}: {error}", "red")
                failed = True
    if not names and not failed:
        figures.write(spreads, where, has_sha())
    console.print(figures.terminal(spreads, where))
    sys.exit(failed)


if __name__ == "__main__":
    interrupt.install()
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except KitError as error:
        say(f"error: {error}", "red")
        sys.exit(1)
