"""A second login on a host is hostile: nothing of it runs as the operator or is written through."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.errors import KitError
from deploy.hosts.over_ssh import SSHHost
from deploy.hosts.remote.folders import KIT, MARKER_TEXT
from deploy.inventory import Npu
from tests.system.conftest import npu
from tests.system.network import Network

LOGIN = "stgcn-stranger"
# What a stranger plants runs as whoever runs it, and says so.
PLANTED = "import os; open({!r}, 'a').write('%d' % os.getuid())\n"


class Stranger:
    def __init__(self, folder: Path) -> None:
        self.folder, self.ran = folder, folder / "ran"

    def do(self, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        argv = ["setpriv", f"--reuid={LOGIN}", f"--regid={LOGIN}", "--clear-groups", "sh", "-c", script, "sh"]
        return subprocess.run([*argv, *map(str, arguments)], cwd="/", capture_output=True, text=True)

    def plant(self, folder: Path) -> None:
        """Modules of the standard library's names and the helper's, everywhere that something could be run from."""
        for place in (folder, folder / KIT, folder / KIT / "remote", folder / ".kit/remote-0123456789abcdef/remote"):
            for name in ("json", "zlib", "operations", "__main__", "sitecustomize"):
                text = PLANTED.format(str(self.ran))
                self.do('mkdir -p "$1" && printf %s "$2" >"$1/$3.py"', place, text, name)


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    """Another login, and a folder that everybody may reach, as /tmp is."""
    if os.getuid() != 0:
        pytest.skip("another login takes root: `make test-system` as root runs this")
    subprocess.run(["useradd", "--no-create-home", LOGIN], check=True)
    folder = Path(tempfile.mkdtemp(prefix="stgcn-logins-", dir="/tmp"))
    folder.chmod(0o1777)
    try:
        yield Stranger(folder)
    finally:
        shutil.rmtree(folder)
        subprocess.run(["userdel", LOGIN], check=True)


@pytest.fixture
def host_in(network: Network, connect: Callable[[Npu], SSHHost]) -> Callable[[Path], SSHHost]:
    return lambda workspace: connect(Npu.model_validate(npu(network, workspace)))


def use(host: SSHHost) -> None:
    """What a command does first."""
    host.hold()
    assert host.run(["id", "-u"]).output == "0\n"
    assert host.run(["id", "-u"], job="job").output == "0\n"


@pytest.mark.parametrize("made", ["workspace", "above", "kit", "link", "link to own"])
def test_what_a_stranger_made_is_refused(made: str, stranger: Stranger, host_in: Callable[[Path], SSHHost]) -> None:
    workspace = stranger.folder / ("above/workspace" if made == "above" else "workspace")
    if made == "workspace":
        stranger.plant(workspace)
    elif made == "above":
        stranger.plant(workspace.parent)
    elif made == "kit":
        workspace.mkdir(mode=0o777)
        workspace.chmod(0o1777)
        stranger.plant(workspace)
    elif made == "link":
        stranger.do('mkdir "$1" && ln -s "$1" "$2"', stranger.folder / "theirs", workspace)
    else:
        own = stranger.folder / "own"
        own.mkdir(mode=0o700)
        stranger.do('ln -s "$1" "$2"', own, workspace)
    before = set(stranger.folder.rglob("*"))
    with pytest.raises(KitError, match="belongs to|other logins may write|link"):
        use(host_in(workspace))
    assert set(stranger.folder.rglob("*")) == before
    assert not stranger.ran.exists()


def test_nothing_of_a_stranger_runs_or_is_reached_in_a_workspace_of_ones_own(
    stranger: Stranger, host_in: Callable[[Path], SSHHost]
) -> None:
    workspace = stranger.folder / "workspace"
    old = os.umask(0)
    try:
        use(host_in(workspace))
    finally:
        os.umask(old)
    stranger.plant(workspace)
    for path in (workspace, workspace / KIT, workspace / KIT / "lock", workspace / KIT / "jobs"):
        assert path.exists()
        assert stranger.do('echo x >"$1" || touch "$1/x"', path).returncode != 0
    assert stranger.do('flock -n "$1" true', workspace / KIT / "lock").returncode != 0  # it cannot even hold it
    assert stranger.do('rm -rf "$1" || mv "$1" "$1.away"', workspace).returncode != 0
    use(host_in(workspace))
    assert (workspace / KIT / "CACHEDIR.TAG").read_bytes() == MARKER_TEXT
    assert not stranger.ran.exists()


def test_a_home_with_modules_of_a_strangers_is_not_imported_from(
    stranger: Stranger, host_in: Callable[[Path], SSHHost]
) -> None:
    home = Path(pwd.getpwuid(0).pw_dir)
    assert stranger.do("true").returncode == 0
    planted = home / "json.py"  # as a group-writable home would allow
    planted.write_text(PLANTED.format(str(stranger.ran)))
    try:
        use(host_in(stranger.folder / "workspace"))
    finally:
        planted.unlink()
    assert not stranger.ran.exists()
