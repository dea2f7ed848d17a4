"""Every sample through one OM: shared out over the devices, matched to its result by name, packed sample by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.connections import Connections
from deploy.console import say
from deploy.evidence.logits import DIGESTS, fold, output_names, write_logits
from deploy.execution.rows import RowsThroughOm
from deploy.npu.infer import Outputs
from deploy.npu.worker import CachedFile, Rows, rows_of, sources_here
from deploy.pipeline import graph
from deploy.pipeline.build import Build
from deploy.pipeline.index import Index
from deploy.pipeline.manifest import Step
from stgcn.files import sha256_file


def run(connections: Connections, build: Build, index: Index) -> None:
    """Make <folder>/logits.npy and results.tsv: every sample of `index` through the build's OM, on all devices.

    Raises:
        KitError: no device is left that can do it, or the OM is not made yet; what was done is kept for the next run.
    """
    workspace, inventory, options = connections.workspace, connections.inventory, connections.options
    samples = workspace.samples(build.persons)
    workspace.om(build)
    step = f"accuracy/{build.name}"
    inputs = {
        **graph.inputs(workspace.manifest.steps, step, inventory, build),
        **connections.npus[0].facts.tools,
    }
    if index.samples != samples.samples:
        inputs["samples"] = index.samples
        samples = samples.head(index.samples)
    rows = rows_of(samples, workspace.index_sha256(samples))
    through = _through(connections, build, samples, rows, inputs)
    outputs = [build.folder / name for name in (*output_names(build.card), DIGESTS)]
    where = ", ".join(map(str, through.devices))
    connections.run_step(Step(step, where, inputs, outputs, lambda: _infer(connections, through), *through.argvs()))
    if not options.dry:
        through.forget()


def outputs_over(connections: Connections, build: Build, index: Index) -> Outputs:
    """What a build's OM makes of an index's samples, each output (samples, ...); their rows go from host to host.

    NaN and infinity are given back as they are. What was done is kept for the next run until all is.

    Raises:
        KitError: no device is left that can do it, or the OM is not made yet.
    """
    om = sha256_file(connections.workspace.om(build))
    rows = rows_of(index, connections.workspace.index_sha256(index))
    inputs = {"om": om, "rows": [each.name for each in rows], "samples": index.samples, "finite": False}
    through = _through(connections, build, index, rows, inputs, finite=False)
    outputs = _folded(connections, through, through.run(connections.scheduler, connections.sources(index)).outputs)
    through.forget()
    return outputs


def outputs_of(connections: Connections, build: Build, arrays: Sequence[np.ndarray]) -> Outputs:
    """What a build's OM makes of `arrays`, one of (rows, ...) per input of its card; each output (rows, ...).

    NaN and infinity are given back as they are; nothing is kept.

    Raises:
        KitError: no device is left that can do it, or the OM is not made yet.
    """
    om = sha256_file(connections.workspace.om(build))
    names = [tensor.name for tensor in build.card.inputs]
    sources = sources_here(dict(zip(names, arrays, strict=True)), build.folder)
    rows, count = [source.rows for source in sources], len(arrays[0])
    index = Index("", count, list(map(str, range(count))), [source.array for source in sources])
    inputs = {"om": om, "rows": [each.name for each in rows]}
    through = _through(connections, build, index, rows, inputs, fresh=True, finite=False)
    try:
        return through.run(connections.scheduler, sources).outputs
    finally:
        through.forget()
        for source in sources:
            Path(source.path).unlink()


def _through(
    connections: Connections,
    build: Build,
    index: Index,
    rows: Sequence[Rows],
    inputs: Mapping[str, Any],
    fresh: bool = False,
    finite: bool = True,
) -> RowsThroughOm:
    om, timeout_s = CachedFile(build.om.name, inputs["om"]), connections.inventory.timeout_s
    fresh = fresh or connections.options.fresh
    return RowsThroughOm(build, om, index, rows, inputs, connections.devices, timeout_s, fresh, finite)


def _infer(connections: Connections, through: RowsThroughOm) -> dict[str, Any]:
    npu, build, index = connections.npus[0], through.build, through.index
    # Asked first: a host that is lost meanwhile cannot tell.
    eras = {str(npu): npu.era for npu in connections.npus}
    facts = {**npu.facts.record, **npu.runtime.facts()}
    done = through.run(connections.scheduler, connections.sources(index))
    outputs = _folded(connections, through, done.outputs)
    write_logits(index.names, outputs, build.folder, build.card)
    rate = f", {done.together['samples_per_s']:.2f} samples/s together{npu.facts.mark}" if done.together else ""
    where = f"{len(through.devices)} devices" if len(through.devices) > 1 else str(through.devices[0])
    alone = f", as {index.row_count} single persons" if build.persons == "nonempty" else ""
    say(f"    {build.name}: {index.samples} samples{alone}, each once, over {where}{rate}", "dim")
    return {**facts, "eras": eras, "units": dict(done.ran), "aggregate": done.together, "end_to_end": done.end_to_end}


def _folded(connections: Connections, through: RowsThroughOm, outputs: Outputs) -> Outputs:
    """The samples' outputs from those of their rows."""
    index, workspace = through.index, connections.workspace
    if index.rows is None:
        return outputs
    return fold(workspace.model, workspace.artefact(f"gpu/{index.file}"), index, outputs, through.kept)
