"""An image's files, read from the engine without running anything: compared with another's, or listed as an SBOM."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from email.parser import HeaderParser
from io import RawIOBase
from pathlib import Path
from typing import Any

import docker

from deploy.console import say
from deploy.containers import daemon
from deploy.containers.images import LABEL, MMSKELETON_LABEL
from deploy.containers.sources import MMSKELETON
from deploy.errors import KitError
from deploy.hosts.local import LocalHost
from deploy.pipeline.manifest import revision, write_json

# Paths that may differ between two builds of one source, each with the reason.
EXPECTED_DIFFERENCES: Mapping[str, str] = {
    r"\.dockerenv|dev/.*|etc/(hostname|hosts|mtab|resolv\.conf)": "the engine makes them for each container",
}


@dataclass(frozen=True)
class File:
    """What a build decides of one path; times are not compared, but for what is inside of files."""

    kind: str
    mode: int
    owner: str
    target: str  # of a link
    sha256: str


def compare(first: str, second: str) -> None:
    """Print how two images' files differ.

    Raises:
        KitError: they differ in a path that EXPECTED_DIFFERENCES does not explain.
    """
    client = _client()
    ours, theirs = files(client, first), files(client, second)
    differing = sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))
    unexplained = 0
    for path in differing:
        reason = next((why for form, why in EXPECTED_DIFFERENCES.items() if re.fullmatch(form, path)), None)
        unexplained += reason is None
        say(f"{path}: {reason or _difference(ours.get(path), theirs.get(path))}", None if reason else "red")
    say(f"{len(ours.keys() | theirs.keys())} paths, {len(differing)} differ, {unexplained} without a reason")
    if unexplained:
        raise KitError(f"{first} and {second} differ in {unexplained} of their files, listed above")


def files(client: docker.DockerClient, image: str) -> dict[str, File]:
    """path -> File of an image."""
    found = {}
    for member, content in _members(client, image):
        sha256 = hashlib.sha256(content()).hexdigest() if member.isfile() else ""
        kind = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link", tarfile.LNKTYPE: "hard link"}.get(
            member.type, "file"
        )
        owner = f"{member.uid}:{member.gid}"
        found[member.name.strip("/")] = File(kind, member.mode, owner, member.linkname, sha256)
    return found


def _difference(ours: File | None, theirs: File | None) -> str:
    if ours is None or theirs is None:
        return "only in the first" if theirs is None else "only in the second"
    return ", ".join(
        f"{name} {mine} and {their}" for name, mine in vars(ours).items() if (their := vars(theirs)[name]) != mine
    )


def write_sbom(image: str, path: Path) -> None:
    """Write a CycloneDX 1.5 list (https://cyclonedx.org/docs/1.5/json/) of an image's Debian and Python packages.

    Raises:
        KitError: the image is not there.
    """
    client = _client()
    with daemon.telling("this machine", f"show {image}"):
        inspected = client.images.get(image)
    components = {component["purl"]: component for component in _components(client, image)}
    if inspected.labels.get(MMSKELETON_LABEL, "absent") != "absent":
        purl = f"pkg:github/open-mmlab/mmskeleton@{MMSKELETON.commit}"
        components[purl] = _component("mmskeleton", MMSKELETON.commit, purl, "Apache-2.0")
    listed = [components[purl] for purl in sorted(components)]
    created = datetime.fromtimestamp(int(inspected.labels.get(LABEL + "epoch", "0")), timezone.utc)
    identity = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(listed, sort_keys=True))
    sbom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{identity}",
        "version": 1,
        "metadata": {
            "timestamp": created.isoformat().replace("+00:00", "Z"),
            "component": {
                "type": "container",
                "bom-ref": image,
                "name": image,
                "version": inspected.labels.get("org.opencontainers.image.revision", revision()),
                "hashes": [{"alg": "SHA-256", "content": inspected.id.removeprefix("sha256:")}],
            },
        },
        "components": listed,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, sbom)
    say(f"{path}: {len(listed)} components of {image}")


def _components(client: docker.DockerClient, image: str) -> Iterator[dict[str, Any]]:
    for member, content in _members(client, image):
        if re.search(r"\.(dist-info/METADATA|egg-info/PKG-INFO)$", member.name) and member.isfile():
            fields = HeaderParser().parsestr(content().decode("utf-8", "replace"))
            name, version = fields["Name"], fields["Version"]
            normal = re.sub(r"[-_.]+", "-", name).lower()
            yield _component(name, version, f"pkg:pypi/{normal}@{version}", fields["License"])
        elif member.name.strip("/") == "var/lib/dpkg/status":
            for block in content().decode("utf-8", "replace").strip().split("\n\n"):
                fields = HeaderParser().parsestr(block)
                name, version, machine = fields["Package"], fields["Version"], fields["Architecture"]
                yield _component(name, version, f"pkg:deb/debian/{name}@{version}?arch={machine}", None)


def _component(name: str, version: str, purl: str, licence: str | None) -> dict[str, Any]:
    component: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if licence and "\n" not in licence and licence != "UNKNOWN":
        component["licenses"] = [{"license": {"name": licence}}]
    return component


def _client() -> docker.DockerClient:
    return daemon.connect(LocalHost("this machine", Path()))


def _members(client: docker.DockerClient, image: str) -> Iterator[tuple[tarfile.TarInfo, Any]]:
    """Each path of an image, and a function that reads it while it is the current one."""
    with daemon.telling("this machine", f"read {image}"):
        container = client.containers.create(image, ["none"])
        try:
            with closing(_Stream(container.export())) as stream, tarfile.open(fileobj=stream, mode="r|") as packed:
                for member in packed:
                    yield member, lambda member=member: packed.extractfile(member).read()  # type: ignore[union-attr]
        finally:
            container.remove(force=True, v=True)


class _Stream(RawIOBase):
    """An iterator of blocks as a file to read."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._rest = blocks, b""

    def read(self, size: int = -1) -> bytes:
        parts, wanted = [], size
        while wanted:
            self._rest = self._rest or next(self._blocks, b"")
            if not self._rest:
                break
            part, self._rest = self._rest[:wanted], self._rest[wanted:]
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)
