"""Connections over SSH (Fabric, Paramiko): known hosts only, `~/.ssh/config` honoured, dead links noticed.

No password is ever asked for or sent: keys come from the inventory, ~/.ssh/config, ~/.ssh or the agent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import paramiko
from fabric import Config, Connection

from deploy.errors import KitError
from deploy.inventory import Gpu, Npu
from stgcn.files import read_record

CONNECT_TIMEOUT_S = 10
SESSIONS = 8  # channels over one connection; sshd's MaxSessions is 10 unless it says otherwise
WINDOW_BYTES = 8 << 20
# AES-GCM needs no MAC beside it: 1.2 times as fast here. CBC is out, as in OpenSSH itself.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")


class NotTrusted(KitError):  # noqa: N818
    """A host whose key is not the one that is known."""


class Refused(KitError):  # noqa: N818
    """A host that takes none of our keys."""


class Unreachable(KitError):  # noqa: N818
    """A host that does not answer."""


class _Transport(paramiko.Transport):
    _preferred_ciphers = CIPHERS


class _Refuse(paramiko.RejectPolicy):
    """An unknown host is refused by its fingerprint."""

    def missing_host_key(self, _client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> NoReturn:
        raise NotTrusted(
            f"{hostname}: its host key is not known ({key.get_name()} {key.fingerprint}); "
            "compare the fingerprint with the host's own, then pin it with `fab trust`"
        )


def connections(section: Gpu | Npu, known_hosts: Path) -> list[Connection]:
    """The way to a host: its jump hosts, outermost first, then itself. None is open yet; each is strict.

    Raises:
        KitError: the inventory's key is not there, or ~/.ssh/config cannot be read.
    """
    try:
        config = Config()
        jump = None
        if section.jump:
            jump = Connection(section.jump, config=config, connect_kwargs=_credentials(section))
        last = Connection(
            section.host, section.user, section.port, config=config, gateway=jump, connect_kwargs=_credentials(section)
        )
    except (paramiko.ConfigParseError, paramiko.CouldNotCanonicalize, ValueError) as error:
        raise KitError(f"{section.name}: its address or ~/.ssh/config cannot be read ({error})") from None
    chain = [last]
    while isinstance(chain[0].gateway, Connection):
        chain.insert(0, chain[0].gateway)
    for connection in chain:
        connection.connect_timeout = CONNECT_TIMEOUT_S
        connection.connect_kwargs |= {
            "banner_timeout": CONNECT_TIMEOUT_S,
            "auth_timeout": CONNECT_TIMEOUT_S,
            "channel_timeout": CONNECT_TIMEOUT_S,
            "transport_factory": _Transport,
            "disabled_algorithms": {"ciphers": _refused_ciphers(connection)},
        }
        connection.client.set_missing_host_key_policy(_Refuse())
        if len(read_known_hosts(known_hosts)):
            connection.client.load_system_host_keys(str(known_hosts))
    return chain


def read_known_hosts(path: Path) -> paramiko.HostKeys:
    """The keys that are pinned; none where there is no such file.

    Raises:
        KitError: a line is damaged: the key that it pinned would be asked for anew.
    """
    try:
        read_record(path).decode("utf-8")
        keys = paramiko.HostKeys(str(path))
        for name in keys.keys():  # noqa: SIM118 (it has no __iter__ of its own)
            if name.startswith("|1|"):
                paramiko.HostKeys.hash_host("", name)
    except FileNotFoundError:
        return paramiko.HostKeys()
    except Exception as error:  # Paramiko's own have no common base
        raise KitError(
            f"{path}: not a whole known_hosts file ({error}); mend that line, or name another file"
        ) from None
    return keys


def address(connection: Connection) -> str:
    return f"{connection.user}@{connection.host}:{connection.port}"


def open_all(name: str, chain: Sequence[Connection]) -> paramiko.Transport:
    """Open the jump hosts and the host itself; its transport.

    Raises:
        KitError: no answer, an unknown or changed host key, no key that the host takes.
    """
    for connection in chain:
        with told(name, connection):
            connection.open()
    transport: paramiko.Transport = chain[-1].transport
    return transport


@contextmanager
def told(name: str, connection: Connection) -> Iterator[None]:
    """What can go wrong with a connection, each as a sentence."""
    where = f"{name}: {address(connection)}"
    try:
        yield
    except KitError as error:
        raise type(error)(f"{name}: {error}") from None
    except paramiko.BadHostKeyException as error:
        raise NotTrusted(
            f"{name}: the host key of {error.hostname} has CHANGED (it shows {error.key.get_name()} "
            f"{error.key.fingerprint}, pinned is {error.expected_key.fingerprint}); unless the host was set up anew, "
            "someone may be in between: ask its owner, then pin the new one with `fab trust`"
        ) from None
    except paramiko.PasswordRequiredException as error:
        raise Refused(f"{where}: the key has a passphrase ({error}); load it with `ssh-add`") from None
    except paramiko.AuthenticationException as error:
        if "timeout" in str(error).lower():  # Paramiko has no type for it
            raise Unreachable(f"{where} did not answer in time") from None
        raise Refused(
            f"{where}: none of your keys was accepted ({error}); add the public one to its authorized_keys, or name "
            "another with `key` in the inventory"
        ) from None
    except (OSError, EOFError, UnicodeError, paramiko.SSHException) as error:  # UnicodeError: no name for DNS
        reason = str(error) or "no answer" if not isinstance(error, TimeoutError) else "no answer"
        raise Unreachable(f"{where} cannot be reached ({reason}); check `host`, `port` and `jump`") from None


def _credentials(section: Gpu | Npu) -> dict[str, object]:
    """Fresh for each connection, and never empty: Fabric adds to it."""
    if section.key is None:
        return {"look_for_keys": True}
    key = Path(section.key).expanduser()
    if not key.is_file():
        raise KitError(f"{section.name}: key {key} is not there; correct `key` in the inventory, or leave it out")
    return {"key_filename": [str(key)], "look_for_keys": False}


def _refused_ciphers(connection: Connection) -> list[str]:
    """`Ciphers` of ~/.ssh/config, a plain list, narrows what is offered."""
    wanted = connection.ssh_config.get("ciphers", "")
    if not wanted or wanted[0] in "+-^":
        return []
    return [name for name in CIPHERS if name not in wanted.split(",")]


class Link:
    """One open connection to a host, asked every few seconds whether it still answers."""

    def __init__(self, name: str, chain: Sequence[Connection], timeout_s: float) -> None:
        self._chain, self._timeout_s, self._closed = chain, timeout_s, threading.Event()
        self.transport = open_all(name, chain)
        self.transport.default_window_size = WINDOW_BYTES
        self._room = threading.BoundedSemaphore(SESSIONS)
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def alive(self) -> bool:
        return self.transport.is_active()

    def session(self) -> paramiko.Channel | None:
        """A new channel; None when this connection has no room for it."""
        if not self._room.acquire(blocking=False):
            return None
        try:
            return self.transport.open_session(timeout=self._timeout_s)
        except paramiko.ChannelException:  # its sshd allows fewer: this one's place is not offered again
            return None
        except BaseException:
            self._room.release()
            raise

    def give_back(self, channel: paramiko.Channel) -> None:
        with suppress(OSError, EOFError, paramiko.SSHException):
            channel.close()
        self._room.release()

    def close(self) -> None:
        self._closed.set()
        for connection in reversed(self._chain):
            connection.close()

    def _watch(self) -> None:
        """A request that the other end must answer: an answer too late means a dead link, wherever it is cut."""
        while not self._closed.wait(min(5.0, self._timeout_s / 3)) and self.alive:
            verdict = threading.Timer(self._timeout_s, self.transport.close)
            verdict.daemon = True
            verdict.start()
            try:
                self.transport.global_request("keepalive@openssh.com", wait=True)
            except (OSError, EOFError, paramiko.SSHException):
                return
            finally:
                verdict.cancel()
