"""A forger who may write a kept run, and makes all that the kit could make anew: records, verdict, page, seal, id."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from deploy.evidence import seal
from deploy.evidence.logits import DIGESTS, LOGITS, write_logits
from deploy.evidence.runs import Run
from deploy.pipeline import graph, reproduce
from deploy.pipeline.manifest import Manifest, describe, digest_of, write_json
from deploy.pipeline.model import Model
from deploy.report import page
from deploy.report.summary import summary
from deploy.report.table import to_csv
from deploy.stages import report, score
from stgcn.files import sha256_file
from tests.unit import made_up

Change = Callable[[Any], Any]


class Forger:
    """At work on a copy of a kept run, `folder`."""

    def __init__(self, folder: Path, model: Model) -> None:
        self.folder, self.model = folder, model
        self.steps: dict[str, Any] = made_up.read(folder / "manifest.json")["steps"]
        self.page_edit: Change = lambda text: text
        self.summary_edit: Change = lambda verdict: verdict
        self.csv_edit: Change = lambda text: text

    def entry(self, step: str) -> Any:
        return self.steps[step]

    def each(self, *kinds: str) -> list[Any]:
        """The entries of these kinds of steps, of every batch size."""
        return [entry for name, entry in self.steps.items() if name.partition("/")[0] in kinds]

    def path(self, name: str) -> Path:
        return self.folder / name

    def edit(self, name: str, change: Callable[[Any], Any]) -> None:
        """Change a JSON file in place."""
        content = made_up.read(self.path(name))
        change(content)
        self.replace(name, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    def replace(self, name: str, content: bytes) -> None:
        """Write a file anew: it may be a link to the original's."""
        self.path(name).unlink(missing_ok=True)
        self.path(name).write_bytes(content)

    def save(self, name: str, array: np.ndarray) -> None:
        self.path(name).unlink()
        np.save(self.path(name), array)

    def set_logits(self, size: int, logits: np.ndarray) -> None:
        """A batch size's results, with a digest for each."""
        folder = self.path(f"npu/bs{size}")
        for name in (LOGITS, DIGESTS):
            (folder / name).unlink()
        names = made_up.read(self.path("gpu/dataset.json"))["names"]
        write_logits(names, [logits], folder, made_up.CARD)

    def edit_logs(self, size: int, change: Callable[[str], str]) -> None:
        """What ais_bench printed in each repeat, and the digests that the figure has of it."""
        for log in sorted(self.path(f"npu/bs{size}").glob("benchmark-*.log")):
            self.replace(log.relative_to(self.folder).as_posix(), change(log.read_text()).encode())
        self.redigest_logs(size)

    def edit_accuracy_log(self, size: int, old: str, new: str) -> None:
        """Replace what matches `old` in what ais_bench printed of the accuracy run."""
        name = f"npu/bs{size}/ais_bench-0.log"
        self.replace(name, re.sub(old, new, self.path(name).read_text()).encode())

    def redigest_logs(self, size: int) -> None:
        folder = self.path(f"npu/bs{size}")
        digests = {log.name: sha256_file(log) for log in sorted(folder.glob("benchmark-*.log"))}
        self.edit(f"npu/bs{size}/benchmark.json", lambda figure: figure.update(logs=digests))

    def set_om(self, size: int, content: bytes) -> None:
        """Another OM, which the record, the commands and the logs name by its sha256."""
        name = f"npu/bs{size}/st_gcn_bs{size}.om"
        before, after = sha256_file(self.path(name)), sha256(content).hexdigest()
        self.replace(name, content)
        self.edit_logs(size, lambda text: text.replace(before[:16], after[:16]))
        self.edit_accuracy_log(size, before[:16], after[:16])
        for kind in ("accuracy", "throughput"):
            entry = self.entry(f"{kind}/bs{size}")
            entry["commands"] = json.loads(json.dumps(entry["commands"]).replace(before[:16], after[:16]))

    def finish(self) -> Path:
        """Make everything consistent; where the run then lies."""
        self.relink()
        self.reach_verdict()
        return self.seal()

    def relink(self) -> None:
        """Every entry's outputs as they are now, its inputs as the steps before made them, its key of these."""
        for step, entry in self.steps.items():
            if step not in graph.VERDICT:
                for path, made in entry["outputs"].items():
                    if self.path(path).is_file():
                        made |= describe(self.path(path))
        for step in graph.steps([int(s[len("convert/bs") :]) for s in self.steps if s.startswith("convert/bs")]):
            if step in self.steps:
                self._rekey(step)

    def _rekey(self, step: str) -> None:
        inputs = self.entry(step)["inputs"]
        for read in graph.reads_of(step, inputs.get("persons", "both")):
            inputs[read.name] = graph.made(self.steps, read)
        self.entry(step)["key"] = digest_of(inputs)

    def reach_verdict(self) -> None:
        """The verdict and the page, as the kit makes them of what is there now."""
        entry = self.entry("score")
        rests_on = [name for name in entry["inputs"]["entries"] if name in self.steps]
        entry["inputs"]["entries"] = {name: digest_of(self.steps[name]) for name in rests_on}
        self._rekey("score")
        manifest = self._write()
        drawings = page.embedded_drawings(self.path("report/report.html").read_text())
        verdict = self.summary_edit(summary(score.evidence(manifest, self.model, entry["inputs"])))
        self.path("report/summary.json").unlink()
        write_json(self.path("report/summary.json"), verdict)
        self.replace("report/summary.csv", self.csv_edit(to_csv(verdict)).encode())
        entry["facts"] = {"simulated": verdict["device"]["simulated"], "passed": verdict["verdict"]["passed"]}
        self._redescribe("score")
        self.entry("report")["inputs"]["verdict"] = digest_of(entry)
        self._rekey("report")
        previous = report.previous_of(self.entry("report")["inputs"])
        text = report.render(self._write(), verdict, drawings, previous)
        self.replace("report/report.html", self.page_edit(text).encode())
        self._redescribe("report")
        reproduce.write(self._write())

    def _redescribe(self, step: str) -> None:
        for path, made in self.entry(step)["outputs"].items():
            made |= describe(self.path(path))

    def _write(self) -> Manifest:
        write_json(self.path("manifest.json"), {"format": 1, "steps": dict(sorted(self.steps.items()))})
        return Manifest(self.folder)

    def seal(self) -> Path:
        """A seal over what is there, and the folder named by it."""
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        digests = {name: sha256_file(self.path(name)) for name in names if not name.startswith(seal.SEAL)}
        self.replace(seal.SEAL, seal.content(digests))
        return self.folder.rename(self.folder.with_name(Run(self.folder).id))


def update(place: Any, changes: Mapping[str, Any]) -> None:
    """Change values at dotted paths of a JSON text."""
    for path, value in changes.items():
        *parents, last = path.split(".")
        inner = place
        for parent in parents:
            inner = inner[int(parent)] if isinstance(inner, list) else inner[parent]
        inner[int(last) if isinstance(inner, list) else last] = value
