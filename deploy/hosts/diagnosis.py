"""Why OpenSSH's client did not connect, from what it said at LogLevel DEBUG1: each cause with its cure."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from deploy.errors import KitError
from deploy.hosts.ssh import Changed, Client, Distrusted, KeyNotAccepted, NotTrusted, Refused, Unreachable

SAID_CHARACTERS = 300  # of what another program said
SUGGESTED_OPTION = {
    "key exchange method": "KexAlgorithms",
    "host key type": "HostKeyAlgorithms",
    "cipher": "Ciphers",
    "MAC": "MACs",
    "compression method": "Compression",
}


_SHOWN = re.compile(r"^debug1: Server host (?:key|certificate): (\S+ SHA256:\S+)", re.MULTILINE)


def shown_key(log: str) -> str:
    """Kind and fingerprint of the key that the last host on the way proved to have; empty where it came to none."""
    parts = _PASSED.split(log)
    if len(parts) > 1 and "debug1: Remote protocol version" not in parts[-1] and "Sending command: " in parts[-1]:
        parts.pop()  # it lets in whoever comes
    found: list[str] = _SHOWN.findall(parts[-1])
    return found[-1] if found else ""


def diagnosed(client: Client, log: str, late: bool = False) -> KitError:
    """The error that `log` tells of; `late` when ssh was ended because it had not finished in time."""
    error = diagnose(log, late, client.timeout_s, client.has_key)
    return type(error)(f"{client.name}: {error}")


def diagnose(log: str, late: bool = False, timeout_s: float = 0.0, one_key: bool = False) -> KitError:
    """`diagnosed`, without the name of the inventory's host; `one_key`: the inventory names the key."""
    story = _Story(log, late, timeout_s, one_key)
    for rule in (*_RULES, _anything_else):
        if error := rule(story):
            return error
    raise AssertionError


class _Key(NamedTuple):
    """A key that ssh tried, and where it is: a file, or a comment of the agent."""

    name: str
    in_agent: bool


class _Story:
    """A log of ssh, whose last part is about the hop that it got stuck at."""

    def __init__(self, log: str, late: bool, timeout_s: float, one_key: bool) -> None:
        self.late, self.timeout_s, self.one_key = late, timeout_s, one_key
        lines = [line.rstrip("\r") for line in log.split("\n")]
        self.whole, self.text = log, _PASSED.split("\n".join(lines))[-1]
        self.said = [line for line in self.text.split("\n") if line and not _OWN.match(line)]

    def find(self, pattern: str) -> re.Match[str] | None:
        return re.search(pattern, self.text, re.MULTILINE)

    def last(self, pattern: str) -> str:
        found = re.findall(pattern, self.text, re.MULTILINE)
        return str(found[-1]) if found else ""

    @property
    def login(self) -> str:
        """USER@HOST:PORT of the hop; the address alone, or less, where it did not come so far."""
        if found := re.findall(r"^debug1: Authenticating to (\S+) as '(.*)'$", self.text, re.MULTILINE):
            return f"{found[-1][1]}@{found[-1][0]}"
        if found := re.findall(r"^debug1: Connecting to (\S+) .*port (\d+)\.$", self.text, re.MULTILINE):
            return ":".join(found[-1])
        return "the host"

    @property
    def proxy(self) -> str:
        """The ProxyCommand that this hop is reached through; empty where there is none, or where it is a jump."""
        command = re.findall(r"^debug1: Executing proxy command: exec (.*)$", self.whole, re.MULTILINE)
        return command[-1].strip() if command and " -W '[" not in command[-1] else ""

    @property
    def quote(self) -> str:
        """What was said that is not ssh's own, a line of it."""
        return "; ".join(self.said)[:SAID_CHARACTERS]


# What was passed lies behind: of a jump host that let us in nothing matters any more.
_PASSED = re.compile(r"^Authenticated to .* using \".*$", re.MULTILINE)
_OWN = re.compile(
    r"debug\d: |Transferred: |Bytes per second: |OpenSSH_|kex_exchange_identification: |ssh_exchange_identification: "
    r"|Connection closed by UNKNOWN|Connection to UNKNOWN|Connection timed out during banner|Pseudo-terminal |Killed by"
)


_Rule = Callable[[_Story], KitError | None]
_RULES: list[_Rule] = []  # as they follow; the first that knows the log tells


def _where(pattern: str) -> Callable[[Callable[[_Story, re.Match[str]], KitError | None]], None]:
    """A rule about a log in which a line matches."""

    def add(rule: Callable[[_Story, re.Match[str]], KitError | None]) -> None:
        _RULES.append(lambda story: rule(story, found) if (found := story.find(pattern)) else None)

    return add


@_RULES.append
def _configuration(story: _Story) -> KitError | None:
    pattern = re.compile(r".+ line \d+: |.*: terminating, \d+ bad |Bad owner or permissions on |jumphost loop ")
    said = next((line.strip() for line in story.said if pattern.match(line)), None)
    return KitError(f"ssh cannot use its configuration ({said}); correct it") if said else None


@_where(r"REVOKED HOST KEY DETECTED|^Host key .* revoked|host key .* is marked as revoked")
def _revoked(story: _Story, _: re.Match[str]) -> KitError:
    return Distrusted(
        f"{story.login}: its host key {_fingerprint(story)} is REVOKED in {_files(story)}: whoever shows it is not to "
        "be trusted; ask the host's owner"
    )


@_where(r"REMOTE HOST IDENTIFICATION HAS CHANGED")
def _changed(story: _Story, _: re.Match[str]) -> KitError:
    offending = story.find(r"^Offending .*key in (.+):(\d+)$")
    pinned = f", pinned is {_fingerprint_at(offending[1], int(offending[2]))}" if offending else ""
    return Changed(
        f"{story.login}: its host key has CHANGED (it shows {_fingerprint(story)}{pinned}); unless the host was set up "
        "anew, someone may be in between: ask its owner, then pin the new one with `fab trust`"
    )


@_where(r"^(?:Host certificate|Certificate) invalid: (.+)$")
def _certificate(story: _Story, found: re.Match[str]) -> KitError:
    return Distrusted(f"{story.login}: its host certificate does not hold ({found[1]}); ask its owner for a new one")


@_RULES.append
def _unknown(story: _Story) -> KitError | None:
    found = story.find(r"^No (\S+) host key is known for (\S+) and you have requested strict checking")
    if not found and not story.find(r"^Host key verification failed"):
        return None
    name = found[2] if found else story.login
    return NotTrusted(
        f"{name}: its host key is not known ({_fingerprint(story)}); compare the fingerprint with the host's own, then "
        "pin it with `fab trust`"
    )


@_where(r"^Unable to negotiate with .*: no matching (.+?) found\. Their offer: (.*)$")
def _no_common_algorithm(story: _Story, found: re.Match[str]) -> KitError:
    option = SUGGESTED_OPTION.get(found[1], "the option")
    return Unreachable(
        f"{story.login}: it and this machine's OpenSSH have no {found[1]} in common; it offers {found[2]}: allow one "
        f"of them for this host in ~/.ssh/config (`{option} +...`), or have its sshd updated"
    )


@_where(r"Too many authentication failures")
def _too_many_keys(story: _Story, _: re.Match[str]) -> KitError:
    offered = len(re.findall(r"^debug1: Offering public key: ", story.text, re.MULTILINE))
    return Refused(
        f"{story.login}: it hung up after {offered} keys, more than its MaxAuthTries, before the right one came; name "
        "that one with `key` in the inventory (or `IdentityFile` and `IdentitiesOnly yes` in ~/.ssh/config)"
    )


@_where(r"^(?:debug1: )?Authenticated using \".*\" with partial success")
def _second_factor(story: _Story, _: re.Match[str]) -> KitError:
    more = story.last(r"^debug1: Authentications that can continue: (.*)$")
    return Refused(
        f"{story.login}: it takes your key and then asks for more ({more}), a second factor that nobody can type here; "
        "have its administrator exempt this login (AuthenticationMethods publickey), or name a way without one"
    )


@_RULES.append
def _unusable_key(story: _Story) -> KitError | None:
    if found := story.find(r"^Permissions \d+ for '(.+)' are too open"):
        return Refused(f"{story.login}: others may read the key {found[1]}, ssh does not use it; chmod 600 {found[1]}")
    if story.find(r"^sign_and_send_pubkey: .*(?:agent|communication)"):
        return Refused(
            f"{story.login}: it would take the key {_accepted(story).name}, but the agent does not sign with it; "
            "unlock it there, or load it again with `ssh-add`"
        )
    key = _accepted(story)
    if key.name and story.late:
        return Refused(
            f"{story.login}: the agent holds the key {key.name} and gave no signature in {story.timeout_s:g} s; "
            "confirm its use, or restart the agent"
        )
    if key.name:
        return _locked(story, key.name)
    if found := story.find(r'^Load key "(.+)": (.+)$'):
        return Refused(f"{story.login}: the key {found[1]} cannot be used ({found[2]}); name another with `key`")
    return None


@_RULES.append
def _agent_hangs(story: _Story) -> KitError | None:
    if not story.late or not story.find(r"^debug1: (?:expecting )?SSH2_MSG_NEWKEYS"):
        return None
    if story.find(r"^debug1: Authentications that can continue"):
        return Unreachable(f"{story.login} did not finish the login in {story.timeout_s:g} s; look after the host")
    return Refused(
        f"{story.login}: the SSH agent (SSH_AUTH_SOCK) did not answer in {story.timeout_s:g} s; restart it, or "
        "unset SSH_AUTH_SOCK and name a `key`"
    )


@_where(r"Permission denied \((.*)\)\.$")
def _denied(story: _Story, found: re.Match[str]) -> KitError:
    methods = found[1].split(",")
    if "publickey" not in methods:
        return Refused(
            f"{story.login}: it takes no keys, only {found[1]}, and the kit types no password; have "
            "PubkeyAuthentication allowed there"
        )
    tried = re.findall(r"^debug1: Trying private key: (.+)$", story.text, re.MULTILINE)
    if secret := next((name for name in tried if _has_passphrase(name)), None):
        return _locked(story, secret)
    if not story.find(r"^debug1: Offering public key: "):
        missing = story.find(r"^no such identity: (.+): No such file or directory$")
        detail = f"; {missing[1]} is not there" if missing else ""
        return Refused(
            f"{story.login}: there is no key to offer it{detail}; name one with `key` in the inventory, or load it "
            "into the agent with `ssh-add`"
        )
    offered = re.findall(r"^debug1: Offering public key: (.*?) [A-Z]\S* SHA256:.*$", story.text, re.MULTILINE)
    locked = next(
        (f"; {name} has a passphrase: ssh-add {name} as well" for name in offered if _has_passphrase(name)), ""
    )
    return KeyNotAccepted(
        f"{story.login}: none of your keys was accepted (it takes {found[1]}); add the public one to its "
        f"authorized_keys, or name another with `key` in the inventory{locked}"
    )


@_where(r"Could not resolve hostname (\S*): (.*)$")
def _name(_: _Story, found: re.Match[str]) -> KitError:
    return Unreachable(
        f"{found[1]} cannot be reached: no such name is known ({found[2]}); correct `host` or `jump`, or give it a "
        "HostName in ~/.ssh/config"
    )


@_where(r"connect to host (\S+) port (\d+): (.*)$")
def _address(_: _Story, found: re.Match[str]) -> KitError:
    where, reason = f"{found[1]}:{found[2]}", found[3]
    if "refused" in reason:
        return Unreachable(f"{where} cannot be reached: no sshd listens there; check `port`, or start sshd ({reason})")
    if "timed out" in reason:
        return Unreachable(
            f"{where} cannot be reached: no answer in time; check `host` and `port`, whether it is up, and what "
            "firewall lies between"
        )
    return Unreachable(f"{where} cannot be reached ({reason}); check the network, `host`, `port` and `jump`")


@_RULES.append
def _forwarding(story: _Story) -> KitError | None:
    found = story.find(r"^channel \d+: open failed: (.*)$")
    if not found or "stdio forwarding failed" not in story.text:
        return None
    gate = re.findall(r"^Authenticated to (\S+) ", story.whole, re.MULTILINE)
    via = gate[-1] if gate else "the jump host"
    if "prohibited" in found[1]:
        return Unreachable(f"{via} lets no connection through; have AllowTcpForwarding set there, or change `jump`")
    return Unreachable(
        f"the host cannot be reached from {via} ({found[1]}); check `host` and `port` as that one sees them"
    )


@_RULES.append
def _proxy_command(story: _Story) -> KitError | None:
    if not story.proxy or story.find(r"^debug1: Remote protocol version"):
        return None
    ended = "said nothing in time" if story.late or "timed out" in story.text else "ended without a connection"
    said = f": {story.quote}" if story.quote else ""
    return Unreachable(f"the host cannot be reached: its ProxyCommand `{story.proxy}` {ended}{said}; try it by hand")


@_RULES.append
def _hung_up(story: _Story) -> KitError | None:
    if found := story.find(r"^Received disconnect from .*?:\d+: (.*)$"):
        return Unreachable(f"{story.login} ended the connection ({found[1]}); ask its administrator")
    if story.find(r"^kex_exchange_identification: |^ssh_exchange_identification: |^Connection (?:closed|reset) by "):
        detail = f" ({story.quote})" if story.quote else ""
        return Unreachable(
            f"{story.login} took the connection and closed it{detail}: its sshd may have too many logins (MaxStartups) "
            "or bar this address; wait and try again, or ask its administrator"
        )
    return None


@_RULES.append
def _late(story: _Story) -> KitError | None:
    if story.late or story.find(r"^Connection timed out during banner exchange|timed out$"):
        return Unreachable(f"{story.login} did not answer in time; check `host` and `port`, and whether it is up")
    return None


def _anything_else(story: _Story) -> KitError:
    return Unreachable(f"{story.login} cannot be reached ({story.quote or 'ssh says nothing'}); try ssh -v by hand")


def _fingerprint(story: _Story) -> str:
    """Kind and fingerprint of the key that the hop showed last."""
    return _SHOWN.findall(story.text)[-1] if _SHOWN.search(story.text) else "of an unknown kind"


def _accepted(story: _Story) -> _Key:
    found = re.findall(r"^debug1: Server accepts key: (.*?) [A-Z]\S* SHA256:\S+(.*)$", story.text, re.MULTILINE)
    return _Key(found[-1][0], "agent" in found[-1][1]) if found else _Key("", False)


def _locked(story: _Story, key: str) -> KitError:
    return Refused(f"{story.login}: the key {key} has a passphrase; load it into the agent: ssh-add {key}")


def _files(story: _Story) -> str:
    return story.last(r"^(?:Offending|Revoked) .*key in (.+)$") or "known_hosts"


def _fingerprint_at(file: str, line: int) -> str:
    """Of the key in a line of a known_hosts file."""
    try:
        key = Path(file).read_bytes().split(b"\n")[line - 1]
    except (OSError, IndexError):
        return "another"
    said = _keygen(["-lf", "-"], key + b"\n")
    return " ".join(said.split()[1:2]) or "another"


def _has_passphrase(key: str) -> bool:
    return Path(key).is_file() and "incorrect passphrase" in _keygen(["-y", "-P", "", "-f", key], b"")


def _keygen(arguments: list[str], given: bytes) -> str:
    argv = ["ssh-keygen", *arguments]
    done = subprocess.run(argv, input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    return done.stdout.decode("utf-8", "replace")
