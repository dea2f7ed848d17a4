"""`manifest.json`: what ran, on what, with which outcome; a step whose inputs and outputs still hold is CACHED.

A step is a function of its inputs: its key is the sha256 of all that its result depends on (files by their sha256,
flags, tool versions). Its entry is written last and atomically, so an entry in state OK means whole outputs.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import platform
import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from deploy.console import say
from deploy.errors import KitError
from deploy.inventory import ROOT, with_inventory
from deploy.pipeline.prelude import readable
from stgcn import plain_json
from stgcn.errors import InputError
from stgcn.files import files_below, sha256_file, sha256_input, write_whole

FORMAT = 1
_WORTH_BYTES = 1 << 20  # from which on remembering a digest is cheaper than reading the file again
OK, CACHED, SKIPPED, FAILED = "OK", "CACHED", "SKIPPED", "FAILED"
_STYLE = {OK: "green", CACHED: "cyan", SKIPPED: "yellow", FAILED: "red"}
_STEP_NAME = re.compile(r"[A-Za-z0-9_./+-]{1,200}")

Json = Any
Argv = Sequence[str]


def canonical(value: Json) -> bytes:
    """JSON with one spelling for one value: what is hashed and what is written."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _input_identity(path: Path) -> list[int]:
    """What changes with a file; of a folder, with any of its files."""
    status = path.stat()
    every = [file.stat() for file in files_below(path)] if path.is_dir() else [status]
    newest = max((each.st_mtime_ns for each in every), default=0), max((each.st_ctime_ns for each in every), default=0)
    return [sum(each.st_size for each in every), len(every) if path.is_dir() else status.st_ino, *newest]


def digest_of(value: Mapping[str, Json]) -> str:
    """sha256 (hex) of a step's inputs, its key; of an entry, what a verdict names the steps by on which it rests."""
    return hashlib.sha256(canonical(dict(value))).hexdigest()


def json_text(value: Json) -> bytes:
    """`value` as indented JSON, one value per line."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Json) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_whole(path, json_text(value))


@dataclass(frozen=True)
class StepResult:
    """What an action tells where only it knows which host did it."""

    facts: Mapping[str, Json]
    host: str
    commands: Sequence[Argv]
    prepare: Sequence[Argv]


@dataclass(frozen=True)
class Step:
    """One unit of cached work."""

    name: str  # e.g. convert/bs8
    host: str  # whose name the commands run under
    inputs: Mapping[str, Json]  # all that the result depends on
    outputs: Sequence[Path]  # files in the workspace, whole once the action has returned
    action: Callable[[], Mapping[str, Json] | StepResult]  # what it returns is recorded as the `facts`
    commands: Sequence[Argv] = field(default=())  # what the action runs on `host`, for --dry and the record
    prepare: Sequence[Argv] = field(default=())  # what makes a bare host ready for them, for reproduce.sh


class Manifest:
    """The entries of one workspace; safe to use from several threads of one process."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.path = workspace / "manifest.json"
        self._lock = threading.Lock()
        self._memo_path = workspace / ".hashes.json"
        self._unfinished_path = workspace / ".begun.json"
        self.holds: list[Callable[[], None]] = []  # each raises where another command may work here, or on a host
        self.digest: Callable[[Path], str] = sha256_file  # of an output; `remembered` for those who only look
        self.steps: dict[str, dict[str, Json]] = self._load()

    def _load(self) -> dict[str, dict[str, Json]]:
        if not self.path.exists():
            return {}
        try:
            data = plain_json.load(self.path)
            steps = data["steps"]
            if data["format"] != FORMAT or not all(_is_entry(name, entry) for name, entry in steps.items()):
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise KitError(
                f"{self.path}: not a format {FORMAT} manifest; move it away and run the stages again"
            ) from None
        return dict(steps)

    def record(self, name: str, entry: Mapping[str, Json]) -> None:
        """Write an entry. Raises KitError, with nothing written, where the workspace or a host is not held any more."""
        for verify in list(self.holds):
            verify()
        with self._lock:
            self._set_unfinished(name, None)
            self.steps[name] = dict(entry)
            write_json(self.path, {"format": FORMAT, "steps": dict(sorted(self.steps.items()))})

    def whole(self, entry: Mapping[str, Json]) -> bool:
        """Whether every output of an entry is there with the bytes it had."""
        return entry["state"] == OK and all(
            (self.workspace / path).is_file() and self.digest(self.workspace / path) == output["sha256"]
            for path, output in entry["outputs"].items()
        )

    def output(self, step: str, path: Path, maker: str) -> Path:
        """`path`, an output of `step`, checked against the manifest.

        Raises:
            KitError: it was never made (`maker` is the command that makes it), or is not what was made.
        """
        relative, command = path.relative_to(self.workspace).as_posix(), with_inventory(maker)
        entry = self.steps.get(step)
        if entry is None or entry["state"] != OK or relative not in entry["outputs"] or not path.is_file():
            raise KitError(f"{path}: not made yet ({step} has not finished); run `{command}` first")
        if self.digest(path) != entry["outputs"][relative]["sha256"]:
            raise KitError(f"{path}: not the file that {step} made (its sha256 differs); run `{command}` again")
        return path

    def input_sha256(self, path: Path) -> str:
        """The sha256 of the user's file or folder, as `remembered`.

        Raises:
            KitError: it is not there.
        """
        try:
            return self.remembered(path)
        except OSError as error:
            raise KitError(f"{path}: cannot be read ({error.strerror}); correct its path in the inventory") from None

    def remembered(self, path: Path) -> str:
        """A file's or folder's sha256, remembered while sizes, inodes and times stay: a dataset is 2.57 GB.

        Raises:
            OSError: it is not there.
        """
        size, *_ = identity = _input_identity(path)
        if size < _WORTH_BYTES:
            return sha256_input(path)
        with self._lock:
            memo = self._read_memo()
            known = memo.get(str(path))
            if known and known[:-1] == identity:
                return str(known[-1])
            digest = sha256_input(path)
            with suppress(InputError):  # a workspace that is another's to write
                write_json(self._memo_path, {**memo, str(path): [*identity, digest]})
            return digest

    def _read_memo(self) -> dict[str, list[Json]]:
        try:
            memo = plain_json.load(self._memo_path)
            return {k: v for k, v in memo.items() if isinstance(v, list) and len(v) == 5}
        except (OSError, ValueError, AttributeError):
            return {}  # only a shortcut: without it the file is read again

    def _begin(self, step: Step, key: str, fresh: bool) -> dict[Path, tuple[int, ...] | None]:
        """What the outputs were before the step was first begun with this key: a command that was killed leaves a run
        that may have made them since."""
        now = {path: _identity(path) for path in step.outputs}
        with self._lock:
            try:
                began = self._read_unfinished()[step.name]
                if not fresh and began["key"] == key:
                    before = {path: began["outputs"][self._relative(path)] for path in step.outputs}
                    return {path: None if was is None else tuple(was) for path, was in before.items()}
            except (KeyError, TypeError):
                pass  # begun with other inputs, or never
            self._set_unfinished(step.name, {"key": key, "outputs": {self._relative(path): now[path] for path in now}})
        return now

    def _set_unfinished(self, name: str, record: Json) -> None:
        """Remember a step that is begun; forget it with None."""
        unfinished = self._read_unfinished()
        if record is None and name not in unfinished:
            return
        unfinished.pop(name, None)
        unfinished |= {name: record} if record else {}
        if unfinished:
            write_json(self._unfinished_path, unfinished)
        else:
            self._unfinished_path.unlink(missing_ok=True)

    def _read_unfinished(self) -> dict[str, Json]:
        try:
            found = plain_json.load(self._unfinished_path)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def run_step(self, step: Step, *, fresh: bool = False, dry: bool = False) -> dict[str, Json]:
        """Run a step, or find it CACHED; announce which, with the key, and return its entry.

        Raises:
            KitError: from the action; the entry is then recorded as FAILED.
        """
        key = digest_of(step.inputs)
        entry = self.steps.get(step.name)
        if entry and not fresh and entry.get("key") == key and self.whole(entry):
            announce(step.name, CACHED, f"key {key[:12]}")
            return {**entry, "state": CACHED}
        if dry:
            say(f"  {step.name} would run on {step.host} (key {key[:12]})")
            for argv in step.commands:
                say(f"    {readable(argv)}")
            return {"state": SKIPPED, "key": key, "outputs": {}, "facts": {}}
        from deploy.progress import activity  # commands that only read do not wait for it

        started, clock = datetime.now(timezone.utc), time.monotonic()
        earlier = _earlier(entry) if entry else {}
        entry = {
            "state": FAILED,
            "key": key,
            "earlier": earlier,  # a run that makes the same again is to know since when they are there
            "inputs": dict(step.inputs),
            "outputs": {},
            **_place(step),
            "by": operator(),
            "revision": revision(),
            "started": started.isoformat(timespec="seconds"),
        }
        before = self._begin(step, key, fresh)
        try:
            with activity(step.name):
                ran = step.action()
            if isinstance(ran, StepResult):
                entry |= _place(ran)
            facts = dict(ran.facts if isinstance(ran, StepResult) else ran)
            outputs = {self._relative(path): describe(_made(path, was)) for path, was in before.items()}
            del entry["earlier"]
            entry |= {"state": OK, "facts": facts, "outputs": _dated(outputs, earlier)}
        except (InputError, OSError) as error:
            entry["error"] = str(error)
            raise
        finally:
            entry["seconds"] = round(time.monotonic() - clock, 3)
            self.record(step.name, entry)
        announce(step.name, OK, f"{entry['seconds']:.1f} s, key {key[:12]}")
        return entry

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.workspace).as_posix()


def _is_entry(name: str, entry: Json) -> bool:
    """Whether an entry has the form that `record` writes; what inputs and facts hold is for those who read them."""
    try:
        texts = (entry[key] for key in ("state", "key", "host", "by", "revision", "started"))
        argvs = [*entry["commands"], *entry.get("prepare", ())]
        return (
            _STEP_NAME.fullmatch(name) is not None
            and all(isinstance(text, str) for text in texts)
            and datetime.fromisoformat(entry["started"]).tzinfo is not None
            and isinstance(entry["inputs"], dict)
            and isinstance(entry.get("facts", {}), dict)
            and isinstance(entry.get("error", ""), str)
            and all(isinstance(argv, list) and all(isinstance(word, str) for word in argv) for argv in argvs)
            and all(_is_inside(path) and isinstance(made["sha256"], str) for path, made in entry["outputs"].items())
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return False


def _is_inside(path: str) -> bool:
    """Whether a path of a manifest leads to somewhere in its folder."""
    return not path.startswith("/") and ".." not in path.split("/") and "\0" not in path


def _place(of: Step | StepResult) -> dict[str, Json]:
    """Where something ran, and as which commands."""
    return {
        "prepare": [list(argv) for argv in of.prepare],
        "commands": [list(argv) for argv in of.commands],
        "host": of.host,
    }


def _earlier(entry: Mapping[str, Json]) -> dict[str, Json]:
    """What was there before a step runs again, each output with the time since when; earlier versions recorded none."""
    end = datetime.fromisoformat(entry["started"]) + timedelta(seconds=entry.get("seconds", 0))
    outputs = entry.get("outputs") or entry.get("earlier", {})
    return {path: {"made": end.isoformat(timespec="seconds"), **made} for path, made in outputs.items()}


def _dated(outputs: Mapping[str, Json], earlier: Mapping[str, Json]) -> dict[str, Json]:
    """Each output with the time since when its path has held these bytes: a step that made the same again does not make
    those that read it before older than what they read."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    since = {(path, made["sha256"]): made.get("made") for path, made in earlier.items()}
    return {path: {**made, "made": since.get((path, made["sha256"])) or now} for path, made in outputs.items()}


def announce(name: str, state: str, detail: str) -> None:
    say(f"  {state:<7} {name:<16} {detail}", _STYLE[state])


def _identity(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is made again; None where there is none, or an empty one."""
    if not path.is_file() or not path.stat().st_size:
        return None
    status = path.stat()
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _made(path: Path, before: tuple[int, ...] | None) -> Path:
    """`path`, an output of a step before which its identity was `before`.

    Raises:
        KitError: the step claimed to have made it and did not.
    """
    if _identity(path) in (None, before):
        raise KitError(f"{path}: its step ended without an error but did not make it; see the log beside it")
    return path


def describe(path: Path) -> dict[str, Json]:
    """A file's entry among a step's outputs."""
    return {"sha256": sha256_file(path), "bytes": path.stat().st_size}


def operator() -> str:
    """Who runs the kit, and where."""
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (KeyError, OSError):  # a uid without a name, as in a container
        return f"unknown@{platform.node()}"


def revision() -> str:
    """The kit's own source revision, marked when the tree has changes; `unknown` outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
