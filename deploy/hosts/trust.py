"""`fab trust`: show each host's key by its fingerprint, and pin it in known_hosts after a yes. No login is tried."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from deploy.console import say
from deploy.errors import KitError
from deploy.hosts.diagnosis import diagnosed, shown_key
from deploy.hosts.ssh import Changed, Client, Distrusted, Hop, NotTrusted, quoted
from deploy.inventory import Gpu, Inventory, Npu, local_path
from stgcn.files import read_record


def run(inventory: Inventory, ask: Callable[[str], str] = input) -> None:
    """Walk every SSH host of the inventory, jump hosts first.

    Raises:
        KitError: a host does not answer, or its key was not pinned.
    """
    known_hosts = local_path(inventory.known_hosts) if inventory.known_hosts else None
    every: list[Gpu | Npu] = [inventory.gpu, *inventory.npu]
    sections = [section for section in every if section.connection == "ssh"]
    if not sections:
        say("no host of this inventory is reached over SSH: there is no key to pin")
    refused = []
    for section in sections:
        client = Client(section, known_hosts, inventory.link_timeout_s)
        try:
            for hop in client.way():
                if not _settle(client, hop, ask):
                    refused.append(f"{section.name} ({client.known_as(hop)})")
                    break
        finally:
            client.close()
    if refused:
        raise KitError(f"not pinned: {', '.join(refused)}; the kit connects to no host whose key is not known")


def _settle(client: Client, hop: Hop, ask: Callable[[str], str]) -> bool:
    """Whether a hop's key is pinned, now or already."""
    known_as, log = client.known_as(hop), _probe(client, hop)
    error = diagnosed(client, log)
    if not isinstance(error, NotTrusted):
        if not (shown := shown_key(log)):
            raise error  # it did not come so far as to show a key
        say(f"✓ {client.name}: {known_as} shows {shown}, as pinned", "green")
        return True
    if isinstance(error, Distrusted):
        raise error
    line, fingerprint = _key(client, hop)
    if isinstance(error, Changed):
        say(f"✗ {error}", "red")
        question = f"The key has CHANGED. Pin {fingerprint} in its place? Type yes: "
    else:
        say(f"? {client.name}: {known_as} shows {fingerprint}", "yellow")
        question = "Compare it with what the host's owner says. Pin it? Type yes: "
    try:
        answer = ask(question)
    except EOFError:
        answer = ""
    if answer.strip().lower() != "yes":
        return False
    file = client.known_hosts(hop)
    pin(file, known_as, line)
    say(f"  pinned in {file}")
    return True


def _probe(client: Client, hop: Hop, *options: str) -> str:
    """What ssh says of a hop up to where a login would begin."""
    nobody = "PreferredAuthentications=none"  # no key is offered: the host's own is all that matters here
    only = ("ControlPath=none", "ClearAllForwardings=yes", "RemoteCommand=none", "RequestTTY=no")
    log = client.folder / "probe.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*client.command(hop, *options, nobody, *only), "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
        )
        late = not client.waited_for(process)
    text = log.read_bytes().decode("utf-8", "replace")
    if late and not shown_key(text):
        raise diagnosed(client, text, late)
    return text


def _key(client: Client, hop: Hop) -> tuple[str, str]:
    """The key that a hop proves to have, and that is not the one that is known: its line of a known_hosts file, as
    OpenSSH writes it; its kind and fingerprint."""
    found = client.folder / "shown_keys"
    found.unlink(missing_ok=True)
    log = _probe(
        client,
        hop,
        "StrictHostKeyChecking=accept-new",
        f"UserKnownHostsFile={quoted(found)}",
        "GlobalKnownHostsFile=none",
        "KnownHostsCommand=none",
        "HashKnownHosts=no",
    )
    if not found.exists():
        raise diagnosed(client, log)
    said = subprocess.run(["ssh-keygen", "-lf", str(found)], capture_output=True, text=True).stdout.split()
    line = found.read_text(encoding="utf-8").splitlines()[0]
    return line, f"{line.split()[1]} {said[1]}"


def pin(known_hosts: Path, known_as: str, line: str) -> None:
    """Make `line` the one that is known for a host; what the file says of other hosts stays as it is."""
    known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = read_record(known_hosts).splitlines(keepends=True) if known_hosts.exists() else []
    for number in _lines_about(known_hosts, known_as):
        lines[number - 1] = _without(lines[number - 1], known_as)
    if lines and lines[-1] and not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    aside = known_hosts.with_name(f".{known_hosts.name}.new")
    with aside.open("wb") as stream:
        aside.chmod(0o600)
        stream.write(b"".join([*lines, line.encode() + b"\n"]))
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(known_hosts)


def _lines_about(known_hosts: Path, known_as: str) -> list[int]:
    """The numbers of the lines that pin a key of a host, by its name, its hash or a pattern."""
    if not known_hosts.exists():
        return []
    argv = ["ssh-keygen", "-F", known_as, "-f", str(known_hosts)]
    said = subprocess.run(argv, capture_output=True, text=True, errors="replace").stdout
    ends = [line.rpartition(" found: line ")[2].split() for line in said.splitlines() if line.startswith("# Host ")]
    return [int(end[0]) for end in ends if len(end) == 1]  # behind the number: CA or REVOKED, which stay


def _without(line: bytes, known_as: str) -> bytes:
    """A line of known_hosts that says nothing of one host any more."""
    names, _, rest = line.lstrip().partition(b" ")
    name = known_as.lower().encode()
    others = [other for other in names.split(b",") if other.lower() != name and not other.startswith(b"|1|")]
    if not others:
        return b""
    if any(set(other) & set(b"*?") for other in others):
        others.append(b"!" + name)  # a pattern that takes it in
    return b",".join(others) + b" " + rest
