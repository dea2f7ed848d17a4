"""Another machine as a host."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import paramiko

from deploy.errors import KitError, LinkLost
from deploy.hosts import ssh
from deploy.hosts.exchange import COMPLAINT_BYTES, OPERATION_TIMEOUT_S, Pipe
from deploy.hosts.piped import PipedHost
from deploy.hosts.remote.launch import ARGUMENTS
from deploy.hosts.remote.protocol import BLOCK
from deploy.inventory import Gpu, Npu


class SSHHost(PipedHost):
    """Another machine, over SSH; connected when it is made. `inputs` {key of the inventory: path} lie there too, and
    not in its workspace.

    Raises:
        KitError: it cannot be reached, is not known, takes none of our keys, or has no Python.
    """

    def __init__(
        self, section: Gpu | Npu, known_hosts: Path, link_timeout_s: float, inputs: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(section.name)
        self._section, self._known_hosts, self._timeout_s = section, known_hosts, link_timeout_s
        self._links: list[ssh.Link] = []
        self._lock = threading.Lock()
        self._lost = False
        self.operations = ["python3", *ARGUMENTS]
        try:
            there = self.call("contact", {"workspace": section.workspace, "inputs": dict(inputs or {})})
        except BaseException:
            self.close()
            raise
        self.home, self.workspace = PurePosixPath(there["home"]), PurePosixPath(there["workspace"])

    def start(self, argv: Sequence[str]) -> Pipe:
        if self._lost:
            raise self._link_lost()
        try:
            link, channel = self._session()
            pipe = _ChannelPipe(link, channel)
            channel.exec_command(shlex.join(argv))
            return pipe
        except (OSError, EOFError, paramiko.SSHException):
            raise self._link_lost() from None

    def _session(self) -> tuple[ssh.Link, paramiko.Channel]:
        with self._lock:
            for link in self._links:
                if not link.alive:
                    raise EOFError
                if channel := link.session():
                    return link, channel
            link = ssh.Link(self.name, ssh.connections(self._section, self._known_hosts), self._timeout_s)
            self._links.append(link)
            channel = link.session()
        if channel is None:
            raise KitError(f"{self.name}: its sshd allows no session; raise MaxSessions there")
        return link, channel

    def path(self, text: str) -> PurePosixPath:
        return self.home / (text.replace("~", str(self.home), 1) if text.startswith("~/") else text)

    def broken(self, operation: str, complaint: str) -> KitError:
        if all(link.alive for link in self._links):
            return super().broken(operation, complaint)
        return self._link_lost()

    def _link_lost(self) -> LinkLost:
        self._lost = True
        where = self._section.host
        return LinkLost(
            f"{self.name}: the connection to {where} was lost; what runs there goes on: run the command again"
            " to go on where it was"
        )

    def close(self, interrupted: bool = False) -> None:
        super().close(interrupted)
        for link in self._links:
            link.close()


class _ChannelPipe:
    def __init__(self, link: ssh.Link, channel: paramiko.Channel) -> None:
        self._link, self._channel, self._done = link, channel, False

    def write(self, block: bytes) -> None:
        with _one_error():
            self._channel.settimeout(OPERATION_TIMEOUT_S)
            self._channel.sendall(block)

    def end_input(self) -> None:
        with _one_error():
            self._channel.shutdown_write()

    def read(self, timeout_s: float) -> bytes | None:
        try:
            with _one_error():
                self._channel.settimeout(timeout_s)
                return self._channel.recv(BLOCK)
        except TimeoutError:
            return None
        except OSError:
            return b""

    def complaint(self) -> str:
        text = b""
        while self._channel.recv_stderr_ready() and len(text) < COMPLAINT_BYTES:
            text += self._channel.recv_stderr(COMPLAINT_BYTES)
        return text.decode("utf-8", "replace").strip()

    def abort(self) -> None:
        self._channel.close()

    def close(self) -> None:
        if not self._done:
            self._done = True
            self._link.give_back(self._channel)


@contextmanager
def _one_error() -> Iterator[None]:
    """Paramiko tells of a link that is gone in several ways."""
    try:
        yield
    except (EOFError, paramiko.SSHException) as error:
        raise BrokenPipeError(str(error)) from None
