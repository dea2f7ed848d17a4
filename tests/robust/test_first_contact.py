"""What a stranger's machine may be like: other Pythons, paths, locales, homes, and standard outputs that are gone."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from invoke import Collection

import fabfile
from deploy import program
from deploy.inventory import ROOT
from tests.pipeline.conftest import FAB
from tests.pipeline.npu_job import NpuJob

NO_VENV = """#!/bin/sh
# As Debian's Python without its venv package: an environment without pip is made, then it fails.
[ "$2" = venv ] && { "@PYTHON@" -m venv --without-pip "$3"; exit 1; }
exec "@PYTHON@" "$@"
"""
TOO_OLD = """#!/bin/sh
[ "$1" = -c ] && exec "@PYTHON@" -c "import sys; sys.version_info = (3, 9, 2); $2"
"""


@pytest.mark.parametrize(
    ("python", "sentence"),
    [
        (NO_VENV, r"cannot make the environment .*apt-get install python3\.\d+-venv\)"),
        (TOO_OLD, r"is not Python 3\.10 or newer; name one with PYTHON="),
        ("", r"is not Python 3\.10 or newer; name one with PYTHON="),
    ],
    ids=["no venv module", "too old", "none"],
)
def test_a_python_that_does_not_do_is_named_with_the_way_out(tmp_path: Path, python: str, sentence: str) -> None:
    program, venv = tmp_path / "a python", tmp_path / "an environment"
    if python:
        program.write_text(python.replace("@PYTHON@", sys.executable))
        program.chmod(0o755)
    for _ in range(2):  # what the first try leaves does not deceive the second
        argv = [
            str(ROOT / "requirements/venv.sh"),
            str(program),
            str(venv),
            "https://index.invalid",
            "no.lock",
            "no.txt",
        ]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"error: {program} ")
        assert re.search(sentence, last)


def test_a_folder_that_holds_no_environment_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    argv = [str(ROOT / "requirements/venv.sh"), sys.executable, str(tmp_path / "file/venv"), "-", "-", "-"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search("^error: .*/venv cannot be made; clone the kit to a folder that you may write", done.stderr, re.M)


@pytest.mark.full
def test_an_environment_that_moved_is_none(tmp_path: Path) -> None:
    made, moved, link = (tmp_path / name for name in ("an environment", "moved", "a link"))

    def whole(venv: Path) -> bool:
        return subprocess.run([str(ROOT / "requirements/whole.sh"), str(venv)]).returncode == 0

    assert not whole(made)
    subprocess.run([sys.executable, "-m", "venv", made], check=True)
    link.symlink_to(made)
    assert whole(made)
    assert whole(link)
    shutil.copytree(made, moved, symlinks=True)
    assert not whole(moved)
    (made / "bin/python").unlink()
    assert not whole(made)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ("gpu-stge", "gpu-stage"),
        ("npu_convert", "npu-convert"),
        ("--help scoer", "score"),
        ("npu-bench --farce", "--force"),
        ("compare a", "RUN_B"),
        ("audit --run", "--run"),
        ("-t x", "-t"),
    ],
)
def test_a_wrong_command_line_is_a_sentence_that_names_the_right_one(tmp_path: Path, argv: str, named: str) -> None:
    done = subprocess.run([str(FAB), *argv.split()], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"error: .*{named}.*\n", done.stderr)


TASKS = Collection.from_module(importlib.reload(fabfile))  # Invoke hands out each option's help once
OPTIONS = {name: TASKS[name].get_arguments() for name in sorted(TASKS.task_names)}


@pytest.mark.parametrize("task", OPTIONS)
def test_help_of_a_task_explains_each_of_its_options(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    program.run(Collection.from_module(importlib.reload(fabfile)), [task, "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: fab {task}")
    options = [argument for argument in OPTIONS[task] if not argument.positional]
    assert [
        option.name for option in options if not option.help or f"--{option.name.replace('_', '-')}" not in shown
    ] == []


@pytest.mark.full
@pytest.mark.parametrize("task", [name for name in OPTIONS if any(a.name == "dry" for a in OPTIONS[name])])
def test_a_dry_run_in_a_fresh_workspace_is_told_in_sentences(task: str, tmp_path: Path) -> None:
    """What is lacking there, or what would run."""
    inventory = yaml.safe_load((ROOT / "inventory.demo.yaml").read_text())
    inventory["npu"][0]["workspace"] = str(tmp_path / "npu")
    inventory |= {"workspace": str(tmp_path / "work"), "checkpoint": str(tmp_path / "none.pth")}
    (tmp_path / "inventory.yaml").write_text(yaml.safe_dump(inventory))
    environment = {**os.environ, "INVENTORY": str(tmp_path / "inventory.yaml")}
    done = subprocess.run([str(FAB), task, "--dry"], env=environment, capture_output=True, text=True)
    assert done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or re.fullmatch("error: .*\n", done.stderr)
    assert not list((tmp_path / "work").glob("*/*"))


def test_fabrics_own_program_runs_the_same_tasks(tmp_path: Path) -> None:
    """Who knows Fabric's goes on using it; the environment's `fab` is the kit's, for it starts sooner."""
    npu = f"[{{name: npu-a, workspace: {tmp_path}/npu}}]"
    (tmp_path / "inventory.yaml").write_text(f"workspace: {tmp_path}/work\nnpu: {npu}\n")
    environment = {**os.environ, "INVENTORY": str(tmp_path / "inventory.yaml")}

    def fabric(*argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fabric", *argv]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    assert set(re.findall(r"^  ([a-z-]+)  ", fabric("--list").stdout, re.MULTILINE)) == set(OPTIONS)
    done = fabric("score")
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*nothing has run yet.*\n", done.stderr)


HEAVY = {"docker", "fabric", "numpy", "onnx", "paramiko", "torch"}


@pytest.mark.parametrize(
    ("argv", "heavy"),
    [
        (["--list"], HEAVY | {"pydantic", "rich"}),
        (["score", "--help"], HEAVY | {"pydantic", "rich"}),
        (["status"], HEAVY | {"rich", "deploy.hosts.host"}),
    ],
)
def test_a_small_command_loads_nothing_that_it_does_not_use(argv: list[str], heavy: set[str], tmp_path: Path) -> None:
    """What it loads is most of what it costs."""
    (tmp_path / "inventory.yaml").write_text(f"workspace: {tmp_path}/work\nnpu: [{{name: npu-a}}]\n")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", ROOT / "deploy/program.py", *argv],
        env={**os.environ, "INVENTORY": str(tmp_path / "inventory.yaml")},
        capture_output=True,
        text=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "invoke" in loaded
    assert (done.returncode, loaded & heavy) == (0, set())


@pytest.fixture
def spaced(tmp_path: Path) -> NpuJob:
    """A job on a path with spaces, not run."""
    folder = tmp_path / "a job, with spaces"
    folder.mkdir()
    job = NpuJob(folder, samples=3, batch_sizes=[2])
    job.play(SHORTCUT="1")
    job.connections()
    return job


@pytest.mark.full
def test_a_clone_on_a_path_with_spaces_works(tmp_path: Path, spaced: NpuJob) -> None:
    clone = tmp_path / "a clone, with spaces"
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, clone], check=True)
    (clone / ".venv").symlink_to(Path(sys.prefix))
    # Make is told that the environment is as it should be: its stamps are older than a fresh clone's locks.
    argv = ["make", "-o", ".venv/kit", "npu-convert", f"INVENTORY={spaced.folder / 'inventory.yaml'}"]
    done = subprocess.run(argv, cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OK      convert/bs2" in done.stdout


def status(job: NpuJob, shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`fab status` of a job as `shell` has it run (its arguments), in a bash with pipefail."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell, "bash", str(FAB), "status"],
        cwd=ROOT,
        env={**os.environ, "INVENTORY": str(job.folder / "inventory.yaml"), **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("shell", "environment"),
    [
        pytest.param('umask 077; "$@"', {}, marks=pytest.mark.full),
        pytest.param('"$@"', {"HOME": "/nonexistent"}, marks=pytest.mark.full),
        ('"$@"', {"LC_ALL": "C"}),
        ('"$@"', {"PYTHONIOENCODING": "ascii"}),
        pytest.param('"$@"', {"TERM": "dumb"}, marks=pytest.mark.full),
    ],
    ids=lambda value: str(value),
)
def test_odd_surroundings_do_not_matter(spaced: NpuJob, shell: str, environment: dict[str, str]) -> None:
    done = status(spaced, shell, **environment)
    assert done.returncode == 0, done.stderr
    assert "preprocess" in done.stdout
    assert not done.stderr


@pytest.mark.parametrize("module", ["deploy.console", "stgcn.errors"])
def test_what_an_encoding_lacks_is_a_word_or_a_question_mark(module: str) -> None:
    prints = f"import {module} as m; m.tolerate_narrow_output(); print('✓ 完成')"
    argv = [sys.executable, "-c", prints]
    done = subprocess.run(argv, cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, capture_output=True)
    assert (done.stdout, done.stderr) == (b"ok ??\n", b"")


@pytest.mark.parametrize(
    ("shell", "sentence"),
    [('"$@" | true', None), ('"$@" >&-', None), ('"$@" > /dev/full', "No space left on device")],
)
def test_an_output_that_nobody_takes_is_no_traceback(spaced: NpuJob, shell: str, sentence: str | None) -> None:
    done = status(spaced, shell)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if sentence:
        assert done.returncode == 1
        assert sentence in done.stderr


@pytest.mark.full
def test_torch_comes_from_the_default_index_where_its_own_are_not_reached(tmp_path: Path) -> None:
    lock, torch = tmp_path / "kit.lock", tmp_path / "torch.txt"
    lock.write_text("")
    torch.write_text("iniconfig==2.0.0\n")  # a small package in torch's place
    indexes = "http://127.0.0.1:9/first http://127.0.0.1:9/second"  # nobody listens there
    argv = [str(ROOT / "requirements/venv.sh"), sys.executable, str(tmp_path / "venv"), indexes, str(lock), str(torch)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [
        index for index in indexes.split() if f"could not be installed from {index}" in done.stderr
    ] == indexes.split()
    assert "may send a CUDA build" in done.stderr
    subprocess.run([tmp_path / "venv/bin/python", "-c", "import iniconfig"], check=True)
