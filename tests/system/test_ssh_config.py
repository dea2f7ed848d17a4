"""Real ssh_config and known_hosts files: the kit reaches what `ssh HOST` reaches, and nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.errors import KitError
from deploy.hosts import trust
from deploy.hosts.over_ssh import SSHHost
from deploy.hosts.ssh import NotTrusted, Unreachable
from deploy.inventory import Inventory, Npu
from tests.system.network import GPU, NPU, Network

OTHER_PORT, CERTIFIED_PORT = 2222, 2223
# What two files and more say: @K@ the login's key, @H@ its folder, @KEYS@ known_hosts; the host is called bench.
COMMON = "IdentityFile @K@\nUser root\nUserKnownHostsFile @H@/known_hosts\n"
BENCH = f"Host bench\n HostName {NPU}\n"
GATE = f"Host gate\n HostName {GPU}\n"
BOTH = "@GPU@@NPU@"


@dataclass(frozen=True)
class Case:
    config: str
    known_hosts: str = BOTH
    reached: bool = True


LAX = "a jump that asks for less"
CASES = {
    "plain": Case(BENCH),
    "include": Case("Include @H@/other/*.conf\n"),
    "an identity that is not there": Case(f"Host bench\n HostName {NPU}\n IdentityFile @H@/none\n"),
    "a host key's alias": Case(BENCH + " HostKeyAlias the-npu\n", "the-npu @NPUKEY@\n"),
    "a host key's alias that is not known": Case(BENCH + " HostKeyAlias the-npu\n", reached=False),
    "a pattern": Case(BENCH, "192.0.2.*,!192.0.2.1 @NPUKEY@\n"),
    "a pattern with an exception": Case(BENCH, f"192.0.2.*,!{NPU} @NPUKEY@\n", reached=False),
    "a certificate's authority": Case(BENCH + f" Port {CERTIFIED_PORT}\n", f"@cert-authority [{NPU}]:* @CA@\n"),
    "another certificate's authority": Case(
        BENCH + f" Port {CERTIFIED_PORT}\n", f"@cert-authority [{NPU}]:* @GPUKEY@\n", reached=False
    ),
    "a revoked key": Case(BENCH, BOTH + "@revoked * @NPUKEY@\n", reached=False),
    "damaged lines": Case(BENCH, f"{NPU} 1024 35 1234567 rsa1\n{NPU} ssh-rsa AAAA\n{NPU}\n# \u00e9t\u00e9\n" + BOTH),
    "a jump": Case(BENCH + " ProxyJump gate\n" + GATE),
    "a jump whose key is not known": Case(BENCH + " ProxyJump gate\n" + GATE, "@NPU@", reached=False),
    "a jump that asks for less": Case(
        BENCH + " ProxyJump gate\n" + GATE + " StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n",
        "@NPU@",
        False,
    ),
    "a jump for all but the gate": Case(GATE + " ProxyJump none\n" + BENCH + "Host *\n ProxyJump gate\n"),
    "a jump to the same address": Case(
        BENCH + f" ProxyJump other\nHost other\n HostName {NPU}\n Port {OTHER_PORT}\n",
        BOTH + f"[{NPU}]:{OTHER_PORT} @NPUKEY@\n",
    ),
    "two jumps": Case(
        BENCH + f" ProxyJump gate,root@{NPU}:{OTHER_PORT}\n" + GATE, BOTH + f"[{NPU}]:{OTHER_PORT} @NPUKEY@\n"
    ),
    "a jump of a jump": Case(
        BENCH + f" ProxyJump other\nHost other\n HostName {NPU}\n Port {OTHER_PORT}\n ProxyJump gate\n" + GATE,
        BOTH + f"[{NPU}]:{OTHER_PORT} @NPUKEY@\n",
    ),
    "a proxy's command": Case(BENCH + " ProxyCommand ssh -F @H@/.ssh/config -o BatchMode=yes -W %h:%p gate\n" + GATE),
    "match": Case(f"Match originalhost bench exec true\n HostName {NPU}\n"),
    "all that an interactive login wants": Case(
        BENCH + " RequestTTY force\n RemoteCommand bash -l\n ForwardAgent yes\n ForwardX11 yes\n LocalForward 9 x:9\n"
        " ControlMaster auto\n ControlPath @H@/%h\n ControlPersist yes\n"
        " PermitLocalCommand yes\n LocalCommand touch @H@/ran\n"
    ),
}


@pytest.fixture(scope="module")
def sshds(network: Network) -> Iterator[None]:
    npu = network.npu.folder
    (npu / "ca").unlink(missing_ok=True)
    for argv in (
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", npu / "ca"],
        ["ssh-keygen", "-q", "-s", npu / "ca", "-h", "-I", "npu", "-n", NPU, npu / "host_key.pub"],
    ):
        subprocess.run(argv, check=True)
    certified = f"HostCertificate {npu / 'host_key-cert.pub'}"
    with network.npu.another_sshd(OTHER_PORT), network.npu.another_sshd(CERTIFIED_PORT, certified):
        yield


@pytest.fixture
def written(network: Network, sshds: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], Path]:
    """Writes a case's files, as the login's own; the configuration's path."""

    def write(case: Case) -> Path:
        npu = network.npu.folder
        values = {
            "@K@": str(network.key),
            "@H@": str(tmp_path),
            "@GPU@": network.gpu.host_key(),
            "@NPU@": network.npu.host_key(),
            "@GPUKEY@": key(network.gpu.folder / "host_key.pub"),
            "@NPUKEY@": key(npu / "host_key.pub"),
            "@CA@": key(npu / "ca.pub"),
        }

        def filled(text: str) -> bytes:
            for hole, value in values.items():
                text = text.replace(hole, value)
            return text.encode("latin-1")

        config = tmp_path / ".ssh" / "config"
        for path, text in {
            config: case.config + "Host *\n" + COMMON,
            tmp_path / "known_hosts": case.known_hosts,
            tmp_path / "other" / "a.conf": BENCH,
        }.items():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.write_bytes(filled(text))
        monkeypatch.setenv("HOME", str(tmp_path))
        return config

    return write


def key(path: Path) -> str:
    return " ".join(path.read_text().split()[:2])


def section(workspace: Path) -> Npu:
    return Npu(name="npu-a", connection="ssh", host="bench", workspace=str(workspace), runtime="native")


def ssh_reaches(config: Path) -> bool:
    no_login = {"RemoteCommand": "none", "ControlMaster": "no", "PermitLocalCommand": "no"}
    settings = {"BatchMode": "yes", "StrictHostKeyChecking": "yes", **no_login}
    options = [f"-o{name}={value}" for name, value in settings.items()]
    argv = ["ssh", "-F", str(config), *options, "bench", "true"]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize("name", CASES)
def test_what_ssh_reaches_is_reached(name: str, written: Callable[[Case], Path], tmp_path: Path) -> None:
    case = CASES[name]
    config = written(case)
    if name != LAX:  # where the kit is stricter than ssh: on every hop as on the last
        assert ssh_reaches(config) == case.reached
    if not case.reached:
        with pytest.raises(NotTrusted):
            SSHHost(section(tmp_path / "work"), None, 10)
        return
    host = SSHHost(section(tmp_path / "work"), None, 10)
    try:
        assert host.run(["echo", "here"]).output == "here\n"
        assert not (tmp_path / "ran").exists()
    finally:
        host.close()


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].reached])
def test_trust_finds_nothing_to_ask_where_ssh_has_none(
    name: str, written: Callable[[Case], Path], tmp_path: Path
) -> None:
    written(CASES[name])
    before = (tmp_path / "known_hosts").read_bytes()
    trust.run(Inventory(npu=[section(tmp_path / "work")]), lambda _: pytest.fail("asked"))
    assert (tmp_path / "known_hosts").read_bytes() == before


@pytest.mark.parametrize(
    "name",
    ["a jump", "two jumps", "a jump of a jump", "a host key's alias", "a jump to the same address", "damaged lines"],
)
def test_trust_pins_every_hop_without_a_login(
    name: str, written: Callable[[Case], Path], network: Network, tmp_path: Path
) -> None:
    written(CASES[name])
    (tmp_path / "known_hosts").write_bytes(b"")
    asked: list[str] = []

    def yes(question: str) -> str:
        asked.append(question)
        return "yes"

    trust.run(Inventory(npu=[section(tmp_path / "work")]), yes)
    assert asked
    SSHHost(section(tmp_path / "work"), None, 10).close()


def test_trust_pins_no_revoked_key(written: Callable[[Case], Path], tmp_path: Path) -> None:
    written(CASES["a revoked key"])
    with pytest.raises(NotTrusted, match="REVOKED"):
        trust.run(Inventory(npu=[section(tmp_path / "work")]), lambda _: "yes")


def test_trust_leaves_what_other_hosts_have(written: Callable[[Case], Path], network: Network, tmp_path: Path) -> None:
    """A changed key in lines that are about others too: only this host's part of them goes."""
    old = key(network.gpu.folder / "host_key.pub")
    written(Case(BENCH, f"# \u00e9\nother,{NPU} {old}\n192.0.2.* {old}\nother ssh-rsa AAAA"))
    with pytest.raises(NotTrusted, match="CHANGED"):
        SSHHost(section(tmp_path / "work"), None, 10)
    trust.run(Inventory(npu=[section(tmp_path / "work")]), lambda _: "yes")
    new = key(network.npu.folder / "host_key.pub")
    expected = f"# \u00e9\nother {old}\n192.0.2.*,!{NPU} {old}\nother ssh-rsa AAAA\n{NPU} {new}\n"
    assert (tmp_path / "known_hosts").read_bytes() == expected.encode("latin-1")
    SSHHost(section(tmp_path / "work"), None, 10).close()


@pytest.mark.parametrize(
    ("config", "kind", "told"),
    [
        (BENCH + " NoSuchOption yes\n", KitError, "configuration .*NoSuchOption|nosuchoption"),
        ("Host *\n ProxyJump gate\n" + BENCH, KitError, "circle|loop"),
        (BENCH + " ProxyCommand sleep 600\n", Unreachable, "ProxyCommand `sleep 600` said nothing in time"),
        (BENCH + " ProxyCommand sh -c 'echo no way >&2; exit 3'\n", Unreachable, "ProxyCommand .*no way"),
        (BENCH + " ProxyJump nowhere.invalid\n", Unreachable, "nowhere.invalid .*no such name"),
        (f"Host bench\n HostName {NPU}\n Port 1\n ProxyJump gate\n" + GATE, Unreachable, "from 192.0.2.1 .*refused"),
        (f"Host bench\n HostName {NPU}\n Port 1\n", Unreachable, "no sshd listens"),
        ("Host bench\n HostName 192.0.2.99\n", Unreachable, "192.0.2.99:22 cannot be reached"),
        (BENCH + " KexAlgorithms diffie-hellman-group1-sha1\n", Unreachable, "no key exchange method in common"),
        (BENCH + " Ciphers 3des-cbc\n", Unreachable, "no cipher in common"),
    ],
)
def test_what_is_not_reached_says_why(
    config: str, kind: type[KitError], told: str, written: Callable[[Case], Path], tmp_path: Path
) -> None:
    written(Case(config))
    with pytest.raises(kind, match=told):
        SSHHost(section(tmp_path / "work"), None, 3)
