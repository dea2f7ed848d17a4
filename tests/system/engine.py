"""A Docker engine for the tests: the one that answers, or one of their own that leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.sshd import Sshd

START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 600  # a busy engine takes more than the usual minute over a large image


@contextmanager
def docker_engine(folder: Path) -> Iterator[docker.DockerClient]:
    """A client. An engine of the tests' own keeps all that it makes in `folder`, but for the usual socket."""
    try:
        client = docker.from_env(timeout=ANSWER_TIMEOUT_S)
        client.ping()
        yield client
        return
    except docker.errors.DockerException:
        pass
    if os.getuid() != 0:
        pytest.skip("no Docker engine answers, and to start one takes root")
    _install("docker.io", "iptables")
    command = ["dockerd", f"--data-root={folder}/data", f"--exec-root={folder}/exec"]
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            [*command, f"--pidfile={folder}/dockerd.pid"], stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield _answering(daemon, folder / "dockerd.log")
    finally:
        daemon.terminate()
        daemon.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def another_engine() -> Iterator[docker.DockerClient]:
    """An engine beside the one that answers, as another host's: without a network, at a socket of its own."""
    folder = Path(tempfile.mkdtemp(prefix="engine-"))  # short: a socket's path has at most 107 bytes
    assert os.getuid() == 0, "to start an engine takes root"
    _install("docker.io")
    socket_ = f"unix://{folder}/docker.sock"
    options = {"host": socket_, "data-root": f"{folder}/data", "exec-root": f"{folder}/exec", "bridge": "none"}
    # In a network of its own: a dockerd without a bridge removes the machine's docker0, another engine's.
    argv = [
        "unshare",
        "--net",
        "dockerd",
        *(f"--{name}={value}" for name, value in options.items()),
        "--iptables=false",
    ]
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            [*argv, f"--pidfile={folder}/dockerd.pid"], stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield _answering(daemon, folder / "dockerd.log", socket_)
    finally:
        daemon.terminate()
        daemon.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def install_base_tools() -> None:
    """What docker/base.sh needs."""
    _install("mmdebstrap")


@contextmanager
def login(folder: Path) -> Iterator[dict[str, Any]]:
    """An sshd on the loopback that lets this user in by key: what an inventory says of such a host."""
    _install("openssh-server")
    with Sshd(folder) as sshd:
        yield sshd.section


def _answering(daemon: subprocess.Popen[bytes], log: Path, at: str | None = None) -> docker.DockerClient:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and daemon.poll() is None:
        try:
            environment = {**os.environ, "DOCKER_HOST": at} if at else None
            client = docker.from_env(timeout=ANSWER_TIMEOUT_S, environment=environment)
            client.ping()
            return client
        except docker.errors.DockerException:
            time.sleep(0.5)
    raise AssertionError("dockerd did not come up:\n" + log.read_text()[-4000:])


def _install(*packages: str) -> None:
    programs = {"docker.io": "dockerd", "openssh-server": "/usr/sbin/sshd"}
    missing = [package for package in packages if shutil.which(programs.get(package, package)) is None]
    if missing and os.getuid() != 0:
        pytest.skip(f"{', '.join(missing)} is not installed, and to install it takes root")
    if missing:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        wait = ["-o", "DPkg::Lock::Timeout=300"]
        subprocess.run(["apt-get", *wait, "update", "-qq"], check=True, env=environment)
        subprocess.run(["apt-get", *wait, "install", "-qq", "-y", *missing], check=True, env=environment)
