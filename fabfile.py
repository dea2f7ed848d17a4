"""`fab` tasks: thin fronts of the stages. INVENTORY=FILE chooses another inventory than inventory.yaml.

A task imports what it runs when it runs, so that `fab --list`, `--help` and the small commands start at once.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import task

from deploy.errors import KitError

if TYPE_CHECKING:
    from deploy.connections import Connections
    from deploy.inventory import Inventory
    from deploy.outcome import Outcome
    from deploy.workspace import Workspace

HELP = {
    "dry": "print what would run, on which host, and run nothing",
    "fresh": "ignore what is cached",
    "force": "measure a busy device too; the figure is marked",
    "json": "print one JSON document on standard output, all else on standard error (docs/ci.md)",
    "junit": "also write the checks to this file as JUnit XML",
}


def _inventory() -> Inventory:
    from deploy import inventory

    return inventory.load(inventory.local_path(inventory.chosen()))


def _workspace() -> Workspace:
    from deploy.workspace import Workspace

    return Workspace(_inventory())


@contextmanager
def _connections(**switches: bool) -> Iterator[Connections]:
    """The workspace, held unless this is a dry run, and the way to its hosts."""
    from deploy.connections import Connections
    from deploy.options import Options

    workspace, options = _workspace(), Options(**switches)
    with nullcontext() if options.dry else workspace.held(), Connections(workspace, options) as connections:
        yield connections


def _whole_number(flag: str, text: str) -> int:
    """Of a flag; invoke's own reading of one ends in a traceback."""
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise KitError(f"{flag} {text}: not a whole number; give one")
    return int(text)


def _task(*reports: str, **settings: Any) -> Callable[[Callable[..., Outcome | None]], Any]:
    """A task that ends with a sentence and a status, never a traceback; `reports` are those of --json and --junit that
    it takes, for what its body returns. The switches of HELP need no help of their own."""

    def decorate(body: Callable[..., Outcome | None]) -> Any:
        name, signature = body.__name__.strip("_").replace("_", "-"), inspect.signature(body)

        @functools.wraps(body)
        def wrapper(*args: Any, json: bool = False, junit: str = "", **kwargs: Any) -> None:
            from deploy.command import carry_out

            quiet, act = "--json" in sys.argv[1:], functools.partial(body, *args, **kwargs)
            carry_out(name, act, json=json, quiet=quiet, junit_file=junit, summarised="junit" in reports)

        defaults = {"json": False, "junit": ""}
        added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name]) for name in reports]
        parameters = [*signature.parameters.values(), *added]
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        common = {each.name: HELP[each.name] for each in parameters if each.name in HELP}
        settings["help"] = {**common, **settings.get("help", {})}
        return task(name=name, auto_shortflags=False, **settings)(wrapper)  # its -h would be `--host`, not the help

    return decorate


@_task(
    iterable=["env_script"],
    help={
        "host": "the NPU host: an address, a name of ~/.ssh/config, or `local` for this machine; else it is asked for",
        "user": "the login there",
        "port": "the port of its sshd",
        "key": "the SSH key's file, else the agent's or those of ~/.ssh",
        "jump": "USER@HOST: reach it through this host",
        "name": "what the inventory is to call it",
        "runtime": "native: run CANN's tools that are on the host; docker: those in an image",
        "devices": "logical devices as 0 or 0,1, or all",
        "env-script": "CANN's set_env.sh there, where it is not below /usr/local/Ascend; may be given again",
        "python": "the Python there that has ais_bench",
        "data": "val_data.npy, or another form of data (docs/data.md)",
        "labels": "val_label.pkl, or another form",
        "checkpoint": "the checkpoint",
        "force": "overwrite an inventory that was edited",
    },
)
def init(  # type: ignore[no-untyped-def]
    _c,
    host="",
    user="",
    port="",
    key="",
    jump="",
    name="",
    runtime="",
    devices="",
    env_script=None,
    python="",
    data="",
    labels="",
    checkpoint="",
    force=False,
):
    """Look at an NPU host and write a commented inventory that fits it (to INVENTORY, by default inventory.yaml)."""
    from deploy import init as inventories

    number = _whole_number("--port", port) if port else None
    given = (host, user, number, key, jump, name, runtime, devices, tuple(env_script or ()), python)
    inventories.run(inventories.Answers(*given, data, labels, checkpoint), force, inventories.asker())


@_task("json", "junit")
def run(_c, dry=False, fresh=False, force=False):  # type: ignore[no-untyped-def]
    """Do the whole job: check that nothing is missing on any host, then gpu-stage, npu-convert, npu-bench and score."""
    from deploy import run as whole_job

    with _connections(dry=dry, fresh=fresh, force=force) as connections:
        return whole_job.run(connections)


@_task()
def gpu_stage(_c, dry=False, fresh=False):  # type: ignore[no-untyped-def]
    """Check and index the dataset, export the ONNX, compute the fp32 reference logits."""
    from deploy.stages import gpu

    with _connections(dry=dry, fresh=fresh) as connections:
        gpu.run(connections)


@_task()
def gpu_bench(_c, dry=False, fresh=False, force=False):  # type: ignore[no-untyped-def]
    """Measure the fp32 model on the GPU host's device at the same batch sizes: what the NPU is compared with."""
    from deploy.stages import gpu_bench

    with _connections(dry=dry, fresh=fresh, force=force) as connections:
        gpu_bench.run(connections)


@_task()
def npu_convert(_c, dry=False, fresh=False):  # type: ignore[no-untyped-def]
    """Convert the ONNX to one OM per batch size with ATC."""
    from deploy.stages import convert

    with _connections(dry=dry, fresh=fresh) as connections:
        convert.run(connections)


@_task()
def npu_bench(_c, dry=False, fresh=False, force=False):  # type: ignore[no-untyped-def]
    """Run every sample through each OM, then measure each OM's throughput on an idle device."""
    from deploy.stages import bench

    with _connections(dry=dry, fresh=fresh, force=force) as connections:
        bench.run(connections)


@_task()
def npu_tune(_c, dry=False, fresh=False, force=False):  # type: ignore[no-untyped-def]
    """Measure every variant, precision mode and batch size that `tune` lists; which one wins, and by how much."""
    from deploy.stages import tune

    with _connections(dry=dry, fresh=fresh, force=force) as connections:
        tune.run(connections)


@_task(
    help={
        "batch_size": "which OM; by default the one with the best throughput",
        "against": "compare node by node with a kept run's profile, or with another batch size's (bs64)",
        "table": "read an op_summary that was made elsewhere, or the profiler's folder with it, and run nothing",
    }
)
def npu_profile(_c, batch_size="", against="", table="", dry=False, fresh=False, force=False):  # type: ignore[no-untyped-def]
    """Run an OM once under the profiler: which blocks and nodes its time goes to, and what bounds them."""
    from deploy.stages import profile

    size = _whole_number("--batch-size", batch_size) if batch_size else None
    if table:
        profile.read(_workspace(), Path(table), size, against)
        return
    with _connections(dry=dry, fresh=fresh, force=force) as connections:
        profile.run(connections, size, against)


@_task("json", "junit")
def score_(_c, dry=False, fresh=False):  # type: ignore[no-untyped-def]
    """Score the results against the labels and the fp32 reference: table, summary.json, verdict."""
    from deploy.stages import score

    with _connections(dry=dry, fresh=fresh) as connections:
        return score.run(connections.workspace, connections.options, connections.read_row)


@_task()
def report_(_c, dry=False, fresh=False):  # type: ignore[no-untyped-def]
    """Make the page of the verdict again: report/report.html."""
    from deploy.stages import report

    with _connections(dry=dry, fresh=fresh) as connections:
        report.run(connections.workspace, connections.options, connections.read_row)


@_task(help={"samples": "how many samples each set of nodes is tried on (default 64); the set found is tried on all"})
def npu_precision(_c, samples="64", dry=False, fresh=False, force=False):  # type: ignore[no-untyped-def]
    """Find the nodes that must stay in float32 for the gate to hold, ATC's file for them, and what they cost."""
    from deploy.stages import precision

    count = _whole_number("--samples", samples)
    with _connections(dry=dry, fresh=fresh, force=force) as connections:
        precision.run(connections, count)


@_task(
    "json",
    "junit",
    help={
        "run": "a kept run (id, its beginning, or latest) or a folder; the workspace itself by default",
        "samples": "how many samples to compute the reference of again (default 4)",
    },
)
def audit(_c, run="", samples="4"):  # type: ignore[no-untyped-def]
    """Recompute what a verdict rests on, from dataset to page, its seal and signature; name what does not hold."""
    from deploy import audit as audits

    return audits.print_audit(_workspace(), run, _whole_number("--samples", samples))


@_task(
    "json",
    "junit",
    help={
        "baseline": "the kept run to compare with: an id, its beginning, latest (the newest but this one), or a folder",
        "run": "the run that is judged; the workspace itself by default",
    },
)
def gate(_c, baseline="", run=""):  # type: ignore[no-untyped-def]
    """Fail where accuracy or throughput is worse than the baseline's, beyond noise."""
    from deploy.evidence import gate as gates

    if not baseline:
        raise KitError("--baseline is missing: name the kept run to compare with, such as latest (see `fab runs`)")
    return gates.run(_workspace().folder, baseline, run)


@_task("json", help={"run-a": "a kept run", "run-b": "the one compared with it"})
def compare_(_c, run_a, run_b):  # type: ignore[no-untyped-def]
    """Show what two kept runs (of `fab runs`) differ in, and what of the second is worse or better beyond noise."""
    from deploy.evidence import compare as comparison
    from deploy.evidence import runs

    workspace = _workspace().folder
    return comparison.print_comparison(runs.find(workspace, run_a), runs.find(workspace, run_b))


@_task("json")
def runs_(_c):  # type: ignore[no-untyped-def]
    """List the kept runs, oldest first."""
    from deploy.evidence import runs

    return runs.print_runs(_workspace().folder)


@_task(
    help={
        "keep": "how many of the newest to keep (default 10)",
        "dry": "print what would be removed",
    }
)
def prune(_c, keep="10", dry=False):  # type: ignore[no-untyped-def]
    """Remove all kept runs but the newest."""
    from deploy.evidence import runs

    runs.prune(_workspace().folder, _whole_number("--keep", keep), dry)


@_task("json")
def status(_c):  # type: ignore[no-untyped-def]
    """Show the whole line of steps: what is done, what is stale and why, what to run next."""
    from deploy.evidence.status import print_status

    return print_status(_workspace())


@_task("json", "junit")
def doctor(_c):  # type: ignore[no-untyped-def]
    """Check every host of the inventory, its tools and files; name the command that fixes each fault."""
    from deploy import doctor as doctor_of_hosts

    with _connections(dry=True) as connections:
        return doctor_of_hosts.run(connections)


@_task()
def trust(_c):  # type: ignore[no-untyped-def]
    """Show the SSH host keys by their fingerprints and pin them after a yes."""
    from deploy.hosts import trust as trust_hosts

    trust_hosts.run(_inventory())


@_task()
def clean(_c):  # type: ignore[no-untyped-def]
    """Remove the kit's helper, clips and models from every host; artefacts here stay."""
    from deploy import clean as clean_hosts

    with _connections() as connections:
        clean_hosts.run(connections)


@_task()
def gpu_image(_c):  # type: ignore[no-untyped-def]
    """Build stgcn-gpu; BASE_IMAGE, RUN_IMAGE, MMSKELETON_SRC and others in the environment (docs/images.md)."""
    from deploy.containers import images

    images.gpu_image(images.Settings(os.environ))


@_task()
def npu_image(_c):  # type: ignore[no-untyped-def]
    """Build stgcn-npu (TARGET=cann) or stgcn-npu:simulator (TARGET=simulator)."""
    from deploy.containers import images

    images.npu_image(images.Settings(os.environ))


@_task()
def cann_image(_c):  # type: ignore[no-untyped-def]
    """Build stgcn-cann, a base with the CANN of the .run files in CANN_RUN."""
    from deploy.containers import images

    images.cann_image(images.Settings(os.environ))


@_task()
def push_image(_c):  # type: ignore[no-untyped-def]
    """Build the NPU image here for each host's machine, and bring it to the hosts (settings: docs/images.md)."""
    from deploy import push
    from deploy.containers.images import Settings

    with _connections() as connections:
        push.run(connections, Settings(os.environ))


@_task(positional=["first", "second"], help={"first": "an image's name", "second": "another's"})
def compare_images(_c, first, second):  # type: ignore[no-untyped-def]
    """Compare the files of two images; any difference without a known reason is an error."""
    from deploy.containers import rootfs

    rootfs.compare(first, second)


@_task(iterable=["image"], help={"image": "an image's name; may be given again"})
def sbom(_c, image=None):  # type: ignore[no-untyped-def]
    """Write a CycloneDX list of each image's packages to work/sbom/ (default: stgcn-gpu, stgcn-npu:simulator)."""
    from deploy import inventory
    from deploy.containers import images, rootfs

    for name in image or (images.GPU_IMAGE, images.SIMULATOR_IMAGE):
        rootfs.write_sbom(name, inventory.ROOT / "work/sbom" / f"{name.replace(':', '-').replace('/', '_')}.cdx.json")
