"""Which Docker engine is meant, by the real sockets and answers of engines that are there, gone, or elsewhere."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from deploy.containers import daemon, endpoint
from deploy.containers.endpoint import Endpoint, EngineError
from deploy.hosts.local import LocalHost

CONTEXT = "context=lab\nurl=tcp://10.0.0.9:2376\ncontext_certificates=/c/tls\nskip=true\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "host=\ntls=\ncontext=default\nurl=unix:///var/run/docker.sock\n",
            Endpoint(endpoint.DEFAULT, "docker's default"),
        ),
        ("sh: docker: not found\n", Endpoint(endpoint.DEFAULT, "docker's default")),
        ("host=unix:///run/user/7/docker.sock\n" + CONTEXT, Endpoint("unix:///run/user/7/docker.sock", "DOCKER_HOST")),
        ("host=tcp://127.0.0.1:2375\ntls=\ncertificates=/c\n", Endpoint("tcp://127.0.0.1:2375", "DOCKER_HOST")),
        ("host=tcp://[::1]:2376\ntls=1\ncertificates=/c\n", Endpoint("tcp://[::1]:2376", "DOCKER_HOST", "/c")),
        ("host=ssh://a@npu:22\n", Endpoint("ssh://a@npu:22", "DOCKER_HOST")),
        (CONTEXT, Endpoint("tcp://10.0.0.9:2376", "the docker context lab", "/c/tls", verified=False)),
    ],
)
def test_it_is_dockers_own_choice(text: str, expected: Endpoint) -> None:
    assert endpoint.parse("here", text) == expected


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ('Error: context "lab": context not found: open /x: no such file\n', "docker context use default"),
        ("host=/var/run/docker.sock\n", "unix:///PATH"),
        ("host=http//x\n", "unix:///PATH"),
        ("host=tcp://x:port\n", "unix:///PATH"),
        ("host=npipe:////./pipe/x\n", "unix:///PATH"),
    ],
)
def test_what_names_no_engine_is_refused_with_its_cure(text: str, cure: str) -> None:
    with pytest.raises(EngineError) as caught:
        endpoint.parse("here", text)
    assert cure in caught.value.cure


class _Answers(BaseHTTPRequestHandler):
    """An engine as far as telling of itself."""

    def do_GET(self) -> None:
        body = json.dumps({"ApiVersion": "1.44", "Name": self.server.name, "SecurityOptions": []}).encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass

    def address_string(self) -> str:
        return ""


class _Unix(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture(params=["unix", "tcp"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Any]]:
    server: Any = _Unix(str(tmp_path / "d.sock"), _Answers) if request.param == "unix" else _Tcp(("", 0), _Answers)
    server.name = "another"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    with closing(server.socket):
        where = tmp_path / "d.sock" if request.param == "unix" else f"127.0.0.1:{server.server_address[1]}"
        yield f"{request.param}://{where}", server
        server.shutdown()


def connect(monkeypatch: pytest.MonkeyPatch, url: str) -> Any:
    monkeypatch.setenv("DOCKER_HOST", url)
    return daemon.connect(LocalHost("here", Path("/")))


def test_docker_host_is_obeyed_in_every_form(monkeypatch: pytest.MonkeyPatch, served: tuple[str, Any]) -> None:
    assert connect(monkeypatch, served[0]).info()["Name"] == "another"


def test_another_machines_engine_is_refused_for_it_sees_no_workspace() -> None:
    for url in ("tcp://10.0.0.9:2375", "ssh://a@npu"):
        with pytest.raises(EngineError, match=re.escape(url)) as caught:
            endpoint.refuse_elsewhere("here", Endpoint(url, "DOCKER_HOST"), "npu", "desk")
        assert "connection: ssh" in caught.value.cure
        endpoint.refuse_elsewhere("here", Endpoint(url, "DOCKER_HOST"), "desk", "desk")
    endpoint.refuse_elsewhere("here", Endpoint("tcp://localhost:2375", "DOCKER_HOST"), "docker-desktop", "desk")


def test_each_failure_has_its_own_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    leftover = tmp_path / "left.sock"
    with closing(socket.socket(socket.AF_UNIX)) as bound, closing(socket.socket()) as free:
        bound.bind(str(leftover))
        free.bind(("127.0.0.1", 0))
        unused = free.getsockname()[1]
    cures = {
        f"unix://{tmp_path}/none.sock": "correct or unset DOCKER_HOST",
        f"unix://{leftover}": "sudo systemctl start docker",
        "unix:///run/user/4321/docker.sock": "systemctl --user start docker",
        f"tcp://127.0.0.1:{unused}": "correct or unset DOCKER_HOST",
        "tcp://no.such.host.invalid:2375": "correct or unset DOCKER_HOST",
        "ssh://no.such.host.invalid": "`ssh no.such.host.invalid docker version`",
    }
    for url, cure in cures.items():
        with pytest.raises(EngineError) as caught:
            connect(monkeypatch, url)
        assert cure in caught.value.cure, url


def test_a_permission_is_cured_by_the_group_never_by_a_start() -> None:
    wrapped = RuntimeError("Error while fetching server API version")
    wrapped.__cause__ = OSError("Connection aborted.", PermissionError(13, "Permission denied"))
    found = endpoint.failure("here", Endpoint(endpoint.DEFAULT, "docker's default"), wrapped)
    assert found.cure == "sudo usermod -aG docker $USER, then log in again"


def test_a_rootless_engine_that_nothing_names_is_named() -> None:
    here = Endpoint(endpoint.DEFAULT, "docker's default", rootless="/run/user/7/docker.sock")
    found = endpoint.failure("here", here, FileNotFoundError(2, "No such file or directory"))
    assert "DOCKER_HOST=unix:///run/user/7/docker.sock" in found.cure


def test_tls_that_is_not_agreed_on(monkeypatch: pytest.MonkeyPatch, served: tuple[str, Any]) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", "/no/such/folder")
    if served[0].startswith("tcp"):
        with pytest.raises(EngineError) as caught:
            connect(monkeypatch, served[0])
        assert "DOCKER_CERT_PATH" in caught.value.cure


@pytest.mark.parametrize(
    ("options", "mapped"),
    [
        (["name=apparmor", "name=seccomp,profile=builtin", "name=rootless"], "rootless"),
        (["name=userns"], "userns"),
        (["name=seccomp"], None),
    ],
)
def test_how_users_are_mapped(options: list[str], mapped: str | None) -> None:
    assert endpoint.uid_map(options) == mapped
