"""Two hosts, and the kit between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.hosts.local import LocalHost
from deploy.hosts.over_ssh import SSHHost
from deploy.inventory import ROOT, Npu
from tests.system.network import Network, two_hosts

LINK_TIMEOUT_S = 5.0
SIMULATOR = str(ROOT / "docker" / "npu" / "simulator" / "set_env.sh")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those without the two hosts first: they need the machine's own network, which is out of reach from then on."""
    places = [place for place, item in enumerate(items) if Path(__file__).parent in item.path.parents]
    ordered = sorted((items[place] for place in places), key=lambda item: "network" in _fixtures(item))
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


def _fixtures(item: pytest.Item) -> list[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else []


@pytest.fixture(scope="package")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    if os.getuid() != 0:
        pytest.skip("network namespaces take root: `make test-system` as root runs this")
    with two_hosts(tmp_path_factory.mktemp("network")) as made:
        yield made


@pytest.fixture
def npu_section(network: Network, tmp_path: Path) -> Npu:
    return Npu.model_validate(npu(network, tmp_path / "remote"))


def npu(network: Network, workspace: Path | str) -> dict[str, Any]:
    """Its section of an inventory, the simulator its tools."""
    return {**network.npu_section(workspace), "tools": {"env_scripts": [SIMULATOR]}}


@pytest.fixture
def connect(network: Network) -> Iterator[Callable[[Npu], SSHHost]]:
    """Connections that are closed at the end."""
    made: list[SSHHost] = []

    def connect(section: Npu) -> SSHHost:
        made.append(SSHHost(section, network.known_hosts, LINK_TIMEOUT_S))
        return made[-1]

    yield connect
    for host in made:
        host.close()


@pytest.fixture
def control(tmp_path: Path) -> Iterator[LocalHost]:
    host = LocalHost("control", tmp_path / "control")
    yield host
    host.close()


class Kit:
    """`fab`, run as an operator does."""

    def __init__(self, network: Network, folder: Path, inventory: dict[str, Any]) -> None:
        self.folder, self.inventory, self.network = folder, inventory, network
        self.path = folder / "inventory.yaml"
        self.workspace = Path(inventory["workspace"])
        self.write()
        home = folder / "operator"
        home.mkdir(exist_ok=True)
        self.environment = {
            **os.environ,
            "INVENTORY": str(self.path),
            "HOME": str(home),
            "COLUMNS": "200",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def write(self) -> None:
        self.path.write_text(json.dumps(self.inventory))  # which is YAML

    def start(self, *tasks: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("fab")), *tasks],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *tasks: str, status: int = 0) -> str:
        process = self.start(*tasks)
        output = process.communicate()[0]
        assert process.returncode == status, output
        return output

    def summary(self) -> dict[str, Any]:
        """The verdict, less what time takes."""
        verdict: dict[str, Any] = json.loads((self.workspace / "report" / "summary.json").read_bytes())
        verdict.pop("noted")  # chosen over all batch sizes: another list of them notes others
        for batch in verdict["batches"]:
            for measured in ("throughput", "latency_ms", "end_to_end", "drift", "sensors"):
                batch.pop(measured, None)
        return verdict


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset and a checkpoint of a few clips."""
    folder = tmp_path_factory.mktemp("sample")
    command = [sys.executable, "-m", "stgcn.sample", "--output_dir", str(folder), "--samples", "5", "--classes", "4"]
    subprocess.run(command, check=True, cwd=ROOT)
    return folder


def inventory(network: Network, folder: Path, sample: Path, **changes: Any) -> dict[str, Any]:
    return {
        "workspace": str(folder / "work"),
        "gpu": {"connection": "local", "runtime": "native"},
        "npu": [npu(network, folder / "npu host")],
        "known_hosts": str(network.known_hosts),
        "dataset": {"data": str(sample / "val_data.npy"), "labels": str(sample / "val_label.pkl")},
        "checkpoint": str(sample / "st_gcn.sample.pth"),
        "batch_sizes": [1, 2],
        "benchmark": {"loop": 1, "warmup": 1, "max_repeats": 2, "spread": 1.0},
        "link_timeout_s": LINK_TIMEOUT_S,
        **changes,
    }


@pytest.fixture(scope="package")
def undisturbed(network: Network, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """The whole job, across the two hosts, with nothing in its way."""
    folder = tmp_path_factory.mktemp("undisturbed")
    kit = Kit(network, folder, inventory(network, folder, sample))
    kit.run("gpu-stage", "npu-convert", "npu-bench", "score")
    return kit


def clips_of(folder: Path) -> np.ndarray:
    """The clips that a host has, in the order of their names, as raw bytes."""
    files = sorted(folder.glob("*/*.bin"), key=lambda path: int(path.stem))
    return np.stack([np.fromfile(path, np.uint8) for path in files])
