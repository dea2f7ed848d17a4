"""What earlier layouts of the kit put straight into a workspace (data/, files/, .kit/): told by names and contents, for
a user's folders may have the same names."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import files, folders

_CONTENT = re.compile(r"[0-9a-f]{16}")  # the beginning of a sha256
_SHARD = re.compile(r"[0-9]+(\.part)?")
_CLIP = re.compile(r"[0-9]+\.bin|\.shard|\.pid|\.(shard|pid)\.new")
_HALF = re.compile(r".+\.[0-9]+\.part")
_SOURCES = re.compile(r"(remote|stgcn)-([0-9a-f]{16})")
_RUN = re.compile(r".+-[0-9a-f]{12}")
_OF_A_JOB = {"request.json", "alive", "pid", "log", "status.json", "request.json.new", "pid.new", "status.json.new"}
_FOLDERS = ("jobs", "runs", "tasks")
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

IsOurs = Callable[[int, str], bool]  # whether an entry of an open folder is the kit's


def clean(workspace: str) -> Tuple[List[str], List[str]]:
    """Remove what is the kit's: the paths of what was removed, and those of folders that hold something else too."""
    removed, left = [], []
    with contextlib.suppress(OSError), _folder(workspace, None) as top:
        for name, which in ((".kit", _of_kit), ("data", _clips), ("files", _copies)):
            with contextlib.suppress(OSError), _folder(name, top) as folder:
                parts = sorted(os.listdir(folder))
                ours = which(folder, parts) if os.fstat(folder).st_uid == os.geteuid() else []
                for part in ours:
                    folders.remove_in(folder, part)
                path = os.path.join(workspace, name)
                if ours and len(ours) == len(parts):
                    os.rmdir(name, dir_fd=top)
                    removed.append(path)
                elif ours:
                    removed += [os.path.join(path, part) for part in ours]
                    left.append(path)
    return removed, left


def _clips(folder: int, parts: List[str]) -> List[str]:
    """Folders of shards, named by their index's content: each holds clips and nothing else."""

    def is_shard(index: int, name: str) -> bool:
        clips = _names(index, name) if _SHARD.fullmatch(name) else None
        return bool(clips) and all(_CLIP.fullmatch(clip) for clip in clips or ())

    return [part for part in parts if _CONTENT.fullmatch(part) and _all_in(folder, part, is_shard)]


def _copies(folder: int, parts: List[str]) -> List[str]:
    """Folders with one file, named by its sha256, or with such files half written."""

    def is_copy_of(part: str) -> IsOurs:
        return lambda holder, name: bool(_HALF.fullmatch(name)) or _sha256(holder, name).startswith(part)

    return [part for part in parts if _CONTENT.fullmatch(part) and _all_in(folder, part, is_copy_of(part))]


def _of_kit(folder: int, parts: List[str]) -> List[str]:
    """The helper, sources, jobs, runs and records. What may be anybody's counts beside what is surely the kit's."""
    sure = [part for part in parts if _is_sources(folder, part) or _is_record(folder, part)]
    sure += [part for part in parts if part == "jobs" and _all_in(folder, part, _is_job)]
    likely = [part for part in parts if part in _FOLDERS and _names(folder, part) == []]
    likely += [
        part for part in parts if part == "runs" and _all_in(folder, part, lambda _, name: bool(_RUN.fullmatch(name)))
    ]
    return sorted({*sure, *likely}) if sure else []


def _is_job(folder: int, name: str) -> bool:
    names = _names(folder, name)
    return bool(names) and "alive" in (names or ()) and not set(names or ()) - _OF_A_JOB


def _is_record(folder: int, name: str) -> bool:
    """The lock says who held it; the memo of digests maps paths to [[size, inode, times], digest]."""
    if name not in ("lock", "hashes.json"):
        return False
    found = files.read_mapping("/proc/self/fd/%d/%s" % (folder, name))
    if name == "lock":
        return isinstance(found.get("owner"), dict) and "since" in found["owner"]
    return bool(found) and all(path.startswith("/") and isinstance(entry, list) for path, entry in found.items())


def _is_sources(folder: int, name: str) -> bool:
    """A folder of sources whose name is their digest, as the kit named it."""
    match = _SOURCES.fullmatch(name)
    texts = _texts(folder, name, match.group(1)) if match else None
    if not match or not texts:
        return False
    sha = hashlib.sha256()
    if match.group(1) == "remote":
        sha.update(json.dumps({file: text.decode("utf-8", "replace") for file, text in texts.items()}).encode())
    else:
        for file, text in texts.items():
            sha.update(file.encode() + b"\0" + text)
    return sha.hexdigest().startswith(match.group(2))


def _texts(folder: int, name: str, package: str) -> Optional[Dict[str, bytes]]:
    """The files of the one folder `package` in folder `name`, in their order; compiled ones aside."""
    if _names(folder, name) != [package]:
        return None
    found = {}
    with contextlib.suppress(OSError), _folder(name, folder) as outer, _folder(package, outer) as inner:
        for file in sorted(set(os.listdir(inner)) - {"__pycache__"}):
            with files.opened("/proc/self/fd/%d/%s" % (inner, file)) as stream:
                found[file] = stream.read(files.RECORD_BYTES)
        return found
    return None


def _all_in(folder: int, name: str, is_ours: IsOurs) -> bool:
    """Whether a folder holds something, and all of it is the kit's."""
    try:
        with _folder(name, folder) as inner:
            names = os.listdir(inner)
            return bool(names) and all(is_ours(inner, each) for each in names)
    except OSError:
        return False


def _names(folder: int, name: str) -> Optional[List[str]]:
    """What is in a folder below an open one; None where it is none, or a link leads there."""
    try:
        with _folder(name, folder) as inner:
            return os.listdir(inner)
    except OSError:
        return None


@contextlib.contextmanager
def _folder(name: str, above: Optional[int]) -> Any:
    descriptor = os.open(name, _FLAGS if above is not None else _FLAGS & ~os.O_NOFOLLOW, dir_fd=above)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sha256(folder: int, name: str) -> str:
    """Of a regular file of an open folder; "" of anything else."""
    if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return ""
    path = "/proc/self/fd/%d/%s" % (folder, name)
    return str(files.digest({"paths": [path]}, None)[path]["sha256"])
