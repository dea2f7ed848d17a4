"""`fab doctor`: is every host fit, and if not, the command that fixes it."""

from __future__ import annotations

import errno
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from deploy.connections import Connections
from deploy.console import check_mark, console, say, table
from deploy.containers import runtime
from deploy.containers.container import NPU_NODES
from deploy.containers.daemon import DockerDaemon
from deploy.containers.endpoint import EngineError
from deploy.containers.native import Runtime
from deploy.errors import HostUnfit, KitError
from deploy.hosts.host import Completed, Host
from deploy.hosts.ssh import Distrusted, KeyNotAccepted, NotTrusted, Refused, Unreachable
from deploy.inventory import Gpu, Npu
from deploy.npu import ais_bench, atc
from deploy.npu.device import PROBE_TIMEOUT_S, Facts, Smi, read_era
from deploy.outcome import Check, Outcome
from deploy.progress import activity
from deploy.stages import gpu

CLOCK_SKEW_S = 5.0  # ages and `since` would mislead beyond it
SPARE_BYTES = 1 << 30  # for models, results and logs
_URL = re.compile(r"https?://\S+")
AS_SAID = "do what it says, then `fab doctor` again"
_OPEN = """
import os, sys
for path in filter(os.path.exists, sys.argv[1:]):
    try:
        os.close(os.open(path, os.O_RDWR))
        print("opened", path)
    except OSError as error:
        print("refused", error.errno, path)
"""


def run(connections: Connections) -> Outcome:
    """Print the table.

    Raises:
        HostUnfit: a check failed.
    """
    checks = examine(connections)
    show(checks)
    failed = sum(not check.passed for check in checks)
    whole = Outcome({"passed": not failed}, checks)
    if failed:
        raise HostUnfit(f"{failed} of {len(checks)} checks failed; fix them with the commands above", whole)
    return whole


def examine(connections: Connections) -> list[Check]:
    """Every check of every host, the hosts side by side; `fix` is empty where a check passed."""
    sections: list[Gpu | Npu] = [connections.inventory.gpu, *connections.inventory.npu]
    with activity("asking the hosts"), ThreadPoolExecutor(len(sections)) as pool:
        found = pool.map(lambda section: list(_examine(connections, section)), sections)
        return [replace(check, fix="") if check.passed else check for checks in found for check in checks]


def show(checks: Sequence[Check]) -> None:
    """Print them as a table."""
    rows = ((c.subject, check_mark(bool(c.passed)), c.name, c.detail, _URL.sub("(below)", c.fix)) for c in checks)
    console.print(table(("host", "", "check", "found", "fix it with"), rows))
    for url in dict.fromkeys(url for check in checks for url in _URL.findall(check.fix)):
        say(f"  {url}")  # whole, to be copied


def _examine(connections: Connections, section: Gpu | Npu) -> Iterator[Check]:
    """A host's checks; those behind one that failed are left out where they cannot be made."""
    try:
        host = connections.connect(section) if isinstance(section, Npu) else connections.gpu.host
    except NotTrusted as error:
        cure = "ask its owner" if isinstance(error, Distrusted) else "fab trust"
        yield Check(section.name, "key trusted", False, str(error), cure)
        return
    except KeyNotAccepted as error:
        copy = ["ssh-copy-id", *(["-i", section.key] if section.key else []), *_ssh_target(section)]
        yield Check(section.name, "login", False, str(error), shlex.join(copy))
        return
    except (Refused, Unreachable) as error:
        what = "login" if isinstance(error, Refused) else "reachable"
        yield Check(section.name, what, False, str(error), shlex.join(["ssh", "-v", *_ssh_target(section), "true"]))
        return
    except KitError as error:
        yield Check(section.name, "connection", False, str(error).removeprefix(f"{section.name}: "), AS_SAID)
        return
    yield Check(section.name, "reachable", True, "here" if section.connection == "local" else "over SSH, key trusted")
    before = time.time()
    facts = host.call("facts", {"workspace": str(host.workspace)})
    yield from _machine(host, facts, (before + time.time()) / 2)
    yield _disk(connections, host, facts, section)
    if section.runtime == "docker":
        yield from _docker(DockerDaemon(section, host), section)
    if isinstance(section, Gpu):
        yield from _gpu_tools(connections, host)
    else:
        yield from _npu_tools(host, section, facts["devices"])


def _ssh_target(section: Gpu | Npu) -> list[str]:
    port = ["-p", str(section.port)] if section.port else []
    return [*port, f"{section.user}@{section.host}" if section.user else str(section.host)]


def _machine(host: Host, facts: Mapping[str, Any], now: float) -> Iterator[Check]:
    yield Check(host.name, "Python", True, f"{facts['python']} on {facts['machine']}, {facts['cores']} cores")
    codecs = facts["codecs"]
    best = ", ".join(f"{codec} by {by}" for codec, by in codecs.items())
    advice = "" if "zstd" in codecs else "; faster after apt-get install libzstd1"
    yield Check(host.name, "compression", True, best + advice)
    skew = facts["time"] - now
    yield Check(
        host.name, "clock", abs(skew) <= CLOCK_SKEW_S, f"{skew:+.1f} s off this machine's", "timedatectl set-ntp true"
    )
    folder = shlex.quote(str(host.workspace))
    yield Check(
        host.name,
        "workspace",
        facts["writable"],
        f"{host.workspace} {'is' if facts['writable'] else 'is NOT'} writable",
        f"sudo install -d -o {facts['uid']} {folder}",
    )


def _disk(connections: Connections, host: Host, facts: Mapping[str, Any], section: Gpu | Npu) -> Check:
    """Room for the clips, raw, on an NPU host; for the logits and models alone on the GPU host."""
    workspace = connections.workspace
    free, need = facts["free_bytes"], SPARE_BYTES
    if isinstance(section, Npu):
        try:
            index = workspace.samples(connections.inventory.persons)
            need += sum(array.rows * array.row_bytes for array in index.inputs)
        except KitError:  # not indexed yet: the whole set
            card = workspace.model.card
            samples = card.published.samples if card.published else 0
            need += samples * card.rows_per_sample * sum(tensor.row_bytes for tensor in card.inputs)
        need -= sum(host.call("listing", {"folder": str(host.kit / "clips")}).values())
    detail = f"{free / 1e9:.1f} GB free, {max(need, 0) / 1e9:.1f} GB needed"
    return Check(host.name, "disk", free >= need, detail, f"df -h {shlex.quote(str(host.workspace))}; free some there")


def _docker(daemon: DockerDaemon, section: Gpu | Npu) -> Iterator[Check]:
    """By the client that runs and builds have."""
    host = daemon.host.name
    try:
        version = daemon.client.version()["Version"]
    except EngineError as error:
        yield Check(host, "Docker", False, error.sentence, error.cure)
        return
    except KitError as error:
        yield Check(host, "Docker", False, str(error), AS_SAID)
        return
    mapped = {"rootless": ", rootless", "userns": ", its user namespace left for the host's"}.get(
        daemon.uid_map or "", ""
    )
    yield Check(host, "Docker", True, f"{version}{mapped}")
    try:
        yield Check(host, "image", True, f"{section.image} {daemon.image(section.image)['id'][:80]}")
    except KitError as error:
        target = "gpu-image" if isinstance(section, Gpu) else "npu-image"
        yield Check(host, "image", False, str(error), f"make {target}")


def _gpu_tools(connections: Connections, host: Host) -> Iterator[Check]:
    try:
        found = gpu.versions(connections)
        yield Check(host.name, "packages", True, ", ".join(f"{name} {version}" for name, version in found.items()))
    except KitError as error:
        docker = connections.inventory.gpu.runtime == "docker"
        cure = "make gpu-image" if docker else "name a Python that has torch, numpy, onnx, onnxruntime as `gpu.python`"
        yield Check(host.name, "packages", False, str(error), cure)
    yield from _inputs(connections, host)


def _inputs(connections: Connections, host: Host) -> Iterator[Check]:
    """Whether dataset and checkpoint are there, and whole as far as their sizes and a published name tell; else where
    they are to be had."""
    published = connections.workspace.model.card.published
    paths = {name: connections.file(name) for name in ("data", "labels", "checkpoint")}
    request = {"workspace": str(host.workspace), "files": [str(path) for path in paths.values()]}
    sizes = host.call("facts", request)["sizes"]
    for name, path in paths.items():
        url = published and (published.checkpoint_url if name == "checkpoint" else published.data_url)
        key = name if name == "checkpoint" else f"dataset.{name}"
        fix = f"correct `{key}` in the inventory" + (f", or get it: {url}" if url else "")
        size = sizes[str(path)]
        if not size:
            state = "is NOT there" if size is None else "is empty"
            yield Check(host.name, name, False, f"{path} {state}", fix)
        elif name == "checkpoint" and published and published.sha256 in path.name:
            found = connections.input_sha256(path)
            whole = found.startswith(published.sha256)
            detail = f"{path}, sha256 {found[:8]}" + ("" if whole else f", not the published {published.sha256}")
            yield Check(host.name, name, whole, detail, f"get it again: {url}")
        else:
            yield Check(host.name, name, True, f"{path}, {_bytes(size)}")


def _bytes(size: int) -> str:
    unit, divisor = next(
        ((unit, 10**power) for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)) if size >= 10**power), ("bytes", 1)
    )
    return f"{size / divisor:.1f} {unit}" if divisor > 1 else f"{size} {unit}"


def _npu_tools(host: Host, section: Npu, nodes: Mapping[str, Sequence[int]]) -> Iterator[Check]:
    """What each tool does when it is used, not whether it is there."""
    try:
        tools = runtime.for_npu(section, host)
        found = Facts.read(section, tools, Smi.of(section, tools))
    except KitError as error:
        yield Check(host.name, "NPU tools", False, str(error), "correct `tools` or `devices` in the inventory")
        return
    chips = ", ".join(f"{chip.device}: {chip.name}" for chip in found.chips)
    yield Check(host.name, "devices", True, f"{chips} ({found.soc_version}){found.mark}")
    yield Check(host.name, "CANN, driver", True, f"{found.cann}, driver {found.driver}")
    python = section.tools.python
    yield _tried(host, "Python modules", lambda: ais_bench.parse_imports(_say(tools, ais_bench.imports_argv(python))))
    yield _tried(host, "ais_bench", lambda: f"as of {read_era(section, tools, found)}")
    yield _tried(host, "atc", lambda: atc.parse_help(_say(tools, [section.tools.atc, "--help"])))
    if not found.simulated:
        for chip in found.chips:
            yield _device_nodes(host, section, tools.on_device(chip.device)[0], chip.device, nodes)


def _say(tools: Runtime, argv: Sequence[str]) -> Completed:
    return tools.run(argv, timeout_s=PROBE_TIMEOUT_S)


def _tried(host: Host, what: str, attempt: Callable[[], str]) -> Check:
    try:
        return Check(host.name, what, True, attempt())
    except KitError as error:
        return Check(host.name, what, False, str(error).removeprefix(f"{host.name}: "), AS_SAID)


def _device_nodes(host: Host, section: Npu, tools: Runtime, device: int, nodes: Mapping[str, Sequence[int]]) -> Check:
    """Open a device's nodes where its runs will, as the user that they will have."""
    wanted = [f"/dev/davinci{device}", *NPU_NODES]
    failed = partial(Check, host.name, f"device {device}", False)
    try:
        done = _say(tools, [section.tools.python, "-c", _OPEN, *wanted])
    except KitError as error:
        return failed(str(error), AS_SAID)
    opened = [line.partition(" ")[2] for line in done.output.splitlines() if line.startswith("opened ")]
    refused = [found.groups() for found in re.finditer(r"^refused ([0-9]+) (\S+)", done.output, re.MULTILINE)]
    if not refused and opened:
        return Check(host.name, f"device {device}", True, f"{', '.join(opened)} can be opened")
    if not refused:
        return failed(f"none of {', '.join(wanted)} is there", "load the Ascend driver, or mount the nodes")
    number, path = int(refused[0][0]), refused[0][1]
    group = nodes.get(path, (0, 0, 0))[1]
    detail = f"{path} cannot be opened ({os.strerror(number)})"
    if number == errno.EBUSY:
        return failed(detail, "stop the container or process that holds it (npu-smi info)")
    cure = f"sudo chmod g+rw {path}" if section.runtime == "docker" else f"sudo usermod -aG {group} $USER, log in again"
    return failed(detail, cure)
