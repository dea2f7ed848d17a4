"""Another machine as a host, over OpenSSH."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from deploy.errors import KitError, LinkLost
from deploy.hosts.exchange import Pipe
from deploy.hosts.mux import Control, Master, RefusedSessionError
from deploy.hosts.piped import PipedHost
from deploy.hosts.pipes import Streams
from deploy.hosts.remote.launch import ARGUMENTS
from deploy.hosts.ssh import Client, Refused
from deploy.inventory import Gpu, Npu

FALL_S = 1.0  # from the end of a session to the end of its connection, where that was why


class SSHHost(PipedHost):
    """Another machine, over SSH; connected when it is made. `inputs` {key of the inventory: path} lie there too, and
    not in its workspace.

    Raises:
        KitError: it cannot be reached, is not known, takes none of our keys, or has no Python.
    """

    def __init__(
        self,
        section: Gpu | Npu,
        known_hosts: Path | None,
        link_timeout_s: float,
        inputs: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(section.name)
        self._where, self._client = section.host, Client(section, known_hosts, link_timeout_s)
        self._masters: list[Master] = []
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
        pipe = _SessionPipe()
        try:
            pipe.session = self._session(command(argv), pipe.handed)
            return pipe
        except OSError:
            pipe.close()
            raise self._link_lost() from None
        except BaseException:
            pipe.close()
            raise
        finally:
            pipe.let_go()

    def _session(self, line: str, streams: Sequence[int]) -> Control:
        """Over the first connection that has room, else over one more: sshd's MaxSessions says how many each takes."""
        with self._lock:
            for master in self._masters:
                with suppress(RefusedSessionError):
                    return master.session(line, streams, self._client.timeout_s)
            self._masters.append(Master(self._client, len(self._masters)))
            try:
                return self._masters[-1].session(line, streams, self._client.timeout_s)
            except RefusedSessionError as error:
                raise Refused(f"{self.name}: its sshd opens no session ({error}); raise MaxSessions there") from None

    def socket(self, there: str, port: int | None = None) -> str:
        """The path of a socket here that leads to the socket `there`, or to that `port` of the address, until `close`.

        Raises:
            KitError: none can be made.
        """
        local = self._client.folder / f"socket{there.replace('/', '-')}{'' if port is None else f'-{port}'}"
        try:
            if not local.exists():
                self._masters[0].forward(local, there, *([] if port is None else [port]))
        except RefusedSessionError as error:
            raise KitError(f"{self.name}: {there} cannot be reached through SSH ({error})") from None
        except OSError:
            raise self._link_lost() from None
        return str(local)

    def broken(self, operation: str, complaint: str) -> KitError:
        if all(master.alive(FALL_S) for master in self._masters):
            return super().broken(operation, complaint)
        return self._link_lost()

    def _link_lost(self) -> LinkLost:
        self._lost = True
        return LinkLost(
            f"{self.name}: the connection to {self._where} was lost; what runs there goes on: run the command again"
            " to resume"
        )

    def close(self, interrupted: bool = False) -> None:
        super().close(interrupted)
        for master in self._masters:
            master.close()
        self._client.close()


def command(argv: Sequence[str]) -> str:
    """`argv` as a line that sh, bash, dash, zsh, fish, csh and tcsh read alike.

    Quotes of theirs differ in what ', !, \\ and a line's end do, and in how long a word may be: arguments have none of
    those and are short; what is long or a user's goes over standard input.
    """
    if any(set(word) & set("'!\\\n") for word in argv):
        raise ValueError(f"login shells would differ about {argv}")
    return shlex.join(argv)


class _SessionPipe(Streams):
    """The ends of a program that runs in a session; the master has the others."""

    session: Control

    def abort(self) -> None:
        self.session.hang_up()

    def close(self) -> None:
        super().close()
        if hasattr(self, "session"):
            self.session.close()
