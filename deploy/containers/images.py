"""`make gpu-image`, `make npu-image`: the images, each from a context that holds what was verified and nothing else.

The settings are make's variables, read from the environment: see docs/images.md.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.console import say
from deploy.containers.sources import AIS_BENCH, MMDETECTION, MMSKELETON, Source
from deploy.errors import KitError
from deploy.inventory import ROOT
from deploy.pipeline.manifest import revision
from deploy.pipeline.sources import sources_sha256
from stgcn.files import sha256_file

GPU_IMAGE, NPU_IMAGE, SIMULATOR_IMAGE, CANN_IMAGE = "stgcn-gpu", "stgcn-npu", "stgcn-npu:simulator", "stgcn-cann"
LABEL = "stgcn-ascend-kit."  # of the labels that go into the manifest
SOURCES_LABEL, MMSKELETON_LABEL = LABEL + "stgcn.sha256", LABEL + "mmskeleton"

SUMS = "SHA256SUMS"  # as sha256sum writes it

_CA_VARIABLES = ("CA_BUNDLE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
_NETWORK_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL")
_NOT_CONTEXT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


@dataclass(frozen=True)
class Settings:
    """What may be chosen of a build; an empty variable counts as not given."""

    environ: Mapping[str, str]

    def text(self, name: str) -> str | None:
        return self.environ.get(name) or None

    def flag(self, name: str) -> bool:
        value = self.environ.get(name, "")
        if value not in ("", "0", "1"):
            raise KitError(f"{name}={value}: give 1 for yes, or leave it out")
        return value == "1"

    @property
    def machines(self) -> list[str]:
        """What the image is for, as Docker calls them: those of PLATFORM, or this one."""
        given = self.text("PLATFORM") or platform.machine()
        names = [name.removeprefix("linux/").partition("/")[0] for name in given.split(",")]
        return [{"x86_64": "amd64", "aarch64": "arm64"}.get(name, name) for name in names]

    def arguments(self, **names: str) -> dict[str, str]:
        """Build arguments `argument=VARIABLE`, those alone that are given."""
        return {argument: value for argument, name in names.items() if (value := self.text(name))}


def gpu_image(settings: Settings) -> None:
    """Build stgcn-gpu.

    Raises:
        KitError: not for x86-64, or what goes in is not to be had.
    """
    if others := [machine for machine in settings.machines if machine != "amd64"]:
        raise KitError(
            f"the GPU image is the guide's, whose torch 1.2.0 has no wheel for {others[0]}: build it on x86-64, or set "
            "`gpu.runtime: native` in the inventory, for the kit runs on today's torch too"
        )
    without = settings.flag("WITHOUT_MMSKELETON")
    with _context("docker/build", "docker/gpu", "stgcn") as context:
        _gather_mmskeleton(context, None if without else settings)
        (context / "mmdetection").mkdir()
        if settings.flag("MMDETECTION"):
            MMDETECTION.gather(settings.text("MMDETECTION_SRC"), context / "mmdetection")
        (context / "mmdetection/README").write_text("Empty but for this: make gpu-image MMDETECTION=1 fills it.\n")
        (context / "torch").mkdir()
        (context / "torch/README").write_text("Empty but for this: make gpu-image TORCH_WHEELS=FOLDER fills it.\n")
        if given := settings.text("TORCH_WHEELS"):
            _take_wheels("TORCH_WHEELS", Path(given).expanduser(), context / "torch")
        arguments = settings.arguments(BASE_IMAGE="BASE_IMAGE", RUN_IMAGE="RUN_IMAGE", CUDA_NMS="CUDA_NMS")
        labels = {
            SOURCES_LABEL: sources_sha256(ROOT / "stgcn"),
            MMSKELETON_LABEL: "absent" if without else MMSKELETON.commit,
        }
        _build(settings, context, "docker/gpu/Dockerfile", "run", GPU_IMAGE, arguments, labels)


def npu_image(settings: Settings) -> None:
    """Build stgcn-npu (TARGET=cann, the default) or stgcn-npu:simulator (TARGET=simulator)."""
    target = settings.text("TARGET") or "cann"
    bases = {"cann": "CANN_IMAGE", "simulator": "PYTHON_IMAGE"}
    if target not in bases:
        raise KitError(f"TARGET={target}: the NPU image's targets are {' and '.join(bases)}")
    with _context("docker/build", "docker/npu") as context:
        (context / "ais_bench").mkdir()
        labels = {LABEL + "target": target}
        if target == "cann":
            labels[LABEL + "ais_bench"] = _gather_ais_bench(context / "ais_bench", settings)
        tag = NPU_IMAGE if target == "cann" else SIMULATOR_IMAGE
        arguments = settings.arguments(**{bases[target]: "BASE_IMAGE"})
        _build(settings, context, "docker/npu/Dockerfile", target, tag, arguments, labels)


def cann_image(settings: Settings) -> None:
    """Build stgcn-cann, a base with the CANN of the user's own .run files."""
    folder = Path(settings.text("CANN_RUN") or "cann").expanduser()
    packages = _cann_packages(folder, settings.machines[0])
    with _context("docker/build", "docker/npu") as context:
        (context / "cann").mkdir()
        for package in packages:
            shutil.copyfile(package, context / "cann" / package.name)
        arguments = settings.arguments(PYTHON_IMAGE="BASE_IMAGE")
        labels = {f"{LABEL}{package.name}.sha256": sha256_file(package) for package in packages}
        _build(settings, context, "docker/npu/cann.Dockerfile", None, CANN_IMAGE, arguments, labels)


def _cann_packages(folder: Path, machine: str) -> list[Path]:
    """The .run files of a folder, of which every one is going to be installed.

    Raises:
        KitError: there is no toolkit among them, one is no part of a conversion or for another machine, or is not as
            SHA256SUMS says.
    """
    packages = sorted(folder.glob("*.run"))
    toolkits = [package for package in packages if "toolkit" in package.name]
    if len(toolkits) != 1:
        found = (
            f"{len(toolkits)} toolkits"
            if toolkits
            else "no toolkit among its .run files"
            if packages
            else "no .run file"
        )
        raise KitError(f"CANN_RUN={folder}: {found} there; download one Ascend-cann-toolkit_<version>_linux-<arch>.run")
    for package in packages:
        if not re.search(r"toolkit|kernels|-ops[_-]", package.name):
            raise KitError(
                f"{package}: it would not be used, for the image takes a toolkit and its operator packages "
                "(Ascend-cann-kernels-<chip>_*.run, from 8.5 on Ascend-cann-<chip>-ops_*.run); move it away"
            )
        other = {"amd64": "aarch64", "arm64": "x86_64"}.get(machine, "")
        if other and other in package.name.replace("x86-64", "x86_64"):
            raise KitError(
                f"{package}: it is for {other}, and the image for {machine}; PLATFORM=linux/... chooses another"
            )
    if (folder / SUMS).exists():
        _check_sums(folder, packages)
    return packages


def _check_sums(folder: Path, files: Sequence[Path]) -> None:
    """Raises KitError for one of `files` that SHA256SUMS beside them lacks, or knows with another sum."""
    lines = (folder / SUMS).read_text(errors="replace").splitlines()
    entries = (re.fullmatch(r"\\?([0-9a-f]{64}) [ *](?:\./)?(.+)", line) for line in lines)
    sums = {entry[2]: entry[1] for entry in entries if entry}
    for path in files:
        if path.name not in sums:
            raise KitError(f"{folder / SUMS} does not list {path.name}; add its sum, from a source that you trust")
        if (found := sha256_file(path)) != sums[path.name]:
            raise KitError(
                f"{path}: its sha256 is {found}, not {sums[path.name]} as SHA256SUMS says; download it again"
            )


def _gather_mmskeleton(context: Path, settings: Settings | None) -> None:
    folder = context / "mmskeleton"
    folder.mkdir()
    if settings is None:
        (folder / "README").write_text("mmskeleton was left out of this image: make gpu-image WITHOUT_MMSKELETON=1.\n")
        return
    MMSKELETON.gather(settings.text("MMSKELETON_SRC"), folder / MMSKELETON.folder)


def _gather_ais_bench(into: Path, settings: Settings) -> str:
    """The tool's verified source, or a folder of wheels as its SHA256SUMS has them; what it is, for the record."""
    given = settings.text("AIS_BENCH_SRC")
    if given and list(Path(given).expanduser().glob("*.whl")):
        _take_wheels("AIS_BENCH_SRC", Path(given).expanduser(), into)
        return "wheels"
    source = _chosen(AIS_BENCH, settings)
    source.gather(given, into)
    return source.commit or f"tree {source.tree}"


def _take_wheels(variable: str, folder: Path, into: Path) -> None:
    """Copy a folder's wheels as its SHA256SUMS has them."""
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise KitError(f"{variable}={folder}: no wheel there; name a folder of wheels with their SHA256SUMS")
    if not (folder / SUMS).is_file():
        raise KitError(
            f"{variable}={folder}: wheels without a SHA256SUMS file; write one of sums that you trust "
            "(sha256sum *.whl > SHA256SUMS)"
        )
    _check_sums(folder, wheels)
    for path in wheels:
        shutil.copyfile(path, into / path.name)


def _chosen(source: Source, settings: Settings) -> Source:
    """`source`, or the user's own commit, tree (hash of git) and folder of it: <NAME>_COMMIT, _TREE, _FOLDER."""
    prefix = source.name.upper()
    hashes = {name: settings.text(f"{prefix}_{name}") for name in ("COMMIT", "TREE")}
    for name, value in hashes.items():
        if value and not re.fullmatch(r"[0-9a-f]{40}", value):
            raise KitError(f"{prefix}_{name}={value}: give the whole hash, 40 digits of 0-9a-f")
    folder = settings.text(f"{prefix}_FOLDER") or source.folder
    if not any(hashes.values()):
        return replace(source, folder=folder)
    return replace(source, commit=hashes["COMMIT"] or "", tree=hashes["TREE"], folder=folder)


@contextmanager
def _context(*folders: str) -> Iterator[Path]:
    """A folder with copies of the kit's `folders`, the same modes wherever the kit was checked out."""
    with tempfile.TemporaryDirectory(prefix="stgcn-build-") as name:
        context = Path(name)
        for folder in folders:
            shutil.copytree(ROOT / folder, context / folder, ignore=_NOT_CONTEXT)
        yield context


def _build(
    settings: Settings,
    context: Path,
    dockerfile: str,
    target: str | None,
    tag: str,
    arguments: Mapping[str, str],
    labels: Mapping[str, str],
) -> None:
    _even_out(context)
    _refuse_other_machine(settings)
    tag = settings.text("TAG") or tag
    arguments = {**arguments, "SOURCE_DATE_EPOCH": str(source_date_epoch(settings))}
    locks = sorted(context.glob(f"{Path(dockerfile).parent}/*.lock"))
    labels = {
        LABEL + "epoch": arguments["SOURCE_DATE_EPOCH"],
        "org.opencontainers.image.title": tag,
        "org.opencontainers.image.revision": revision(),
        **{f"{LABEL}{lock.name}.sha256": sha256_file(lock) for lock in locks},
        **labels,
    }
    with _secrets(settings.environ) as secrets:
        argv = [_docker(settings), "build", f"--file={context / dockerfile}", f"--tag={tag}", *secrets]
        argv += [f"--target={target}"] if target else []
        if settings.text("PLATFORM"):
            argv.append("--platform=" + ",".join(f"linux/{machine}" for machine in settings.machines))
        if metadata := settings.text("PUSH"):
            argv += ["--push", f"--metadata-file={metadata}", "--sbom=true", "--provenance=mode=max"]
        argv += ["--no-cache"] if settings.flag("NO_CACHE") else []
        if folder := settings.text("CACHE_DIR"):
            argv += [f"--cache-from=type=local,src={folder}", f"--cache-to=type=local,dest={folder},mode=max", "--load"]
        argv += [f"--build-arg={name}={value}" for name, value in sorted(arguments.items())]
        argv += [f"--label={name}={value}" for name, value in sorted(labels.items())]
        say(f"building {tag}", "bold")
        done = subprocess.run([*argv, str(context)], env={**os.environ, "DOCKER_BUILDKIT": "1"}, check=False)
    if done.returncode:
        raise KitError(f"{tag} was not built; the reason is above (docs/images.md has the settings)")


def _refuse_other_machine(settings: Settings) -> None:
    """Raises KitError for a base that is here, and whose programs do not run on the engine's machine."""
    base, docker = settings.text("BASE_IMAGE"), _docker(settings)
    if base is None or settings.text("PLATFORM"):
        return
    questions = (["image", "inspect", "--format={{.Architecture}}", base], ["version", "--format={{.Server.Arch}}"])
    its, engines = ((_output(docker, *words) or "").strip() for words in questions)
    if its and engines and its != engines:
        raise KitError(
            f"BASE_IMAGE={base}: it is for {its}, and the Docker engine's machine is {engines}; give one for that, "
            f"build on a host of its kind, or set PLATFORM=linux/{its} (docs/images.md)"
        )


def _even_out(folder: Path) -> None:
    """Modes by kind, for git keeps the executable bit alone and an operator's umask shall not reach the image; the time
    of now, for docker/build/settle passes over a file that has the time that it gives.
    """
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path)


@contextmanager
def _secrets(environ: Mapping[str, str]) -> Iterator[list[str]]:
    """`--secret` flags for a bundle of certificates and for proxies, which thus reach no layer and no history."""
    flags = []
    bundle = next((path for name in _CA_VARIABLES if (path := environ.get(name))), None)
    if bundle and Path(bundle).is_file():
        flags.append(f"--secret=id=ca,src={bundle}")
    elif environ.get("CA_BUNDLE"):
        raise KitError(f"CA_BUNDLE={bundle}: no such file; name the bundle (PEM) of your proxy's certificates")
    with tempfile.NamedTemporaryFile("w", prefix="stgcn-network-") as file:
        lines = [f"{name}={environ[name]}\n" for name in _NETWORK_VARIABLES if environ.get(name)]
        file.writelines(lines)
        file.flush()
        yield [*flags, f"--secret=id=network,src={file.name}"] if lines else flags


def source_date_epoch(settings: Settings) -> int:
    """SOURCE_DATE_EPOCH where given, else the time of the last commit (https://reproducible-builds.org/specs)."""
    given = settings.text("SOURCE_DATE_EPOCH")
    if given is None:
        done = subprocess.run(["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], capture_output=True, text=True)
        given = done.stdout.strip() or "0"
    if not given.isdigit():
        raise KitError(f"SOURCE_DATE_EPOCH={given}: it is a whole number of seconds since 1970")
    return int(given)


def _docker(settings: Settings) -> str:
    """A `docker` that has BuildKit: from Docker 23 on that is the buildx plug-in's business, before it is built in.

    Raises:
        KitError: there is none.
    """
    given = settings.text("DOCKER")
    folders = os.get_exec_path()
    candidates = [given] if given else [path for f in folders if (path := shutil.which("docker", path=f))]
    for program in candidates:
        version = re.search(r"version (\d+)\.", _output(program, "--version") or "")
        if _output(program, "buildx", "version") is not None or (version and int(version[1]) < 23):
            return program
    found = ", ".join(candidates) or "none"
    raise KitError(
        f"no docker with BuildKit (found: {found}); install docker and its buildx plug-in, or name one: DOCKER="
    )


def _output(*argv: str) -> str | None:
    """What a program prints; None where it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
