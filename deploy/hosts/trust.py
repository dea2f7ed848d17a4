"""`fab trust`: show each host's key by its fingerprint, and pin it in known_hosts after a yes."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import paramiko
from fabric import Connection

from deploy.console import say
from deploy.errors import KitError
from deploy.hosts import ssh
from deploy.inventory import Gpu, Inventory, Npu, local_path
from stgcn.files import read_record

_RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")  # one key, three signatures


def run(inventory: Inventory, ask: Callable[[str], str] = input) -> None:
    """Walk every SSH host of the inventory, jump hosts first.

    Raises:
        KitError: a host does not answer, or its key was not pinned.
    """
    known_hosts = local_path(inventory.known_hosts)
    every: list[Gpu | Npu] = [inventory.gpu, *inventory.npu]
    sections = [section for section in every if section.connection == "ssh"]
    if not sections:
        say("no host of this inventory is reached over SSH: there is no key to pin")
    refused = []
    for section in sections:
        for step in range(len(ssh.connections(section, known_hosts))):
            # Built anew each time: the way to a host may lead over a jump host that was pinned just now.
            connection = ssh.connections(section, known_hosts)[step]
            with ssh.told(section.name, connection):
                key = _shown_key(connection, known_hosts)
            if not _settle(section.name, _known_as(connection), key, known_hosts, ask):
                refused.append(f"{section.name} ({connection.host})")
                break
    if refused:
        raise KitError(f"not pinned: {', '.join(refused)}; the kit connects to no host whose key is not known")


def _settle(name: str, known_as: str, key: paramiko.PKey, known_hosts: Path, ask: Callable[[str], str]) -> bool:
    """Whether the key is pinned, now or already."""
    pinned = pinned_keys(known_hosts, known_as)
    shown = f"{name}: {known_as} shows {key.get_name()} {key.fingerprint}"
    if any(old == key for old in pinned):
        say(f"✓ {shown}, as pinned", "green")
        return True
    if pinned:
        say(f"✗ {shown}, but pinned is {', '.join(old.fingerprint for old in pinned)}", "red")
        question = "The key has CHANGED. Pin the new one in its place? Type yes: "
    else:
        say(f"? {shown}", "yellow")
        question = "Compare it with what the host's owner says. Pin it? Type yes: "
    try:
        answer = ask(question)
    except EOFError:
        answer = ""
    if answer.strip().lower() != "yes":
        return False
    pin(known_hosts, known_as, key)
    say(f"  pinned in {known_hosts}")
    return True


def pin(known_hosts: Path, known_as: str, key: paramiko.PKey) -> None:
    """Make `key` the one that is known for a host; every other line of the file stays as it is."""
    ssh.read_known_hosts(known_hosts)  # what can't be read whole isn't written again
    known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = read_record(known_hosts).decode("utf-8").splitlines() if known_hosts.exists() else []
    kept = [line for line in lines if known_as not in _names(line, known_as)]
    aside = known_hosts.with_name(f".{known_hosts.name}.new")
    with aside.open("w", encoding="utf-8") as stream:
        aside.chmod(0o600)
        stream.write("\n".join([*kept, f"{known_as} {key.get_name()} {key.get_base64()}", ""]))
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(known_hosts)


def _names(line: str, known_as: str) -> list[str]:
    """The names that a line of known_hosts is about, a hashed one told when it is `known_as`."""
    fields = line.split()
    if len(fields) < 3 or fields[0].startswith(("#", "@")):
        return []
    names = fields[0].split(",")
    return [known_as if name.startswith("|1|") and _hash_matches(name, known_as) else name for name in names]


def _hash_matches(hashed: str, known_as: str) -> bool:
    try:
        return paramiko.HostKeys.hash_host(known_as, hashed) == hashed
    except (ValueError, AssertionError):  # a damaged name is nobody's
        return False


def pinned_keys(known_hosts: Path, known_as: str) -> list[paramiko.PKey]:
    return list((ssh.read_known_hosts(known_hosts).lookup(known_as) or {}).values())


def _known_as(connection: Connection) -> str:
    return str(connection.host) if connection.port == 22 else f"[{connection.host}]:{connection.port}"


def _shown_key(connection: Connection, known_hosts: Path) -> paramiko.PKey:
    """The key that a host proves to have; a kind that is pinned already is asked for first, as a connection does."""
    way = (
        connection.open_gateway()
        if connection.gateway
        else socket.create_connection((connection.host, connection.port), ssh.CONNECT_TIMEOUT_S)
    )
    with paramiko.Transport(way) as transport:
        options = transport.get_security_options()
        pinned = [key.get_name() for key in pinned_keys(known_hosts, _known_as(connection))]
        first = [kind for name in pinned for kind in (_RSA if name == "ssh-rsa" else (name,))]
        first = [kind for kind in first if kind in options.key_types]
        options.key_types = [*first, *(kind for kind in options.key_types if kind not in first)]
        transport.start_client(timeout=ssh.CONNECT_TIMEOUT_S)
        return transport.get_remote_server_key()
