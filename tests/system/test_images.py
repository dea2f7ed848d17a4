"""The two images, built for real, and the job in them (`make test-system`).

BASE_IMAGE and RUN_IMAGE (Python 3.7) and PYTHON_IMAGE (for the simulator) name bases; without them one is made by
docker/base.sh. MMSKELETON_SRC names mmskeleton's source; without it the GPU image is built without.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import docker
import numpy as np
import pytest

from deploy.containers import images
from deploy.containers.container import Container
from deploy.containers.daemon import CONTAINER_USER, DockerDaemon
from deploy.containers.images import LABEL
from deploy.errors import KitError
from deploy.hosts.local import LocalHost
from deploy.hosts.over_ssh import SSHHost
from deploy.inventory import ROOT, Gpu, Npu
from tests.docs.markdown import BLOCK
from tests.pipeline.conftest import Job
from tests.system.engine import docker_engine, install_base_tools, login

BASE, GPU_IMAGE, SIMULATOR_IMAGE = "stgcn-test-base", "stgcn-test-gpu", "stgcn-test-npu"
SAMPLES = 5
TOLERANCE = 1e-5
HAS_MMSKELETON = bool(os.environ.get("MMSKELETON_SRC"))
CALLER = f"{os.getuid()}:{os.getgid()}" if os.getuid() else "{}:{}".format(*CONTAINER_USER)


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.DockerClient]:
    with docker_engine(tmp_path_factory.mktemp("docker")) as client:
        yield client
        for image in (GPU_IMAGE, SIMULATOR_IMAGE, f"{SIMULATOR_IMAGE}:again", BASE):  # no base that was given
            if client.images.list(image):
                client.images.remove(image, force=True)


@pytest.fixture(scope="session")
def bases(client: docker.DockerClient) -> dict[str, str]:
    """Which bases the images are built on."""
    given = {name: os.environ.get(name, "") for name in ("BASE_IMAGE", "RUN_IMAGE", "PYTHON_IMAGE")}
    if lacking := [name for name, image in given.items() if not image]:
        if os.getuid() != 0:
            pytest.skip(f"to make a base takes root; name one that there is with {', '.join(lacking)}")
        install_base_tools()
        subprocess.run([ROOT / "docker/base.sh", BASE], check=True)
    return {name: image or BASE for name, image in given.items()}


@pytest.fixture(scope="session")
def gpu_image(bases: dict[str, str]) -> str:
    without = {} if HAS_MMSKELETON else {"WITHOUT_MMSKELETON": "1"}
    fab("gpu-image", **{**bases, **without}, TAG=GPU_IMAGE)
    return GPU_IMAGE


@pytest.fixture(scope="session")
def simulator_image(bases: dict[str, str]) -> str:
    fab("npu-image", BASE_IMAGE=bases["PYTHON_IMAGE"], TARGET="simulator", TAG=SIMULATOR_IMAGE)
    return SIMULATOR_IMAGE


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    argv = [sys.executable, "-m", "stgcn.sample", "--output_dir", str(folder), "--samples", str(SAMPLES)]
    subprocess.run([*argv, "--classes", "4"], cwd=ROOT, check=True)
    folder.chmod(0o755)  # whatever the umask: root's container is not root's
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Job:
    job = Job(tmp_path_factory.mktemp("native"), sample, batch_sizes=[1, 4])
    job.fab("gpu-stage", "npu-convert", "npu-bench", "score")
    return job


@pytest.fixture(scope="session")
def contained(
    tmp_path_factory: pytest.TempPathFactory, sample: Path, gpu_image: str, simulator_image: str
) -> tuple[Job, str]:
    """The demo's job in the images, and what it printed."""
    job = contained_job(tmp_path_factory.mktemp("contained"), sample)
    return job, job.fab("gpu-stage", "npu-convert", "npu-bench", "score")


def contained_job(folder: Path, sample: Path) -> Job:
    job = Job(folder, sample, batch_sizes=[1, 4], gpu={"runtime": "docker", "image": GPU_IMAGE})
    job.npu |= {"runtime": "docker", "image": SIMULATOR_IMAGE}
    del job.npu["tools"]
    return job


def fab(*tasks: str, status: int = 0, **environment: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("fab")), *tasks],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def run(client: docker.DockerClient, image: str, *command: str, **options: Any) -> str:
    """What a command prints in an image, shielded as a stage's container is."""
    shield = {"network_mode": "none", "read_only": True, "tmpfs": {"/tmp": ""}, "cap_drop": ["ALL"]}
    container = client.containers.create(image, list(command), **shield, **options)
    try:
        container.start()
        status, output = container.wait(timeout=1800)["StatusCode"], container.logs().decode()
    finally:
        container.remove(force=True)
    assert status == 0, output
    return str(output)


def leftovers(client: docker.DockerClient) -> list[str]:
    return [c.name for c in client.containers.list(all=True, filters={"label": "stgcn-ascend-kit.owner"})]


class TestGpuImage:
    def test_holds_the_guides_versions(self, client: docker.DockerClient, gpu_image: str) -> None:
        program = (
            "import sys, torch, torchvision, mmcv, Cython, PIL; print(sys.version_info[:2], torch.__version__,"
            " torchvision.__version__, mmcv.__version__, Cython.__version__, PIL.__version__)"
        )
        assert run(client, gpu_image, "python", "-c", program).split("\n")[-2] == (
            "(3, 7) 1.2.0 0.4.0 0.4.3 0.29.32 6.2.2"
        )

    def test_passes_the_tests_of_stgcn(self, client: docker.DockerClient, gpu_image: str) -> None:
        mount = {str(ROOT / name): {"bind": f"/kit/{name}", "mode": "ro"} for name in ("stgcn", "tests")}
        argv = ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/stgcn"]
        assert " passed" in run(client, gpu_image, *argv, volumes=mount, working_dir="/kit")

    def test_has_the_guides_commands_on_its_path(
        self, client: docker.DockerClient, gpu_image: str, sample: Path, tmp_path: Path
    ) -> None:
        tmp_path.chmod(0o777)
        mounts = {str(sample): {"bind": "/sample", "mode": "ro"}, str(tmp_path): {"bind": "/out", "mode": "rw"}}
        data = ["--data_path", "/sample/val_data.npy", "--label_path", "/sample/val_label.pkl"]
        run(client, gpu_image, "stgcn_preprocess.py", *data, "--output_dir", "/out/data", volumes=mounts)
        assert sorted(path.name for path in (tmp_path / "data/val_data").iterdir()) == [
            f"{i}.bin" for i in range(SAMPLES)
        ]
        weights = ["--ckpt", "/sample/st_gcn.sample.pth", "--onnx", "/out/st_gcn.onnx"]
        assert "✓" in run(client, gpu_image, "stgcn_pth2onnx.py", *weights, volumes=mounts)
        assert "--result_dir" in run(client, gpu_image, "stgcn_postprocess.py", "--help")
        run(client, gpu_image, "rm", "-rf", "/out/data", "/out/st_gcn.onnx", volumes=mounts)

    def test_says_what_it_was_built_of(self, client: docker.DockerClient, gpu_image: str) -> None:
        labels = client.images.get(gpu_image).labels
        assert labels["org.opencontainers.image.revision"]
        assert len(labels[LABEL + "requirements.lock.sha256"]) == 64
        assert (labels[LABEL + "mmskeleton"] != "absent") == HAS_MMSKELETON


class TestNpuImage:
    @pytest.mark.parametrize("tool", [["npu-smi", "info"], ["python", "-m", "ais_bench", "--help"], ["atc", "--help"]])
    def test_its_entry_point_sets_the_environment(
        self, client: docker.DockerClient, simulator_image: str, tool: list[str]
    ) -> None:
        assert run(client, simulator_image, *tool)

    def test_builds_to_the_same_files_again(self, bases: dict[str, str], simulator_image: str) -> None:
        again = f"{SIMULATOR_IMAGE}:again"
        fab("npu-image", BASE_IMAGE=bases["PYTHON_IMAGE"], TARGET="simulator", TAG=again, NO_CACHE="1")
        assert " 0 without a reason" in fab("compare-images", simulator_image, again)

    def test_a_difference_is_shown(self, client: docker.DockerClient, simulator_image: str) -> None:
        container = client.containers.create(simulator_image, user="0", entrypoint=["touch", "/opt/simulator/more"])
        try:
            container.start()
            container.wait()
            changed = container.commit(f"{SIMULATOR_IMAGE}", "changed")
        finally:
            container.remove(force=True)
        try:
            output = fab("compare-images", simulator_image, f"{SIMULATOR_IMAGE}:changed", status=1)
        finally:
            client.images.remove(changed.id, force=True)
        assert "opt/simulator/more: only in the second" in output

    def test_the_documents_dockerfile_builds_on_it(
        self, client: docker.DockerClient, simulator_image: str, tmp_path: Path
    ) -> None:
        """In the NPU image's place, and with the certificates that this machine's way to the packages takes."""
        (block,) = [
            text for _, name, text in BLOCK.findall((ROOT / "docs/fleet.md").read_text()) if name == "dockerfile"
        ]
        shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
        base = f"FROM {simulator_image}\n"
        if bundle := os.environ.get("PIP_CERT"):
            shutil.copyfile(bundle, tmp_path / "ca.pem")
            base += "COPY ca.pem /ca.pem\nENV PIP_CERT=/ca.pem\n"
        (tmp_path / "Dockerfile").write_text(block.replace("FROM stgcn-npu\n", base))
        fleet = f"{SIMULATOR_IMAGE}:fleet"
        argv = [images._docker(images.Settings(os.environ)), "build", "--quiet", f"--tag={fleet}", str(tmp_path)]
        subprocess.run(argv, check=True, env={**os.environ, "DOCKER_BUILDKIT": "1"})
        try:
            assert "ray, version" in run(client, fleet, "ray", "--version")
            assert run(client, fleet, "/opt/npu/bin/python", "-m", "ais_bench", "--help")
        finally:
            client.images.remove(fleet, force=True)

    def test_its_packages_are_listed(self, simulator_image: str) -> None:
        path = ROOT / "work/sbom" / f"{SIMULATOR_IMAGE}.cdx.json"
        try:
            fab("sbom", f"--image={SIMULATOR_IMAGE}")
            sbom = json.loads(path.read_text())
        finally:
            path.unlink(missing_ok=True)
        purls = {component["purl"].partition("@")[0] for component in sbom["components"]}
        assert {"pkg:pypi/onnxruntime", "pkg:deb/debian/libc6"} <= purls
        assert len(purls) == len(sbom["components"])


class TestTheJobInTheImages:
    def test_gives_the_native_runs_logits(self, contained: tuple[Job, str], native: Job) -> None:
        for name in ("gpu/reference.npy", "npu/bs1/logits.npy", "npu/bs4/logits.npy"):
            ours, theirs = (np.load(job.workspace / name) for job in (contained[0], native))
            assert ours.shape == theirs.shape == (SAMPLES, 400)
            assert np.abs(ours - theirs).max() <= TOLERANCE, name

    def test_exports_through_mmskeleton_too(self, contained: tuple[Job, str]) -> None:
        job, output = contained
        assert ("export/agreement" in output) == HAS_MMSKELETON
        if HAS_MMSKELETON:
            agreement = json.loads((job.workspace / "gpu/agreement.json").read_text())
            assert agreement["max_abs_error"] <= TOLERANCE

    def test_leaves_files_that_are_the_callers_and_no_container(
        self, client: docker.DockerClient, contained: tuple[Job, str]
    ) -> None:
        owners = {path.lstat().st_uid for path in contained[0].folder.rglob("*")}
        assert owners == {os.getuid()}
        assert leftovers(client) == []

    def test_records_the_images(self, client: docker.DockerClient, contained: tuple[Job, str]) -> None:
        steps = json.loads((contained[0].workspace / "manifest.json").read_text())["steps"]
        for step, image in (("export", GPU_IMAGE), ("convert/bs4", SIMULATOR_IMAGE), ("accuracy/bs1", SIMULATOR_IMAGE)):
            assert steps[step]["facts"]["image"]["id"] == client.images.get(image).id
            assert any(key.endswith(".lock.sha256") for key in steps[step]["facts"]["image"]["labels"])

    def test_a_second_run_is_all_cached(self, contained: tuple[Job, str]) -> None:
        output = contained[0].fab("gpu-stage", "npu-convert", "npu-bench")
        assert "CACHED  export" in output
        assert " OK " not in output

    def test_an_interrupt_stops_and_removes_the_container_that_shows_what_it_was_denied(
        self, client: docker.DockerClient, gpu_image: str, sample: Path, tmp_path: Path
    ) -> None:
        job = contained_job(tmp_path, sample)
        job.fab("gpu-stage", "--dry")
        process = self._start(job)
        container = self._running(client, "stgcn.export")
        shown = container.attrs
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert leftovers(client) == []
        assert {path.lstat().st_uid for path in tmp_path.rglob("*")} == {os.getuid()}

        host = shown["HostConfig"]
        assert shown["Config"]["User"] == CALLER
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges"]
        assert (host["ReadonlyRootfs"], host["Privileged"], host["NetworkMode"]) == (True, False, "none")
        assert host["Tmpfs"] == {"/tmp": "exec"}
        writable = {mount["Destination"]: mount["RW"] for mount in shown["Mounts"]}
        (own,) = (folder for folder, is_writable in writable.items() if is_writable)
        assert Path(own).parent == job.workspace / ".stgcn-kit/runs"  # its step's, no other's
        assert writable == {own: True, str(sample / "st_gcn.sample.pth"): False, "/etc/passwd": False}

    def test_what_a_killed_run_left_is_removed_by_the_next(
        self, client: docker.DockerClient, gpu_image: str, sample: Path, tmp_path: Path
    ) -> None:
        job = contained_job(tmp_path, sample)
        job.fab("gpu-stage", "--dry")
        process = self._start(job)
        self._running(client, "stgcn.export")
        process.kill()
        process.wait()
        assert len(leftovers(client)) == 1
        assert "OK      export " in job.fab("gpu-stage")
        assert leftovers(client) == []

    @staticmethod
    def _start(job: Job) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "INVENTORY": str(job.folder / "inventory.yaml")}
        argv = [str(Path(sys.executable).with_name("fab")), "gpu-stage"]
        return subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)

    @staticmethod
    def _running(client: docker.DockerClient, word: str) -> Any:
        """The kit's container that runs `word`."""
        for _ in range(600):
            for container in client.containers.list(filters={"label": "stgcn-ascend-kit.owner"}):
                if word in container.attrs["Config"]["Cmd"]:
                    return container
            time.sleep(0.1)
        raise AssertionError(f"no container ran {word} within a minute")


class TestContainer:
    @pytest.fixture
    def container(self, simulator_image: str, tmp_path: Path) -> Container:
        (tmp_path / "work").mkdir()
        (tmp_path / "data").write_text("data")
        (tmp_path / "data").chmod(0o644)
        engine = DockerDaemon(Gpu(connection="local"), LocalHost("here", tmp_path / "work"))
        return Container(engine, simulator_image, inputs=[PurePosixPath(tmp_path / "data")])

    def test_writes_in_its_workspace_and_nowhere_else(self, container: Container, tmp_path: Path) -> None:
        script = 'echo x >"$1" && echo no >"$2"'
        for place in ("/opt/x", "/usr/x", str(tmp_path / "x"), str(tmp_path / "data")):
            inside = str(tmp_path / "work/made")
            done = container.run(["bash", "-c", script, "bash", inside, place], folder=PurePosixPath(tmp_path / "work"))
            assert done.status != 0, place
            assert (tmp_path / "work/made").read_text() == "x\n"
            assert (tmp_path / "work/made").stat().st_uid == os.getuid()
        assert (tmp_path / "data").read_text() == "data"

    @pytest.mark.skipif(os.getuid() != 0, reason="for others the container is of their own uid")
    def test_an_input_that_it_may_not_read_is_named(self, container: Container, tmp_path: Path) -> None:
        (tmp_path / "data").chmod(0o600)
        with pytest.raises(KitError, match=rf"{tmp_path}/data is not readable by uid 1000.*chmod o\+r"):
            container.run(["cat", str(tmp_path / "data"), str(tmp_path / "work")])

    def test_gets_only_what_its_command_names(self, container: Container, tmp_path: Path) -> None:
        assert container.run(["ls", "/"], folder=None).status == 0
        assert container.run(["bash", "-c", f"ls {tmp_path.parent} 2>/dev/null; true"]).output == ""

    def test_its_user_has_a_name_and_runs_what_it_puts_into_tmp(self, container: Container) -> None:
        script = "printf '#!/bin/bash\\necho compiled' >/tmp/made; chmod +x /tmp/made; /tmp/made; echo $HOME"
        program = (
            f"import os, pwd, subprocess as s; print(pwd.getpwuid(os.getuid()).pw_dir); s.run({script!r}, shell=True)"
        )
        assert container.run(["python3", "-u", "-c", program]).output.split() == ["/tmp", "compiled", "/tmp"]

    @pytest.mark.parametrize("status", [0, 3, 77])
    def test_its_exit_status_and_output_come_back(self, container: Container, tmp_path: Path, status: int) -> None:
        log = tmp_path / "log"
        done = container.run(["bash", "-c", f"echo out; echo err >&2; exit {status}"], log=log)
        assert done.status == status
        assert sorted(done.output.split()) == ["err", "out"] == sorted(log.read_text().split())

    def test_a_deadline_ends_it(self, client: docker.DockerClient, container: Container) -> None:
        with pytest.raises(KitError, match=r"sleep 60 .*\b1 s"):
            container.run(["sleep", "60"], timeout_s=1)
        assert leftovers(client) == []

    def test_a_missing_image_and_program_say_what_to_do(self, container: Container) -> None:
        with pytest.raises(KitError, match="no-such-tool"):
            container.run(["no-such-tool"])
        missing = Container(container.daemon, "stgcn-no-such-image")
        with pytest.raises(KitError, match=r"stgcn-no-such-image.*make gpu-image"):
            missing.run(["true"])

    def test_the_command_shown_is_one_that_docker_runs(self, container: Container, tmp_path: Path) -> None:
        container.run(["true"])  # the user's name, which the command mounts, is there from the first run on
        command = ["bash", "-c", 'id -u; echo "$0"', str(tmp_path / "work/a, b")]
        argv = container.argv(command, PurePosixPath(tmp_path / "work"))
        if os.getuid() == 0:
            os.chown(tmp_path / "work", *CONTAINER_USER)
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert done.stdout.split("\n")[:2] == [CALLER.split(":")[0], str(tmp_path / "work/a, b")]


class TestRemoteEngine:
    """An engine over SSH: the same containers through a tunnel, to a host whose key is known."""

    @contextmanager
    def connect(self, tmp_path: Path, section: dict[str, object], known_hosts: str, image: str) -> Iterator[Container]:
        npu = Npu.model_validate({"name": "npu-a", "workspace": str(tmp_path / "work"), **section})
        (tmp_path / "work").mkdir()
        host = SSHHost(npu, tmp_path / known_hosts, 10.0)
        try:
            yield Container(DockerDaemon(npu, host), image)
        finally:
            host.close()

    def test_runs_a_container(self, client: docker.DockerClient, simulator_image: str, tmp_path: Path) -> None:
        with login(tmp_path) as section, self.connect(tmp_path, section, "known_hosts", simulator_image) as remote:
            made = tmp_path / "work/made"
            done = remote.run(["bash", "-c", f"echo there >{made}; exit 4"], folder=PurePosixPath(tmp_path / "work"))
        assert done.status == 4
        assert made.stat().st_uid == os.getuid()
        assert leftovers(client) == []

    def test_refuses_a_host_whose_key_is_not_known(self, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        with (
            login(tmp_path) as section,
            pytest.raises(KitError, match="npu-a"),
            self.connect(tmp_path, section, "empty", "any"),
        ):
            pass
