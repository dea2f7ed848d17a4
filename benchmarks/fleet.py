"""What Ray and the engine on it cost a task: tasks that do nothing, one by one, on a cluster of this machine alone."""

from __future__ import annotations

from benchmarks.harness import LeftOutError, Scratch, Spread

TASKS = 300
REPEATS = 3


def compare(_place: Scratch) -> dict[str, Spread]:
    """The milliseconds from one task to the next, and what of them the control's own process works.

    Raises:
        LeftOutError: Ray is not installed.
    """
    try:
        from benchmarks import overhead
    except ImportError as error:
        raise LeftOutError(f"Ray is not installed ({error}); run `make ray`") from None
    found = [overhead.measure(TASKS) for _ in range(REPEATS)]
    return {
        "ray_task": Spread.of([1000 * each.alone for each in found]),
        "ray_task_control": Spread.of([1000 * each.control for each in found]),
    }
