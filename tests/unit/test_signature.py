"""A run's seal and signature: made by the kit, checked without it, by the commands of docs/evidence.md alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.audit import print_audit
from deploy.errors import KitError
from deploy.evidence import seal, signature
from deploy.evidence.runs import find
from deploy.inventory import ROOT
from deploy.workspace import Workspace
from tests.unit import made_up


def signed(workspace: Workspace, key: Path) -> Workspace:
    inventory = workspace.inventory.model_copy(update={"sign": str(key)})
    made_up.score(Workspace(inventory))
    return Workspace(inventory)


@pytest.fixture(scope="session")
def run(scored: Workspace, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    """A workspace whose verdict was signed, and its kept run. Not to be changed."""
    workspace = signed(made_up.copy(scored, tmp_path_factory.mktemp("signed")), keys / "operator")
    return workspace, find(workspace.folder, "latest").folder


def commands() -> str:
    """What docs/evidence.md has under its last heading but one, to be run by a shell in the folder of a run."""
    text = (ROOT / "docs/evidence.md").read_text(encoding="utf-8").partition("## Checking without the kit")[2]
    return re.search(r"```sh\n(.*?)```", text, re.DOTALL)[1]  # type: ignore[index]


def without_the_kit(folder: Path, keys: Path) -> subprocess.CompletedProcess[str]:
    (folder.parent / ".ssh").mkdir(exist_ok=True)
    shutil.copy2(keys / "allowed_signers", folder.parent / ".ssh")
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands()],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def change(name: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).write_bytes(content + b"\n")

    return damage


def check(folder: Path, keys: Path) -> None:
    seal.check(folder)
    signature.check(folder, signature.fingerprint(keys / "operator"), None, keys / "allowed_signers")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a log": change("npu/bs1/benchmark-1.log"),
    "the page": change("report/report.html"),
    "the manifest": change("manifest.json"),
    "the seal": change("seal.json"),
    "a file less": lambda folder: (folder / "gpu/labels.npy").unlink(),
    "a file more": lambda folder: (folder / "gpu/notes.txt").write_text("fine"),
    "a link more": lambda folder: (folder / "gpu/notes.txt").symlink_to("labels.npy"),
    "no signature": lambda folder: (folder / seal.SIGNATURE).unlink(),
}


def test_a_run_is_checked_without_the_kit(run: tuple[Workspace, Path], keys: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run[1], folder)
    done = without_the_kit(folder, keys)
    assert done.returncode == 0, done.stderr
    assert 'Good "stgcn-kit" signature for operator@example.org' in done.stdout
    assert done.stdout.splitlines()[-1] == run[1].name.partition("-")[2]


@pytest.mark.parametrize("what", DAMAGE)
def test_what_was_changed_is_found_without_the_kit_and_with_it(
    run: tuple[Workspace, Path], keys: Path, tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run[1], folder)
    DAMAGE[what](folder)
    assert without_the_kit(folder, keys).returncode != 0
    with pytest.raises(KitError):
        check(folder, keys)


def test_audit_says_by_whom(run: tuple[Workspace, Path], keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace, kept = run
    allowed = {"allowed_signers": str(keys / "allowed_signers")}
    print_audit(Workspace(workspace.inventory.model_copy(update=allowed)), kept.name, samples=1)
    assert "signed by operator@example.org (SHA256:" in capsys.readouterr().out


def test_the_page_and_the_record_name_the_key(run: tuple[Workspace, Path], keys: Path) -> None:
    workspace, kept = run
    found = signature.fingerprint(keys / "operator.pub")
    assert workspace.manifest.steps["score"]["inputs"]["signer"] == found
    assert found.replace("+", "&#43;") in (kept / "report/report.html").read_text().replace("+", "&#43;")


def test_an_unsigned_run_is_called_so_and_refused_where_a_signature_is_demanded(scored: Workspace, keys: Path) -> None:
    folder = find(scored.folder, "latest").folder
    assert signature.check(folder, None, None, None) == "unsigned"
    for demands in ((keys / "operator", None), (None, keys / "allowed_signers")):
        with pytest.raises(KitError, match="unsigned"):
            signature.check(folder, None, *demands)


def test_another_s_signature_is_refused(run: tuple[Workspace, Path], keys: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run[1], folder)
    signature.sign(folder, keys / "forger")
    forger = signature.fingerprint(keys / "forger")
    with pytest.raises(KitError, match="the verdict announces"):
        signature.check(folder, signature.fingerprint(keys / "operator"), None, None)
    with pytest.raises(KitError, match="not the key"):
        signature.check(folder, forger, keys / "operator", None)
    with pytest.raises(KitError, match="nobody whom"):
        signature.check(folder, forger, None, keys / "allowed_signers")


def test_a_signature_for_another_purpose_is_none(run: tuple[Workspace, Path], keys: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run[1], folder)
    argv = ["ssh-keygen", "-Y", "sign", "-f", str(keys / "operator"), "-n", "git"]
    sealed = (folder / seal.SEAL).read_bytes()
    (folder / seal.SIGNATURE).write_bytes(subprocess.run(argv, input=sealed, capture_output=True, check=True).stdout)
    with pytest.raises(KitError, match="not a signature"):
        signature.check(folder, signature.fingerprint(keys / "operator"), None, keys / "allowed_signers")


@pytest.mark.parametrize("key", ["locked", "locked.pub", "none"])
def test_a_key_that_cannot_sign_is_a_sentence_and_keeps_nothing(
    workspace: Workspace, keys: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    before = set((workspace.folder / "runs").iterdir())
    with pytest.raises(KitError, match=key):
        signed(workspace, keys / key)
    assert set((workspace.folder / "runs").iterdir()) == before


def test_a_key_with_a_passphrase_signs_by_the_agent(
    workspace: Workspace, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "askpass"
    asked.write_text("#!/bin/sh\necho open sesame\n")
    asked.chmod(0o700)
    argv = ["ssh-agent", "-D", "-a", str(tmp_path / "agent")]
    agent = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None
        agent.stdout.readline()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        add = {"SSH_AUTH_SOCK": str(tmp_path / "agent"), "SSH_ASKPASS": str(asked), "SSH_ASKPASS_REQUIRE": "force"}
        subprocess.run(["ssh-add", "-q", str(keys / "locked")], env={"PATH": "/usr/bin:/bin", **add}, check=True)
        found = find(signed(workspace, keys / "locked.pub").folder, "latest").folder
        assert signature.signed_with(found) == signature.fingerprint(keys / "locked.pub")
    finally:
        agent.terminate()
        agent.wait()


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        (['namespaces="git"'], False),
        (['valid-before="20200101"'], False),
        (['namespaces="git"', 'namespaces="stgcn-kit"'], True),
        (['valid-before="20200101"', 'valid-after="20200101"'], True),
    ],
)
def test_a_key_may_stand_on_several_lines(
    run: tuple[Workspace, Path], keys: Path, tmp_path: Path, options: list[str], allowed: bool
) -> None:
    """One for commits, one for runs; one of last year. (ssh-keygen's find-principals tells of the first alone.)"""
    public, path = (keys / "operator.pub").read_text(), tmp_path / "allowed_signers"
    lines = [f"operator-{i}@example.org,op {option} {public}" for i, option in enumerate(options)]
    path.write_text("# who may sign\n\n" + "".join(lines))
    if allowed:
        assert signature.signer(run[1], path) == f"operator-{len(options) - 1}@example.org"
    else:
        with pytest.raises(KitError, match="allowed_signers:3: key"):
            signature.signer(run[1], path)
