"""Logins as they are: every shell, noisy ones, closed ones, and each reason not to be let in with its own cure."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.errors import KitError
from deploy.hosts.over_ssh import SSHHost
from deploy.hosts.ssh import Refused, Unreachable
from deploy.inventory import Npu
from tests.system.conftest import Kit, inventory
from tests.system.network import SHELLS, Network
from tests.system.test_whole_job import forget

Connect = Callable[[Npu], SSHHost]
PORT = 2300
KEYBOARD = ["KbdInteractiveAuthentication yes"]
TITLE = 'printf "\\033]0;a title\\007"\n'
START_FILES = {
    "bash": (".bashrc", TITLE + "echo careful >&2\n"),
    "zsh": (".zshenv", TITLE + "echo careful >&2\n"),
    "fish": (".config/fish/config.fish", TITLE + "echo careful >&2\n"),
    "csh": (".cshrc", TITLE),
    "tcsh": (".tcshrc", TITLE),
}


@pytest.fixture(scope="module")
def logins(network: Network) -> Iterator[Callable[[str], str]]:
    """Makes logins of root's rights, each with another shell; they are gone at the end."""
    made: list[str] = []

    def login(shell: str) -> str:
        name = f"stgcn-{Path(shell).name}"
        subprocess.run(["userdel", "-f", name], check=False, capture_output=True)  # of a run that was cut
        of_root = ["-o", "-u", "0", "-g", "0", "-M", "-d", "/", "-p", "*"]
        subprocess.run(["useradd", *of_root, "-s", shutil.which(shell) or shell, name], check=True)
        made.append(name)
        return name

    yield login
    for name in made:
        subprocess.run(["userdel", "-f", name], check=False, capture_output=True)


@pytest.fixture
def start_file(network: Network) -> Iterator[Callable[[str], None]]:
    """Writes a shell's start-up file that prints, and takes it away again."""
    written: list[Path] = []

    def write(shell: str) -> None:
        if shell in START_FILES:
            name, text = START_FILES[shell]
            written.append(network.npu.home / name)
            written[-1].parent.mkdir(parents=True, exist_ok=True)
            written[-1].write_text(text)

    yield write
    for path in written:
        path.unlink()


@pytest.mark.parametrize("shell", SHELLS)
def test_doctor_convert_and_bench_whatever_the_login_shell(
    shell: str,
    logins: Callable[[str], str],
    start_file: Callable[[str], None],
    undisturbed: Kit,
    network: Network,
    sample: Path,
    tmp_path: Path,
) -> None:
    shutil.copytree(undisturbed.workspace / "gpu", tmp_path / "work" / "gpu")
    shutil.copy(undisturbed.workspace / "manifest.json", tmp_path / "work")
    kit = Kit(network, tmp_path, inventory(network, tmp_path, sample, batch_sizes=[1]))
    forget(kit, ("convert", "accuracy", "throughput", "score", "report"))
    kit.inventory["npu"][0]["user"] = logins(shell)
    kit.inventory["npu"][0]["workspace"] = str(tmp_path / "it's a (work) space! $HOME")
    kit.write()
    start_file(shell)
    assert "✗" not in kit.run("doctor")
    kit.run("npu-convert", "npu-bench", "score")
    expected = undisturbed.summary()
    expected["batches"] = expected["batches"][:1]
    assert kit.summary() == expected


@pytest.mark.parametrize(("shell", "told"), [("nologin", "not available"), ("false", "give it a shell")])
def test_a_closed_login_is_told_by_what_it_says(
    shell: str, told: str, logins: Callable[[str], str], npu_section: Npu, connect: Connect
) -> None:
    with pytest.raises(KitError, match=told):
        connect(npu_section.model_copy(update={"user": logins(f"/usr/sbin/{shell}" if shell == "nologin" else shell)}))


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        (
            [*KEYBOARD, "AuthenticationMethods publickey,keyboard-interactive"],
            Refused,
            "second",
        ),
        ([*KEYBOARD, "PubkeyAuthentication no"], Refused, "no keys, only"),
        (["ForceCommand echo only sftp here"], KitError, "only sftp here"),
        (["ForceCommand /nonexistent/python3"], KitError, "does not run|no python3"),
        (["MaxSessions 0"], Refused, "MaxSessions"),
        (["DenyUsers root"], Refused, "none of your keys"),
    ],
)
def test_each_refusal_has_its_cure(
    options: list[str], kind: type[KitError], told: str, network: Network, npu_section: Npu, connect: Connect
) -> None:
    with network.npu.another_sshd(PORT, *options):
        network.known_hosts.write_text(network.npu.host_key(PORT))
        try:
            with pytest.raises(kind, match=told):
                connect(npu_section.model_copy(update={"port": PORT}))
        finally:
            network.pin_keys()


def test_one_session_a_connection_is_enough(network: Network, npu_section: Npu, connect: Connect) -> None:
    with network.npu.another_sshd(PORT, "MaxSessions 1"):
        network.known_hosts.write_text(network.npu.host_key(PORT))
        try:
            host = connect(npu_section.model_copy(update={"port": PORT}))
            host.hold()
            assert host.run(["echo", "here"]).output == "here\n"
            host.close()
        finally:
            network.pin_keys()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """An SSH agent of this process's environment; its process id."""
    path = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL) as process:
        while not path.exists():
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield process.pid
        process.kill()


def new_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def test_more_agent_keys_than_sshd_takes(
    agent: int, network: Network, npu_section: Npu, connect: Connect, tmp_path: Path
) -> None:
    keys = [new_key(tmp_path / f"key{number}") for number in range(7)]
    subprocess.run(["ssh-add", "-q", *keys, network.key], check=True)
    with pytest.raises(Refused, match="MaxAuthTries.*`key` in the inventory"):
        connect(npu_section.model_copy(update={"key": None}))
    connect(npu_section)  # the one that the inventory names is the only one that is offered


@pytest.mark.parametrize("named", [True, False])
def test_an_agent_that_does_not_answer(agent: int, named: bool, npu_section: Npu, connect: Connect) -> None:
    os.kill(agent, signal.SIGSTOP)
    try:
        with pytest.raises(Refused, match="agent .*did not answer"):
            connect(npu_section if named else npu_section.model_copy(update={"key": None}))
    finally:
        os.kill(agent, signal.SIGCONT)


def test_a_port_that_accepts_and_never_answers(network: Network, npu_section: Npu, connect: Connect) -> None:
    with socket.create_server((network.gpu.address, 0)) as silent:
        section = npu_section.model_copy(update={"host": network.gpu.address, "port": silent.getsockname()[1]})
        with pytest.raises(Unreachable, match="did not answer in time"):
            connect(section)


def test_nothing_is_left_of_a_connection(npu_section: Npu, connect: Connect, network: Network) -> None:
    host = connect(npu_section)
    folder = host._client.folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert network.gpu.processes(str(folder))
    host.close()
    assert not folder.exists()
    deadline = time.monotonic() + 5  # its connection is closed a moment before it has ended
    while network.gpu.processes(str(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not network.gpu.processes(str(folder))


def test_a_master_that_is_killed_is_a_lost_link(npu_section: Npu, connect: Connect, network: Network) -> None:
    host = connect(npu_section)
    for pid in network.gpu.processes(str(host._client.folder)):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(KitError, match="the connection to .* was lost"):
        host.run(["true"])
