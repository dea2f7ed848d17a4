"""What is done in a process at the other end of a pipe: waits end, and a lock that is gone is noticed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from sys import executable

import pytest

from deploy.errors import ERROR, HOST_UNFIT, HostUnfit, KitError, LinkLost
from deploy.hosts import exchange, piped, pipes
from deploy.hosts.piped import PipedHost
from deploy.hosts.pipes import LocalPipe
from deploy.hosts.remote import launch
from deploy.hosts.remote.launch import ARGUMENTS


class Piped(PipedHost):
    """This machine, reached as others are."""

    operations = (executable, *ARGUMENTS)

    def __init__(self, workspace: Path) -> None:
        super().__init__("npu-a")
        self.workspace, self.pids = PurePosixPath(workspace), list[int]()

    def start(self, argv: Sequence[str]) -> LocalPipe:
        pipe = LocalPipe(argv)
        self.pids.append(pipe._process.pid)
        return pipe

    def path(self, text: str) -> PurePosixPath:
        return PurePosixPath(text)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Piped]:
    monkeypatch.setattr(exchange, "SILENCE_S", 3.0)
    monkeypatch.setattr(exchange, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(pipes, "SILENCE_S", 3.0)
    host = Piped(tmp_path / "workspace")
    yield host
    for pid in host.pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    host.close()


def test_a_program_and_its_end(host: Piped) -> None:
    done = host.run(["sh", "-c", "echo out; exit 3"])
    assert (done.status, done.output) == (3, "out\n")
    assert host.run(["sh", "-c", "echo job"], job="job").output == "job\n"
    assert host.has_job("job")


@pytest.mark.parametrize("job", [None, "job"])
def test_a_helper_that_is_stopped_is_not_waited_for(host: Piped, job: str | None, tmp_path: Path) -> None:
    started = time.monotonic()
    script = 'kill -STOP "$(cat "$0")"; sleep 30'
    host.start = lambda argv: _noted(Piped.start(host, argv), tmp_path / "pid")  # type: ignore[method-assign]
    with pytest.raises(LinkLost, match="3 s"):
        host.run(["sh", "-c", script, str(tmp_path / "pid")], job=job)
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("login", "told"),
    [
        ([executable, "-c", f"import sys; sys.version_info = (3, 6, 9); {ARGUMENTS[2]}"], "python3 there is 3"),
        (["sh", "-c", "echo sh: python3: not found >&2; exit 127"], "no python3"),
        (["sh", "-c", "echo no logins today; cat >/dev/null"], "no logins today"),
        (["true"], "runs nothing"),
    ],
)
def test_a_login_that_does_not_run_python_makes_its_host_unfit(login: list[str], told: str, host: Piped) -> None:
    host.operations = login  # type: ignore[assignment]
    with pytest.raises(HostUnfit, match=told):
        host.run(["true"])


def test_operations_share_a_process(host: Piped) -> None:
    host.hold()
    for _ in range(3):
        assert host.run(["true"]).status == 0
        assert not host.has_job("none")
        with pytest.raises(KitError, match="send"):
            host.call("send", {"path": str(host.kit / "none")})
    _, shared = host.pids  # the hold has one of its own
    os.kill(shared, signal.SIGKILL)
    os.waitid(os.P_PID, shared, os.WEXITED | os.WNOWAIT)
    assert host.run(["true"]).status == 0
    assert len(host.pids) == 3


@pytest.mark.parametrize("operation", ["listing", "receive"])
def test_what_a_process_that_waited_did_not_take_another_does(operation: str, host: Piped) -> None:
    assert host.run(["true"]).status == 0
    os.kill(host.pids[0], signal.SIGSTOP)  # or its end would be seen before anything is asked of it
    end = threading.Timer(0.3, os.kill, (host.pids[0], signal.SIGKILL))
    end.start()
    request = {"folder": str(host.kit)}
    if operation == "receive":
        request = {"path": str(host.kit / "a"), "bytes": 3, "sha256": hashlib.sha256(b"new").hexdigest()}
    host.call(operation, request, iter([b"n", b"ew"]) if operation == "receive" else None)
    assert len(host.pids) == 2


def test_a_body_may_take_longer_than_its_answer(host: Piped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "OPERATION_TIMEOUT_S", 0.6)

    def body() -> Iterator[bytes]:
        for byte in (b"n", b"e", b"w"):
            time.sleep(0.3)
            yield byte

    request = {"path": str(host.kit / "a"), "bytes": 3, "sha256": hashlib.sha256(b"new").hexdigest()}
    host.call("receive", request, body())


def test_a_command_that_was_asleep_has_lost_what_heard_nothing_of_it(
    host: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = launch._source
    monkeypatch.setattr(launch, "_source", lambda name: source(name).replace("LEASE_S = 60", "LEASE_S = 1"))
    monkeypatch.setattr(exchange, "payload", launch.payload.__wrapped__)
    monkeypatch.setattr(exchange, "HEARTBEAT_S", 2.0)
    monkeypatch.setattr(piped, "HEARTBEAT_S", 60.0)
    for job in ("job", None):
        with pytest.raises(LinkLost, match="heard nothing"):
            host.run(["sleep", "60"], job=job)
    monkeypatch.setattr(piped, "LEASE_S", 1)
    host.hold()
    assert host.has_job("job")
    time.sleep(1.5)
    with pytest.raises(LinkLost, match="not held"):
        host.forget(["job"])
    again = Piped(Path(host.workspace))
    assert again.has_job("job")
    again.forget(["job"])
    again.close()


def test_what_floods_standard_error_is_not_listened_to_for_ever() -> None:
    pipe = LocalPipe(["sh", "-c", "yes >&2 & yes >&2"])
    assert pipe.read(0.1) is None
    pipe.abort()
    assert pipe.complaint()
    pipe.close()


def test_what_has_a_body_is_the_last_of_its_process(host: Piped) -> None:
    request = {"path": str(host.kit / "files/a"), "bytes": 3, "sha256": hashlib.sha256(b"new").hexdigest()}
    for body in ([b"new"], [b"old"], [b"ne"], []):
        with contextlib.nullcontext() if body == [b"new"] else pytest.raises(KitError, match="damaged"):
            host.call("receive", request, body)
    assert len(host.pids) == 4
    assert Path(host.kit / "files/a").read_bytes() == b"new"


def _noted(pipe: LocalPipe, path: Path) -> LocalPipe:
    path.write_text(str(pipe._process.pid))
    return pipe


def test_a_stopped_helper_that_should_take_bytes_is_not_waited_for(host: Piped) -> None:
    def body() -> Iterator[bytes]:
        yield b"1" * 100
        os.kill(host.pids[-1], signal.SIGSTOP)
        for _ in range(64):
            yield bytes(1 << 20)

    request = {"path": str(host.kit / "files/a"), "bytes": 100 + (64 << 20), "sha256": "0" * 64}
    with pytest.raises(LinkLost, match="receive"):
        host.call("receive", request, body())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, ERROR), (signal.SIGSTOP, HOST_UNFIT)])
def test_a_lost_hold_is_noticed_and_nothing_begins_after_it(
    host: Piped, number: signal.Signals, status: int, tmp_path: Path
) -> None:
    host.hold()
    host.verify_hold()
    os.kill(host.pids[-1], number)
    with pytest.raises(KitError, match=str(host.workspace)) as lost:
        host.verify_hold()
    assert lost.value.status == status  # the host's, where it does not answer
    with pytest.raises(KitError, match=str(host.workspace)):
        host.run(["touch", str(tmp_path / "begun")])
    assert not (tmp_path / "begun").exists()


def test_a_lock_that_was_removed_is_a_lost_hold(host: Piped) -> None:
    host.hold()
    Path(host.kit / "lock").unlink()
    other = Piped(Path(host.workspace))
    other.hold()  # the same process may share; what counts is that it has the lock now
    with pytest.raises(KitError, match="lock"):
        host.verify_hold()
    other.verify_hold()
    other.close()
