"""`fab init` of a host over SSH: its key is pinned after a yes, it is looked at, and what is written works."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.inventory import ROOT, load
from tests.sshd import Sshd
from tests.system.conftest import SIMULATOR

FAB = Path(sys.executable).with_name("fab")
HOST = "npu-of-config"  # a name that ~/.ssh/config alone knows


class Operator:
    """Who sits at a terminal, their ~/.ssh/config names the host, whose home is `far`."""

    def __init__(self, folder: Path, sshd: Sshd) -> None:
        self.path, self.known_hosts, self.far = folder / "inventory.yaml", folder / "pinned", folder / "far"
        (folder / ".ssh").mkdir()
        (folder / ".ssh/config").write_text(
            f"Host {HOST}\n HostName 127.0.0.1\n Port {sshd.section['port']}\n"
            f" IdentityFile {sshd.section['key']}\n UserKnownHostsFile {self.known_hosts}\n"
        )
        self.environment = {**os.environ, "HOME": str(folder), "INVENTORY": str(self.path), "COLUMNS": "200"}

    def fab(self, *words: str, answers: str | None = None) -> tuple[int, str]:
        """Exit status and output; `answers` are typed at a terminal, without them there is none."""
        ours, theirs = pty.openpty() if answers is not None else (None, subprocess.DEVNULL)
        try:
            if ours is not None:
                os.write(ours, (answers or "").encode())
            done = subprocess.run(
                [FAB, *words], cwd=ROOT, env=self.environment, stdin=theirs,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
            )  # fmt: skip
        finally:
            for each in (ours, theirs):
                if each is not None and each >= 0:
                    os.close(each)
        assert "Traceback" not in done.stdout
        return done.returncode, done.stdout


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    (tmp_path / "far").mkdir()
    with Sshd(tmp_path / "sshd", {"HOME": str(tmp_path / "far")}) as sshd:
        yield Operator(tmp_path, sshd)


def test_after_a_yes_it_is_looked_at_and_doctor_finds_it_fit(operator: Operator) -> None:
    asked = ["init", "--env-script", SIMULATOR]
    status, output = operator.fab(*asked, answers=f"{HOST}\n\nyes\nall\n\n")
    assert status == 0, output
    assert "310P3" in output
    assert len(operator.known_hosts.read_text().splitlines()) == 1
    (npu,) = load(operator.path).npu
    assert (npu.connection, npu.host, npu.user, npu.port, npu.devices) == ("ssh", HOST, None, None, "all")
    assert npu.tools.env_scripts == [SIMULATOR]
    _, output = operator.fab("doctor", "--json")
    told = json.JSONDecoder().raw_decode(output[output.index('{\n "') :])[0]
    checks = {check["name"]: check["passed"] for check in told["checks"] if check["subject"] == npu.name}
    assert {"reachable", "devices", "ais_bench", "atc"} <= checks.keys()
    assert all(passed for name, passed in checks.items() if name != "disk")


def test_without_a_yes_no_key_is_pinned(operator: Operator) -> None:
    status, output = operator.fab("init", "--host", HOST, "--env-script", SIMULATOR, answers="no\n")
    assert (status, operator.path.exists(), operator.known_hosts.exists()) == (1, False, False), output
    assert HOST in output.splitlines()[-1]


def test_where_nobody_can_say_yes_it_is_a_guess_and_trust_comes_next(operator: Operator) -> None:
    status, output = operator.fab("init", "--host", HOST, "--env-script", SIMULATOR)
    assert (status, operator.known_hosts.exists()) == (0, False), output
    assert "fab trust" in output.splitlines()[-1]
    assert load(operator.path).npu[0].host == HOST
