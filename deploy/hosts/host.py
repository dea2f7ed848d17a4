"""A host: somewhere that runs argument lists and the kit's own operations (`remote.py`).

`LocalHost` and `SSHHost` differ in how a program's ends are reached, and in nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import select
import shlex
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

import paramiko

from deploy.console import printable, say
from deploy.errors import KitError, LinkLost, OverrunError
from deploy.hosts import remote, ssh
from deploy.hosts.owner import Owner
from deploy.inventory import Gpu, Npu, local_path

HEAD_BYTES, TAIL_BYTES = 1 << 18, 1 << 20  # of a program's output in memory; a log keeps up to LOG_BYTES
LOG_BYTES = 64 << 20
OPERATION_TIMEOUT_S = 600.0  # without a byte from a file operation
HEARTBEAT_S = 5.0
NOISE_BYTES = 1 << 16  # of a login's start-up files, before an operation's own output


@dataclass(frozen=True)
class Completed:
    """A program that ended: exit status (negative: the signal) and its output, both streams as one."""

    status: int
    output: str


class Writer(Protocol):
    def write(self, block: bytes, /) -> object: ...


class Pipe(Protocol):
    """The ends of a program that runs on a host."""

    def write(self, block: bytes) -> None:
        """Raises OSError when the program or the link is gone."""

    def end_input(self) -> None: ...

    def read(self, timeout_s: float) -> bytes | None:
        """What it printed next, b"" at the end, None when nothing came."""

    def complaint(self) -> str:
        """What it said on standard error, once it has ended."""

    def abort(self) -> None:
        """End it from another thread than that which reads."""

    def close(self) -> None: ...


class Capture:
    """A program's output as it comes: all of it into a log (up to LOG_BYTES), its head and tail in memory."""

    def __init__(self, log: IO[bytes] | None, echo: bool = False) -> None:
        self._log, self._head, self._tail, self._seen = log, bytearray(), bytearray(), 0
        self._echo, self._line = echo, b""

    def write(self, block: bytes) -> None:
        if self._echo:
            *lines, self._line = (self._line + block).split(b"\n")
            for line in lines:
                say("    " + line.decode("utf-8", "replace"), "dim")
        if self._log and self._seen < LOG_BYTES:
            self._log.write(block[: LOG_BYTES - self._seen])
        self._seen += len(block)
        room = HEAD_BYTES - len(self._head)
        self._head += block[:room]
        self._tail += block[room:] if room > 0 else block
        del self._tail[: -TAIL_BYTES or None]

    def text(self) -> str:
        cut = self._seen - len(self._head) - len(self._tail)
        middle = f"\n[{cut} bytes cut]\n".encode() if cut > 0 else b""
        return (bytes(self._head) + middle + bytes(self._tail)).decode("utf-8", "replace")


class Host(ABC):
    """Where things run. `workspace` is absolute; the kit writes nowhere else."""

    name: str
    workspace: PurePosixPath
    operations: Sequence[str]  # the argument list that runs remote.py there

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder: _Holder | None = None
        self._open: set[Pipe] = set()
        self._closed = False

    @abstractmethod
    def start(self, argv: Sequence[str]) -> Pipe:
        """Start a program.

        Raises:
            KitError: it cannot be started.
            LinkLost: the host is not reached any more.
        """

    @abstractmethod
    def path(self, text: str) -> PurePosixPath:
        """A path of the inventory on this host, absolute."""

    def broken(self, operation: str, complaint: str) -> KitError:
        """The error for an operation that ended without a reply."""
        detail = f" ({complaint.splitlines()[-1]})" if complaint else ""
        return KitError(f"{self.name}: {operation} broke off without an answer{detail}; run the command again")

    def run(
        self,
        argv: Sequence[str],
        *,
        log: Path | None = None,
        timeout_s: float | None = None,
        echo: bool = False,
        job: str | None = None,
    ) -> Completed:
        """Run a program to its end, its output also into `log` and, with `echo`, onto the console as it comes.

        It runs detached, so that a lost link costs nothing: the next call with the same `job` attaches to it or
        collects its end, until `forget`. Without `job` it leaves nothing. A status that is not 0 is the caller's to
        judge.

        Raises:
            KitError: the program cannot be started, or left no trace.
            OverrunError: it did not end in `timeout_s` and was stopped.
        """
        folder = str(self._job(job or f"once-{secrets.token_hex(6)}"))
        request = {"folder": folder, "argv": list(argv), "timeout_s": timeout_s}
        with _open_log(log) as stream:
            capture = Capture(stream, echo)
            outcome = self.call("job", request, sink=capture, live=True)
        if job is None:
            self.call("remove", {"paths": [folder]})
        if "refused" in outcome:
            raise KitError(f"{self.name}: {argv[0]} cannot be started ({outcome['refused']}); is it installed?")
        if "timed_out" in outcome:
            raise OverrunError(f"{self.name}: {argv[0]} did not end within {timeout_s:g} s and was stopped")
        if "lost" in outcome:
            raise KitError(f"{self.name}: {argv[0]} was killed and left no status; run the command again")
        return Completed(outcome["status"], capture.text())

    def has_job(self, job: str) -> bool:
        """Whether an earlier command's job of this name runs, or has ended well and was not collected."""
        return self.call("job_state", {"folder": str(self._job(job))}) is not None

    def forget(self, jobs: Sequence[str]) -> None:
        """Stop what still runs of `jobs`, and remove what is known of them."""
        self.call("stop", {"folders": [str(self._job(job)) for job in jobs]})

    def call(
        self,
        operation: str,
        request: Mapping[str, Any],
        body: Iterable[bytes] = (),
        sink: Writer | None = None,
        live: bool = False,
    ) -> Any:
        """Do one operation of `remote.py`: `body` follows the request, the frames that it sends go to `sink`.

        Raises:
            KitError: the host's own sentence.
        """
        frames = self.stream(operation, request, body, live)
        while True:
            try:
                block = next(frames)
            except StopIteration as end:
                return end.value
            assert sink is not None
            sink.write(block)

    def stream(
        self, operation: str, request: Mapping[str, Any], body: Iterable[bytes] = (), live: bool = False
    ) -> Generator[bytes, None, Any]:
        """`call`, its frames one by one."""
        pipe = self._begin(operation)
        exchange = _Exchange(self, pipe, operation, live)
        try:
            try:
                pipe.write(json.dumps(dict(request)).encode() + b"\n")
                for block in body:
                    pipe.write(block)
                if not live:
                    pipe.end_input()
            except OSError:
                pass  # it refused the request, and its reply says why; or the link is gone, and reading tells
            return (yield from exchange.frames())
        finally:
            self._end(pipe)

    def hold(self) -> None:
        """Hold the workspace until `close`.

        Raises:
            KitError: another operator does, named.
        """
        mine = Owner.this_process()
        stale: Owner | None = None
        while True:
            pipe = self._begin("hold")
            frames = _Exchange(self, pipe, "hold", live=True).frames()
            try:
                request = {"workspace": str(self.workspace), "owner": asdict(mine), "stale": stale and asdict(stale)}
                pipe.write(json.dumps(request).encode() + b"\n")
                next(frames)
                self._holder = _Holder(pipe)
                return
            except StopIteration as refusal:
                self._end(pipe)
                holder = Owner.read(refusal.value)
            except BaseException:
                self._end(pipe)
                raise
            if holder.is_process_of(mine):
                return  # two hosts of the inventory share a workspace
            if holder == stale or not holder.is_dead():
                raise KitError(
                    f"{self.name}: {self.workspace} is in use by {printable(str(holder))}; wait for it, or end it there"
                )
            stale = holder

    def close(self, interrupted: bool = False) -> None:
        """Let go of the host; after an interrupt, stop all that runs there and remove all that is half done."""
        if interrupted and self._holder:
            with suppress(KitError):
                self.call("abandon", {"workspace": str(self.workspace)})
        self._closed = True
        if self._holder:
            self._holder.release()
            self._end(self._holder.pipe)
            self._holder = None
        for pipe in list(self._open):
            pipe.abort()

    def _begin(self, operation: str) -> Pipe:
        if self._closed:
            raise LinkLost(f"{self.name}: {operation} was not begun: the command is ending")
        pipe = self.start([*self.operations, operation])
        self._open.add(pipe)
        return pipe

    def _end(self, pipe: Pipe) -> None:
        self._open.discard(pipe)
        pipe.close()

    def _job(self, job: str) -> PurePosixPath:
        return self.workspace / ".kit" / "jobs" / job


class _Exchange:
    """The reply of one operation, as its bytes come."""

    def __init__(self, host: Host, pipe: Pipe, operation: str, live: bool) -> None:
        self._host, self._pipe, self._operation, self._live = host, pipe, operation, live
        self._buffer, self._told = bytearray(), time.monotonic()

    def frames(self) -> Generator[bytes, None, Any]:
        while self._line() != remote.MAGIC:
            pass
        while True:
            line = self._line()
            try:
                answer = json.loads(line)
            except ValueError:
                raise self._host.broken(self._operation, printable(line.decode("utf-8", "replace")).strip()) from None
            if "bytes" in answer:
                yield self._exactly(answer["bytes"])
            elif "ok" in answer:
                return answer["ok"]
            else:
                raise KitError(f"{self._host.name}: {self._operation}: {printable(str(answer.get('error', answer)))}")

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            self._fill()
        return self._take(end + 1)

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _fill(self) -> None:
        waited = 0.0
        while True:
            if self._live and time.monotonic() - self._told >= HEARTBEAT_S:
                with suppress(OSError):
                    self._pipe.write(b"\n")
                self._told = time.monotonic()
            block = self._pipe.read(HEARTBEAT_S)
            if block:
                self._buffer += block
                return
            if block is not None:
                raise self._host.broken(self._operation, printable(self._pipe.complaint()).strip())
            waited += HEARTBEAT_S
            if not self._live and waited >= OPERATION_TIMEOUT_S:
                raise KitError(
                    f"{self._host.name}: {self._operation} said nothing for {OPERATION_TIMEOUT_S:g} s; "
                    "look after the host, then run the command again"
                )


class _Holder:
    """A `hold` that was granted, kept alive."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe, self._end = pipe, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._end.wait(HEARTBEAT_S):
            try:
                self.pipe.write(b"\n")
            except OSError:
                return

    def release(self) -> None:
        """Let go, and see the lock gone."""
        self._end.set()
        self._thread.join()
        with suppress(OSError):
            self.pipe.end_input()
            while self.pipe.read(HEARTBEAT_S):
                pass


class LocalHost(Host):
    """This machine."""

    def __init__(self, name: str, workspace: Path) -> None:
        super().__init__(name)
        self.workspace = PurePosixPath(workspace)
        self.operations = [sys.executable, "-I", str(Path(remote.__file__))]

    def start(self, argv: Sequence[str]) -> Pipe:
        return _LocalPipe(argv)

    def path(self, text: str) -> PurePosixPath:
        return PurePosixPath(local_path(text))


class _LocalPipe:
    def __init__(self, argv: Sequence[str]) -> None:
        # A session of its own: an interrupt at the terminal is the control process's to pass on.
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin
        assert self._process.stdout
        assert self._process.stderr
        self._input, self._output, self._errors = self._process.stdin, self._process.stdout, self._process.stderr

    def write(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            view = view[self._input.write(view) :]

    def end_input(self) -> None:
        self._input.close()

    def read(self, timeout_s: float) -> bytes | None:
        if not select.select([self._output], [], [], timeout_s)[0]:
            return None
        return os.read(self._output.fileno(), remote.BLOCK)

    def complaint(self) -> str:
        return self._errors.read().decode("utf-8", "replace").strip()

    def abort(self) -> None:
        self._process.kill()

    def close(self) -> None:
        with suppress(OSError):
            self._input.close()
        self._output.close()  # before the wait: it may be stuck writing what nobody wants any more
        try:
            self._process.wait(remote.STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


# Brings remote.py to the workspace's .kit/, under a name that says its version, and tells where that is.
_BOOTSTRAP = f"""
import json, os, sys
def reply(answer):
    sys.stdout.write({remote.MAGIC.decode()!r} + json.dumps(answer) + chr(10))
    sys.exit()
if sys.version_info < (3, 7):
    reply({{"error": "python3 there is " + sys.version.split()[0] + "; install Python 3.7 or newer"}})
request = json.loads(sys.stdin.buffer.readline().decode())
source = sys.stdin.buffer.read()
home = os.path.expanduser("~")
workspace = os.path.normpath(os.path.join(home, os.path.expanduser(request["workspace"])))
path = os.path.join(workspace, ".kit", request["name"])
try:
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), 0o750, exist_ok=True)
        part = path + "." + str(os.getpid()) + ".part"
        with open(part, "wb") as stream:
            stream.write(source)
        os.replace(part, path)
except OSError as error:
    reply({{"error": "the workspace " + workspace + " cannot be written (" + error.strerror + ")"}})
reply({{"ok": {{"home": home, "workspace": workspace, "path": path}}}})
"""


class SSHHost(Host):
    """Another machine, over SSH; connected when it is made.

    Raises:
        KitError: it cannot be reached, is not known, takes none of our keys, or has no Python.
    """

    def __init__(self, section: Gpu | Npu, known_hosts: Path, link_timeout_s: float) -> None:
        super().__init__(section.name)
        self._section, self._known_hosts, self._timeout_s = section, known_hosts, link_timeout_s
        self._links: list[ssh.Link] = []
        self._lock = threading.Lock()
        self._lost = False
        try:
            there = self._bootstrap(section.workspace)
        except BaseException:
            self.close()
            raise
        self.home, self.workspace = PurePosixPath(there["home"]), PurePosixPath(there["workspace"])
        self.operations = ["python3", "-I", there["path"]]

    def _bootstrap(self, workspace: str) -> Mapping[str, str]:
        source = Path(remote.__file__).read_bytes()
        name = f"remote-{hashlib.sha256(source).hexdigest()[:16]}.py"
        self.operations = ["python3", "-I", "-c", _BOOTSTRAP]
        found: Mapping[str, str] = self.call("python3", {"workspace": workspace, "name": name}, [source])
        return found

    def start(self, argv: Sequence[str]) -> Pipe:
        if self._lost:
            raise self._link_lost()
        try:
            link, channel = self._session()
            pipe = _ChannelPipe(link, channel)
            channel.exec_command(shlex.join(argv))
            return pipe
        except (OSError, EOFError, paramiko.SSHException):
            raise self._link_lost() from None

    def _session(self) -> tuple[ssh.Link, paramiko.Channel]:
        with self._lock:
            for link in self._links:
                if not link.alive:
                    raise EOFError
                if channel := link.session():
                    return link, channel
            link = ssh.Link(self.name, ssh.connections(self._section, self._known_hosts), self._timeout_s)
            self._links.append(link)
            channel = link.session()
        if channel is None:
            raise KitError(f"{self.name}: its sshd allows no session; raise MaxSessions there")
        return link, channel

    def path(self, text: str) -> PurePosixPath:
        return self.home / (text.replace("~", str(self.home), 1) if text.startswith("~/") else text)

    def broken(self, operation: str, complaint: str) -> KitError:
        if all(link.alive for link in self._links):
            return super().broken(operation, complaint)
        return self._link_lost()

    def _link_lost(self) -> LinkLost:
        self._lost = True
        where = self._section.host
        return LinkLost(
            f"{self.name}: the connection to {where} was lost; what runs there goes on: run the command again"
            " to go on where it was"
        )

    def close(self, interrupted: bool = False) -> None:
        super().close(interrupted)
        for link in self._links:
            link.close()


class _ChannelPipe:
    def __init__(self, link: ssh.Link, channel: paramiko.Channel) -> None:
        self._link, self._channel, self._done = link, channel, False

    def write(self, block: bytes) -> None:
        with _one_error():
            self._channel.settimeout(OPERATION_TIMEOUT_S)
            self._channel.sendall(block)

    def end_input(self) -> None:
        with _one_error():
            self._channel.shutdown_write()

    def read(self, timeout_s: float) -> bytes | None:
        try:
            with _one_error():
                self._channel.settimeout(timeout_s)
                return self._channel.recv(remote.BLOCK)
        except TimeoutError:
            return None
        except OSError:
            return b""

    def complaint(self) -> str:
        text = b""
        while self._channel.recv_stderr_ready():
            text += self._channel.recv_stderr(NOISE_BYTES)
        return text.decode("utf-8", "replace").strip()

    def abort(self) -> None:
        self._channel.close()

    def close(self) -> None:
        if not self._done:
            self._done = True
            self._link.give_back(self._channel)


@contextmanager
def _one_error() -> Iterator[None]:
    """Paramiko tells of a link that is gone in several ways."""
    try:
        yield
    except (EOFError, paramiko.SSHException) as error:
        raise BrokenPipeError(str(error)) from None


def connect(section: Gpu | Npu, workspace: Path, known_hosts: Path, link_timeout_s: float) -> Host:
    """The host that an inventory section names. A GPU host on this machine works in the control's own `workspace`."""
    if section.connection == "ssh":
        return SSHHost(section, known_hosts, link_timeout_s)
    return LocalHost(section.name, workspace if isinstance(section, Gpu) else local_path(section.workspace))


def _open_log(log: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    if log is None:
        return nullcontext(None)
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("wb")
