"""The prelude that sources a host's scripts: arguments stay arguments, whatever is in them."""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePosixPath

import pytest

from deploy.containers.native import Native
from deploy.errors import KitError
from deploy.hosts.local import LocalHost
from deploy.pipeline.prelude import bare, readable

HOSTILE = ["a b", "$(touch hacked)", "'; exit 3; '", "", "*", "--model=x\ny"]


@pytest.fixture
def host(tmp_path: Path) -> LocalHost:
    return LocalHost("here", tmp_path)


def test_arguments_and_variables_arrive_as_they_are(tmp_path: Path, host: LocalHost) -> None:
    script = tmp_path / "set env.sh"
    script.write_text('export FROM_SCRIPT=yes; [ $# -eq 0 ] || echo "the script saw $*"\n')
    runtime = Native(host, [str(script)], {"VALUE": "a'b $HOME"})
    done = runtime.run(
        [
            "python3",
            "-c",
            "import os, sys; print([os.environ['FROM_SCRIPT'], os.environ['VALUE'], *sys.argv[1:]])",
            *HOSTILE,
        ],
        folder=PurePosixPath(tmp_path),
    )
    assert (done.status, done.output) == (0, f"{['yes', chr(97) + chr(39) + 'b $HOME', *HOSTILE]}\n")
    assert not (tmp_path / "hacked").exists()


def test_a_missing_script_and_a_missing_program_say_what_to_correct(host: LocalHost) -> None:
    with pytest.raises(KitError, match=r"/none/set_env\.sh.*tools\.env_scripts"):
        Native(host, ["/none/set_env.sh"]).run(["true"])
    with pytest.raises(KitError, match="no-such-atc"):
        Native(host).run(["no-such-atc"])


def test_a_deadline_ends_the_program_and_its_children(tmp_path: Path, host: LocalHost) -> None:
    with pytest.raises(KitError, match=r"\b0\.5 s"):
        Native(host).run(
            ["bash", "-c", "(sleep 30; touch survived) & wait"], folder=PurePosixPath(tmp_path), timeout_s=0.5
        )
    assert not (tmp_path / "survived").exists()


def test_endless_output_is_cut_in_the_middle(tmp_path: Path, host: LocalHost) -> None:
    program = "print('first'); print('x' * (8 << 20)); print('last')"
    done = Native(host).run(["python3", "-c", program], log=tmp_path / "log")
    assert done.output.startswith("first\n")
    assert done.output.endswith("last\n")
    assert "bytes cut]" in done.output
    assert len(done.output) < 2 << 20
    assert (tmp_path / "log").stat().st_size > 8 << 20


@pytest.mark.parametrize("scripts", [[], ["/opt/set env.sh"]])
def test_the_command_line_for_people_does_the_same(scripts: list[str], tmp_path: Path, host: LocalHost) -> None:
    scripts = [str(tmp_path / "set env.sh") for _ in scripts]
    (tmp_path / "set env.sh").write_text("export FROM_SCRIPT=yes\n")
    program = "import os, sys; print([os.getcwd(), os.environ.get('FROM_SCRIPT'), *sys.argv[1:]])"
    argv = Native(host, scripts).argv(["python3", "-c", program, *HOSTILE], PurePosixPath(tmp_path))
    exact = subprocess.run(argv, check=True, stdout=subprocess.PIPE)
    same = subprocess.run(["bash", "-c", readable(argv)], check=True, stdout=subprocess.PIPE)
    assert exact.stdout == same.stdout
    assert "load()" not in readable(argv)
    assert bare(argv)[-len(HOSTILE) :] == HOSTILE
