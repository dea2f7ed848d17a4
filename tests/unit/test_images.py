"""What a build is given, and what it refuses before it starts."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.containers import images
from deploy.containers.images import Settings
from deploy.errors import KitError
from deploy.inventory import ROOT
from deploy.pipeline.model import find

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
PATCH = ROOT / "docker/gpu/stgcn.patch"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `docker` that only writes down how it was called, and what its context and its secrets held."""
    program = tmp_path / "docker"
    program.write_text(
        f"""#!/bin/bash
printf '%s\\n' "$@" >{tmp_path}/argv
for word; do
    case $word in --secret=id=network,*) cp "${{word#*src=}}" {tmp_path}/network ;; esac
done
find "${{!#}}" -type f -printf '%m %P\\n' | sort >{tmp_path}/context
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("DOCKER_BUILDKIT", "1")
    return tmp_path


def build(docker: Path, **variables: str) -> list[str]:
    images.npu_image(Settings({"DOCKER": str(docker / "docker"), "TARGET": "simulator", **variables}))
    return (docker / "argv").read_text().splitlines()


def test_labels_and_arguments_say_what_went_in(docker: Path) -> None:
    argv = build(docker, SOURCE_DATE_EPOCH="12345", BASE_IMAGE="my-python@sha256:00")
    assert "--tag=stgcn-npu:simulator" in argv
    assert {"--build-arg=SOURCE_DATE_EPOCH=12345", "--build-arg=PYTHON_IMAGE=my-python@sha256:00"} <= set(argv)
    assert any(re.fullmatch(r"--label=stgcn-ascend-kit\.simulator\.lock\.sha256=[0-9a-f]{64}", word) for word in argv)
    assert any(word.startswith("--label=org.opencontainers.image.revision=") for word in argv)


def test_the_gpu_image_is_labelled_with_the_digest_that_the_keys_have(docker: Path) -> None:
    """A stage refuses an image of other sources: one function has to hash both."""
    images.gpu_image(Settings({"DOCKER": str(docker / "docker"), "WITHOUT_MMSKELETON": "1", "PLATFORM": "linux/amd64"}))
    label = f"--label={images.SOURCES_LABEL}={find('st_gcn.kinetics', ROOT).sha256}"
    assert label in (docker / "argv").read_text().splitlines()


def test_the_context_has_the_same_modes_whatever_the_checkout_had(docker: Path) -> None:
    build(docker)
    context = (docker / "context").read_text().splitlines()
    assert {line.split()[0] for line in context} <= {"644", "755"}
    assert "755 docker/npu/entry" in context
    assert not any("__pycache__" in line for line in context)


def test_proxies_and_certificates_are_secrets_and_nothing_else(docker: Path) -> None:
    (docker / "ca.pem").write_text("certificate")
    proxy = "http://user:password@proxy.example:3128"
    argv = build(docker, CA_BUNDLE=str(docker / "ca.pem"), HTTPS_PROXY=proxy)
    assert f"--secret=id=ca,src={docker}/ca.pem" in argv
    assert (docker / "network").read_text() == f"HTTPS_PROXY={proxy}\n"
    assert not any("password" in word for word in argv)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"TARGET": "npu"}, "TARGET=npu: the NPU image's targets are cann and simulator"),
        ({"SOURCE_DATE_EPOCH": "now"}, "SOURCE_DATE_EPOCH=now: it is a whole number"),
        ({"NO_CACHE": "yes"}, "NO_CACHE=yes: give 1 for yes"),
        ({"CA_BUNDLE": "/none.pem"}, "CA_BUNDLE=/none.pem: no such file"),
        ({"DOCKER": "/no/docker"}, r"no docker with BuildKit \(found: /no/docker\)"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(docker: Path, variables: dict[str, str], sentence: str) -> None:
    with pytest.raises(KitError, match=sentence):
        build(docker, **variables)


def test_a_base_for_another_machine_is_refused_before_anything_is_built(docker: Path) -> None:
    program = docker / "docker"
    answers = "case $1 in image) echo arm64 ;; version) echo amd64 ;; esac\n[ $1 = build ] || exit 0\n"
    program.write_text(program.read_text().replace("#!/bin/bash\n", f"#!/bin/bash\n{answers}"))
    with pytest.raises(KitError, match=r"BASE_IMAGE=cann:arm: it is for arm64.*amd64.*PLATFORM=linux/arm64"):
        build(docker, BASE_IMAGE="cann:arm")
    assert "--platform=linux/arm64" in build(docker, BASE_IMAGE="cann:arm", PLATFORM="linux/arm64")


def test_wheels_without_sums_are_refused(docker: Path) -> None:
    (docker / "aclruntime.whl").write_bytes(b"")
    with pytest.raises(KitError, match="SHA256SUMS"):
        build(docker, TARGET="cann", AIS_BENCH_SRC=str(docker))


@pytest.mark.parametrize("platform", ["linux/arm64", "arm64", "linux/arm64/v8"])
def test_what_another_machine_cannot_have_is_told_before_anything_is_built(docker: Path, platform: str) -> None:
    with pytest.raises(KitError, match=r"torch 1\.2\.0 .*arm64"):
        images.gpu_image(Settings({"DOCKER": str(docker / "docker"), "PLATFORM": platform}))
    assert not (docker / "argv").exists()
    assert "--platform=linux/arm64" in build(docker, PLATFORM=platform)


def test_a_release_is_pushed_for_every_machine_with_its_sbom_and_provenance(docker: Path) -> None:
    argv = build(docker, PLATFORM="linux/amd64,linux/arm64", PUSH="/tmp/metadata.json")
    assert {"--platform=linux/amd64,linux/arm64", "--push", "--sbom=true", "--provenance=mode=max"} <= set(argv)
    assert "--metadata-file=/tmp/metadata.json" in argv


def test_torch_of_the_users_own_wheels_goes_in_as_their_sums_say(docker: Path) -> None:
    wheels = docker / "wheels"
    wheels.mkdir()
    settings = {"DOCKER": str(docker / "docker"), "WITHOUT_MMSKELETON": "1", "TORCH_WHEELS": str(wheels)}
    with pytest.raises(KitError, match="TORCH_WHEELS="):
        images.gpu_image(Settings(settings))
    name = "torch-1.2.0+cpu-cp37-cp37m-manylinux1_x86_64.whl"
    (wheels / name).touch()
    (wheels / "SHA256SUMS").write_text(f"{EMPTY_SHA256}  {name}\n")
    images.gpu_image(Settings(settings))
    assert f"644 torch/{name}" in (docker / "context").read_text().splitlines()


TOOLKIT, KERNELS, OPS = (
    f"Ascend-cann-{name}_linux-x86_64.run" for name in ("toolkit_8.5.0", "kernels-310p_8.3.RC1", "310p-ops_8.5.0")
)


def cann_image(docker: Path, *packages: str, sums: str | None = None) -> list[str]:
    folder = docker / "cann packages"
    folder.mkdir()
    for name in packages:
        (folder / name).touch()
    if sums is not None:
        (folder / "SHA256SUMS").write_text(sums)
    images.cann_image(Settings({"DOCKER": str(docker / "docker"), "CANN_RUN": str(folder), "PLATFORM": "linux/amd64"}))
    return [line.split()[1] for line in (docker / "context").read_text().splitlines()]


@pytest.mark.parametrize("packages", [[TOOLKIT], [TOOLKIT, KERNELS], [TOOLKIT, OPS]])
def test_every_package_of_cann_goes_into_the_build(docker: Path, packages: list[str]) -> None:
    listed = "".join(f"{EMPTY_SHA256} *{name}\n" for name in packages)
    assert {f"cann/{name}" for name in packages} <= set(cann_image(docker, *packages, sums=listed))


@pytest.mark.parametrize(
    ("packages", "named"),
    [
        ([], "no .run file"),
        ([OPS], "no toolkit"),
        ([TOOLKIT, TOOLKIT.replace("8.5.0", "9.0.1")], "2 toolkits"),
        ([TOOLKIT, "Ascend-cann-nnal_8.5.0_linux-x86_64.run"], "Ascend-cann-nnal_8.5.0_linux-x86_64.run"),
        ([TOOLKIT.replace("x86_64", "aarch64")], "aarch64"),
        ([TOOLKIT, "Ascend-hdk-310p-npu-driver_25.2.0_linux-x86-64.run"], "npu-driver"),
    ],
)
def test_a_package_that_would_not_be_used_is_refused(docker: Path, packages: list[str], named: str) -> None:
    with pytest.raises(KitError, match=re.escape(named)):
        cann_image(docker, *packages)


@pytest.mark.parametrize("sums", ["", f"{'0' * 64}  {TOOLKIT}\n"])
def test_a_package_that_is_not_as_its_sums_say_is_refused(docker: Path, sums: str) -> None:
    with pytest.raises(KitError, match=TOOLKIT):
        cann_image(docker, TOOLKIT, sums=sums)


@pytest.mark.parametrize("name", ["AIS_BENCH_COMMIT", "AIS_BENCH_TREE"])
def test_a_hash_of_the_users_own_is_whole(docker: Path, name: str) -> None:
    with pytest.raises(KitError, match=name):
        build(docker, TARGET="cann", **{name: "8da7f645"})


def before_the_patch(folder: Path) -> None:
    """The lines that the patch expects, each where it expects it, and nothing between."""
    path, line = folder, 0
    for text in PATCH.read_text().splitlines():
        if text.startswith("--- a/"):
            path = folder / text.removeprefix("--- a/").split("\t")[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            line = 1
        elif found := re.match(r"@@ -(\d+)", text):
            with path.open("a") as file:
                file.write("\n" * (int(found[1]) - line))
            line = int(found[1])
        elif text[:1] in (" ", "-") and not text.startswith("---"):
            with path.open("a") as file:
                file.write(text[1:] + "\n")
            line += 1


def test_the_patch_applies_once_without_fuzz_and_is_refused_twice(tmp_path: Path) -> None:
    before_the_patch(tmp_path)
    argv = ["patch", "-p1", "--fuzz=0", "--forward", "-i", str(PATCH)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "offset" not in done.stdout
    again = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 1
    assert "previously applied" in again.stdout


@pytest.mark.parametrize("name", ["requirements", "torch", "sources", "pip", "mmdetection"])
def test_every_package_of_the_legacy_image_is_pinned_with_hashes(name: str) -> None:
    lock = (ROOT / f"docker/gpu/{name}.lock").read_text()
    packages = re.findall(r"^([a-z0-9-]+)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", lock, re.M)
    wanted = re.findall(r"^[A-Za-z][\w.-]*", (ROOT / f"docker/gpu/{name}.in").read_text(), re.M)
    assert {re.sub(r"[-_.]+", "-", package).lower() for package in wanted} <= set(packages)


def test_what_a_step_settled_no_later_step_touches(tmp_path: Path) -> None:
    changed: list[dict[Path, int]] = []
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("made = 1\n")
        (tmp_path / name).chmod(0o600)
        subprocess.run([ROOT / "docker/build/settle", "1000", sys.executable, tmp_path], check=True)
        files = {path: path.stat() for path in tmp_path.rglob("*.py*")}
        assert {(stat.st_mode & 0o777, stat.st_mtime) for stat in files.values()} == {(0o644, 1000)}
        changed.append({path: stat.st_ctime_ns for path, stat in files.items()})
    first, second = changed
    assert (len(first), len(second)) == (2, 4)  # sources and byte code
    assert first.items() < second.items()
