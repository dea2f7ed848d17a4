"""`make npu-image` on a stand-in base of every published layout, with a stand-in source of ais_bench.

AIS_BENCH_SRC names a real source, for which CANN_HEADERS then names real headers.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from deploy.containers import images
from deploy.containers.sources import tree_hash
from tests.system import cann
from tests.system.test_images import bases, client, fab, run

__all__ = ["bases", "client"]  # fixtures

TOOLS, BASE, IMAGE, OWN = (f"stgcn-test-cann-{name}" for name in ("tools", "base", "npu", "own"))
WHAT_IS_THERE = """
import os, subprocess
from importlib.util import find_spec
print([find_spec(name) is not None for name in ("aclruntime", "ais_bench", "pkg_resources")])
print(subprocess.run(["atc"], capture_output=True, text=True).stdout.split()[:2])
print(os.path.exists("/usr/local/Ascend/devlib/libascend_hal.so"))
"""


@pytest.fixture(scope="module")
def tools(client: docker.DockerClient, bases: dict[str, str]) -> Iterator[str]:
    with images._context("docker/build") as context:
        (context / "Dockerfile").write_text(cann.tools_dockerfile(bases["PYTHON_IMAGE"]))
        images._build(images.Settings({**os.environ, "TAG": TOOLS}), context, "Dockerfile", None, TOOLS, {}, {})
    yield TOOLS
    for image in (IMAGE, OWN, BASE, TOOLS):
        if client.images.list(image):
            client.images.remove(image, force=True)


def build_base(folder: Path, layout: str, tools: str) -> None:
    context = cann.base(folder, layout, tools)
    argv = [images._docker(images.Settings(os.environ)), "build", "--quiet", f"--tag={BASE}", str(context)]
    subprocess.run(argv, check=True, env={**os.environ, "DOCKER_BUILDKIT": "1"})


def source(folder: Path, era: str) -> dict[str, Any]:
    """The settings that name a source of ais_bench."""
    if given := os.environ.get("AIS_BENCH_SRC"):
        return {"AIS_BENCH_SRC": given}
    cann.ais_bench_source(folder, era)
    return {"AIS_BENCH_SRC": str(folder), "AIS_BENCH_TREE": tree_hash(folder)}


def assert_whole(client: docker.DockerClient, image: str) -> None:
    """ais_bench and atc are found by whoever runs a container, and so are a driver's libraries, mounted or not."""
    output = run(client, image, "python3", "-c", WHAT_IS_THERE, user="12345:12345")
    assert output.splitlines() == ["[True, True, True]", "['ATC', 'start']", "True"]
    default = ["bash", "-c", "source /usr/local/Ascend/ascend-toolkit/set_env.sh; echo $LD_LIBRARY_PATH"]
    places = run(client, image, *default).strip().split(":")
    assert "" not in places[:-1]
    driver, stand_in = (places.index(f"/usr/local/Ascend/{name}") for name in ("driver/lib64/driver", "devlib"))
    assert driver < stand_in


@pytest.mark.parametrize(
    ("layout", "era"),
    [
        ("5.0 ubuntu", "2023-06"),
        ("8.3 ubuntu", "2023-06"),
        ("8.0 openeuler", "2025-12"),
        ("8.5 openeuler", "2023-06"),
        ("9.0 openeuler", "2025-12"),
        ("9.0 alone", "2025-12"),
    ],
)
def test_builds_on_every_published_layout(
    client: docker.DockerClient, tools: str, tmp_path: Path, layout: str, era: str
) -> None:
    build_base(tmp_path / "base", layout, tools)
    fab("npu-image", BASE_IMAGE=BASE, TAG=IMAGE, **source(tmp_path / "ais_bench", era))
    assert_whole(client, IMAGE)


def test_builds_on_a_cann_of_the_users_own_packages(client: docker.DockerClient, tools: str, tmp_path: Path) -> None:
    cann.run_files(tmp_path / "packages", "6.0.RC1")
    python = tmp_path / "Dockerfile"
    python.write_text(f"FROM {tools}\nENV {cann.PLAIN_ENV}\n")
    docker_ = images._docker(images.Settings(os.environ))
    argv = [docker_, "build", "--quiet", f"--tag={BASE}", f"--file={python}", str(tmp_path / "packages")]
    subprocess.run(argv, check=True, env={**os.environ, "DOCKER_BUILDKIT": "1"})
    fab("cann-image", BASE_IMAGE=BASE, TAG=OWN, CANN_RUN=str(tmp_path / "packages"))
    fab("npu-image", BASE_IMAGE=OWN, TAG=IMAGE, **source(tmp_path / "ais_bench", "2023-06"))
    assert_whole(client, IMAGE)
    installed = run(client, IMAGE, "ls", "/usr/local/Ascend/ascend-toolkit/latest/opp").split()
    assert {name.split("_")[0] for name in installed} == {"Ascend-cann-kernels-310p", "Ascend-cann-310p-ops"}


@pytest.mark.parametrize(
    ("layout", "lacks"),
    [
        ("no compiler", "g++"),
        ("no cann", "CANN is not found"),
        ("no python", "no python3"),
        ("no bash", "no bash"),
        ("nnrt", "no acl/acl.h"),
        ("index elsewhere", "from https://packages.invalid/simple"),
        ("closed cann", "CANN is for root alone"),
        ("closed python", "python3 is for root alone"),
    ],
)
def test_a_base_that_will_not_do_is_told_why(
    tools: str, tmp_path: Path, layout: str, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_base(tmp_path / "base", layout, tools)
    if layout == "index elsewhere":
        monkeypatch.delenv("PIP_INDEX_URL", raising=False)  # one that this host is given would be taken
    settings = source(tmp_path / "ais_bench", "2025-12")
    assert lacks in fab("npu-image", BASE_IMAGE=BASE, TAG=IMAGE, status=1, **settings)
