"""`fab doctor`: is every host fit, and if not, the command that mends it."""

from __future__ import annotations

import shlex
import stat
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from deploy.console import check_mark, console
from deploy.containers import runtime
from deploy.context import Context
from deploy.errors import KitError
from deploy.hosts.host import Host
from deploy.hosts.ssh import NotTrusted, Refused, Unreachable
from deploy.inventory import Gpu, Npu
from deploy.npu.device import Facts, Smi
from deploy.stages import gpu
from stgcn.dataset import CLIP_BYTES

CLOCK_SKEW_S = 5.0  # ages and `since` would mislead beyond it
CONTAINER_UID = 1000
SPARE_BYTES = 1 << 30  # for models, results and logs


@dataclass(frozen=True)
class Check:
    host: str
    what: str
    ok: bool
    detail: str
    mend: str = ""  # the command that does, shown where it is not ok


def run(context: Context) -> None:
    """Print the table.

    Raises:
        KitError: a check failed.
    """
    sections: list[Gpu | Npu] = [context.inventory.gpu, *context.inventory.npu]
    with ThreadPoolExecutor(len(sections)) as pool:
        checks = [
            check for found in pool.map(lambda section: list(_examine(context, section)), sections) for check in found
        ]
    grid = Table()
    for heading in ("host", "", "check", "found", "mend it with"):
        grid.add_column(heading)
    for check in checks:
        mark = check_mark(check.ok)
        mend = "" if check.ok else check.mend
        grid.add_row(check.host, mark, check.what, check.detail, mend)
    console.print(grid)
    failed = sum(not check.ok for check in checks)
    if failed:
        raise KitError(f"{failed} of {len(checks)} checks failed; mend them with the commands above")


def _examine(context: Context, section: Gpu | Npu) -> Iterator[Check]:
    """A host's checks; those behind one that failed are left out where they cannot be made."""
    try:
        host = context.connect(section) if isinstance(section, Npu) else context.gpu.host
    except NotTrusted as error:
        yield Check(section.name, "key trusted", False, str(error), "fab trust")
        return
    except Refused as error:
        copy = ["ssh-copy-id", *(["-i", section.key] if section.key else []), *_ssh_target(section)]
        yield Check(section.name, "login", False, str(error), shlex.join(copy))
        return
    except Unreachable as error:
        yield Check(
            section.name, "reachable", False, str(error), shlex.join(["ssh", "-v", *_ssh_target(section), "true"])
        )
        return
    except KitError as error:
        yield Check(section.name, "helper", False, str(error), "correct the inventory")
        return
    yield Check(section.name, "reachable", True, "here" if section.connection == "local" else "over SSH, key trusted")
    before = time.time()
    facts = host.call("facts", {"workspace": str(host.workspace)})
    yield from _machine(host, facts, (before + time.time()) / 2)
    yield _disk(context, host, facts, section)
    if section.runtime == "docker":
        yield from _docker(host, facts, section)
    yield from _gpu_tools(context, host) if isinstance(section, Gpu) else _npu_tools(host, section)


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


def _disk(context: Context, host: Host, facts: Mapping[str, Any], section: Gpu | Npu) -> Check:
    """Room for the clips, raw, on an NPU host; for the logits and models alone on the GPU host."""
    free, need = facts["free_bytes"], SPARE_BYTES
    if isinstance(section, Npu):
        try:
            samples = context.samples(context.inventory.persons)
            need += samples.samples * samples.sample_bytes
        except KitError:
            need += context.inventory.reference.samples * CLIP_BYTES  # not indexed yet: the whole set
        need -= sum(host.call("listing", {"folder": str(host.kit / "clips")}).values())
    detail = f"{free / 1e9:.1f} GB free, {max(need, 0) / 1e9:.1f} GB needed"
    return Check(host.name, "disk", free >= need, detail, f"df -h {shlex.quote(str(host.workspace))}; free some there")


def _docker(host: Host, facts: Mapping[str, Any], section: Gpu | Npu) -> Iterator[Check]:
    try:
        done = host.run(["docker", "version", "--format", "{{.Server.Version}}"], timeout_s=30)
        running, detail = done.status == 0, done.output.strip().splitlines()[-1:]
    except KitError as error:
        running, detail = False, [str(error)]
    yield Check(host.name, "Docker", running, detail[0] if detail else "no answer", "sudo systemctl start docker")
    if running:
        done = host.run(["docker", "image", "inspect", "--format", "{{.Id}}", section.image], timeout_s=30)
        target = "gpu-image" if isinstance(section, Gpu) else "npu-image"
        yield Check(
            host.name, "image", done.status == 0, f"{section.image} {done.output.strip()[:80]}", f"make {target}"
        )
    for path, (uid, gid, mode) in facts["devices"].items():
        reached = (uid == CONTAINER_UID and mode & stat.S_IWUSR) or (gid == CONTAINER_UID and mode & stat.S_IWGRP)
        detail_of = f"{path} is {uid}:{gid} {stat.filemode(mode)}"
        fit = bool(reached or mode & stat.S_IWOTH)
        yield Check(
            host.name, "device node", fit, detail_of, f"sudo chgrp {CONTAINER_UID} {path}; sudo chmod g+rw {path}"
        )


def _gpu_tools(context: Context, host: Host) -> Iterator[Check]:
    try:
        found = gpu.versions(context)
        yield Check(host.name, "packages", True, ", ".join(f"{name} {version}" for name, version in found.items()))
    except KitError as error:
        yield Check(host.name, "packages", False, str(error), "python3 -m pip install torch numpy onnx onnxruntime")
    paths = {"data": context.data, "labels": context.labels, "checkpoint": context.checkpoint}
    for name, path in paths.items():
        folder = {"folder": str(path.parent)}
        there = path.name in host.call("listing", folder)
        yield Check(
            host.name, name, there, f"{path} {'is' if there else 'is NOT'} there", f"correct `{name}` in the inventory"
        )


def _npu_tools(host: Host, section: Npu) -> Iterator[Check]:
    try:
        tools = runtime.for_npu(section, host)
        found = Facts.read(section, tools, Smi.of(section, tools))
    except KitError as error:
        yield Check(host.name, "NPU tools", False, str(error), "correct `tools` or `devices` in the inventory")
        return
    chips = ", ".join(f"{chip.device}: {chip.name}" for chip in found.chips)
    yield Check(host.name, "devices", True, f"{chips} ({found.soc_version})")
    yield Check(host.name, "CANN, driver", True, f"{found.cann}, driver {found.driver}")
    there = f"sha256 {found.ais_bench[:12]}" if found.ais_bench else f"{section.tools.python} has none"
    install = f"install it for {section.tools.python}, or name another Python under `tools`"
    yield Check(host.name, "ais_bench", found.ais_bench is not None, there, install)
