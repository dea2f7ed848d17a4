"""Operations on this machine are processes of their own, forked from one that is ready."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.hosts import forks
from deploy.hosts.local import LocalHost
from deploy.inventory import ROOT

SHOWS_THE_PARENT = """
import os, pathlib, sys
from deploy.hosts import forks
from deploy.hosts.local import LocalHost
LocalHost("here", pathlib.Path("/")).call("listing", {"folder": sys.argv[1]})
print(forks._parents[0]._process.pid)
"""


def test_it_has_the_environment_and_the_folder_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = LocalHost("here", tmp_path)
    for value in ("one", "two"):
        folder = tmp_path / value
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("KIT_TEST", value)
        assert host.run(["sh", "-c", 'pwd; printf %s "$KIT_TEST"']).output == f"{folder}\n{value}"


def test_it_is_a_process_in_a_session_of_its_own() -> None:
    fork = forks.fork("hold")
    with pytest.raises(subprocess.TimeoutExpired):
        fork.wait(0.1)
    assert os.getsid(fork._pid) == fork._pid
    assert Path(f"/proc/{fork._pid}/comm").read_text() == "hold\n"
    fork.kill()
    fork.wait(5)


def test_without_the_parent_it_is_started_as_on_other_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = forks.Parent()
    monkeypatch.setattr(forks, "_parents", [parent])
    host = LocalHost("here", tmp_path)
    assert host.call("listing", {"folder": str(tmp_path)}) == {}
    os.kill(parent._process.pid, signal.SIGKILL)
    for _ in range(2):
        assert host.call("listing", {"folder": str(tmp_path)}) == {}
    parent.close()


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), 9)"])
def test_the_parent_ends_with_the_command(tmp_path: Path, end: str) -> None:
    argv = [sys.executable, "-uc", SHOWS_THE_PARENT + end, str(tmp_path)]
    parent = Path("/proc", subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout.strip())
    deadline = time.monotonic() + 5
    while parent.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert parent.name.isdigit()
    assert not parent.exists()
