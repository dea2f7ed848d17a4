"""Clips to the NPU host and results back, against `scp -r`: two hosts in network namespaces, 1 Gbit/s and 1 ms between.

Both hosts share this machine's cores, so both ways get fewer of them than two machines would give.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path, PurePosixPath

from benchmarks import data
from benchmarks.data import Dataset
from benchmarks.harness import LeftOutError, Scratch, Spread, Way, run
from deploy.hosts.local import LocalHost
from deploy.hosts.over_ssh import SSHHost
from deploy.hosts.remote.folders import KIT, opened
from deploy.hosts.transfer import gather, push_rows
from deploy.inventory import ROOT, Npu
from deploy.pipeline.index import Index, read_index
from stgcn.index import write_index
from tests.system.network import Network, two_hosts

CLIPS = 3000
OPEN_CLIPS = 8000  # on an open link 3000 are there in a second, of which connecting is a fifth
REPEATS = 3
FILES_COPIED = 2000  # results that are copied one by one, which takes a round trip or more for each
LINK_TIMEOUT_S = 30.0


class Pair:
    """A control side and an NPU host, and how either way brings files from one to the other."""

    def __init__(self, network: Network, port: int) -> None:
        self.network, self.port = network, port
        network.known_hosts.write_text(network.npu.host_key(port))

    @property
    def _options(self) -> list[str]:
        known = f"UserKnownHostsFile={self.network.known_hosts}"
        return ["-i", str(self.network.key), "-o", known, "-o", "StrictHostKeyChecking=yes"]

    @property
    def _login(self) -> str:
        return f"root@{self.network.npu.address}"

    def scp(self, source: Path, target: Path) -> float:
        """`scp -r` of a folder to the host; seconds."""
        return self._scp(str(source), self._there(target))

    def scp_back(self, source: Path, target: Path) -> float:
        return self._scp(self._there(source), str(target))

    def _there(self, path: Path) -> str:
        return f"{self._login}:{path}"

    def _scp(self, source: str, target: str) -> float:
        return run("scp", "-q", "-r", "-P", str(self.port), *self._options, source, target)

    def push(self, dataset: Dataset, index: Index, workspace: Path) -> float:
        """The kit's push, from the first connection to the last clip checked; seconds."""
        start = time.perf_counter()
        control, host = LocalHost("control", workspace / "control"), self.host(workspace / "npu")
        try:
            push_rows(control, PurePosixPath(dataset.clips), index.inputs[0], host, clips_of(workspace))
            return time.perf_counter() - start
        finally:
            host.close()
            control.close()

    def collect(self, results: Path, names: list[str], workspace: Path) -> float:
        """The kit's way back: one stream of all results; seconds."""
        start = time.perf_counter()
        host = self.host(workspace)
        try:
            gather(host, PurePosixPath(results), names, data.WHOLE * data.RESULT_BYTES)
            return time.perf_counter() - start
        finally:
            host.close()

    def encrypted(self, path: Path) -> float:
        """A file through OpenSSH's cipher and into nothing; seconds."""
        with path.open("rb") as file:
            start = time.perf_counter()
            command = ["ssh", "-p", str(self.port), *self._options, self._login, "cat >/dev/null"]
            subprocess.run(command, stdin=file, check=True)
        return time.perf_counter() - start

    def host(self, workspace: Path) -> SSHHost:
        section = Npu.model_validate({**self.network.npu_section(workspace), "port": self.port})
        return SSHHost(section, self.network.known_hosts, LINK_TIMEOUT_S)


def clips_of(workspace: Path) -> PurePosixPath:
    """Where `Pair.push` puts the clips of a workspace."""
    return PurePosixPath(workspace / "npu" / KIT / "clips" / "set")


def compare(place: Scratch) -> dict[str, Spread]:
    if os.getuid() != 0:
        raise LeftOutError("two hosts on one machine need root: run `make bench` as root for these lines")
    with place.fresh() as folder, two_hosts(folder) as network:
        sample = data.repeated(data.sample(place)[0], CLIPS, folder / "sample")
        noise = data.incompressible(CLIPS, folder / "incompressible")
        with network.gigabit() as port:
            figures = {}
            for name, dataset in (("sample", sample), ("incompressible", noise)):
                took = against_scp(place, Pair(network, port), dataset, folder / name, REPEATS)
                figures[f"push_vs_scp_{name}"] = Spread.of_ratios(took["scp"], took["push"])
            figures |= _results_back(place, Pair(network, port), folder)
        more = data.incompressible(OPEN_CLIPS, folder / "more")
        return figures | _unshaped(place, Pair(network, 22), more, folder)


def against_scp(place: Scratch, pair: Pair, dataset: Dataset, folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of `scp -r` and of the push for the same clips."""
    files = data.as_files(dataset, folder / "files")
    index = _indexed(dataset, folder / "index")

    def scp() -> float:
        with place.fresh() as there:
            return pair.scp(files, there / "copied")

    def push() -> float:
        with place.fresh() as there:
            return pair.push(dataset, index, there)

    return place.in_turns({"scp": scp, "push": push}, repeats)


def _results_back(place: Scratch, pair: Pair, folder: Path) -> dict[str, Spread]:
    """All results by the kit; `scp -r` of a part of them, and what it would take for all."""
    labels = data.write_labels(folder / "labels.pkl", [0] * data.WHOLE)
    runs, part = folder / "npu" / KIT / "runs", folder / "part"
    with opened(str(runs), make=True):  # gathered is what lies in a folder of the kit's
        all_results = data.results(runs / "results", labels)
    names = [f"{index}_0.bin" for index in range(data.WHOLE)]
    part.mkdir()
    for name in names[:FILES_COPIED]:
        (part / name).hardlink_to(all_results / name)

    def kit() -> float:
        with place.fresh() as there:
            return pair.collect(all_results, names, there)

    def files() -> float:
        with place.fresh() as there:
            return pair.scp_back(part, there / "copied") * data.WHOLE / FILES_COPIED

    took = place.in_turns({"files": files, "kit": kit}, REPEATS)
    return {
        "results_back": Spread.of(took["kit"]),
        "results_back_vs_scp": Spread.of_ratios(took["files"], took["kit"]),
    }


def _indexed(dataset: Dataset, folder: Path) -> Index:
    write_index(dataset.clips, dataset.labels, folder)
    return read_index(folder / "dataset.json")


def _unshaped(place: Scratch, pair: Pair, dataset: Dataset, folder: Path) -> dict[str, Spread]:
    """The push as a share of what the slower of cipher and disk takes, where the link is no limit."""
    index = _indexed(dataset, folder / "unshaped")

    def push() -> float:
        with place.fresh() as there:
            return pair.push(dataset, index, there)

    ways: dict[str, Way] = {
        "push": push,
        "cipher": partial(pair.encrypted, dataset.clips),
        "disk": partial(_written, dataset.clips),
    }
    took = place.in_turns(ways, REPEATS)
    size_mb = dataset.clips.stat().st_size / 1e6
    rates = {f"unshaped_{name}": Spread.of([size_mb / seconds for seconds in took[name]]) for name in ways}
    limit = [max(pair) for pair in zip(took["cipher"], took["disk"], strict=True)]
    return rates | {"push_unshaped": Spread.of_ratios(limit, took["push"])}


def _written(source: Path) -> float:
    """The same bytes written and synced on the disk that the kit is on; seconds."""
    work = ROOT / "work"
    work.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=work) as folder:
        return run("dd", f"if={source}", f"of={folder}/written", "bs=1M", "conv=fsync")
