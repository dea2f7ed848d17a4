"""Host keys, logins and ways to a host: known ones only, each refusal a sentence with the way out."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.errors import KitError
from deploy.hosts import trust
from deploy.hosts.over_ssh import SSHHost
from deploy.hosts.ssh import NotTrusted, Refused, Unreachable
from deploy.inventory import Inventory, Npu
from tests.system.network import Network

Connect = Callable[[Npu], SSHHost]


@pytest.fixture
def known_hosts(network: Network) -> Iterator[Path]:
    """The operator's file, as it was again afterwards."""
    yield network.known_hosts
    network.pin_keys()


def fingerprint(network: Network) -> str:
    key = network.npu.folder / "host_key.pub"
    return subprocess.run(["ssh-keygen", "-lf", str(key)], capture_output=True, text=True, check=True).stdout.split()[1]


def inventory(section: Npu, known_hosts: Path) -> Inventory:
    return Inventory(npu=[section], known_hosts=str(known_hosts))


def test_an_unknown_key_is_refused_by_its_fingerprint_and_pinned_after_a_yes(
    network: Network, connect: Connect, npu_section: Npu, known_hosts: Path
) -> None:
    known_hosts.write_text(network.gpu.host_key())
    with pytest.raises(NotTrusted, match="`fab trust`") as refusal:
        connect(npu_section)
    assert fingerprint(network) in str(refusal.value)
    with pytest.raises(KitError, match="npu-a"):
        trust.run(inventory(npu_section, known_hosts), lambda _: "no")
    assert known_hosts.read_text() == network.gpu.host_key()
    trust.run(inventory(npu_section, known_hosts), lambda _: "yes")
    assert known_hosts.read_text() == network.gpu.host_key() + network.npu.host_key()
    assert known_hosts.stat().st_mode & 0o777 == 0o600
    connect(npu_section)


@pytest.mark.parametrize("hashed", [False, True])
def test_a_changed_key_is_refused_and_replaced_after_a_yes(
    network: Network, connect: Connect, npu_section: Npu, known_hosts: Path, hashed: bool
) -> None:
    if hashed:
        subprocess.run(["ssh-keygen", "-qHf", str(known_hosts)], check=True, capture_output=True)
    old = fingerprint(network)
    network.npu.new_host_key()
    network.npu.restart_sshd()
    with pytest.raises(NotTrusted, match="CHANGED") as refusal:
        connect(npu_section)
    assert old in str(refusal.value)
    assert fingerprint(network) in str(refusal.value)
    before = known_hosts.read_text().splitlines()
    trust.run(inventory(npu_section, known_hosts), lambda _: "yes")
    assert known_hosts.read_text().splitlines() == [before[0], network.npu.host_key().strip()]
    connect(npu_section)


def test_a_jump_host_is_held_to_the_same(
    network: Network, connect: Connect, npu_section: Npu, known_hosts: Path
) -> None:
    section = npu_section.model_copy(update={"jump": f"root@{network.gpu.address}"})
    host = connect(section)
    came_from = host.run(["sh", "-c", "echo $SSH_CONNECTION"]).output.split()[0]
    assert came_from == network.gpu.address
    known_hosts.write_text(network.npu.host_key())
    with pytest.raises(NotTrusted, match=network.gpu.address):
        connect(section)
    trust.run(inventory(section, known_hosts), lambda _: "yes")
    connect(section)


def test_ssh_config_is_honoured(
    network: Network, connect: Connect, npu_section: Npu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(
        f"Host bench\n HostName {network.npu.address}\n User root\n IdentityFile {network.key}\n"
        " Ciphers aes256-gcm@openssh.com\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n"
    )
    host = connect(npu_section.model_copy(update={"host": "bench", "user": None, "key": None}))
    assert host.run(["true"]).status == 0
    assert host._client.effective(host._client.target)["ciphers"] == ["aes256-gcm@openssh.com"]
    network.known_hosts.write_text("")
    try:
        with pytest.raises(NotTrusted):  # whatever the file says of checking
            connect(npu_section.model_copy(update={"host": "bench", "user": None, "key": None}))
    finally:
        network.pin_keys()


def test_a_relative_workspace_lies_in_the_logins_home(network: Network, connect: Connect, npu_section: Npu) -> None:
    host = connect(npu_section.model_copy(update={"workspace": "stgcn work"}))
    assert Path(host.workspace) == network.npu.home / "stgcn work"


def test_what_a_login_prints_is_not_taken_for_an_answer(network: Network, connect: Connect, npu_section: Npu) -> None:
    noise = network.npu.home / ".bashrc"
    noise.write_text('echo "Welcome to {\\"ok\\": 1}"\necho careful >&2\n')
    try:
        assert connect(npu_section).run(["echo", "here"]).output == "here\n"
    finally:
        noise.unlink()


def test_a_key_that_the_host_does_not_take(npu_section: Npu, connect: Connect, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    with pytest.raises(Refused, match="authorized_keys"):
        connect(npu_section.model_copy(update={"key": str(other)}))
    with pytest.raises(KitError, match="is not there"):
        connect(npu_section.model_copy(update={"key": str(tmp_path / "none")}))


def test_a_key_with_a_passphrase_is_the_agents_business(npu_section: Npu, connect: Connect, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(locked)], check=True)
    with pytest.raises(Refused, match="ssh-add"):
        connect(npu_section.model_copy(update={"key": str(locked)}))


def test_a_host_that_is_not_there(npu_section: Npu, connect: Connect) -> None:
    with pytest.raises(Unreachable, match="cannot be reached"):
        connect(npu_section.model_copy(update={"port": 2222}))


def test_a_link_that_dies_while_connecting(network: Network, npu_section: Npu, connect: Connect) -> None:
    network.down()
    try:
        with pytest.raises(Unreachable):
            connect(npu_section)
    finally:
        network.up()
