"""Files that are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from stgcn.errors import InputError
from stgcn.files import RECORD_BYTES, atomic_write, read_record, remove, sha256_file, sweep


def test_a_file_appears_whole_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with atomic_write(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_keeps_the_earlier_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"earlier")

    def write_half() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_with_the_way_out(tmp_path: Path) -> None:
    sentence = rf"can't write {tmp_path / 'file'} \(No space left .*make room"
    with pytest.raises(InputError, match=sentence), atomic_write(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_sweeping_removes_what_killed_writers_left_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / ".earlier.01234567.tmp").mkdir(parents=True)
    (folder / ".earlier.01234567.tmp/file").touch()
    (tmp_path / ".other.01234567.tmp").touch()
    with atomic_write(folder / "file") as file:
        file.write(b"whole")
        sweep(tmp_path, depth=1)
    assert (folder / "file").read_bytes() == b"whole"
    assert list(tmp_path.rglob("*")) == [folder, folder / "file"]


def test_a_file_is_readable_as_the_umask_says(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "file"):
        pass
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("place", ["file/below", "folder"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"{tmp_path / place} "):
        atomic_write(tmp_path / place).__enter__()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_sha256_is_of_all_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10000
    (tmp_path / "file").write_bytes(content)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    with pytest.raises(InputError, match="missing"):
        sha256_file(tmp_path / "missing")


def test_removing_nothing_is_fine(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    remove(tmp_path / "file")
    remove(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_a_record_is_read_at_once_unless_it_is_none(tmp_path: Path) -> None:
    (tmp_path / "record").write_bytes(b"{}")
    assert read_record(tmp_path / "record") == b"{}"
    os.truncate(str(tmp_path / "record"), RECORD_BYTES + 1)
    with pytest.raises(OSError, match=str(RECORD_BYTES)):
        read_record(tmp_path / "record")


def test_only_what_ends_is_opened(tmp_path: Path) -> None:
    os.mkfifo(str(tmp_path / "pipe"))
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match=f"{path} "):
            sha256_file(path)
