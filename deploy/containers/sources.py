"""Upstream sources that an image is built from: taken from a local folder or archive, or fetched, and verified.

A source is known by its commit and by the hash that git gives the folder's tree, which a clone, a shallow clone, an
unpacked archive and the archive itself all share. (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects)
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import KitError

_DEBRIS = ("__pycache__", ".git")  # what a work tree has besides: not copied, not hashed


@dataclass(frozen=True)
class Source:
    """One folder of a public repository, known by its commit, its tree or both."""

    name: str
    url: str
    commit: str  # "": it is known by its tree alone
    folder: str  # in the repository; "" is the whole
    tree: str | None  # git's hash of the folder's tree; None: only a clone can be verified, by its commit
    variable: str  # of make, that names a local copy
    beside: tuple[str, ...] = ()  # files beside the folder that go with it, a licence for instance
    accept: str | None = None  # the variable of make that accepts another tree

    def gather(self, given: str | None, into: Path) -> None:
        """Copy the verified folder to `into`, from `given` (a clone, a tree, an archive of it, a URL), or else by git.

        Raises:
            KitError: it cannot be had, or is not this source.
        """
        with tempfile.TemporaryDirectory() as scratch:
            if given is None or _is_url(given):
                found = self._export(self._fetch(given or self.url, Path(scratch, "clone")), Path(scratch, "tree"))
            else:
                found = self._local(Path(given).expanduser(), Path(scratch))
            self._verify(found)
            _copy(found, into)
            for name in self.beside:
                if found.name == Path(self.folder).name and (found.parent / name).is_file():
                    shutil.copyfile(found.parent / name, into.parent / name)

    def _fetch(self, url: str, clone: Path) -> Path:
        if not self.commit:
            raise KitError(
                f"{self.name}: to fetch it takes a commit; give one, or name a local copy: {self.variable}=PATH"
            )
        clone.mkdir()
        for arguments in (["init", "--quiet"], ["fetch", "--quiet", "--depth=1", url, self.commit]):
            done = _git(clone, *arguments)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["git is not there"])[-1]
                raise KitError(
                    f"{self.name} cannot be fetched from {url} ({reason}); on a machine that reaches it, "
                    f"clone it, check out {self.commit}, bring the clone or a .tar.gz of it here, and name that with "
                    f"{self.variable}=PATH"
                )
        return clone

    def _local(self, given: Path, scratch: Path) -> Path:
        """The folder, in a clone or a tree, or in an archive of either."""
        if given.is_file():
            given = _unpack(given, scratch / "archive")
        elif not given.is_dir():
            raise KitError(f"{self.variable}={given}: no such folder or archive; it is to hold {self.name}")
        tops = [given, *_folders_in(given)]
        for top in tops if self.commit else ():
            if _is_repository(top) and _git(top, "cat-file", "-e", f"{self.commit}^{{commit}}").returncode == 0:
                return self._export(top, scratch / "tree")
        if self.tree is None:
            raise KitError(f"{self.variable}={given}: not a git clone with commit {self.commit} of {self.name}")
        # The folder itself may be what was given, under whatever name: it is known by its hash.
        candidates = [top / self.folder for top in tops if (top / self.folder).is_dir()]
        whole = next((folder for folder in [*candidates, *tops] if tree_hash(folder) == self.tree), None)
        if whole is None and not candidates:
            wanted = f"neither commit {self.commit} nor" if self.commit else "no"
            raise KitError(
                f"{self.variable}={given}: {wanted} folder {self.folder}/ of {self.name} is in it; "
                "name a clone that has it, or the top folder of a copy"
            )
        return whole or candidates[0]

    def _export(self, repository: Path, into: Path) -> Path:
        """The commit's own files, whatever is checked out or changed there."""
        archive = into.with_suffix(".tar")
        wanted = [self.folder, *self.beside] if self.folder else []
        if _git(repository, "archive", f"--output={archive}", self.commit, "--", *wanted).returncode:
            where = f"without {self.folder}/, or " if self.folder else ""
            raise KitError(f"commit {self.commit} of {self.name} is {where}not whole in {repository}: clone it again")
        return _unpack(archive, into) / self.folder

    def _verify(self, folder: Path) -> None:
        if self.tree is None:
            return
        found = tree_hash(folder)
        if found != self.tree:
            known = f"{self.tree} (commit {self.commit[:12]})" if self.commit else self.tree
            way_out = f"; if it is what you want, and is to be trusted: {self.accept}={found}" if self.accept else ""
            raise KitError(
                f"{self.name}: the tree of {self.folder or folder.name}/ is {found}, not {known}; "
                f"it was changed, perhaps patched already: give it as published with {self.variable}=PATH{way_out}"
            )


def tree_hash(folder: Path) -> str:
    """git's hash (hex) of a folder as a tree object, byte code left out."""
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
    shutil.copytree(folder, into, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_DEBRIS))


def _folders_in(folder: Path) -> list[Path]:
    """The folders one level down, where archives have their top."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink() and path.name != ".git")


def _is_url(given: str) -> bool:
    return re.match(r"(https?|ssh|git|file)://|[\w.-]+@[\w.-]+:", given) is not None


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
# The last of upstream's own commits (2025-12-18): from 1ff4acca on its backend knows the layout of CANN 8.5 and 9.
AIS_BENCH = Source(
    name="ais_bench",
    url="https://gitee.com/ascend/tools.git",
    commit="8da7f6455bb122ca38b50e625fb7751c7e190ed1",
    folder="ais-bench_workload/tool/ais_bench",
    tree="9d33218902dc886918f9c42e391f46dbe8f060e2",
    variable="AIS_BENCH_SRC",
    accept="AIS_BENCH_TREE",
)
