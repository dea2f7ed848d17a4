"""What OpenSSH's client is told about a host of the inventory, and what it makes of that.

OpenSSH reads ~/.ssh/config and known_hosts, judges host keys, takes jumps and finds keys itself. The kit adds what must
hold for every host on the way, jump hosts included: only known keys, no questions, a deadline on every wait.
No password is ever asked for or sent.
"""

from __future__ import annotations

import glob
import math
import os
import pwd
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import HostUnfit, KitError
from deploy.inventory import Gpu, Npu, local_path, with_inventory

OPEN_TIMEOUT_S = 10.0  # a login takes some seconds where its home or its directory service is far away
MAX_HOPS = 16  # of a way to a host; OpenSSH itself would follow a loop for ever
SOCKET_PATH_BYTES = 104 - 18 - 2  # of sun_path where it is shortest, less what ssh and `Client.socket` put behind it

# OpenSSH's own, AES-GCM first: on CPUs with AES instructions it is faster than ChaCha20, which older releases prefer.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)


class NotTrusted(HostUnfit):
    """A host whose key is not the one that is known."""


class Changed(NotTrusted):
    """A host that shows another key than the one that is known."""


class Distrusted(NotTrusted):
    """A host whose key is revoked, or whose certificate does not hold: no yes can make it trusted."""


class Refused(HostUnfit):
    """A host that does not let us log in."""


class KeyNotAccepted(Refused):
    """A host that would let in another key."""


class Unreachable(HostUnfit):
    """A host that does not answer, or with which no connection can be agreed on."""


@dataclass(frozen=True)
class Hop:
    """A host on the way: the words that name it on ssh's command line."""

    words: tuple[str, ...]

    @classmethod
    def named(cls, text: str, jump: str = "") -> Hop:
        """Of `[USER@]HOST[:PORT]` or `ssh://...`, as ProxyJump lists them, reached by way of `jump`."""
        return cls((*(("-J", jump) if jump else ()), "--", text if "://" in text else f"ssh://{text}"))


class Client:
    """OpenSSH's client, set up for one host of the inventory. Its files lie in a private folder until `close`.

    Raises:
        KitError: the inventory's key is not there, or the host is but the example's.
    """

    def __init__(self, section: Gpu | Npu, known_hosts: Path | None, timeout_s: float) -> None:
        if section.is_example:
            raise KitError(
                f"{section.name}: {section.host} only shows where your host's address goes; "
                f"`{with_inventory('fab init')}` looks at your host and writes the inventory"
            )
        self.name, self.timeout_s = section.name, max(timeout_s, OPEN_TIMEOUT_S)
        self._known_hosts = known_hosts
        self._key = local_path(section.key) if section.key else None
        if self._key and not self._key.is_file():
            raise KitError(
                f"{section.name}: key {self._key} is not there; correct `key` in the inventory, or leave it out"
            )
        self.target, self.has_key = _target(section, self._key), self._key is not None
        self._folder = tempfile.TemporaryDirectory(prefix="stgcn-ssh-", dir=_short_folder())
        self.folder = Path(self._folder.name)
        self._config = self.folder / "config"
        every, files = _strict(known_hosts, timeout_s, self.timeout_s), _user_files()
        self._config.write_text(config(every, files))
        if section.jump and self._key:
            # As on ssh's command line a jump has its own keys; the inventory's is one more.
            for jump in section.jump.split(","):
                keys = [*self.effective(Hop.named(jump)).get("identityfile", []), str(self._key)]
                every += [f"Match originalhost {host_of(jump)}", *(f"IdentityFile {quoted(key)}" for key in keys)]
            self._config.write_text(config(every, files))

    def command(self, hop: Hop, *options: str) -> list[str]:
        """The argument list that starts ssh to a hop; `options` are -o's, and stand before any file's."""
        return ["ssh", "-F", str(self._config), *(word for option in options for word in ("-o", option)), *hop.words]

    def effective(self, hop: Hop) -> dict[str, list[str]]:
        """The configuration that OpenSSH uses for a hop, in lower case: {option: its values}.

        Raises:
            KitError: a configuration file is not one.
        """
        argv = self.command(hop)
        done = subprocess.run(
            [*argv[:1], "-G", *argv[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            raise KitError(f"{self.name}: ssh cannot use its configuration ({said[0]}); correct it")
        found: dict[str, list[str]] = {}
        for line in done.stdout.splitlines():
            name, _, value = line.partition(" ")
            found.setdefault(name, []).append(value)
        return found

    def way(self) -> list[Hop]:
        """The hops to the host, each reached over the one before: jump hosts, outermost first, then itself.

        Raises:
            KitError: a configuration file is not one, or sends the way in a circle.
        """
        hops = [self.target]
        while jump := self.effective(hops[0]).get("proxyjump", ["none"])[0].removeprefix("none"):
            before, _, last = jump.rpartition(",")
            hops.insert(0, Hop.named(last, before))
            if len(hops) > MAX_HOPS:
                raise KitError(
                    f"{self.name}: its ProxyJump leads in a circle over {last}; give that host `ProxyJump none` in"
                    " ~/.ssh/config, before what it is for all hosts"
                )
        return hops

    def known_as(self, hop: Hop) -> str:
        """The name that a hop has in known_hosts."""
        own = self.effective(hop)
        host, port = own["hostname"][0].lower(), own["port"][0]
        return own.get("hostkeyalias", [host if port == "22" else f"[{host}]:{port}"])[0]

    def known_hosts(self, hop: Hop) -> Path:
        """The file in which a hop's key is pinned."""
        first = self.effective(hop)["userknownhostsfile"][0]
        return self._known_hosts or Path(first.split()[0]).expanduser()

    def waited_for(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for an ssh, started as a session of its own; whether it ended in time. It has ended in any case."""
        try:
            process.wait(self.timeout_s)
            return True
        except subprocess.TimeoutExpired:
            return False
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # and what it started: a ProxyCommand that hangs
                process.wait()

    def close(self) -> None:
        self._folder.cleanup()


def config(every: Sequence[str], files: Sequence[Path]) -> str:
    """A configuration of `every` host on the way, then the user's and the system's, then the kit's preferences.

    OpenSSH takes the first value that it meets, and hands the file on to the ssh that it starts for a jump.
    """
    included = [f'Include "{glob.escape(str(path))}"' for path in files]
    return "\n".join(["Host *", *every, "Host *", *included, "Host *", f"Ciphers {','.join(CIPHERS)}", ""])


def host_of(hop: str) -> str:
    """HOST of `[USER@]HOST[:PORT]`; an IPv6 address stands in brackets there."""
    text = hop.removeprefix("ssh://").rpartition("@")[2]
    return text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]


def quoted(value: str | Path) -> str:
    """A path as the value of an option that expands %."""
    text = str(value).replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _strict(known_hosts: Path | None, timeout_s: float, open_timeout_s: float) -> list[str]:
    """The options of every hop."""
    every_s = max(1, int(timeout_s / 3))
    options = {
        "StrictHostKeyChecking": "yes",
        **({"UserKnownHostsFile": quoted(known_hosts)} if known_hosts else {}),
        "UpdateHostKeys": "no",
        "NoHostAuthenticationForLocalhost": "no",
        "BatchMode": "yes",
        "ConnectTimeout": str(math.ceil(open_timeout_s / 2)),  # of an address; a name may have two
        "ConnectionAttempts": "1",
        "ServerAliveInterval": str(every_s),
        "ServerAliveCountMax": str(max(1, math.ceil(timeout_s / every_s) - 1)),
        "ControlMaster": "no",
        "PermitLocalCommand": "no",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "AddKeysToAgent": "no",
        "Tunnel": "no",
        "LogLevel": "DEBUG1",  # fingerprints, and how far it came
    }
    return [f"{name} {value}" for name, value in options.items()]


def _target(section: Gpu | Npu, key: Path | None) -> Hop:
    words = ["-p", str(section.port)] if section.port else []
    words += ["-l", section.user] if section.user else []
    # Only the key that was asked for: more, and sshd may hang up before it comes to this one.
    words += ["-o", "IdentitiesOnly=yes", "-i", str(key).replace("%", "%%")] if key else []
    words += ["-J", section.jump] if section.jump else []
    return Hop((*words, "--", str(section.host)))


def _user_files() -> list[Path]:
    """OpenSSH finds the user's by the login, whatever HOME says; where HOME leads elsewhere, its file counts too."""
    homes = [Path.home()]
    with suppress(KeyError):  # ssh itself says that there is no such user
        homes.insert(0, Path(pwd.getpwuid(os.getuid()).pw_dir))
    return [*(home / ".ssh" / "config" for home in dict.fromkeys(homes)), _system_file()]


def _system_file() -> Path:
    places = [Path(folder) / "ssh_config" for folder in ("/etc/ssh", "/usr/etc/ssh")]
    return next((path for path in places if path.exists()), places[0])


def _short_folder() -> str | None:
    """Where sockets' paths fit: the temporary folder, else /tmp."""
    return None if len(os.fsencode(tempfile.gettempdir())) + 20 < SOCKET_PATH_BYTES else "/tmp"  # noqa: S108
