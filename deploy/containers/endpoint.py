"""Which Docker engine a host's own `docker` talks to, and what is wrong where none answers.

Doctor, builds and runs use one engine: the one that `docker` on that host picks, by DOCKER_HOST, else DOCKER_CONTEXT,
else the context that is in use, else the default socket. [docker CLI 28]
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from deploy.errors import HostUnfit

DEFAULT = "unix:///var/run/docker.sock"
CONNECT_TIMEOUT_S = 10.0
_FORMS = "unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST"
# What a host's environment and its docker say, a `name=value` a line.
ASK = r"""
printf 'host=%s\ntls=%s\ncertificates=%s\n' "$DOCKER_HOST" "$DOCKER_TLS_VERIFY" \
    "${DOCKER_CERT_PATH:-${DOCKER_CONFIG:-$HOME/.docker}}"
own=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/docker.sock
[ ! -S "$own" ] || printf 'rootless=%s\n' "$own"
docker context inspect --format 'context={{.Name}}
url={{.Endpoints.docker.Host}}
context_certificates={{.Storage.TLSPath}}
skip={{.Endpoints.docker.SkipTLSVerify}}' 2>&1 || true
"""


class EngineError(HostUnfit):
    """A host without an engine that can be used; `cure` is the command that mends it."""

    def __init__(self, sentence: str, cure: str) -> None:
        super().__init__(f"{sentence}; {cure}")
        self.sentence, self.cure = sentence, cure


@dataclass(frozen=True)
class Endpoint:
    """The address of an engine, as seen from its host."""

    url: str
    said_by: str  # what named it: `DOCKER_HOST`, `the docker context x`, `docker's default`
    certificates: str | None = None  # the folder of ca.pem, cert.pem, key.pem, where TLS is asked for
    verified: bool = True
    rootless: str | None = None  # a socket of the user's own engine, which nothing names

    @property
    def kind(self) -> str:
        return urlsplit(self.url).scheme

    @property
    def path(self) -> str:
        """Of a unix socket."""
        return urlsplit(self.url).path

    @property
    def is_own(self) -> bool:
        """Whether the socket is of a user's engine, not the system's."""
        return self.path.startswith(("/run/user/", "/home/", "/var/run/user/"))

    @property
    def address(self) -> tuple[str, int]:
        """Of tcp."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or (2376 if self.certificates else 2375)

    def __str__(self) -> str:
        return f"{self.url}, by {self.said_by}"


def parse(host: str, text: str) -> Endpoint:
    """What ASK printed.

    Raises:
        EngineError: the context in use is not there, or the address has no form that an engine's has.
    """
    told: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and re.fullmatch("[a-z_]+", name):
            told.setdefault(name, value.strip())
    rootless = told.get("rootless")
    if url := told.get("host"):
        tls = told.get("certificates") if told.get("tls") else None
        found = Endpoint(url, "DOCKER_HOST", tls, rootless=rootless)
    elif url := told.get("url"):
        named = told.get("context", "default")
        tls = told.get("context_certificates", "") if url.startswith("tcp:") and named != "default" else None
        tls = tls if tls and tls != "<IN MEMORY>" else None
        said_by = "docker's default" if named == "default" else f"the docker context {named}"
        found = Endpoint(url, said_by, tls, told.get("skip") != "true", rootless)
    elif missing := re.search(r"context[^\n]*not found[^\n]*", text):
        raise EngineError(
            f"{host}: the docker context in use is not there ({missing[0]})",
            "correct DOCKER_CONTEXT, or `docker context use default`",
        )
    else:
        found = Endpoint(DEFAULT, "docker's default", rootless=rootless)
    if not re.fullmatch(r"unix://(/.*)|(tcp|ssh)://[^/@]*(@[^/@]+)?/?", found.url) or not _port_is_number(found.url):
        raise EngineError(f"{host}: {found} is no address of an engine", f"write {_FORMS}")
    return found


def _port_is_number(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def refuse_elsewhere(host: str, endpoint: Endpoint, engines_name: str, hosts_name: str) -> None:
    """Raises EngineError where the engine is another machine's: its containers do not see this host's workspace."""
    if endpoint.kind == "unix" or engines_name == hosts_name:
        return
    name = urlsplit(endpoint.url).hostname or ""
    if name in ("localhost", "127.0.0.1", "::1", hosts_name):
        return
    raise EngineError(
        f"{host}: {endpoint} is the engine of another machine ({engines_name}), whose containers do not see this one's "
        "files",
        f"unset it and use this machine's engine, or name {name} in the inventory with connection: ssh",
    )


def reach(endpoint: Endpoint) -> None:
    """Raises OSError where nobody answers at a tcp address: Docker's client would wait for a minute."""
    if endpoint.kind == "tcp":
        socket.create_connection(endpoint.address, CONNECT_TIMEOUT_S).close()


def failure(host: str, endpoint: Endpoint, error: BaseException) -> EngineError:
    """The sentence and the cure for an engine that could not be reached."""
    causes = list(_causes(error))
    text = " ".join(str(cause) for cause in causes)
    numbers = {cause.errno for cause in causes if isinstance(cause, OSError)}
    unix = endpoint.kind == "unix"
    start = "systemctl --user start docker" if endpoint.is_own else "sudo systemctl start docker"
    if unix and (errno.EACCES in numbers or "Permission denied" in text):
        return EngineError(
            f"{host}: this user may not use the Docker engine at {endpoint}",
            "sudo usermod -aG docker $USER, then log in again"
            if not endpoint.is_own
            else "log in as the user whose engine it is, or unset DOCKER_HOST",
        )
    if unix and (errno.ENOENT in numbers or "No such file" in text):
        if endpoint.rootless and endpoint.path != endpoint.rootless:
            return EngineError(
                f"{host}: no Docker engine at {endpoint}, but this user has a rootless one",
                f"export DOCKER_HOST=unix://{endpoint.rootless}, or `docker context use rootless`",
            )
        if endpoint.said_by != "docker's default" and not endpoint.is_own:
            return EngineError(f"{host}: there is no socket at {endpoint}", f"correct or unset {endpoint.said_by}")
        return EngineError(f"{host}: no Docker engine runs at {endpoint}", f"{start} (install Docker where it is not)")
    if unix and (errno.ECONNREFUSED in numbers or "Connection refused" in text):
        return EngineError(f"{host}: the Docker engine at {endpoint} does not run, its socket is a leftover", start)
    if re.search(r"certificate|CERTIFICATE|SSL|TLS|ca\.pem|cert\.pem|key\.pem|HTTP request to an HTTPS", text):
        return EngineError(
            f"{host}: the Docker engine at {endpoint} and this client do not agree on TLS ({_words(causes)})",
            "set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH to the folder of ca.pem, cert.pem and key.pem",
        )
    if endpoint.kind == "ssh":
        return EngineError(
            f"{host}: no Docker engine answers over {endpoint} ({_words(causes)})",
            f"see what `ssh {urlsplit(endpoint.url).netloc} docker version` says",
        )
    if endpoint.kind == "tcp":
        return EngineError(
            f"{host}: no Docker engine answers at {endpoint} ({_words(causes)})",
            f"correct or unset {endpoint.said_by}, or start the engine there",
        )
    return EngineError(f"{host}: no Docker engine answers at {endpoint} ({_words(causes)})", start)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it came from: Docker's client wraps requests', which wraps urllib3's, which wraps it."""
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        cause = todo.pop(0)
        if isinstance(cause, tuple):
            todo += cause
        elif isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            todo += [*cause.args, cause.__cause__, cause.__context__, getattr(cause, "reason", None)]


def _words(causes: list[BaseException]) -> str:
    """The innermost reason."""
    deepest = causes[-1]
    strerror = getattr(deepest, "strerror", None)
    return str(strerror or str(deepest) or type(deepest).__name__).splitlines()[0]


def uid_map(security_options: list[str]) -> str | None:
    """How an engine maps a container's users to the host's: `rootless`, `userns`, or None where it does not."""
    for name in ("rootless", "userns"):
        if any(re.search(rf"name={name}\b", option) for option in security_options):
            return name
    return None
