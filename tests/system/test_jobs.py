"""Programs on the NPU host: they outlive the link, and nothing of them outlives its end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.errors import KitError, LinkLost
from deploy.hosts.host import Host
from deploy.hosts.local import LocalHost
from deploy.hosts.over_ssh import SSHHost
from deploy.inventory import Npu
from tests.system.network import Network

Connect = Callable[[Npu], SSHHost]
# Says its pid, waits for the file `go`, says that it is done.
WAITER = ["sh", "-c", 'echo "pid $$"; until [ -e "$0/go" ]; do sleep 0.05; done; echo done']


@pytest.fixture(params=["local", "ssh"])
def host(request: pytest.FixtureRequest, control: LocalHost, network: Network) -> Host:
    """Every case holds for both kinds of host."""
    if request.param == "local":
        return control
    section = request.getfixturevalue("npu_section")
    found: SSHHost = request.getfixturevalue("connect")(section)
    return found


def waited_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def job_log(host: Host, name: str) -> Path:
    return Path(host.workspace / ".stgcn-kit" / "jobs" / name / "log")


def in_background(host: Host, job: str, folder: Path) -> threading.Thread:
    """A WAITER that is not let come to its end."""

    def run() -> None:
        with suppress(KitError):
            host.run([*WAITER, str(folder)], job=job)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_output_and_status(host: Host, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = host.run(["sh", "-c", "echo out; echo err >&2; exit 3"], log=log)
    assert (done.status, done.output, log.read_text()) == (3, "out\nerr\n", "out\nerr\n")
    assert not list(Path(host.workspace).glob(".stgcn-kit/jobs/*"))


def test_a_program_that_is_not_there(host: Host) -> None:
    with pytest.raises(KitError, match="no-such-program"):
        host.run(["no-such-program"])


def test_a_deadline_ends_a_program_and_all_that_it_started(host: Host, tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"\b1 s"):
        host.run(["sh", "-c", 'sleep 60 & echo $! > "$0"; wait', str(tmp_path / "child")], timeout_s=1)
    child = int((tmp_path / "child").read_text())
    waited_for(lambda: gone(child))


def test_a_job_that_was_killed(host: Host) -> None:
    assert host.run(["sh", "-c", "kill -9 $$"], job="killed").status == -signal.SIGKILL
    assert not host.has_job("killed")


def test_a_job_whose_supervisor_was_killed_is_followed_to_its_end(host: Host, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def follow() -> None:
        try:
            host.run([*WAITER, str(tmp_path)], job="orphan")
        except KitError as error:
            failures.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    waited_for(lambda: job_log(host, "orphan").exists() and job_log(host, "orphan").read_text())
    program = int(job_log(host, "orphan").read_text().split()[1])
    supervisor = int(Path(f"/proc/{program}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGKILL)
    assert host.has_job("orphan")
    (tmp_path / "go").touch()
    thread.join(20)
    assert "left no status" in str(failures[0])
    assert not host.has_job("orphan")


def test_forgetting_a_job_ends_it(host: Host, tmp_path: Path) -> None:
    thread = in_background(host, "waits", tmp_path)
    waited_for(lambda: job_log(host, "waits").exists() and job_log(host, "waits").read_text())
    pid = int(job_log(host, "waits").read_text().split()[1])
    host.forget(["waits"])
    thread.join(20)
    assert gone(pid)
    assert not host.has_job("waits")


def test_a_job_goes_on_without_its_link_and_the_next_command_attaches(
    network: Network, connect: Connect, npu_section: Npu, tmp_path: Path
) -> None:
    host = connect(npu_section)
    lost: list[BaseException] = []

    def run() -> None:
        try:
            host.run([*WAITER, str(tmp_path)], job="long")
        except LinkLost as error:
            lost.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    waited_for(lambda: job_log(host, "long").exists() and job_log(host, "long").read_text())
    started = job_log(host, "long").read_text()
    network.down()
    try:
        thread.join(30)
        assert "the connection to" in str(lost[0])
    finally:
        network.up()
    again = connect(npu_section)
    assert again.has_job("long")
    (tmp_path / "go").touch()
    assert again.run([*WAITER, str(tmp_path)], job="long").output == started + "done\n"


def test_what_ended_while_nobody_watched_is_collected(
    network: Network, connect: Connect, npu_section: Npu, tmp_path: Path
) -> None:
    host = connect(npu_section)
    thread = in_background(host, "short", tmp_path)
    waited_for(lambda: job_log(host, "short").exists() and job_log(host, "short").read_text())
    started = job_log(host, "short").read_text()
    network.npu.restart_sshd()
    thread.join(30)
    (tmp_path / "go").touch()
    waited_for(lambda: "done" in job_log(host, "short").read_text())
    again = connect(npu_section)
    assert again.has_job("short")
    assert again.run([*WAITER, str(tmp_path)], job="short").output == started + "done\n"


def test_a_second_operator_is_told_who_holds_the_workspace(host: Host, request: pytest.FixtureRequest) -> None:
    """The first is played by a process of another name: the same one may share."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        other = LocalHost("other", Path(host.workspace))
        other.hold()
        time.sleep(60)
        os._exit(0)
    try:
        waited_for((Path(host.workspace) / ".stgcn-kit" / "lock").exists)
        waited_for((Path(host.workspace) / ".stgcn-kit" / "lock").read_text)
        with pytest.raises(KitError, match=rf"process {pid}\b"):
            host.hold()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    host.hold()  # a dead holder's lock is taken over
    host.close()
    assert not (Path(host.workspace) / ".stgcn-kit" / "lock").exists()


def test_the_lock_of_a_dead_operator_behind_a_dead_link_is_taken_over(
    network: Network, connect: Connect, npu_section: Npu
) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        connect(npu_section).hold()
        os.write(write, b"held")
        time.sleep(60)
        os._exit(0)
    assert os.read(read, 4) == b"held"
    network.down()  # so that its sshd does not learn of its death, at least not at once
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    time.sleep(1)
    network.up()
    connect(npu_section).hold()
