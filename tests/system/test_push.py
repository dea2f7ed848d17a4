"""`fab push-image` between two real engines: what arrives is what was sent, or nothing is said to have arrived."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from deploy.containers.daemon import DockerDaemon
from deploy.errors import KitError
from deploy.hosts.local import LocalHost
from deploy.inventory import Npu
from deploy.push import send
from tests.system.engine import another_engine, docker_engine

NAME = "stgcn-test-push"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.DockerClient]:
    """An engine with a small image of two layers."""
    with docker_engine(tmp_path_factory.mktemp("docker")) as client:
        folder = tmp_path_factory.mktemp("image")
        (folder / "noise").write_bytes(os.urandom(3 << 20))
        (folder / "more").write_bytes(b"more")
        (folder / "Dockerfile").write_text("FROM scratch\nCOPY noise /\nCOPY more /\nLABEL of=push\n")
        client.images.build(path=str(folder), tag=NAME, rm=True)  # else its containers stay
        yield client
        client.images.remove(NAME, force=True)


@pytest.fixture
def there(tmp_path: Path) -> Iterator[DockerDaemon]:
    """The engine of a host that has nothing yet."""
    if os.getuid() != 0:
        pytest.skip("a second Docker engine takes root: `make test-system` as root runs this")
    with another_engine() as client:
        engine = DockerDaemon(Npu(name="npu-a", connection="local"), LocalHost("npu-a", tmp_path / "work"))
        engine.__dict__["client"] = client  # where a cached property keeps what it found
        yield engine


def test_arrives_whole_and_is_sent_once(here: docker.DockerClient, there: DockerDaemon, capsys: Any) -> None:
    send(here, NAME, there)
    arrived, sent = there.client.images.get(NAME), here.images.get(NAME)
    assert arrived.attrs["RootFS"] == sent.attrs["RootFS"]
    assert arrived.labels == {"of": "push"}
    capsys.readouterr()
    send(here, NAME, there)
    assert "has stgcn-test-push already" in capsys.readouterr().out


def test_another_image_under_the_name_is_replaced(
    here: docker.DockerClient, there: DockerDaemon, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    there.client.images.build(path=str(tmp_path), dockerfile="Dockerfile", tag=NAME)
    send(here, NAME, there)
    assert there.client.images.get(NAME).labels == {"of": "push"}


def test_what_changed_on_the_way_is_refused(
    here: docker.DockerClient, there: DockerDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_image = here.api.get_image

    def damaged(*args: Any, **options: Any) -> Iterator[bytes]:
        whole = bytearray(b"".join(get_image(*args, **options)))
        noise = whole.index(b"noise\0")  # the header of the file in its layer, content after it
        whole[noise + 512 + 100] ^= 1
        yield bytes(whole)

    monkeypatch.setattr(here.api, "get_image", damaged)
    with pytest.raises(KitError, match="npu-a"):
        send(here, NAME, there)
    assert there.client.images.list(NAME) == []


def test_an_image_that_is_not_here_is_named(here: docker.DockerClient, there: DockerDaemon) -> None:
    with pytest.raises(KitError, match="stgcn-no-such-image"):
        send(here, "stgcn-no-such-image", there)
