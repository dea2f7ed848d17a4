"""Doctor's checks of NPU tools prove that they work: real programs that are there and do not."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from deploy.connections import Connections
from deploy.doctor import _device_nodes, _inputs, _npu_tools
from deploy.hosts.host import Completed
from deploy.hosts.local import LocalHost
from deploy.inventory import ROOT, Inventory, Npu
from deploy.options import Options
from deploy.outcome import Check
from deploy.workspace import Workspace

NODES = {"/dev/davinci3": (1000, 1077, 0o20660)}


def section(**tools: Any) -> Npu:
    scripts = [str(ROOT / "docker/npu/simulator/set_env.sh")]
    return Npu(name="npu-a", runtime="native", tools={"env_scripts": scripts, **tools})  # type: ignore[arg-type]


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def checks(tmp_path: Path, **tools: Any) -> dict[str, Check]:
    return {check.name: check for check in _npu_tools(LocalHost("npu-a", tmp_path), section(**tools), {})}


def test_tools_that_work_are_shown_working(tmp_path: Path) -> None:
    found = checks(tmp_path)
    assert all(check.passed for check in found.values())
    assert "numpy" in found["Python modules"].detail
    assert found["ais_bench"].detail == "as of 2022-12"


def test_a_tool_that_is_there_and_does_not_start_is_not_fit(tmp_path: Path) -> None:
    lacking = (
        "echo atc.bin: error while loading shared libraries: libascend_hal.so: cannot open shared object file; exit 127"
    )
    found = checks(tmp_path, atc=script(tmp_path / "atc", lacking))
    assert not found["atc"].passed
    assert "the driver's lib64" in found["atc"].detail


def test_an_npu_smi_without_a_library_is_not_taken_for_one_that_is_not_there(tmp_path: Path) -> None:
    lacking = "echo npu-smi: error while loading shared libraries: libc_sec.so: cannot open shared object; exit 127"
    found = checks(tmp_path, npu_smi=script(tmp_path / "npu-smi", lacking))
    assert "lacks the driver's library libc_sec.so" in found["NPU tools"].detail
    foreign = "echo npu-smi: symbol lookup error: npu-smi: undefined symbol: dcmi_get_x; exit 127"
    found = checks(tmp_path, npu_smi=script(tmp_path / "npu-smi", foreign))
    assert "another driver, which lack dcmi_get_x" in found["NPU tools"].detail
    missing = checks(tmp_path, npu_smi=str(tmp_path / "none"))
    assert "is not found after sourcing" in missing["NPU tools"].detail


def test_modules_that_are_there_and_cannot_be_imported_are_not_fit(tmp_path: Path) -> None:
    broken = tmp_path / "numpy"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('numpy.core.multiarray failed to import')")
    python = script(tmp_path / "python", f'PYTHONPATH="{tmp_path}:$PYTHONPATH" exec python3 "$@"')
    found = checks(tmp_path, python=python)
    assert not found["Python modules"].passed
    assert "numpy<2" in found["Python modules"].detail


class Printing:
    """A runtime whose programs print what they are told to."""

    def __init__(self, output: str) -> None:
        self.output = output

    def run(self, *_: Any, **__: Any) -> Completed:
        return Completed(0, self.output)


@pytest.mark.parametrize(
    ("output", "runtime", "ok", "says"),
    [
        ("opened /dev/davinci3\nopened /dev/davinci_manager\n", "native", True, "davinci_manager can be opened"),
        ("refused 13 /dev/davinci3\n", "native", False, "sudo usermod -aG 1077"),
        ("refused 13 /dev/davinci3\n", "docker", False, "sudo chmod g+rw /dev/davinci3"),
        ("opened /dev/davinci3\nrefused 16 /dev/hisi_hdc\n", "native", False, "stop the container or process"),
        ("", "native", False, "load the Ascend driver"),
    ],
)
def test_a_device_is_opened_as_the_run_will(output: str, runtime: Any, ok: bool, says: str) -> None:
    npu = Npu(name="npu-a", runtime=runtime)
    host = LocalHost("npu-a", Path(PurePosixPath("/")))
    check = _device_nodes(host, npu, Printing(output), 3, NODES)  # type: ignore[arg-type]
    assert check.passed is ok
    assert says in check.detail + check.fix


@pytest.fixture
def named(tmp_path: Path) -> Workspace:
    """An inventory whose checkpoint has a published name."""
    files = {name: str(tmp_path / f"{name}.npy") for name in ("data", "labels")}
    checkpoint = tmp_path / "st_gcn.kinetics-6fa43f73.pth"
    values = {"workspace": str(tmp_path / "work"), "gpu": {"runtime": "native"}, "npu": [{"name": "npu-a"}]}
    return Workspace(Inventory.model_validate({**values, "dataset": files, "checkpoint": str(checkpoint)}))


def inputs(workspace: Workspace) -> dict[str, Check]:
    with Connections(workspace, Options(dry=True)) as connections:
        return {check.name: check for check in _inputs(connections, connections.gpu.host)}


def test_what_is_not_there_is_said_where_it_is_to_be_had(named: Workspace) -> None:
    found = inputs(named)
    assert [check.passed for check in found.values()] == [False] * 3
    assert "mmskeleton/blob/master/doc/SKELETON_DATA.md" in found["data"].fix
    assert "st_gcn.kinetics-6fa43f73.pth" in found["checkpoint"].fix


def test_what_is_there_is_looked_at(named: Workspace, tmp_path: Path) -> None:
    files = named.local_files()
    files["data"].with_name("elsewhere").write_bytes(bytes(5000))
    files["data"].symlink_to("elsewhere")
    files["labels"].touch()
    files["checkpoint"].write_bytes(b"the first half")
    found = inputs(named)
    assert {name: check.passed for name, check in found.items()} == {"data": True, "labels": False, "checkpoint": False}
    assert "5.0 kB" in found["data"].detail
    assert "not the published 6fa43f73" in found["checkpoint"].detail
