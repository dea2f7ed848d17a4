"""The probe that a host's own Python runs: what it finds, whatever form it has, and on what Python."""

from __future__ import annotations
import __future__

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.npu import probe

SOURCE = Path(probe.__file__).read_text()


def ask(tmp_path: Path, **environment: str) -> dict[str, Any]:
    variables = {**os.environ, "PYTHONPATH": str(tmp_path), **environment}
    done = subprocess.run([sys.executable, "-c", SOURCE], env=variables, cwd="/", capture_output=True, check=True)
    return dict(json.loads(done.stdout))


def test_it_is_python_3_7() -> None:
    ast.parse(SOURCE, feature_version=(3, 7))
    assert compile(SOURCE, "probe", "exec").co_flags & __future__.annotations.compiler_flag


def test_what_is_not_there_is_null(tmp_path: Path) -> None:
    found = ask(tmp_path, ASCEND_TOOLKIT_HOME=str(tmp_path), ASCEND_DRIVER_PATH=str(tmp_path))
    assert [found[name] for name in ("cann", "driver", "ais_bench", "aclruntime")] == [None] * 4


def test_a_pipe_in_place_of_a_version_file_is_passed_over(tmp_path: Path) -> None:
    for name in (f"{os.uname().machine}-linux", "ascend_toolkit_install.info", "version.info"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "version.cfg").write_text("version")
    found = ask(tmp_path, ASCEND_TOOLKIT_HOME=str(tmp_path), ASCEND_DRIVER_PATH=str(tmp_path))
    assert (found["cann"], found["driver"]) == ("version", None)


@pytest.mark.parametrize("name", ["aclruntime.py", "aclruntime/__init__.py"])
def test_a_module_is_known_by_its_files_whatever_its_form(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("version = 1")
    first = ask(tmp_path)["aclruntime"]
    assert ask(tmp_path)["aclruntime"] == first
    path.write_text("version = 2")
    assert ask(tmp_path)["aclruntime"] not in (first, None)


@pytest.mark.parametrize("variable", ["ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"])
@pytest.mark.parametrize("name", ["{}-linux/ascend_toolkit_install.info", "ascend_toolkit_install.info", "version.cfg"])
def test_every_place_of_canns_version_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    for each in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"):
        monkeypatch.delenv(each, raising=False)
    path = tmp_path / name.format(os.uname().machine)
    path.parent.mkdir(exist_ok=True)
    path.write_text("version=6.0.RC1")
    assert ask(tmp_path, **{variable: str(tmp_path)})["cann"] == "version=6.0.RC1"


@pytest.mark.parametrize(
    "name",
    [
        "Ascend/cann/{}-linux/ascend_toolkit_install.info",
        "Ascend/cann-9.0.1/{}-linux/ascend_toolkit_install.info",
        "Ascend/ascend-toolkit/latest/{}-linux/ascend_toolkit_install.info",
        "Ascend/ascend-toolkit/latest/compiler/version.info",
        "Ascend/nnrt/latest/{}-linux/ascend_nnrt_install.info",
        "Ascend/nnae/latest/ascend_nnae_install.info",
    ],
)
def test_a_cann_whose_environment_is_not_sourced_is_found_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for each in [variable for variable in os.environ if variable.startswith("ASCEND_")]:
        monkeypatch.delenv(each)
    path = tmp_path / name.format(os.uname().machine)
    path.parent.mkdir(parents=True)
    path.write_text("version=9.0.1")
    assert ask(tmp_path, HOME=str(tmp_path))["cann"] == "version=9.0.1"
