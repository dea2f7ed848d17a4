"""What the kit runs on a host: file operations and jobs, one process an operation, no packages needed (Python >= 3.7).

    python3 remote.py OPERATION < request

The request is one line of JSON, then the operation's body, if it has one, up to the end of the input. The reply is the
line MAGIC, then any number of frames (`{"bytes": n}`, a line, then n raw bytes), then `{"ok": ...}` or `{"error": "one
sentence"}`, a line. Paths are absolute. Files appear under their names only whole: written aside, then renamed. The
same file serves this machine and, pushed over SSH, any other.

Nothing of it outlives its operator by more than LEASE_S: the operator writes to a live operation (`job`, `hold`) every
few seconds, and a read or write that hangs longer ends the process. Jobs alone go on, with a deadline of their own.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import importlib
import json
import os
import platform
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from typing import IO, Any, Callable, Dict, Iterator, List

MAGIC = b"stgcn-kit\n"  # a login's start-up files may print: what comes before this line is theirs
BLOCK = 1 << 20
LEASE_S = 60
STOP_S = 5.0  # what a program gets between SIGTERM and SIGKILL
MARKER = ".shard"  # in a shard's folder: what it holds, written last
PID = ".pid"  # in a shard's `.part`: who writes it
RAW_RATIO = 0.9  # a shard that compresses no better than this is sent as it is
TAGS = {b"z": "zstd", b"d": "deflate", b"r": "raw"}

Request = Dict[str, Any]
Body = Any  # has read(size)


# --- files ------------------------------------------------------------------------------------------------------------


def digest(request: Request, _body: Body) -> Dict[str, Any]:
    """`paths` -> {path: {"bytes", "sha256"}, or null where there is no such file}.

    With `memo`, a file of the host, digests are remembered while size, inode and times stay: a dataset is 2.57 GB.
    """
    known = _read_json(request["memo"]) if "memo" in request else {}
    found: Dict[str, Any] = {}
    for path in request["paths"]:
        if not os.path.isfile(path):
            found[path] = None
            continue
        status = os.stat(path)
        identity = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        if known.get(path, [None])[0] != identity:
            known[path] = [identity, _digest(path)]
        found[path] = known[path][1]
    if "memo" in request:
        _write_json(request["memo"], known)
    return found


def _digest(path: str) -> Dict[str, Any]:
    sha, size = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            sha.update(block)
            size += len(block)
    return {"bytes": size, "sha256": sha.hexdigest()}


def receive(request: Request, body: Body) -> bool:
    """Write the body's `bytes` to `path`, refused unless their digest is `sha256`."""
    path = request["path"]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    sha = hashlib.sha256()
    with _aside(path) as stream:
        for block in _upto(request["bytes"], body):
            sha.update(block)
            stream.write(block)
        if sha.hexdigest() != request["sha256"]:
            raise ValueError("%s arrived damaged (%d of %d bytes)" % (path, stream.tell(), request["bytes"]))
    return True


def send(request: Request, _body: Body) -> Dict[str, Any]:
    """`path`'s bytes as frames; the reply is their digest."""
    sha, size = hashlib.sha256(), 0
    with open(request["path"], "rb") as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            sha.update(block)
            size += len(block)
            _frame(block)
    return {"bytes": size, "sha256": sha.hexdigest()}


def plant(request: Request, body: Body) -> bool:
    """Make `folder` with `files` {name: bytes}, whose contents follow in that order. One that is there stays."""
    folder = request["folder"]
    if os.path.isdir(folder):
        return True
    part = "%s.%d.part" % (folder, os.getpid())
    os.makedirs(part)
    for name, size in request["files"].items():
        with open(os.path.join(part, name), "wb") as stream:
            for block in _upto(size, body):
                stream.write(block)
            if stream.tell() != size:
                raise ValueError("%s broke off at %s" % (folder, name))
    os.rename(part, folder)
    return True


def link(request: Request, _body: Body) -> bool:
    """Make `folder` anew with the hard links `{name: source}` of `files` (copies where links are refused)."""
    folder = request["folder"]
    part = folder + ".part"
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    for name, source in request["files"].items():
        target = os.path.join(part, name)
        try:
            os.link(source, target)
        except (FileExistsError, FileNotFoundError):
            raise
        except OSError:
            shutil.copyfile(source, target)
    _replace_folder(part, folder)
    return True


def listing(request: Request, _body: Body) -> Dict[str, int]:
    """`folder` -> {path below it: bytes} of every regular file."""
    top = request["folder"]
    found = {}
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                found[os.path.relpath(path, top)] = os.path.getsize(path)
    return found


def pack(request: Request, _body: Body) -> Dict[str, Any]:
    """Concatenate `folder`'s `names`, in that order, into `path`; the reply is its digest."""
    with _aside(request["path"]) as packed:
        for name in request["names"]:
            with open(os.path.join(request["folder"], name), "rb") as stream:
                shutil.copyfileobj(stream, packed)
    return _digest(request["path"])


def remove(request: Request, _body: Body) -> bool:
    """Remove every file or folder of `paths`; what is not there is fine. `if_empty` folders go if nothing is left."""
    for path in request["paths"]:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.remove(path)
    for path in request.get("if_empty", []):
        with contextlib.suppress(OSError):
            os.rmdir(path)
    return True


# --- clips ------------------------------------------------------------------------------------------------------------
# A shard travels as one stream: a tag that names its compression, then the clips from the first that is missing on.
# What has landed are files, so a cut costs a clip at most, whatever wrote or compressed the stream before it.


def clips(request: Request, _body: Body) -> Dict[str, Any]:
    """`count` clips of `clip_bytes` from sample `first` of the .npy at `path`, as frames.

    Compressed by the first of `codecs` that this Python can and that pays on the first block.
    """
    path, size = request["path"], request["clip_bytes"]
    left = request["count"] * size
    with open(path, "rb") as stream:
        stream.seek(_array_offset(stream) + size * request["first"])
        block = stream.read(min(BLOCK, left))
        codec = next((name for name in request["codecs"] if name in encoders()), "raw")
        if codec != "raw":
            compress, flush = _encoder(codec)
            if len(compress(block) + flush()) > RAW_RATIO * len(block):
                codec = "raw"
        compress, flush = _encoder(codec)
        _frame(next(tag for tag, name in TAGS.items() if name == codec))
        while block:
            _frame(compress(block))
            left -= len(block)
            block = stream.read(min(BLOCK, left))
        _frame(flush())
    return {"codec": codec}


def _array_offset(stream: IO[bytes]) -> int:
    """Where a .npy's array begins: its header gives its own length (NEP 1: two bytes in version 1, four later)."""
    head = stream.read(12)
    if head[:6] != b"\x93NUMPY":
        raise ValueError("%s is no .npy file" % stream.name)
    form = "<H" if head[6] == 1 else "<I"
    return 8 + struct.calcsize(form) + int(struct.unpack_from(form, head, 8)[0])


def landed(request: Request, _body: Body) -> List[int]:
    """For each of `shards` (`first`, `count`, `sha256`), how many of its clips are in `folder` already: `count` only
    of a shard that is whole, its bytes checked."""
    found = []
    for shard in request["shards"]:
        there = os.path.join(request["folder"], str(shard["first"]))
        if _is_whole(there, shard):
            found.append(shard["count"])
        else:
            sizes = (os.path.join(there + ".part", name) for name in _clip_names(shard))
            found.append(min(_leading(sizes, request["clip_bytes"]), shard["count"] - 1))
    return found


def _leading(paths: Iterator[str], size: int) -> int:
    """How many of `paths`, from the first on, are files of `size` bytes."""
    for count, path in enumerate(paths):
        if not os.path.isfile(path) or os.path.getsize(path) != size:
            return count
    return sys.maxsize


def unpack(request: Request, body: Body) -> bool:
    """Write a shard as files: `first`..`first + count - 1`, a clip of `clip_bytes` each, as `folder`/<i>.bin.

    The body has the clips from the `landed`-th on; refused unless the digest of all is `sha256`.
    """
    folder, size = request["folder"], request["clip_bytes"]
    part = folder + ".part"
    with _only_writer(part):
        sha, written = hashlib.sha256(), 0
        names = _clip_names(request)
        for name in names[: request["landed"]]:
            with open(os.path.join(part, name), "rb") as file:
                sha.update(file.read())
            written += 1
        stream = _decoded(body)
        for name in names[written:]:
            clip = b"".join(_upto(size, stream))
            if len(clip) < size:
                raise ValueError("the shard at sample %d broke off at clip %d" % (request["first"], written))
            with open(os.path.join(part, name), "wb") as file:
                file.write(clip)
            sha.update(clip)
            written += 1
        if stream.read(1):
            raise ValueError("the shard at sample %d holds more than it announced" % request["first"])
        if sha.hexdigest() != request["sha256"]:
            shutil.rmtree(part)
            raise ValueError("the shard at sample %d arrived damaged, and was thrown away" % request["first"])
        os.remove(os.path.join(part, PID))
        _mark(part, request)
        _replace_folder(part, folder)
    return True


def _clip_names(shard: Request) -> List[str]:
    return ["%d.bin" % i for i in range(shard["first"], shard["first"] + shard["count"])]


def _is_whole(folder: str, shard: Request) -> bool:
    """Whether `folder` holds just this shard: by its marker while no file was touched since, else by its bytes."""
    names = _clip_names(shard)
    if not os.path.isdir(folder) or set(os.listdir(folder)) - {MARKER} != set(names):
        return False
    if _read_json(os.path.join(folder, MARKER)) == _marker(folder, shard):
        return True
    sha = hashlib.sha256()
    for name in names:
        with open(os.path.join(folder, name), "rb") as stream:
            sha.update(stream.read())
    if sha.hexdigest() != shard["sha256"]:
        return False
    _mark(folder, shard)
    return True


def _mark(folder: str, shard: Request) -> None:
    _write_json(os.path.join(folder, MARKER), _marker(folder, shard))


def _marker(folder: str, shard: Request) -> Dict[str, str]:
    """Good for one boot only: files are not synced one by one, and a power cut may take what they held."""
    sha = hashlib.sha256()
    for name in _clip_names(shard):
        status = os.stat(os.path.join(folder, name))
        sha.update(b"%d %d %d\n" % (status.st_size, status.st_mtime_ns, status.st_ino))
    return {"sha256": shard["sha256"], "files": sha.hexdigest(), "boot": _boot()}


@contextlib.contextmanager
def _only_writer(part: str) -> Iterator[None]:
    """Hold a shard's `.part`. Its last writer may still wait on a link that is dead: it is ended."""
    os.makedirs(part, exist_ok=True)
    descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not _lock(descriptor):
            _end_writer(part)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _write_json(os.path.join(part, PID), os.getpid())
        yield
    finally:
        os.close(descriptor)


def _end_writer(part: str) -> None:
    with contextlib.suppress(OSError, ValueError, TypeError), open(os.path.join(part, PID), "rb") as stream:
        os.kill(json.load(stream), signal.SIGKILL)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# --- compression: zstd by a package, by Python >= 3.14 or by the program; deflate is always there --------------------


def _zstd_module() -> Any:
    for name in ("zstandard", "compression.zstd"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    return None


def decoders() -> Dict[str, str]:
    """What this host can unpack, best first: {codec: what does it}."""
    module = _zstd_module()
    zstd = module.__name__ if module else shutil.which("zstd")
    return {**({"zstd": zstd} if zstd else {}), "deflate": "zlib"}


encoders = decoders  # the same packages and programs do both


def _encoder(codec: str) -> Any:
    """(compress, flush) of a stream."""
    if codec == "raw":
        return bytes, bytes
    if codec == "deflate":
        deflater = zlib.compressobj(1)
        return deflater.compress, deflater.flush
    module = _zstd_module()
    if module is None:
        return _zstd_program()
    stream = module.ZstdCompressor(level=1)
    stream = stream.compressobj() if module.__name__ == "zstandard" else stream
    return stream.compress, stream.flush


def _zstd_program() -> Any:
    process = subprocess.Popen(["zstd", "-1", "-qc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    source, sink = process.stdin, process.stdout
    done: List[bytes] = []
    reader = threading.Thread(target=lambda: done.append(sink.read()), daemon=True)
    reader.start()

    def compress(block: bytes) -> bytes:
        source.write(block)
        return b""

    def flush() -> bytes:
        source.close()
        reader.join()
        if process.wait():
            raise ValueError("zstd failed with status %d" % process.returncode)
        return done[0]

    return compress, flush


def _decoded(body: Body) -> Body:
    """What reads a tagged stream unpacked; it inflates no more than it is asked for."""
    tag = body.read(1)
    codec = TAGS.get(tag)
    if codec is None and tag:
        raise ValueError("a shard in an unknown compression (%r) arrived" % tag)
    if codec == "deflate":
        return _Inflated(body)
    if codec == "zstd":
        module = _zstd_module()
        if module is None:
            return _piped(["zstd", "-dqc"], body)
        if module.__name__ == "zstandard":
            return module.ZstdDecompressor().stream_reader(body)
        return module.ZstdFile(body)
    return body


class _Inflated:
    def __init__(self, body: Body) -> None:
        self._body, self._inflater = body, zlib.decompressobj()

    def read(self, size: int) -> bytes:
        while True:
            block = self._inflater.unconsumed_tail or self._body.read(BLOCK)
            raw = self._inflater.decompress(block, size)
            if raw or not block:
                return raw


def _piped(argv: List[str], body: Body) -> IO[bytes]:
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    sink = process.stdin

    def feed() -> None:
        with contextlib.suppress(OSError), sink:
            shutil.copyfileobj(body, sink, BLOCK)

    threading.Thread(target=feed, daemon=True).start()
    return process.stdout


# --- jobs -------------------------------------------------------------------------------------------------------------
# A job is a folder: request.json, alive (locked while its supervisor or its program lives), pid, log, status.json.


def job(request: Request, _body: Body) -> Dict[str, Any]:
    """Start `argv` detached in job folder `folder`, or attach to it; its output as frames, its end as the reply.

    The reply is {"status": exit status, negative for a signal}, or {"timed_out": true} after `timeout_s`, or
    {"refused": why it could not be started}, or {"lost": true} when nothing is left to tell.
    """
    folder = request["folder"]
    if job_state(request, _body) is None:
        _start(folder, request)
    _follow(folder)
    return _outcome(folder) or {"lost": True}


def job_state(request: Request, _body: Body) -> str | None:
    """`running`, `ended` (with status 0) or null: no such job, or one that failed and is not worth collecting."""
    folder = request["folder"]
    if not os.path.isdir(folder):
        return None
    outcome = _outcome(folder)
    if outcome is None and _is_alive(folder):
        return "running"
    return "ended" if outcome == {"status": 0} else None


def _outcome(folder: str) -> Dict[str, Any] | None:
    return _read_json(os.path.join(folder, "status.json")) or None


def _start(folder: str, request: Request) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    alive = os.open(os.path.join(folder, "alive"), os.O_RDWR | os.O_CREAT, 0o640)
    fcntl.flock(alive, fcntl.LOCK_EX)
    open(os.path.join(folder, "log"), "wb").close()
    _write_json(os.path.join(folder, "request.json"), request)
    subprocess.Popen(
        [sys.executable, "-I", os.path.abspath(__file__), "supervise", folder, str(alive)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=[alive],
    )
    os.close(alive)


def supervise(folder: str, alive: int) -> None:
    """Run a job's program to its end or its deadline. The program inherits `alive`, so that the lock tells of it even
    when this supervisor is killed."""
    request = _read_json(os.path.join(folder, "request.json"))
    with open(os.path.join(folder, "log"), "ab") as log:
        try:
            process = subprocess.Popen(
                request["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[alive],
            )
        except OSError as error:
            _write_json(os.path.join(folder, "status.json"), {"refused": os.strerror(error.errno or 0)})
            return
    _write_json(os.path.join(folder, "pid"), process.pid)
    try:
        outcome: Dict[str, Any] = {"status": process.wait(request.get("timeout_s"))}
    except subprocess.TimeoutExpired:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
        outcome = {"timed_out": True}
    _signal_group(process.pid, signal.SIGKILL)  # what it left behind
    _write_json(os.path.join(folder, "status.json"), outcome)


def _follow(folder: str) -> None:
    pause = 0.01
    with open(os.path.join(folder, "log"), "rb") as log:
        while True:
            ended = _outcome(folder) is not None or not _is_alive(folder)
            block = log.read(BLOCK)
            if block:
                _frame(block)
                pause = 0.01
            elif ended:
                return
            else:
                _listen(pause)
                pause = min(pause * 1.5, 0.2)


def stop(request: Request, _body: Body) -> bool:
    """End the jobs of `folders`, programs and all that they started, and remove the folders."""
    for folder in request["folders"]:
        pid = os.path.join(folder, "pid")
        for number, patience in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
            deadline = time.monotonic() + patience
            while os.path.isdir(folder) and _is_alive(folder) and time.monotonic() < deadline:
                if os.path.exists(pid):  # else it is just being started
                    _signal_group(_read_json(pid), number)
                time.sleep(0.05)
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _is_alive(folder: str) -> bool:
    try:
        descriptor = os.open(os.path.join(folder, "alive"), os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


# --- the workspace ----------------------------------------------------------------------------------------------------


def hold(request: Request, _body: Body) -> Any:
    """Hold `workspace` for `owner` until the operator is gone: a frame once it is held, or its holder as the reply.

    `stale` is a holder that the operator knows to be dead: its process here, which waits on a dead link, is ended.
    """
    kit = os.path.join(request["workspace"], ".kit")
    os.makedirs(kit, exist_ok=True)
    path = os.path.join(kit, "lock")
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
        if not _lock(descriptor):
            os.close(descriptor)
            record = _read_json(path)
            if request.get("stale") is None or record.get("owner") != request["stale"]:
                return record.get("owner") or {}
            with contextlib.suppress(OSError):
                os.kill(record["pid"], signal.SIGKILL)
            time.sleep(0.05)
            continue
        if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
            break
        os.close(descriptor)  # its last holder removed it in between
    record = json.dumps({"owner": request["owner"], "pid": os.getpid()}).encode()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, record, 0)
    sweep(request["workspace"])
    _frame(b"\n")
    try:
        while True:
            _listen(LEASE_S)
    finally:
        with contextlib.suppress(FileNotFoundError):  # `fab clean` removes all
            os.remove(path)


def sweep(workspace: str) -> None:
    """Remove what a killed operator left aside: nobody else writes here now."""
    for part in glob.glob(os.path.join(glob.escape(workspace), "files", "*", "*.part")):
        with contextlib.suppress(OSError):
            os.remove(part)
    for folder in glob.glob(os.path.join(glob.escape(workspace), ".kit", "jobs", "once-*")):
        if not _is_alive(folder):
            shutil.rmtree(folder, ignore_errors=True)


def abandon(request: Request, body: Body) -> bool:
    """After an interrupt: end every job in `workspace`, every receiver of a shard, and remove all that is half done."""
    workspace = glob.escape(request["workspace"])
    stop({"folders": glob.glob(os.path.join(workspace, ".kit", "jobs", "*"))}, body)
    shutil.rmtree(os.path.join(request["workspace"], ".kit", "runs"), ignore_errors=True)
    for part in glob.glob(os.path.join(workspace, "data", "*", "*.part")):
        _end_writer(part)
        shutil.rmtree(part, ignore_errors=True)
    sweep(request["workspace"])
    return True


def facts(request: Request, _body: Body) -> Dict[str, Any]:
    """What `fab doctor` asks of a host, and what a push needs to know."""
    workspace = request["workspace"]
    there = workspace
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    disk = os.statvfs(there)
    devices = sorted(glob.glob("/dev/davinci*") + glob.glob("/dev/devmm_svm") + glob.glob("/dev/hisi_hdc"))
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count() or 1,
        "decoders": decoders(),
        "free_bytes": disk.f_bavail * disk.f_frsize,
        "writable": os.access(there, os.W_OK | os.X_OK),
        "uid": os.getuid(),
        "time": time.time(),
        "programs": {name: shutil.which(name) for name in request.get("programs", [])},
        "devices": {path: [os.stat(path).st_uid, os.stat(path).st_gid, os.stat(path).st_mode] for path in devices},
    }


# --- the protocol -----------------------------------------------------------------------------------------------------


class _Body:
    """The body, in short reads as it comes; none is waited for longer than LEASE_S."""

    def read(self, size: int = -1) -> bytes:
        signal.alarm(LEASE_S)
        block = _stdin.read1(BLOCK if size < 0 else size) if size else b""
        signal.alarm(0)
        return block


def _listen(seconds: float) -> None:
    """Wait, at most `seconds`, for a sign of life of the operator: none for LEASE_S, or the end, ends this process."""
    global _heard
    if select.select([0], [], [], seconds)[0]:
        _heard = time.monotonic()
        if not os.read(0, 4096):
            raise SystemExit(0)
    elif time.monotonic() - _heard > LEASE_S:
        raise SystemExit(1)


_heard = time.monotonic()
_stdin: Any = sys.stdin.buffer


def _upto(size: int, body: Body) -> Iterator[bytes]:
    """The next `size` bytes of a stream, fewer when it ends before."""
    while size:
        block = body.read(min(BLOCK, size))
        if not block:
            return
        size -= len(block)
        yield block


def _frame(block: bytes) -> None:
    if block:
        _put(b'{"bytes": %d}\n' % len(block) + block)


def _put(data: bytes) -> None:
    signal.alarm(LEASE_S)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    signal.alarm(0)


@contextlib.contextmanager
def _aside(path: str) -> Iterator[IO[bytes]]:
    """Open `path` for writing aside: synced and renamed at the end, removed on failure."""
    part = "%s.%d.part" % (path, os.getpid())
    try:
        with open(part, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)


def _read_json(path: str) -> Any:
    """What a file of the kit's own holds; {} where it is missing or torn."""
    try:
        with open(path, "rb") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return {}


def _write_json(path: str, value: Any) -> None:
    part = path + ".new"
    with open(part, "w", encoding="utf-8") as stream:
        json.dump(value, stream)
    os.replace(part, path)


def _replace_folder(part: str, folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(part, folder)


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return stream.read().strip()


def identity() -> str:
    """This boot of this machine and its process numbers: where a pid means one process."""
    return _boot() + " " + os.readlink("/proc/self/ns/pid")


OPERATIONS: Dict[str, Callable[[Request, Body], Any]] = {
    operation.__name__: operation
    for operation in (
        *(digest, receive, send, plant, link, listing, pack, remove),
        *(clips, landed, unpack),
        *(job, job_state, stop, hold, abandon, facts),
    )
}


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return "%s: %s" % (error.filename, error.strerror) if error.filename else error.strerror
    return str(error) or type(error).__name__


def _late(_number: int, _frame: Any) -> None:
    raise TimeoutError("nothing came or went for %d s" % LEASE_S)


def main(arguments: List[str]) -> int:
    # Newer ais_bench refuses inputs that others can write, and output folders wider than 0750.
    os.umask(0o027)
    if arguments[0] == "supervise":
        supervise(arguments[1], int(arguments[2]))
        return 0
    signal.signal(signal.SIGALRM, _late)
    try:
        _put(MAGIC)
        request = json.loads(_stdin.readline())
        reply, status = {"ok": OPERATIONS[arguments[0]](request, _Body())}, 0
    except BrokenPipeError:
        return 1  # nobody is there to be told
    except (OSError, ValueError, EOFError, zlib.error) as error:
        reply, status = {"error": _sentence(error)}, 1
    except Exception as error:  # a compression package's own
        reply, status = {"error": "%s: %s" % (type(error).__name__, error)}, 1
    with contextlib.suppress(OSError):
        _put(json.dumps(reply).encode() + b"\n")
    sys.stdout = None  # what a gone operator did not read is not flushed again
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
