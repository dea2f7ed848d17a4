"""Upstream sources that an image is built from: taken from a local folder or archive, or fetched, and verified.

A source is known by its commit and by the hash that git gives the folder's tree, which a clone, a shallow clone, an
unpacked archive and the archive itself all share. (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects)
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import KitError

_DEBRIS = ("__pycache__",)  # what running from a tree leaves in it: not copied, not hashed


@dataclass(frozen=True)
class Source:
    """One folder of a public repository at one commit."""

    name: str
    url: str
    commit: str
    folder: str  # in the repository; "" is the whole
    tree: str | None  # git's hash of the folder's tree; None: only a clone can be verified, by its commit
    variable: str  # of make, that names a local copy
    beside: tuple[str, ...] = ()  # files beside the folder that go with it, a licence for instance

    def gather(self, given: str | None, into: Path) -> None:
        """Copy the verified folder to `into`, from `given` (a clone, a tree or an archive of it), or else by git.

        Raises:
            KitError: it cannot be had, or is not this source.
        """
        with tempfile.TemporaryDirectory() as scratch:
            if given is None:
                top = self._export(self._fetch(Path(scratch, "clone")), Path(scratch, "tree"))
            else:
                top = self._local(Path(given).expanduser(), Path(scratch))
            self._verify(top)
            into.mkdir(parents=True, exist_ok=True)
            _copy(top / self.folder, into / Path(self.folder).name)
            for name in self.beside:
                if (top / name).is_file():
                    shutil.copyfile(top / name, into / name)

    def _fetch(self, clone: Path) -> Path:
        clone.mkdir()
        for arguments in (["init", "--quiet"], ["fetch", "--quiet", "--depth=1", self.url, self.commit]):
            done = _git(clone, *arguments)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["git is not there"])[-1]
                raise KitError(
                    f"{self.name} cannot be fetched from {self.url} ({reason}); on a machine that reaches it, "
                    f"clone it, check out {self.commit}, bring the clone or a .tar.gz of it here, and name that with "
                    f"{self.variable}=PATH"
                )
        return clone

    def _local(self, given: Path, scratch: Path) -> Path:
        """The folder that stands for the repository's top."""
        if given.is_file() and self.tree:
            return _top_of(_unpack(given, scratch / "archive"), self.folder)
        if not given.is_dir() and not given.is_file():
            raise KitError(f"{self.variable}={given}: no such folder or archive; it is to hold {self.name}")
        if (
            given.is_dir()
            and _is_repository(given)
            and _git(given, "cat-file", "-e", f"{self.commit}^{{commit}}").returncode == 0
        ):
            return self._export(given, scratch / "tree")
        if self.tree is None:
            raise KitError(f"{self.variable}={given}: not a git clone with commit {self.commit} of {self.name}")
        return _top_of(given, self.folder)

    def _export(self, repository: Path, into: Path) -> Path:
        """The commit's own files, whatever is checked out or changed there."""
        archive = into.with_suffix(".tar")
        wanted = [self.folder, *self.beside] if self.folder else []
        if _git(repository, "archive", f"--output={archive}", self.commit, "--", *wanted).returncode:
            raise KitError(f"{repository}: commit {self.commit} of {self.name} is not whole there; clone it again")
        return _unpack(archive, into)

    def _verify(self, top: Path) -> None:
        if self.tree is None:
            return
        found = tree_hash(top / self.folder)
        if found != self.tree:
            raise KitError(
                f"{self.name}: the tree of {self.folder}/ is {found}, not {self.tree} (commit {self.commit[:12]}); "
                f"it was changed, perhaps patched already: give it as published with {self.variable}=PATH"
            )


def tree_hash(folder: Path) -> str:
    """git's hash (hex) of a folder as a tree object, byte code left out.

    Raises:
        KitError: the folder is not there.
    """
    if not folder.is_dir():
        raise KitError(f"{folder.name}/ is not in the source that was given: name the repository's top folder")
    return _tree(folder).hex()


def _tree(folder: Path) -> bytes:
    entries = []
    for path in _tracked(folder):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            entries.append((path.name + "/", b"40000", _tree(path)))
        elif stat.S_ISLNK(mode):
            entries.append((path.name, b"120000", _hash(b"blob", os.fsencode(path.readlink()))))
        else:
            executable = b"100755" if mode & stat.S_IXUSR else b"100644"
            entries.append((path.name, executable, _hash(b"blob", path.read_bytes())))
    # git sorts a folder as if its name ended in a slash.
    entries.sort(key=lambda entry: os.fsencode(entry[0]))
    return _hash(b"tree", b"".join(m + b" " + os.fsencode(n.rstrip("/")) + b"\0" + d for n, m, d in entries))


def _tracked(folder: Path) -> Iterable[Path]:
    for path in folder.iterdir():
        empty = path.is_dir() and not path.is_symlink() and not any(p.is_file() for p in path.rglob("*"))
        if path.name not in _DEBRIS and not empty:
            yield path


def _hash(kind: bytes, content: bytes) -> bytes:
    return hashlib.sha1(kind + b" %d\0" % len(content) + content, usedforsecurity=False).digest()


def _copy(folder: Path, into: Path) -> None:
    shutil.copytree(folder, into, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_DEBRIS, ".git"))


def _top_of(folder: Path, wanted: str) -> Path:
    """`folder`, or the only folder in it, as archives have it; the folder itself may be what was wanted."""
    inside = [path for path in folder.iterdir() if path.is_dir()]
    if not (folder / wanted).is_dir() and len(inside) == 1 and (inside[0] / wanted).is_dir():
        return inside[0]
    return folder


def _unpack(archive: Path, into: Path) -> Path:
    into.mkdir()
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(into)  # it strips absolute names and `..` itself
        else:  # so does the program; Python's own tarfile does from 3.11.4 on
            flags = ["--no-same-owner", "--no-same-permissions", "--directory", str(into)]
            done = subprocess.run(["tar", *flags, "-xf", str(archive)], capture_output=True, text=True)
            if done.returncode != 0:
                raise OSError((done.stderr.strip().splitlines() or ["tar failed"])[0])
    except (OSError, zipfile.BadZipFile) as error:
        raise KitError(f"{archive}: not a .tar, .tar.gz or .zip that can be unpacked ({error})") from None
    return into


def _is_repository(folder: Path) -> bool:
    """Whether `folder` is a repository's own top (or a bare one), not merely inside another's work tree."""
    done = _git(folder, "rev-parse", "--is-bare-repository", "--show-cdup")
    return done.returncode == 0 and done.stdout.split() in (["true"], ["false"])


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["git", "-c", "safe.directory=*", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        return subprocess.CompletedProcess([], 127, "", f"git: {error.strerror}")


MMSKELETON = Source(
    name="mmskeleton",
    url="https://github.com/open-mmlab/mmskeleton",
    commit="b4c076baa9e02e69b5876c49fa7c509866d902c7",
    folder="mmskeleton",
    tree="d2fe6d98f4c4c04a218f7f6205509b556a340148",
    variable="MMSKELETON_SRC",
    beside=("LICENSE",),
)
MMDETECTION = Source(
    name="mmdetection",
    url="https://github.com/open-mmlab/mmdetection",
    commit="4357697acaaf7b3eb17a9e78f2e0b8996bcf4e73",
    folder="",
    tree=None,
    variable="MMDETECTION_SRC",
)
AIS_BENCH = Source(
    name="ais_bench",
    url="https://github.com/Ascend/tools",
    commit="9d6da90fd0d3e5d232676c7a4527f7d92ac70e5c",
    folder="ais-bench_workload/tool/ais_bench",
    tree="6a9226d08fd1cb098fb8a26a62346079f04b0b84",
    variable="AIS_BENCH_SRC",
)
