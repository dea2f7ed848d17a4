"""Faults to be made in a copy of the kit: ways in which a figure, a row or a promise of it could be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """`old` stands in `file` exactly once; `new` in its place is wrong. `first` are the tests most likely to tell."""

    what: str
    file: str
    old: str
    new: str
    first: str

    def make(self, kit: Path) -> None:
        """Raises ValueError where the text is no longer there, or stands there more than once."""
        path = kit / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.what}: {self.file} has its text {text.count(self.old)} times, not once")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


FAULTS = (
    # stgcn/
    Fault(
        "a tie goes to the higher class",
        "stgcn/accuracy.py",
        "(classes < label[row])",
        "(classes > label[row])",
        "tests/stgcn/test_accuracy.py",
    ),
    Fault(
        "a label on the k-th place is no hit",
        "stgcn/accuracy.py",
        "rank < k",
        "rank < k - 1",
        "tests/stgcn/test_accuracy.py",
    ),
    Fault(
        "the graph's partitions of nearer and farther joints are swapped",
        "stgcn/graph.py",
        "(itself, ~itself & ~nearer, ~itself & nearer)",
        "(itself, ~itself & nearer, ~itself & ~nearer)",
        "tests/stgcn/test_graph.py",
    ),
    Fault(
        "an edge is missing",
        "stgcn/skeletons.py",
        "(10, 9), (9, 8), (11, 5),",
        "(10, 9), (11, 5),",
        "tests/stgcn/test_graph.py",
    ),
    Fault(
        "the residual is left out",
        "stgcn/model.py",
        "y = y + self.residual(x)",
        "y = y + 0 * self.residual(x)",
        "tests/stgcn/test_model.py",
    ),
    Fault(
        "persons are summed, not averaged",
        "stgcn/model.py",
        ".view(-1, self.persons, BLOCKS[-1][1]).mean(dim=1)",
        ".view(-1, self.persons, BLOCKS[-1][1]).sum(dim=1)",
        "tests/stgcn/test_model.py",
    ),
    Fault(
        "the fused form's residual does not stride",
        "stgcn/fused.py",
        "weight, bias = self.residual\n            y = y + functional.conv2d(x, weight, bias, stride=self.stride)",
        "weight, bias = self.residual\n            y = y + functional.conv2d(x, weight, stride=self.stride)",
        "tests/stgcn/test_model.py",
    ),
    Fault(
        "a clip's logits are those of its first person",
        "stgcn/fold.py",
        "logits[rows].mean(axis=1, dtype=np.float32)",
        "logits[rows][:, 0]",
        "tests/stgcn/test_export.py tests/pipeline/test_npu_persons.py",
    ),
    Fault(
        "a shard's sha256 goes on over the next shard",
        "stgcn/index.py",
        "self._first, self._digest = self.count, hashlib.sha256()",
        "self._first, self._digest = self.count, getattr(self, '_digest', hashlib.sha256())",
        "tests/stgcn/test_index.py",
    ),
    Fault(
        "the last clip of an index is not checked for NaN",
        "stgcn/dataset.py",
        "bad = np.flatnonzero(~np.isfinite(clips).reshape(len(clips), -1).all(axis=1))",
        "bad = np.flatnonzero(~np.isfinite(clips).reshape(len(clips), -1).all(axis=1))[:-1]",
        "tests/stgcn/test_dataset.py tests/stgcn/test_index.py tests/stgcn/test_reference.py",
    ),
    Fault(
        "a label of one beyond the classes passes",
        "stgcn/dataset.py",
        "if not 0 <= label < classes:",
        "if not 0 <= label <= classes:",
        "tests/stgcn/test_dataset.py",
    ),
    Fault(
        "data and labels of two lengths pass",
        "stgcn/dataset.py",
        "if clips != count:",
        "if clips < count:",
        "tests/stgcn/test_dataset.py",
    ),
    Fault(
        "an array in Fortran order passes",
        "stgcn/dataset.py",
        'if header["fortran_order"] is not False:',
        'if header["fortran_order"] is None:',
        "tests/stgcn/test_dataset.py",
    ),
    Fault(
        "the export's tolerance is a thousand times too wide",
        "stgcn/onnx_model.py",
        "TOLERANCE = 1e-5",
        "TOLERANCE = 1e-2",
        "tests/stgcn/test_export.py",
    ),
    Fault(
        "the sample is made with a fixed seed",
        "stgcn/sample.py",
        'parser.add_argument("--seed", type=int, default=0',
        'parser.add_argument("--seed", type=lambda _: 0, default=0',
        "tests/stgcn/test_sample.py",
    ),
    # The simulator
    Fault(
        "a device does not round to half precision",
        "docker/npu/simulator/om.py",
        "to_array(self._weights[name]).astype(np.float16).astype(np.float32)",
        "to_array(self._weights[name])",
        "tests/simulator/test_atc.py",
    ),
    Fault(
        "the block after the one that is asked for is spoilt",
        "docker/npu/simulator/om.py",
        '_temporal(graph, number, "BAD_BLOCK")',
        '_temporal(graph, number + 1, "BAD_BLOCK")',
        "tests/simulator/test_atc.py",
    ),
    Fault(
        "an OM may be read by all",
        "docker/npu/simulator/om.py",
        "os.open(name, flags, 0o600)",
        "os.open(name, flags, 0o644)",
        "tests/simulator/test_atc.py",
    ),
    Fault(
        "files are taken in the order of their names as text",
        "docker/npu/simulator/ais_bench/batches.py",
        "sorted(sorted(found), key=_natural)",
        "sorted(found)",
        "tests/simulator/test_ais_bench.py",
    ),
    Fault(
        "the last partial batch is dropped in every era",
        "docker/npu/simulator/ais_bench/batches.py",
        'runs = whole if era < "2022-07" else whole + bool(rest)',
        "runs = whole",
        "tests/simulator/test_ais_bench.py",
    ),
    Fault(
        "throughput is of batches, not of samples",
        "docker/npu/simulator/ais_bench/results.py",
        "1000 * batch_size / self.mean",
        "1000 / self.mean",
        "tests/simulator/test_ais_bench.py",
    ),
    Fault(
        "a busy device shows an idle AICore",
        "docker/npu/simulator/npu_smi.py",
        "aicore_percent=87 if processes else 0",
        "aicore_percent=0",
        "tests/simulator/test_npu_smi.py",
    ),
    # deploy/npu
    Fault(
        "the sample of a result is guessed where two claim it",
        "deploy/npu/results.py",
        "if len(by_stem[stem]) > 1 or claims[by_stem[stem][0]] > 1",
        "if len(by_stem[stem]) > 1",
        "tests/unit/npu/test_results.py",
    ),
    Fault(
        "a result of another size passes",
        "deploy/npu/results.py",
        "if listing[name] != output_bytes",
        "if listing[name] < output_bytes // 2",
        "tests/unit/npu/test_results.py",
    ),
    Fault(
        "results that belong to no sample pass",
        "deploy/npu/results.py",
        "strangers += sorted(name for name in listing if name not in claims and name not in _SUMMARY_NAMES)",
        "strangers += []",
        "tests/unit/npu/test_results.py",
    ),
    Fault(
        "latencies are read in another order",
        "deploy/npu/ais_bench.py",
        '_latency(by_name["NPU_compute_time"]),',
        '_latency(by_name["NPU_compute_time"][::-1]),',
        "tests/unit/npu/test_ais_bench.py",
    ),
    Fault(
        "a throughput that contradicts its batch size passes",
        "deploy/npu/ais_bench.py",
        "if batch and _number(batch) != batch_size:",
        "if batch and _number(batch) < 0:",
        "tests/unit/npu/test_ais_bench.py",
    ),
    Fault(
        "the warm-up's own default is another",
        "deploy/npu/ais_bench.py",
        "_DEFAULT_WARMUP = 1 ",
        "_DEFAULT_WARMUP = 5 ",
        "tests/unit/npu/test_ais_bench.py",
    ),
    Fault(
        "the ONNX is announced as another framework's",
        "deploy/npu/atc.py",
        '_ONNX = "5"',
        '_ONNX = "3"',
        "tests/unit/npu/test_atc.py",
    ),
    Fault(
        "a driver line that is too old is not told",
        "deploy/npu/versions.py",
        "driver_line >= _LOWEST_DRIVER[lowest]",
        "driver_line >= (0, 0)",
        "tests/unit/npu/test_versions.py",
    ),
    Fault(
        "a process that a signal ended is an answer",
        "deploy/npu/transcript.py",
        "128 < status < 128 + 65",
        "128 > status > 128 + 65",
        "tests/unit/npu",
    ),
    # deploy/: evidence, verdict, figures
    Fault(
        "a row of logits that was changed passes",
        "deploy/evidence/logits.py",
        "if found != digests[i]:",
        "if found not in place:",
        "tests/unit/test_logits.py",
    ),
    Fault(
        "accuracy is judged by the best of the metrics",
        "deploy/report/summary.py",
        "max(each.values())",
        "min(each.values())",
        "tests/unit/test_report_summary.py",
    ),
    Fault(
        "an error as large as the gate fails",
        "deploy/report/summary.py",
        "self.relative_error <= self.gate",
        "self.relative_error < self.gate",
        "tests/unit/test_report_summary.py tests/unit/test_score.py",
    ),
    Fault(
        "the worst cosine is the best",
        "deploy/report/summary.py",
        '"cosine_min": float(cosine.min())',
        '"cosine_min": float(cosine.max())',
        "tests/unit/test_report_summary.py",
    ),
    Fault(
        "label and answer of a confusion are swapped",
        "deploy/report/summary.py",
        "zip(labels[wrong].tolist(), predicted[wrong].tolist(), strict=True)",
        "zip(predicted[wrong].tolist(), labels[wrong].tolist(), strict=True)",
        "tests/unit/test_report_summary.py",
    ),
    Fault(
        "the spread is not relative",
        "deploy/npu/measure.py",
        "(max(rates) - min(rates)) / statistics.median(rates)",
        "max(rates) - min(rates)",
        "tests/unit/test_throughput.py",
    ),
    Fault(
        "the mean latency is the median's",
        "deploy/npu/measure.py",
        '"mean": statistics.mean(latency.mean for latency in latencies)',
        '"mean": statistics.mean(latency.p99 for latency in latencies)',
        "tests/unit/test_throughput.py",
    ),
    Fault(
        "a figure of a device that became busy is not marked",
        "deploy/npu/measure.py",
        "before.busy is None and after.busy is None",
        "before.busy is None or after.busy is None",
        "tests/pipeline/test_npu_throughput.py",
    ),
    Fault(
        "NaN of the reference passes",
        "deploy/stages/score.py",
        'raise KitError(f"{name}: {sample} has NaN or infinite logits; check the checkpoint")',
        "continue",
        "tests/unit/test_score.py",
    ),
    Fault(
        "batch sizes of two devices make one verdict",
        "deploy/stages/score.py",
        "if kind != first:",
        "if False:",
        "tests/unit/test_score.py",
    ),
    # deploy/: record, hosts, inventory
    Fault(
        "an output that was changed is taken for what was made",
        "deploy/pipeline/manifest.py",
        'and self.digest(self.workspace / path) == output["sha256"]',
        'and output["sha256"]',
        "tests/unit/test_manifest.py",
    ),
    Fault(
        "a step's key does not depend on all of its inputs",
        "deploy/pipeline/manifest.py",
        "return hashlib.sha256(canonical(dict(value))).hexdigest()",
        "return hashlib.sha256(canonical(sorted(value))).hexdigest()",
        "tests/unit/test_manifest.py",
    ),
    Fault(
        "accuracy is of another OM than was converted",
        "deploy/pipeline/graph.py",
        "if found != expected:",
        "if found is None:",
        "tests/unit/test_audit.py tests/unit/test_score.py",
    ),
    Fault(
        "a run keeps links where a later run writes",
        "deploy/evidence/runs.py",
        'if source.suffix != ".log" and source.stat().st_size > COPIED_BYTES:',
        "if True:",
        "tests/unit/test_runs.py",
    ),
    Fault(
        "the oldest runs are kept, the newest pruned",
        "deploy/evidence/runs.py",
        "kept[:-keep_newest]",
        "kept[keep_newest:]",
        "tests/unit/test_runs.py",
    ),
    Fault(
        "a device may stand twice",
        "deploy/inventory.py",
        "(not devices or len(set(devices)) != len(devices))",
        "not devices",
        "tests/unit/test_inventory.py",
    ),
    Fault(
        "the published Top-1 and Top-5 are swapped",
        "stgcn/cards.py",
        '{"top1": 0.3160, "top5": 0.5368}',
        '{"top1": 0.5368, "top5": 0.3160}',
        "tests/unit/test_inventory.py",
    ),
    Fault(
        "a file that arrived damaged is kept",
        "deploy/hosts/remote/files.py",
        'if sha.hexdigest() != request["sha256"]:',
        "if not sha.hexdigest():",
        "tests/unit/test_remote.py",
    ),
    Fault(
        "a shard that arrived damaged is kept",
        "deploy/hosts/remote/shards.py",
        'if request["landed"] and _digest(path + ".part", names) != request["sha256"]:',
        'if request["landed"] and not _digest(path + ".part", names):',
        "tests/unit/test_remote.py",
    ),
    Fault(
        "of a single person the other's values are sent",
        "deploy/hosts/remote/shards.py",
        "[person::step]",
        "[step - 1 - person :: step]",
        "tests/unit/test_remote.py tests/pipeline/test_npu_persons.py",
    ),
)
