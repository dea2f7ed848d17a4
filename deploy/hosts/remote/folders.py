"""The kit's own folder on a host: one in each workspace, marked, its owner's alone.

Nothing is written, renamed or removed outside of it, and nothing through a link: a path is walked from the kit's folder
on, one open folder after the other (openat(2), O_NOFOLLOW). Other logins of the host are taken to be hostile.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import shutil
import stat
from typing import IO, Iterator, List, Set, Tuple

KIT = ".stgcn-kit"
MARKER = "CACHEDIR.TAG"  # bford.info/cachedir: backups leave the folder out
MARKER_TEXT = b"""Signature: 8a477f597d28d172789f06886806bc55
# The working files of the ST-GCN Ascend kit on this machine. `fab clean` removes this folder.
"""
_LINKS = 40  # as the kernel follows
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def kit_of(workspace: str) -> str:
    return os.path.join(workspace, KIT)


@contextlib.contextmanager
def opened(path: str, make: bool = False) -> Iterator[int]:
    """A descriptor of folder `path`, which lies in a kit's folder or is one; `make` makes it, and what leads to it.

    Raises:
        ValueError: it lies elsewhere, a link leads to it, or others may write where it lies.
        FileNotFoundError: it is not there.
    """
    parts = path.split("/")
    if parts[0] or KIT not in parts or ".." in parts:
        raise ValueError("%s does not lie in the kit's folder" % path)
    at = parts.index(KIT) + 1
    here = "/".join(parts[:at])
    descriptor = _open_kit(here, make)
    try:
        for name in filter(None, parts[at:]):
            here = os.path.join(here, name)
            descriptor, above = _open_below(descriptor, name, here, make), descriptor
            os.close(above)
        with _named(path):
            yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def placed(path: str, make: bool = False) -> Iterator[Tuple[int, str]]:
    """The folder that `path` lies in, as `opened`, and its name there."""
    folder, name = os.path.split(path)
    with opened(folder, make) as descriptor:
        yield descriptor, name


@contextlib.contextmanager
def written_aside(path: str, make: bool = False) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` at the end, synced; on failure nothing of it is left."""
    with placed(path, make) as (folder, name):
        part = "%s.%s.part" % (name, os.urandom(4).hex())
        try:
            with os.fdopen(os.open(part, _NEW, 0o600, dir_fd=folder), "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part, dir_fd=folder)


def create(folder: int, name: str, flags: int = 0) -> int:
    """A descriptor of file `name` in the open `folder`, for writing, emptied."""
    flags |= os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, 0o600, dir_fd=folder)


def remove(path: str) -> None:
    """Remove a file, a link or a folder of the kit's; what is not there is fine."""
    with contextlib.suppress(FileNotFoundError), placed(path) as (folder, name):
        remove_in(folder, name)


def remove_in(folder: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            shutil.rmtree("/proc/self/fd/%d/%s" % (folder, name))
        else:
            os.unlink(name, dir_fd=folder)


def replace(folder: int, part: str, name: str) -> None:
    """Put folder `part` in the place of `name`, both in the open `folder`."""
    remove_in(folder, name)
    os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)


def is_marked(descriptor: int) -> bool:
    """Whether an open folder has the kit's marker."""
    try:
        marker = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=descriptor)
    except OSError:
        return False
    with os.fdopen(marker, "rb") as stream:
        return stream.read(len(MARKER_TEXT) + 1) == MARKER_TEXT


def make_folders(path: str) -> None:
    """Make folder `path` and what leads to it, so that no other login may write there, whatever the umask is."""
    for place in _leading_to(path):
        if not os.path.isdir(place):
            try:
                os.mkdir(place, 0o755)
            except FileExistsError:  # by another command, meanwhile
                if not os.path.isdir(place):
                    raise


def refuse_shared(path: str) -> None:
    """Raises ValueError where another login of this machine owns or may write folder `path`, or may put another in its
    place. What is not there yet is nobody's."""
    _refuse_shared(path, _LINKS)


def _refuse_shared(path: str, links: int) -> None:
    for place in _leading_to(path):
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            return
        is_link = stat.S_ISLNK(status.st_mode)
        is_own = place == path and not is_link
        if status.st_uid not in _trusted(is_own):
            raise ValueError(
                "%s belongs to %s, who could put anything in its place; choose a workspace below a folder of your own"
                % (place, _login(status.st_uid))
            )
        if is_link:
            if not links:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            _refuse_shared(os.path.join(os.path.dirname(place), os.readlink(place)), links - 1)
            continue
        guarded = status.st_mode & stat.S_ISVTX and not is_own
        others = status.st_mode & 0o002 or (status.st_mode & 0o020 and not _is_private(status.st_gid, status.st_uid))
        if others and not guarded:
            raise ValueError(
                "other logins may write %s (mode %04o), and so change what the kit runs; chmod go-w it, or choose a "
                "workspace below a folder of your own" % (place, stat.S_IMODE(status.st_mode))
            )


def _open_kit(kit: str, make: bool) -> int:
    workspace = os.path.dirname(kit)
    refuse_shared(workspace)
    if make:
        make_folders(workspace)
        refuse_shared(workspace)  # somebody may have been quicker, where many may make folders
        with contextlib.suppress(FileExistsError):
            os.mkdir(kit, 0o700)
    try:
        descriptor = os.open(kit, _FOLDER)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise ValueError("%s is a link or no folder; remove it" % kit) from None
        raise
    try:
        status = os.fstat(descriptor)
        if status.st_uid not in _trusted(True) or status.st_mode & 0o022:
            raise ValueError(
                "%s belongs to %s with mode %04o, so others may have changed what is in it; remove it"
                % (kit, _login(status.st_uid), stat.S_IMODE(status.st_mode))
            )
        _mark(descriptor, kit)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _mark(descriptor: int, kit: str) -> None:
    """Mark the kit's folder, once. A folder of that name that holds something and is not marked is not ours."""
    if is_marked(descriptor):
        return
    others = [name for name in os.listdir(descriptor) if not name.startswith(MARKER)]
    if others and not is_marked(descriptor):  # asked again: another process may have marked it, then gone on
        raise ValueError("%s was not made by the kit (it has no %s of its own); move it away" % (kit, MARKER))
    part = "%s.%s" % (MARKER, os.urandom(4).hex())
    with os.fdopen(os.open(part, _NEW, 0o600, dir_fd=descriptor), "wb") as stream:
        stream.write(MARKER_TEXT)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(part, MARKER, src_dir_fd=descriptor, dst_dir_fd=descriptor)


def _open_below(folder: int, name: str, path: str, make: bool) -> int:
    if make:
        with contextlib.suppress(FileExistsError), _named(os.path.dirname(path)):
            os.mkdir(name, 0o700, dir_fd=folder)
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise ValueError("%s is a link or no folder, and nothing is written through it; remove it" % path) from None
        error.filename = path
        raise


@contextlib.contextmanager
def _named(folder: str) -> Iterator[None]:
    """Errors of calls that name a file relative to `folder` name it whole."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str) and not error.filename.startswith("/"):
            error.filename = os.path.join(folder, error.filename)
        raise


def _leading_to(path: str) -> List[str]:
    """Every folder on the way from the root to `path`, itself the last."""
    parts = path.rstrip("/").split("/")
    return ["/".join(parts[:count]) or "/" for count in range(1, len(parts) + 1)]


def _trusted(is_own: bool) -> Set[int]:
    """The users who may own a folder of the kit's, or one that leads there: who runs this and whose code it is; and
    root, who in a user namespace may show as the overflow user."""
    own = {os.geteuid()}
    with contextlib.suppress(OSError, NameError):
        own.add(os.stat(__file__).st_uid)  # of source that runs from memory there is no file
    if is_own:
        return own
    own.add(0)
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/uid_map", encoding="ascii") as stream:
            is_whole = stream.read().split() == ["0", "0", "4294967295"]
        if not is_whole:
            with open("/proc/sys/kernel/overflowuid", encoding="ascii") as stream:
                own.add(int(stream.read()))
    return own


def _is_private(gid: int, uid: int) -> bool:
    """Whether a group is a user's own: of the same name and with no other member, as distributions make one a user."""
    try:
        group, name = grp.getgrgid(gid), pwd.getpwuid(uid).pw_name
    except KeyError:
        return False
    return group.gr_name == name and not set(group.gr_mem) - {name}


def _login(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "uid %d" % uid
