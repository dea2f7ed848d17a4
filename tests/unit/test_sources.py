"""An upstream source is taken as it was published, from wherever, or refused."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.containers.sources import Source, tree_hash
from deploy.errors import KitError


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with names that sort oddly, an executable, a link and an empty folder."""
    folder = tmp_path / "clone"
    for name in ("net/model.py", "net/model/graph.py", "net/model-a.py", "net/run.sh", "LICENSE", "other/x"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
    (folder / "net/run.sh").chmod(0o755)
    (folder / "net/link").symlink_to("model.py")
    (folder / "net/empty").mkdir()
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=all")
    return folder


@pytest.fixture
def source(clone: Path) -> Source:
    return Source(
        name="net",
        url=str(clone),
        commit=git(clone, "rev-parse", "HEAD"),
        folder="net",
        tree=git(clone, "rev-parse", "HEAD:net"),
        variable="NET_SRC",
        beside=("LICENSE",),
    )


def as_tree(clone: Path, to: Path) -> Path:
    shutil.copytree(clone, to, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    (to / "net/__pycache__").mkdir()
    (to / "net/__pycache__/model.pyc").write_bytes(b"code")
    return to


def as_bare(clone: Path, to: Path) -> Path:
    git(clone, "clone", "--quiet", "--bare", str(clone), str(to))
    return to


def as_tar(clone: Path, to: Path) -> Path:
    with tarfile.open(to.with_suffix(".tar.gz"), "w:gz") as archive:
        archive.add(clone, "net-1.0")
    return to.with_suffix(".tar.gz")


def as_tar_of_the_folders_own_name(clone: Path, to: Path) -> Path:
    """A repository that is named like the folder in it, as mmskeleton is, packed with what git knows of it."""
    with tarfile.open(to.with_suffix(".tar.gz"), "w:gz") as archive:
        archive.add(clone, "net")
    return to.with_suffix(".tar.gz")


def as_changed_tar_of_the_folders_own_name(clone: Path, to: Path) -> Path:
    (clone / "net/model.py").write_text("changed, and not committed\n")
    return as_tar_of_the_folders_own_name(clone, to)


def as_tar_of_the_tree(clone: Path, to: Path) -> Path:
    with tarfile.open(to.with_suffix(".tar.gz"), "w:gz") as archive:
        archive.add(as_tree(clone, to), "net")
    return to.with_suffix(".tar.gz")


def as_the_folder_itself(clone: Path, to: Path) -> Path:
    return (clone / "net").rename(to)


def as_zip(clone: Path, to: Path) -> Path:
    (clone / "net/link").unlink()  # a zip made here keeps neither links nor modes
    (clone / "net/run.sh").chmod(0o644)
    git(clone, "commit", "--quiet", "--all", "--message=plain files")
    with zipfile.ZipFile(to.with_suffix(".zip"), "w") as archive:
        for path in sorted((clone / "net").rglob("*.*")):
            archive.write(path, path.relative_to(clone))
    return to.with_suffix(".zip")


def as_changed_clone(clone: Path, to: Path) -> Path:
    shutil.copytree(clone, to, symlinks=True)
    (to / "net/model.py").write_text("patched\n")
    return to


FORMS = [
    as_tree,
    as_bare,
    as_tar,
    as_tar_of_the_folders_own_name,
    as_changed_tar_of_the_folders_own_name,
    as_tar_of_the_tree,
    as_the_folder_itself,
    as_zip,
    as_changed_clone,
    None,
]


def test_the_hash_is_gits_own(clone: Path, source: Source) -> None:
    assert tree_hash(clone / "net") == source.tree


@pytest.mark.parametrize("form", FORMS)
def test_any_form_gives_the_published_files(
    form: Callable[[Path, Path], Path] | None, clone: Path, source: Source, tmp_path: Path
) -> None:
    given = form(clone, tmp_path / "given") if form else None
    if form is as_zip:
        source = replace(source, commit="0" * 40, tree=git(clone, "rev-parse", "HEAD:net"))
    source.gather(str(given) if given else None, tmp_path / "into/net")
    assert tree_hash(tmp_path / "into/net") == source.tree
    assert not (tmp_path / "into/net/__pycache__").exists()
    assert {path.name for path in (tmp_path / "into").iterdir()} <= {"net", "LICENSE"}


def test_a_url_is_fetched_from(clone: Path, source: Source, tmp_path: Path) -> None:
    away = replace(source, url=str(tmp_path / "nowhere"))
    away.gather(clone.as_uri(), tmp_path / "into")
    assert tree_hash(tmp_path / "into") == source.tree


def test_another_tree_is_accepted_by_its_hash_alone(clone: Path, source: Source, tmp_path: Path) -> None:
    given = as_tree(clone, tmp_path / "given")
    (given / "net/model.py").write_text("a fork's\n")
    with pytest.raises(KitError, match="NET_TREE=") as refused:
        replace(source, accept="NET_TREE").gather(str(given), tmp_path / "into")
    tree = str(refused.value).rpartition("=")[2]
    replace(source, commit="", tree=tree).gather(str(given), tmp_path / "into")
    assert (tmp_path / "into/model.py").read_text() == "a fork's\n"


def test_a_changed_tree_is_refused_with_both_hashes(clone: Path, source: Source, tmp_path: Path) -> None:
    given = as_tree(clone, tmp_path / "given")
    (given / "net/model.py").write_text("patched\n")
    with pytest.raises(KitError, match=rf"net: .*{source.tree}.*NET_SRC=PATH"):
        source.gather(str(given), tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_a_place_that_is_not_there_and_one_without_it_are_named(source: Source, tmp_path: Path) -> None:
    with pytest.raises(KitError, match="NET_SRC=/none"):
        source.gather("/none", tmp_path / "into")
    (tmp_path / "empty").mkdir()
    with pytest.raises(KitError, match=r"NET_SRC=.*/empty: .*net/"):
        source.gather(str(tmp_path / "empty"), tmp_path / "into")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(KitError, match=r"/text: .*\.tar\.gz"):
        source.gather(str(tmp_path / "text"), tmp_path / "into")


def test_a_network_that_is_not_there_says_how_to_do_without(source: Source, tmp_path: Path) -> None:
    away = replace(source, url=str(tmp_path / "nowhere"))
    with pytest.raises(KitError, match=rf"nowhere.*{source.commit}.*NET_SRC=PATH"):
        away.gather(None, tmp_path / "into")


def test_a_source_known_by_its_commit_alone_must_be_a_clone(clone: Path, source: Source, tmp_path: Path) -> None:
    whole = replace(source, folder="", tree=None, beside=())
    whole.gather(str(clone), tmp_path / "into")
    assert (tmp_path / "into/other/x").is_file()
    with pytest.raises(KitError, match=source.commit):
        whole.gather(str(as_tree(clone, tmp_path / "given")), tmp_path / "again")
