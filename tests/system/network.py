"""Two hosts on one machine: network namespaces, a link between them, an sshd in each. Needs root; leaves nothing.

Addresses are of the documentation range 192.0.2.0/24 and exist in the namespaces alone.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

GPU, NPU = "192.0.2.1", "192.0.2.2"
PACKAGES = {"ip": "iproute2", "tc": "iproute2", "sshd": "openssh-server", "ssh": "openssh-client", "mount": "mount"}
SHELLS = ("bash", "dash", "zsh", "fish", "csh", "tcsh")
CLONE_NEWNET = 0x40000000
OPENSSL_CPU = "OPENSSL_ia32cap"  # what OpenSSL is told of the CPU here, it is told on the hosts too: they are one


def install_programs() -> None:
    """What the suite runs, from the distribution, where it is missing."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    wanted = PACKAGES | {shell: shell for shell in SHELLS}
    missing = sorted({package for program, package in wanted.items() if not shutil.which(program)})
    if missing:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "-qq", "update"], check=True, env=environment)
        command = ["apt-get", "-qq", "install", "--yes", "--no-install-recommends", *missing]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


class Machine:
    """One namespace, with its address, its end of the link and its sshd."""

    def __init__(self, folder: Path, name: str, address: str) -> None:
        self.authorized_keys = folder / "user_key.pub"
        self.namespace, self.address = f"stgcn-{name}-{os.getpid()}", address
        self.folder = folder / name
        self.device = f"{name}{os.getpid()}"
        self.home = self.folder / "home"
        self.home.mkdir(parents=True)
        self.new_host_key()

    def new_host_key(self) -> None:
        key = self.folder / "host_key"
        key.unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)

    def host_key(self, port: int = 22) -> str:
        """Its line of a known_hosts file."""
        name = self.address if port == 22 else f"[{self.address}]:{port}"
        return " ".join([name, *(self.folder / "host_key.pub").read_text().split()[:2]]) + "\n"

    def start_sshd(self) -> None:
        config = self.folder / "sshd_config"
        cpu = f"{OPENSSL_CPU}={os.environ[OPENSSL_CPU]}" if OPENSSL_CPU in os.environ else ""
        config.write_text(
            f"ListenAddress {self.address}\nHostKey {self.folder / 'host_key'}\n"
            f"AuthorizedKeysFile {self.authorized_keys}\n"
            f"SetEnv HOME={self.home} {cpu}\nPidFile none\nUsePAM no\nStrictModes no\n"
            "PasswordAuthentication no\nSubsystem sftp internal-sftp\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on its empty folder
        command = ["ip", "netns", "exec", self.namespace, shutil.which("sshd") or "sshd", "-D", "-f", str(config)]
        log = self.folder / "sshd.log"
        log.unlink(missing_ok=True)
        self.sshd = subprocess.Popen([*command, "-E", str(log)], start_new_session=True)
        deadline = time.monotonic() + 10
        while "listening on" not in (log.read_text() if log.exists() else "") and time.monotonic() < deadline:
            time.sleep(0.02)

    @contextmanager
    def another_sshd(self, port: int, *options: str) -> Iterator[None]:
        """A second sshd of this machine, its `options` before those of the first."""
        config = self.folder / f"sshd_config_{port}"
        config.write_text("\n".join([f"Port {port}", *options, (self.folder / "sshd_config").read_text()]))
        command = ["ip", "netns", "exec", self.namespace, shutil.which("sshd") or "sshd", "-D", "-e", "-f", str(config)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as sshd:
            assert sshd.stderr
            try:
                assert any("listening on" in line for line in sshd.stderr), "sshd does not start"
                threading.Thread(target=sshd.stderr.read, daemon=True).start()  # it writes on
                yield
            finally:
                sshd.kill()

    def kill_sshd(self) -> None:
        """The daemon and every connection that it serves; what logins started lives on."""
        for pid in self.processes("sshd"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.sshd.wait()

    def restart_sshd(self) -> None:
        self.kill_sshd()
        self.start_sshd()

    def processes(self, part: str = "") -> list[int]:
        """The processes of this machine whose command line has `part` in it, fab's own aside."""
        found = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True).stdout.split()
        return [int(pid) for pid in found if part in command_line(int(pid))]

    def destroy(self) -> None:
        for pid in set(self.processes()) - {os.getpid()}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", self.namespace], check=False)
        if hasattr(self, "sshd"):
            self.sshd.wait()


def command_line(pid: int) -> str:
    """Empty for a process that is gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


class Network:
    """The GPU host, where the control side runs, and the NPU host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gpu, self.npu = Machine(folder, "gpu", GPU), Machine(folder, "npu", NPU)
        self.key = folder / "user_key"
        self.known_hosts = folder / "known_hosts"

    def build(self) -> None:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        for machine in (self.gpu, self.npu):
            _run("ip", "netns", "add", machine.namespace)
        peer = ["peer", "name", self.npu.device, "netns", self.npu.namespace]
        _run("ip", "link", "add", self.gpu.device, "netns", self.gpu.namespace, "type", "veth", *peer)
        for machine in (self.gpu, self.npu):
            _run("ip", "-n", machine.namespace, "addr", "add", f"{machine.address}/24", "dev", machine.device)
            _run("ip", "-n", machine.namespace, "link", "set", "lo", "up")
        self.up()
        for machine in (self.gpu, self.npu):
            machine.start_sshd()
        self.pin_keys()

    def pin_keys(self) -> None:
        self.known_hosts.write_text(self.gpu.host_key() + self.npu.host_key())

    def up(self) -> None:
        for machine in (self.gpu, self.npu):
            _run("ip", "-n", machine.namespace, "link", "set", machine.device, "up")

    def down(self) -> None:
        _run("ip", "-n", self.gpu.namespace, "link", "set", self.gpu.device, "down")

    @contextmanager
    def gigabit(self) -> Iterator[int]:
        """The link as 1 Gbit/s with a round trip of 1 ms; yields the port of the NPU host's sshd behind it.

        netem delays packets where the kernel has it. Elsewhere a relay in front of sshd delays the bytes instead.
        """
        netem = ["root", "netem", "delay", "500us", "rate", "1gbit", "limit", "20000"]
        devices = [(machine.namespace, machine.device) for machine in (self.gpu, self.npu)]
        commands = [["tc", "-n", namespace, "qdisc", "replace", "dev", device] for namespace, device in devices]
        if all(subprocess.run([*command, *netem], capture_output=True).returncode == 0 for command in commands):
            try:
                yield 22
            finally:
                for namespace, device in devices:
                    _run("tc", "-n", namespace, "qdisc", "del", "dev", device, "root")
            return
        with self.limited("1gbit", burst="256k"), Relay(self.npu, delay_s=0.0005) as relay:
            yield relay.port

    @contextmanager
    def limited(self, rate: str, burst: str = "64k") -> Iterator[None]:
        """A slower link, both ways."""
        for machine in (self.gpu, self.npu):
            shape = ["root", "tbf", "rate", rate, "burst", burst, "latency", "50ms"]
            _run("tc", "-n", machine.namespace, "qdisc", "replace", "dev", machine.device, *shape)
        try:
            yield
        finally:
            for machine in (self.gpu, self.npu):
                _run("tc", "-n", machine.namespace, "qdisc", "del", "dev", machine.device, "root")

    def npu_section(self, workspace: Path | str) -> dict[str, Any]:
        """The NPU host's section of an inventory."""
        return {
            "name": "npu-a",
            "connection": "ssh",
            "host": self.npu.address,
            "user": "root",
            "key": str(self.key),
            "workspace": str(workspace),
            "runtime": "native",
        }

    def destroy(self) -> None:
        for machine in (self.gpu, self.npu):
            machine.destroy()


class Relay:
    """A TCP port in front of a machine's sshd, each byte held back for `delay_s` in either direction."""

    port = 2200

    def __init__(self, machine: Machine, delay_s: float) -> None:
        source = Path(__file__).with_name("relay.py")
        command = ["ip", "netns", "exec", machine.namespace, sys.executable, str(source)]
        self._process = subprocess.Popen(
            [*command, machine.address, str(self.port), str(delay_s)], stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Relay:
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def two_hosts(folder: Path) -> Iterator[Network]:
    """Both hosts, this thread in the one that controls."""
    install_programs()
    network = Network(folder)
    try:
        network.build()
        with inside(network.gpu.namespace):
            yield network
    finally:
        network.destroy()


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread, and what it starts, in a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open() as home, Path(f"/run/netns/{namespace}").open() as there:
        if libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            libc.setns(home.fileno(), CLONE_NEWNET)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
