"""`--profiler 1`: the same command again, under msprof."""

import argparse
import logging
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

logger = logging.getLogger(__name__)
SWITCHES = {"model-execution": "on", "sys-hardware-mem": "on", "sys-cpu-profiling": "off", "sys-profiling": "off",
            "sys-pid-profiling": "off", "dvpp-profiling": "on", "runtime-api": "on", "task-time": "on",
            "aicpu": "on"}  # fmt: skip


def find() -> str | None:
    """Where msprof is; without it the tool goes on and leaves no table."""
    found = shutil.which("msprof")
    if found is None:
        logger.info("find no msprof continue use acl.json mode, result won't be parsed as csv")
    return found


def run(arguments: argparse.Namespace, msprof: str, era: str) -> int:
    """The exit status of the run; since 2024 its tables are renamed after the model."""
    again = shlex.join([sys.executable, "-m", "ais_bench", *sys.argv[1:], "--profiler=0", "--warmup_count=0"])
    output = Path(arguments.output, "profiler")
    command = [msprof, f"--output={output}", f"--application={again}", *(f"--{k}={v}" for k, v in SWITCHES.items())]
    logger.info(f"msprof cmd:{shlex.join(command)} begin run")
    status = subprocess.run(command, check=False).returncode
    if era >= "2024":
        for table in output.glob("PROF_*/**/*.csv"):
            suffix = f"{Path(arguments.model).name.split('.')[0]}_{table.relative_to(output).parts[0][-16:]}"
            table.rename(table.with_name(f"{table.stem}_{suffix}.csv"))
    logger.info(f"msprof cmd:{shlex.join(command)} end run ret:{status}")
    return status
