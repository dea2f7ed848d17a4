"""aoe of a simulated host: says that it tuned, writes its result file, and the offline model if asked for one.

A simulated device has nothing to tune, so the model is what atc makes of the same flags for the host's first chip.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import atc
import scenario

JOBS = {"1": "sgat", "2": "opat"}  # subgraph and operator tuning


def tune(arguments: Sequence[str], now: datetime) -> int:
    """The exit status: 0, or 255 for flags that aoe or atc refuse."""
    rest = [word for word in arguments if not word.startswith("--job_type=")]
    job = next((word.partition("=")[2] for word in arguments if word.startswith("--job_type=")), "")
    if job not in JOBS:
        print(f"[Aoe]Aoe process failed: --job_type={job} is none of 1 (subgraph) and 2 (operator).")
        return 255
    start = time.monotonic()
    chips = scenario.load().chips
    if any(word.startswith("--output=") for word in rest):
        status = atc.run([*rest, f"--soc_version={chips[0].soc_version}"], name="AOE")
        if status:
            return status
    report = {f"report_{now:%Y%m%d%H%M%S}": [{"basic": {"tuning_name": "simulated", "tuning_time(s)": 0}}]}
    folder = Path(os.environ.get("ASCEND_WORK_PATH", "."))
    name = f"aoe_result_{JOBS[job]}_{now:%Y%m%d%H%M%S}{now.microsecond // 1000:03}_pid{os.getpid()}.json"
    (folder / name).write_text(json.dumps(report))
    print(f"[Aoe]Aoe process finished,cost time {round(time.monotonic() - start)}s.")
    return 0


def main() -> int:
    try:
        return tune(sys.argv[1:], datetime.now())
    except scenario.ScenarioError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
