"""A connection of OpenSSH that is shared: its master process, and the sessions that it opens (PROTOCOL.mux, version 4).

The master passes bytes between the host and file descriptors that it is handed: none goes through this process twice.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from deploy.hosts.diagnosis import diagnosed
from deploy.hosts.ssh import Client, Unreachable

HELLO = 0x00000001
NEW_SESSION, TERMINATE, OPEN_FORWARD = 0x10000002, 0x10000005, 0x10000006
OK, DENIED, FAILURE, EXIT, OPENED = 0x80000001, 0x80000002, 0x80000003, 0x80000004, 0x80000006
VERSION = 4
NO_ESCAPE = 0xFFFFFFFF
FORWARD_LOCAL = 1
A_SOCKET = 0xFFFFFFFE  # in the place of a port
ANSWER_BYTES = 1 << 16
LINGER_S = 10  # a master whose kit was killed ends after so many seconds
LOG_BYTES = 1 << 18
END_S = 2.0  # until a master that was told to end has ended


class RefusedSessionError(Exception):
    """sshd opens no further session over this connection."""


class Master:
    """One open connection to a host, kept by an ssh process of its own that an interrupt does not reach.

    Raises:
        KitError: no answer, an unknown or changed host key, no key that the host takes.
    """

    def __init__(self, client: Client, number: int) -> None:
        self._socket = client.folder / str(number)
        log = _open(client, self._socket)
        try:
            # The master stays for as long as there is a connection to it.
            self._keeper = Control(self._socket, client.timeout_s)
        except OSError:
            raise diagnosed(client, log.text) from None

    def alive(self, wait_s: float = 0.0) -> bool:
        """Whether the connection stands; with `wait_s`, it is given so long to be seen fall."""
        return not self._keeper.ended(wait_s)

    def session(self, command: str, descriptors: Sequence[int], timeout_s: float) -> Control:
        """Run `command` with the standard streams `descriptors`, which are still to be closed here.

        Raises:
            RefusedSessionError: the host opens no further one over this connection.
            OSError: the connection is gone.
        """
        control = Control(self._socket, timeout_s)
        try:
            control.send(
                NEW_SESSION,
                *(b"", False, False, False, False, NO_ESCAPE, b"", command.encode()),
                descriptors=descriptors,
            )
            control.answered(OPENED)
            return control
        except BaseException:
            control.close()
            raise

    def forward(self, local: Path, there: str, port: int = A_SOCKET) -> None:
        """Let `local` be a socket that leads to the socket `there` on the host, while the connection stands.

        With a `port` it leads to that port of the address `there`, as the host reaches it.

        Raises:
            RefusedSessionError: it cannot be made.
            OSError: the connection is gone.
        """
        self._keeper.send(OPEN_FORWARD, FORWARD_LOCAL, str(local).encode(), A_SOCKET, there.encode(), port)
        self._keeper.answered(OK)

    def close(self) -> None:
        with suppress(OSError):
            self._keeper.send(TERMINATE)
        self._keeper.ended(END_S)
        self._keeper.close()


def _open(client: Client, path: Path) -> _Log:
    """Start a master, which goes into the background once it is authenticated."""
    options = (
        "ControlMaster=yes",
        f"ControlPath={str(path).replace('%', '%%')}",
        f"ControlPersist={LINGER_S}",
        "ClearAllForwardings=yes",
        "Compression=no",
        "RemoteCommand=none",
        "RequestTTY=no",
    )
    argv = client.command(client.target, *options)
    try:
        process = subprocess.Popen(
            [argv[0], "-N", "-v", *argv[1:]],  # -v, or a jump that fails says nothing
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # no terminal to ask at; Ctrl-C must find it open: jobs are stopped through it
        )
    except FileNotFoundError:
        raise Unreachable(
            f"{client.name}: there is no ssh on this machine; install it (apt-get install openssh-client)"
        ) from None
    assert process.stderr
    log = _Log(process.stderr)
    late = not client.waited_for(process)
    if late or process.returncode:
        log.join(END_S)
        raise diagnosed(client, log.text, late)
    return log


class _Log(threading.Thread):
    """What a master and the ssh of its jumps say, taken for as long as they live; its beginning is kept."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._stream, self._kept = stream, b""
        self.start()

    def run(self) -> None:
        with self._stream:
            while block := os.read(self._stream.fileno(), LOG_BYTES):
                self._kept += block[: LOG_BYTES - len(self._kept)]

    @property
    def text(self) -> str:
        return self._kept.decode("utf-8", "replace")


class Control:
    """A connection to a master's control socket.

    Raises:
        OSError: there is no master.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(str(path))
            self._send(struct.pack(">II", HELLO, VERSION))
            kind, body = self._packet()
            if kind != HELLO or body[:4] != struct.pack(">I", VERSION):
                raise ConnectionError("it speaks another version")
        except BaseException:
            self._socket.close()
            raise

    def send(self, kind: int, *fields: int | bytes, descriptors: Sequence[int] = ()) -> None:
        """A request; a field is a number (or a truth value, which is one) or a string."""
        number = struct.pack(">I", 0)
        packed = b"".join(
            struct.pack(">I", len(field)) + field if isinstance(field, bytes) else struct.pack(">I", field)
            for field in fields
        )
        self._send(struct.pack(">I", kind) + number + packed)
        for descriptor in descriptors:
            socket.send_fds(self._socket, [b"\0"], [descriptor])

    def answered(self, expected: int) -> None:
        """Raises RefusedSessionError where the answer is no."""
        kind, body = self._packet()
        if kind in (DENIED, FAILURE):
            raise RefusedSessionError(body[8:].decode("utf-8", "replace"))
        if kind != expected:
            raise ConnectionError("an answer that was not expected")

    def status(self) -> int | None:
        """The exit status of a session that has ended; None where it left none."""
        with suppress(OSError):
            while True:
                kind, body = self._packet()
                if kind == EXIT:
                    return int(struct.unpack(">I", body[4:8])[0])
        return None

    def ended(self, wait_s: float) -> bool:
        """Whether the master has closed this connection, or does so in `wait_s`."""
        try:
            return bool(select.select([self._socket], [], [], wait_s)[0] and not self._socket.recv(ANSWER_BYTES))
        except (OSError, ValueError):  # reset, or closed here
            return True

    def hang_up(self) -> None:
        """End the session, from any thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def _send(self, packet: bytes) -> None:
        self._socket.sendall(struct.pack(">I", len(packet)) + packet)

    def _packet(self) -> tuple[int, bytes]:
        size = struct.unpack(">I", self._exactly(4))[0]
        if not 4 <= size <= ANSWER_BYTES:
            raise ConnectionError("no packet")
        packet = self._exactly(size)
        return struct.unpack(">I", packet[:4])[0], packet[4:]

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            block = self._socket.recv(size - len(found))
            if not block:
                raise ConnectionError("the connection is gone")
            found += block
        return found
