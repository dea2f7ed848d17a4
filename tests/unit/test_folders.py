"""Nothing of the user's is harmed: where a workspace may be, what is removed from it, what is never written through."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.errors import KitError
from deploy.hosts.local import LocalHost
from deploy.hosts.remote import compression, folders, workspace
from deploy.hosts.remote.folders import KIT, MARKER, MARKER_TEXT
from deploy.hosts.remote.shards import LENGTH
from deploy.inventory import ROOT, load
from tests.theirs import bytes_below, plant


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A workspace that a user has folders of the kit's names in."""
    folder = tmp_path / "workspace"
    plant(folder)
    return folder


def clean(folder: Path) -> dict[str, list[str]]:
    host = LocalHost("here", folder)
    host.hold()
    try:
        found: dict[str, list[str]] = host.call("clean", {"workspace": str(folder)})
        return found
    finally:
        host.close()


def test_clean_removes_the_kits_folder_and_nothing_else(mine: Path) -> None:
    before = bytes_below(mine)
    host = LocalHost("here", mine)
    host.run(["true"], job="ended")
    host.call("put_folder", {"folder": str(host.kit / "stgcn-1/stgcn"), "files": {"a.py": 1}}, [b"1"])
    assert clean(mine) == {"removed": [str(mine / KIT)], "left": []}
    assert bytes_below(mine) == before
    assert clean(mine)["left"] == []


def old_workspace(folder: Path) -> None:
    """As the layout before left it: a helper, a job, sources, a copy of a model, a shard whole and one begun."""
    sources = {"__init__.py": "", "jobs.py": "print('é')\n"}
    version = hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]
    helper = folder / ".kit" / f"remote-{version}" / "remote"
    helper.mkdir(parents=True)
    for name, text in sources.items():
        (helper / name).write_text(text, encoding="utf-8")
    (helper / "__pycache__").mkdir()
    for name in ("request.json", "alive", "log", "status.json"):
        (folder / ".kit/jobs/convert-1").mkdir(parents=True, exist_ok=True)
        (folder / ".kit/jobs/convert-1" / name).touch()
    (folder / ".kit/runs/convert-bs1-0123456789ab").mkdir(parents=True)
    copy = folder / "files" / hashlib.sha256(b"onnx").hexdigest()[:16]
    copy.mkdir(parents=True)
    (copy / "st_gcn.onnx").write_bytes(b"onnx")
    (copy / "st_gcn.onnx.12.part").write_bytes(b"on")
    for shard, names in (("0", (".shard", "0.bin", "1.bin")), ("2.part", (".pid", "2.bin"))):
        (folder / "data" / ("ab" * 8) / shard).mkdir(parents=True)
        for name in names:
            (folder / "data" / ("ab" * 8) / shard / name).write_bytes(b"clip")


def test_clean_removes_what_an_older_layout_left(tmp_path: Path) -> None:
    folder = tmp_path / "workspace"
    old_workspace(folder)
    assert set(clean(folder)["removed"]) == {str(folder / name) for name in (KIT, ".kit", "data", "files")}
    assert not list(folder.iterdir())


def test_clean_leaves_a_users_beside_what_an_older_layout_left(mine: Path) -> None:
    before = bytes_below(mine)
    old_workspace(mine)
    found = clean(mine)
    assert set(found["left"]) == {str(mine / name) for name in (".kit", "data", "files")}
    after = bytes_below(mine)
    assert {name: after.get(name) for name in before} == before
    assert not {name for name in after if "remote-" in name or "abab" in name}


def test_a_changed_copy_or_helper_is_no_ones_but_the_users(tmp_path: Path) -> None:
    folder = tmp_path / "workspace"
    old_workspace(folder)
    for path in (*folder.glob("files/*/st_gcn.onnx"), *folder.glob(".kit/remote-*/remote/jobs.py")):
        path.write_text("changed by hand")
    before = bytes_below(folder / "files")
    clean(folder)
    assert bytes_below(folder / "files") == before
    assert list(folder.glob(".kit/remote-*/remote/jobs.py"))


@pytest.fixture
def inventory(tmp_path: Path) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        values = {
            "workspace": str(tmp_path / "work"),
            "npu": [{"name": "npu-a", "connection": "local", "workspace": str(tmp_path / "npu")}],
            "dataset": {"data": str(tmp_path / "set/data.npy"), "labels": str(tmp_path / "set/labels.pkl")},
            "checkpoint": str(tmp_path / "weights/model.pth"),
        }
        path = tmp_path / "inventory.yaml"
        path.write_text(yaml.safe_dump({**values, **changes}))
        return path

    return write


@pytest.mark.parametrize("place", ["/", "~", "/usr/..", str(ROOT), ".", "set", "weights"])
def test_a_workspace_that_holds_the_users_own_is_refused(
    place: str, inventory: Callable[..., Path], tmp_path: Path
) -> None:
    if place in ("set", "weights"):
        place = str(tmp_path / place)
    npu = [{"name": "npu-a", "connection": "local", "workspace": place}]
    assert load(inventory())
    with pytest.raises(KitError, match=r"inventory\.yaml: workspace: "):
        load(inventory(workspace=place))
    with pytest.raises(KitError, match=r"inventory\.yaml: npu\[0\]\.workspace: "):
        load(inventory(npu=npu))


def test_a_link_to_a_home_is_one(inventory: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(Path.home())
    with pytest.raises(KitError, match="link.*home"):
        load(inventory(workspace=str(tmp_path / "link")))


def test_other_hosts_tell_at_first_contact(tmp_path: Path) -> None:
    inputs = {"dataset.data": str(tmp_path / "w/data.npy")}
    with pytest.raises(ValueError, match=r"dataset\.data"):
        workspace.contact({"workspace": str(tmp_path / "w"), "inputs": inputs}, None)
    with pytest.raises(ValueError, match="home"):
        workspace.contact({"workspace": ".", "inputs": {}}, None)


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o772])
def test_a_folder_that_others_may_write_is_refused(mode: int, tmp_path: Path) -> None:
    for shared in (tmp_path / "workspace", tmp_path / "above"):
        shared.mkdir()
        shared.chmod(mode)
    for place in (tmp_path / "workspace", tmp_path / "above/workspace"):
        with pytest.raises(KitError, match=r"\(mode 07"):
            LocalHost("here", place).hold()
    (tmp_path / "above").chmod(0o1777)  # as /tmp is
    LocalHost("here", tmp_path / "above/workspace").hold()


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="root alone can give files away: it runs in .ci/run")


@needs_root
def test_a_folder_that_another_group_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    os.chown(tmp_path / "workspace", -1, 12345)
    (tmp_path / "workspace").chmod(0o770)
    with pytest.raises(KitError, match=r"\(mode 0770"):
        LocalHost("here", tmp_path / "workspace").hold()


@needs_root
def test_a_folder_of_another_login_is_refused(tmp_path: Path) -> None:
    for name in ("workspace", "kit", f"kit/{KIT}"):
        (tmp_path / name).mkdir(mode=0o755)
    os.chown(tmp_path / "workspace", 12345, 12345)
    os.chown(tmp_path / "kit" / KIT, 12345, 12345)
    for name in ("workspace", "kit"):
        with pytest.raises(KitError, match="uid 12345"):
            LocalHost("here", tmp_path / name).hold()


def test_a_kit_folder_that_is_a_link_or_anybodys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / KIT).symlink_to(tmp_path)
    (tmp_path / "b" / KIT).mkdir(parents=True, mode=0o700)
    (tmp_path / "b" / KIT / "thesis").touch()
    for name, sentence in (("a", "is a link or no folder"), ("b", "was not made by the kit")):
        with pytest.raises(KitError, match=sentence):
            LocalHost("here", tmp_path / name).hold()


@pytest.mark.parametrize("left", [None, b"", MARKER_TEXT[:20]])
def test_a_marker_that_was_cut_short_heals(left: bytes | None, tmp_path: Path) -> None:
    (tmp_path / KIT).mkdir(mode=0o700)
    if left is not None:
        (tmp_path / KIT / MARKER).write_bytes(left)
        (tmp_path / KIT / f"{MARKER}.0123").write_bytes(left)
    LocalHost("here", tmp_path).hold()
    assert (tmp_path / KIT / MARKER).read_bytes() == MARKER_TEXT


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    victim, host = tmp_path / "victim", LocalHost("here", tmp_path / "workspace")
    victim.mkdir()
    (victim / "0.bin").write_bytes(b"old")
    host.hold()
    kit, sha256 = Path(host.kit), hashlib.sha256(b"new").hexdigest()
    for name in ("clips", "files", "jobs", "runs"):
        (kit / name).symlink_to(victim)
    (kit / "set/0.part").mkdir(parents=True)
    (kit / "set/0.part/0.bin").symlink_to(victim / "0.bin")
    shard = {"first": 0, "count": 1, "clip_bytes": 3, "sha256": sha256, "landed": 0}
    packed = compression.packer("deflate")(b"new")
    stream = b"d" + LENGTH.pack(len(packed)) + packed
    before = bytes_below(victim)
    for operation, request, body in (
        ("unpack", {"folder": str(kit / "clips/0"), **shard}, [stream]),
        ("unpack", {"folder": str(kit / "set/0"), **shard}, [stream]),
        ("receive", {"path": str(kit / "files/0.bin"), "bytes": 3, "sha256": sha256}, [b"new"]),
        ("put_folder", {"folder": str(kit / "files/new"), "files": {"a": 1}}, [b"1"]),
        ("link", {"folder": str(kit / "runs/new"), "files": {}}, []),
        ("job", {"folder": str(kit / "jobs/new"), "argv": ["true"]}, []),
        ("remove", {"paths": [str(kit / "files/0.bin")]}, []),
        ("remove", {"paths": [str(victim / "0.bin")]}, []),
        ("remove", {"paths": [str(kit / "../../victim/0.bin")]}, []),
    ):
        with pytest.raises(KitError):
            host.call(operation, request, body)
        assert bytes_below(victim) == before, operation
    host.call("remove", {"paths": [str(kit / "files")]})  # the link itself
    assert bytes_below(victim) == before


def test_the_kits_folder_is_its_owners_alone_whatever_the_umask_is(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        host = LocalHost("here", tmp_path / "deep/workspace")
        host.call("receive", {"path": str(host.kit / "files/a"), "bytes": 0, "sha256": hashlib.sha256().hexdigest()})
        host.run(["true"], job="ended")
    finally:
        os.umask(old)
    for path in (tmp_path / "deep").rglob("*"):
        assert not path.stat().st_mode & 0o022, path
    assert not Path(host.kit).stat().st_mode & 0o077
    folders.refuse_shared(str(host.workspace))
