"""`fab push-image`: build the NPU image here, for each host's machine, and bring it into the host's Docker engine."""

from __future__ import annotations

import time

import docker

from deploy.connections import Connections
from deploy.console import say
from deploy.containers import images
from deploy.containers.daemon import DockerDaemon, telling
from deploy.errors import KitError
from deploy.inventory import Npu

ENGINE_TIMEOUT_S = 3600.0  # of one answer: an engine is silent while it unpacks a layer
_BLOCK = 1 << 20


def run(connections: Connections, settings: images.Settings) -> None:
    """Nothing is asked of a host but its Docker engine, and what the kit's link takes.

    Raises:
        KitError: no host of the inventory has `runtime: docker`, the image is not built, or did not arrive whole.
    """
    if connections.inventory.engine.kind == "ray":
        raise KitError(
            "a fleet on Ray takes its image from a registry of yours (docs/fleet.md): push-image is over SSH"
        )
    sections = [section for section in connections.inventory.npu if section.runtime == "docker"]
    if not sections:
        raise KitError("no NPU host in the inventory has `runtime: docker`: there is nowhere to push an image to")
    with telling("this machine", "connect"):
        here = docker.from_env(timeout=ENGINE_TIMEOUT_S)
        own_machine = here.version()["Arch"]
    built: dict[str, str] = {}  # image -> the machine that it was built for last: one name holds one at a time
    daemons = [DockerDaemon(section, connections.connect(section)) for section in sections]
    machines = [_machine(daemon) for daemon in daemons]
    for section, daemon, machine in sorted(zip(sections, daemons, machines, strict=True), key=lambda host: host[2]):
        if built.get(section.image) != machine:
            _build(section, machine, own_machine, settings)
            built[section.image] = machine
        send(here, section.image, daemon)


def send(here: docker.DockerClient, name: str, daemon: DockerDaemon) -> None:
    """Stream an image of this machine's engine into another's, unless it has it.

    The engine there checks each layer's sha256 as it unpacks it; then the whole is compared with what was sent.
    """
    host, there = daemon.host.name, daemon.client
    there.api.timeout = ENGINE_TIMEOUT_S
    with telling("this machine", f"show {name}"):
        image = here.images.get(name)
    content = _content(image)
    with telling(host, f"list its images for {name}"):
        if any(_content(there.images.get(found.id)) == content for found in there.images.list(name)):
            say(f"  {host}: has {name} already")
            return
    size = image.attrs["Size"]
    say(f"  {host}: sending {name}, {size / 1e9:.2f} GB")
    began = time.monotonic()
    with telling(host, f"load {name}"):
        there.images.load(here.api.get_image(name, chunk_size=_BLOCK))
        arrived = there.images.get(name)
    if _content(arrived) != content:
        raise KitError(f"{host}: {name} is not what was sent; run fab push-image again")
    took = time.monotonic() - began
    say(f"  {host}: has {name}, whole, after {took:.0f} s ({size / 1e6 / max(took, 0.001):.0f} MB/s)")


def _build(section: Npu, machine: str, own_machine: str, settings: images.Settings) -> None:
    target = "simulator" if section.image == images.SIMULATOR_IMAGE else "cann"
    chosen = {"TARGET": target, "PLATFORM": "" if machine == own_machine else f"linux/{machine}"}
    images.npu_image(images.Settings({**chosen, **settings.environ, "TAG": section.image}))


def _machine(daemon: DockerDaemon) -> str:
    with telling(daemon.host.name, "tell its machine"):
        return str(daemon.client.version()["Arch"])


def _content(image: docker.models.images.Image) -> object:
    """What an image is, on every engine: ids are of the manifest on some, of the configuration on others."""
    return image.attrs["Architecture"], image.attrs["RootFS"]["Layers"], dict(image.labels)
