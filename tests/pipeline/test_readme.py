"""The README's commands, run in their order in a fresh clone, and what it shows of their output."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.inventory import ROOT
from tests.docs.markdown import Command, commands
from tests.pipeline.conftest import Job

# This very test is part of it.
ONLY_SHOWN = {
    "make test": "make -n test",
    ".venv/bin/fab init": "INVENTORY=new.yaml .venv/bin/fab init --host local "
    "--env-script docker/npu/simulator/set_env.sh",
}
CHEAP = ("make test", "make score", "make report", "make status", ".venv/bin/fab status", ".venv/bin/fab audit")


def as_typed(command: Command) -> str:
    return command.line.partition("#")[0].strip()


@pytest.fixture(scope="module")
def clone(finished: tuple[Job, str], sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this tree as it is now, with this environment, and the sample data and results that the suite has."""
    folder = tmp_path_factory.mktemp("fresh") / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--modified", "--others", "--exclude-standard"]
    for name in filter(None, subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name) if (ROOT / name).exists() else (folder / name).unlink()
    (folder / ".venv").symlink_to((ROOT / ".venv").resolve())
    for lock in (folder / "requirements").iterdir():
        os.utime(lock, (0, 0))  # older than the environment that was made of it, as after a first `make`
    shutil.copytree(finished[0].workspace, folder / "work/demo", copy_function=shutil.copy2)
    shutil.copytree(finished[0].folder / "npu-host", folder / "work/demo/npu-host", copy_function=shutil.copy2)
    shutil.copytree(sample, folder / "work/sample")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, id=as_typed(command), marks=[] if as_typed(command) in CHEAP else pytest.mark.full)
        for command in commands(ROOT / "README.md")
    ],
)
def test_a_command_of_the_readme_works(clone: Path, command: Command) -> None:
    line = as_typed(command)
    done = subprocess.run(
        ["bash", "-c", ONLY_SHOWN.get(line, line)],
        cwd=clone,
        env={**os.environ, "INVENTORY": "inventory.demo.yaml"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout
    if command.shown is not None:
        shown, printed = masked(command.shown), masked(done.stdout.replace(f"{clone}/", ""))
        assert re.fullmatch(re.escape(shown).replace("…", ".*"), printed, re.S), f"{shown}\nis not\n{printed}"


def masked(output: str) -> str:
    """Without figures, and without the widths of the columns that hold them."""
    return re.sub(r"\d+(\.\d+)?", "0", re.sub(r"([ ━─])\1+", r"\1", output)).strip()


@pytest.mark.parametrize("command", ["make dmo", "make gpu-stage ARGS=--dri", ".venv/bin/fab npu-convert npu-banch"])
@pytest.mark.full
def test_a_wrong_command_would_be_told(clone: Path, command: str) -> None:
    with pytest.raises(AssertionError):
        test_a_command_of_the_readme_works(clone, Command(command))
