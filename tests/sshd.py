"""An sshd of the tests' own on the loopback, which lets this user in by key."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

START_TIMEOUT_S = 120.0
PRIVILEGE_SEPARATION = Path("/run/sshd")  # sshd insists on its empty folder


class Sshd:
    """It keeps its files in `folder`, and gives its logins `environment`. `section` is what an inventory says of such a
    host, `known_hosts` the file with its key."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        settings = {
            "Port": self._port,
            "ListenAddress": "127.0.0.1",
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "user.pub",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
        }
        # A home of their own: a login that is killed in the user's start-up files may leave a lock to the next.
        variables = {"HOME": str(folder), **(environment or {})}
        settings["SetEnv"] = " ".join(f'{name}="{value}"' for name, value in variables.items())
        self._config = folder / "sshd_config"
        self._config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(f"[127.0.0.1]:{self._port} {(folder / 'host.pub').read_text()}")
        self.section: dict[str, Any] = {
            "connection": "ssh",
            "host": "127.0.0.1",
            "port": self._port,
            "key": str(folder / "user"),
        }

    def __enter__(self) -> Sshd:
        if not PRIVILEGE_SEPARATION.is_dir():
            if os.getuid() != 0:
                pytest.skip(f"sshd wants {PRIVILEGE_SEPARATION}, and to make it takes root")
            PRIVILEGE_SEPARATION.mkdir()
        program = shutil.which("sshd") or "/usr/sbin/sshd"
        self._daemon = subprocess.Popen([program, "-D", "-f", self._config], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return self
            except OSError:
                assert time.monotonic() < deadline, "sshd did not come up"
                time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """The daemon and every connection that it serves; what logins started lives on."""
        for pid in [self._daemon.pid, *_below(self._daemon.pid)]:
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
                    os.kill(pid, signal.SIGKILL)
        self._daemon.wait()

    def restart(self) -> None:
        self.kill()
        self.__enter__()


def _below(pid: int) -> Iterator[int]:
    """The processes that a process started, and those that they did."""
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield int(child)
            yield from _below(int(child))
