"""Forged runs, each as consistent as its forger can make it: which are refused as they are, and which only a signature
tells from an honest run. Where a signature is demanded these are refused too, however the forger deals with it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from deploy.audit import print_audit
from deploy.errors import KitError
from deploy.evidence import seal, signature
from deploy.evidence.runs import Run, find
from deploy.workspace import Workspace
from tests.unit import made_up
from tests.unit.forger import Forger, update

Forgery = Callable[[Forger], Any]


def figure(**changes: Any) -> Forgery:
    """Values of bs1's benchmark.json."""
    return lambda f: f.edit("npu/bs1/benchmark.json", lambda data: update(data, changes))


def both_checks(change: Callable[[Any], Any]) -> Forgery:
    def forge(f: Forger) -> None:
        f.edit("npu/bs1/benchmark.json", lambda data: [change(check) for check in data["idle_checks"].values()])

    return forge


def in_use(check: Any) -> None:
    """The reading of a device that another's process holds, called idle."""
    check["chip"]["processes"] = [{"pid": 7, "name": "train.py", "memory_mb": 900}]
    check["processes"] = ["train.py (pid 7, 900 MB)"]


def record(step: str, **changes: Any) -> Forgery:
    return lambda f: update(f.entry(step), changes)


def everywhere(**inputs: str) -> Forgery:
    """Versions in every step's inputs, and in the commands."""

    def forge(f: Forger) -> None:
        for entry in f.each("convert", "accuracy", "throughput"):
            for name, value in inputs.items():
                if before := entry["inputs"].get(name):
                    entry["commands"] = [[w.replace(before, value) for w in argv] for argv in entry["commands"]]
                    entry["inputs"][name] = value

    return forge


def not_simulated(f: Forger) -> None:
    for entry in f.each("convert", "accuracy", "throughput"):
        entry["facts"]["simulated"] = False
    for size in made_up.SIZES:
        f.edit(f"npu/bs{size}/benchmark.json", lambda data: data.update(simulated=False))


def a_real_device(f: Forger) -> None:
    everywhere(cann="8.0.0", driver="24.1.0")(f)
    not_simulated(f)


def permuted_labels(f: Forger) -> None:
    f.save("gpu/labels.npy", np.load(f.path("gpu/labels.npy"))[::-1].copy())


def index(change: Callable[[Any], Any]) -> Forgery:
    return lambda f: f.edit("gpu/dataset.json", change)


def other_names(data: Any) -> None:
    data["names"] = data["names"][::-1]


def renamed_samples(f: Forger) -> None:
    """In the index, and in the digests of the results, which name the samples too."""
    logits = {size: np.load(f.path(f"npu/bs{size}/logits.npy")) for size in made_up.SIZES}
    index(other_names)(f)
    for size, values in logits.items():
        f.set_logits(size, values)


def other_shards(data: Any) -> None:
    data["inputs"][0]["shards"][0]["sha256"] = "0" * 64


def fewer_samples(f: Forger) -> None:
    """The first ten, on which the device is right, in everything that has samples."""
    for size in made_up.SIZES:
        logits = np.load(f.path(f"npu/bs{size}/logits.npy"))[:10]
        index(lambda data: data.update(samples=10, names=data["names"][:10]))(f)
        f.set_logits(size, logits)
        f.edit_accuracy_log(size, "runcount:.*", f"runcount:{-(-10 // size)}")
    index(lambda data: data["inputs"][0]["shards"][0].update(count=10))(f)
    for name in ("labels", "reference"):
        f.save(f"gpu/{name}.npy", np.load(f.path(f"gpu/{name}.npy"))[:10])


def reference_of_the_device(f: Forger) -> None:
    """So that the device agrees with it to the last bit."""
    f.save("gpu/reference.npy", np.load(f.path("npu/bs1/logits.npy")))


def onnx_of(change: Callable[[onnx.ModelProto], Any]) -> Forgery:
    def forge(f: Forger) -> None:
        model = onnx.load(f.path("gpu/st_gcn.onnx"))
        change(model)
        f.replace("gpu/st_gcn.onnx", model.SerializeToString())

    return forge


def other_weights(model: onnx.ModelProto) -> None:
    weights = onnx.numpy_helper.to_array(model.graph.initializer[1])
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(weights * 1.01, "weights"))


def for_one_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def renamed_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "clips"


def om(change: Callable[[bytes, Forger], bytes]) -> Forgery:
    return lambda f: f.set_om(1, change(f.path("npu/bs1/st_gcn_bs1.om").read_bytes(), f))


def with_metadata(content: bytes, **changes: str) -> bytes:
    model = onnx.load_model_from_string(content)
    onnx.helper.set_model_props(model, {prop.key: prop.value for prop in model.metadata_props} | changes)
    return model.SerializeToString()


def another_cann(f: Forger) -> None:
    """In the records and in the OMs."""
    for size in made_up.SIZES:
        content = f.path(f"npu/bs{size}/st_gcn_bs{size}.om").read_bytes()
        f.set_om(size, with_metadata(content, cann="7.0.0-simulated"))
    everywhere(cann="7.0.0-simulated")(f)


def a_slow_repeat_less(f: Forger) -> None:
    f.path("npu/bs1/benchmark-3.log").unlink()
    figures_of_the_logs(f)


def the_best_repeats(f: Forger) -> None:
    f.path("npu/bs1/benchmark-2.log").unlink()
    f.path("npu/bs1/benchmark-3.log").rename(f.path("npu/bs1/benchmark-2.log"))
    figures_of_the_logs(f)


def figures_of_the_logs(f: Forger) -> None:
    from deploy.npu import ais_bench, measure

    f.redigest_logs(1)
    logs = sorted(f.path("npu/bs1").glob("benchmark-*.log"))
    told = measure.figures(1, [ais_bench.parse_stdout(log.read_text(), 1) for log in logs])

    def change(data: Any) -> None:
        data["throughput"] |= told.pop("throughput")
        data |= told

    f.edit("npu/bs1/benchmark.json", change)


def twice_as_fast(f: Forger) -> None:
    """In every log, all numbers alike."""

    def halve(text: str) -> str:
        faster = re.sub(r"(?<== )[\d.]+|(?<=mean\()[\d.]+", lambda found: repr(float(found[0]) / 2), text)
        return re.sub(r"(?<=\): )[\d.]+", lambda found: repr(float(found[0]) * 2), faster)

    f.edit_logs(1, halve)
    figures_of_the_logs(f)


def log(old: str, new: str) -> Forgery:
    return lambda f: f.edit_logs(1, lambda text: re.sub(old, new, text))


def accuracy_log(old: str, new: str) -> Forgery:
    return lambda f: f.edit_accuracy_log(1, old, new)


def a_unit_more(f: Forger) -> None:
    shutil.copy(f.path("npu/bs1/ais_bench-0.log"), f.path("npu/bs1/ais_bench-12.log"))


def an_output_more(f: Forger) -> None:
    f.path("npu/bs1/approval.json").write_text("{}")
    f.entry("accuracy/bs1")["outputs"]["npu/bs1/approval.json"] = {"sha256": "0" * 64, "bytes": 2}


def an_om_of_another_name(f: Forger) -> None:
    """In the record, the commands and every log."""
    old, new = "st_gcn_bs1.om", "approved.om"
    f.path(f"npu/bs1/{old}").rename(f.path(f"npu/bs1/{new}"))
    outputs = f.entry("convert/bs1")["outputs"]
    outputs[f"npu/bs1/{new}"] = outputs.pop(f"npu/bs1/{old}")
    for kind in ("accuracy", "throughput"):
        entry = f.entry(f"{kind}/bs1")
        entry["commands"] = [[word.replace(old, new) for word in argv] for argv in entry["commands"]]
    f.edit_logs(1, lambda text: text.replace(old, new))
    accuracy_log(old, new)(f)


def readings(**of_one: Any) -> Forgery:
    """Values of the idle checks, by `before` and `after`."""
    return lambda f: f.edit("npu/bs1/benchmark.json", lambda data: update(data["idle_checks"], of_one))


def at_the_same_time(f: Forger) -> None:
    for name in ("throughput/bs1", "accuracy/bs4"):
        f.entry(name)["seconds"] = 60.0


def another_network(f: Forger) -> None:
    """And the reference that it gives."""
    onnx_of(other_weights)(f)
    f.save("gpu/reference.npy", np.load(f.path("gpu/reference.npy")) * np.float32(1.01))


def no_figure(f: Forger) -> None:
    del f.steps["throughput/bs4"], f.entry("score")["inputs"]["entries"]["throughput/bs4"]
    for path in f.path("npu/bs4").glob("benchmark*"):
        path.unlink()


def started(step: str, value: str) -> Forgery:
    return record(step, started=value)


def days(count: int) -> Forgery:
    """All that is dated, alike."""

    def later(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: later(item) for key, item in value.items()}
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+\+00:00", value):
            return (datetime.fromisoformat(value) + timedelta(days=count)).isoformat()
        return [later(item) for item in value] if isinstance(value, list) else value

    def forge(f: Forger) -> None:
        for size in made_up.SIZES:
            f.edit(f"npu/bs{size}/benchmark.json", lambda data: data.update(later(data)))
        f.steps = later(f.steps)

    return forge


def page(old: str, new: str) -> Forgery:
    def forge(f: Forger) -> None:
        def edit(text: str) -> str:
            assert old in text
            return text.replace(old, new)

        f.page_edit = edit

    return forge


def verdict(change: Callable[[Any], Any]) -> Forgery:
    def forge(f: Forger) -> None:
        def edit(data: Any) -> Any:
            change(data)
            return data

        f.summary_edit = edit

    return forge


def csv_with(old: str, new: str) -> Forgery:
    def forge(f: Forger) -> None:
        f.csv_edit = lambda text: text.replace(old, new)

    return forge


def swapped_results(f: Forger) -> None:
    logits = [np.load(f.path(f"npu/bs{size}/logits.npy")) for size in made_up.SIZES]
    for size, values in zip(made_up.SIZES, reversed(logits), strict=True):
        f.set_logits(size, values)


def perfect_results(f: Forger) -> None:
    f.set_logits(4, np.load(f.path("gpu/reference.npy")))


def write(name: str, content: str) -> Forgery:
    return lambda f: f.path(name).write_text(content)


def card(change: Callable[[Any], Any]) -> Forgery:
    return lambda f: f.edit("gpu/model.json", change)


def every(*kinds: str, **changes: Any) -> Forgery:
    return lambda f: [update(entry, changes) for entry in f.each(*kinds)]


# What audit refuses as it is -> the thing that it names. The forger makes all else consistent.
TOLD: dict[str, tuple[Forgery, str]] = {
    "the reference is the device's": (reference_of_the_device, r"gpu/reference\.npy: sample \d+ \(clip-\d+\)"),
    "labels permuted": (permuted_labels, r"gpu/labels\.npy: the label of sample 0 is"),
    "samples renamed": (renamed_samples, r"gpu/dataset\.json: names\[0\]"),
    "an index of another dataset": (index(other_shards), r"gpu/dataset\.json: inputs\[0\]\.shards\[0\]\.sha256"),
    "a warning of the dataset removed": (index(lambda d: d["preflight"].pop("warnings")), r"dataset\.json: preflight"),
    "the wrong samples left out": (fewer_samples, r"gpu/labels\.npy: int64 \(10,\)"),
    "persons of another index": (
        lambda f: f.edit("gpu/persons.json", lambda data: data["rows"].reverse()),
        r"gpu/persons\.json: rows\[0\]",
    ),
    "another checkpoint's name": (
        lambda f: [update(f.entry(s), {"inputs.checkpoint.sha256": "0" * 64}) for s in ("export", "reference")],
        r"st_gcn\.made-up\.pth: changed since export read it",
    ),
    "a device in use called idle": (both_checks(in_use), r"benchmark\.json: idle_checks\.before\.busy"),
    "AICore in use called idle": (
        both_checks(lambda check: check["chip"].update(aicore_percent=80)),
        r"benchmark\.json: idle_checks\.before\.busy",
    ),
    "memory held called idle": (
        both_checks(lambda c: [c["chip"].update(memory_used_mb=20000, processes=None), c.update(processes=None)]),
        r"benchmark\.json: idle_checks\.before\.busy",
    ),
    "flat readings apart from the chip's": (
        both_checks(lambda check: check.update(temperature_c=20)),
        r"idle_checks\.before\.temperature_c is 20",
    ),
    "busy, and idle all the same": (
        both_checks(lambda check: [in_use(check), check.update(busy="train.py (pid 7, 900 MB)")]),
        r"benchmark\.json: throughput\.idle is true",
    ),
    "a busy figure's mark in the record": (record("throughput/bs1", **{"facts.idle": False}), r"says idle False"),
    "an idle check of another day": (
        both_checks(lambda check: check.update(at="2026-01-01T00:00:00+00:00")),
        r"idle_checks\.before is of 2026-01-01.*not when the figure was taken",
    ),
    "an idle check of another device": (
        both_checks(lambda check: check["chip"].update(device=3)),
        r"idle_checks\.before is of device 3",
    ),
    "an ailing device called well": (
        both_checks(lambda check: [check["chip"].update(health="Alarm"), check.update(health="Alarm")]),
        r"throughput\.health",
    ),
    "no idle check": (figure(idle_checks={}), r"without an idle check before"),
    "a throughput": (figure(**{"throughput.median": 381.1}), r"benchmark\.json: throughput\.median is 381\.1"),
    "a latency": (figure(**{"latency_ms.p99": 1.0}), r"benchmark\.json: latency_ms\.p99 is 1\.0"),
    "a repeat's rate": (figure(**{"runs.0": 11.0}), r"benchmark\.json: runs\[0\] is 11\.0"),
    "a noisy figure called steady": (record("throughput/bs1", **{"inputs.spread": 0.0}), r"noisy is false"),
    "another host's figure": (figure(host="npu-b"), r"benchmark\.json: host is \"npu-b\""),
    "a figure not simulated": (figure(simulated=False), r"benchmark\.json: simulated is false"),
    "a log of another OM": (
        log(r"files/\w+/", "files/0123456789abcdef/"),
        r"benchmark-1\.log: it loaded .*/01234",
    ),
    "a log of another OM's name": (log("st_gcn_bs1", "st_gcn_bs4"), r"benchmark-1\.log: it loaded .*st_gcn_bs4\.om"),
    "a log of another device": (log("open device 0", "open device 5"), r"benchmark-1\.log: it opened device 5"),
    "a log that names no OM": (log("load model .*\n", ""), r"benchmark-1\.log: it loaded no OM"),
    "a log of another batch size": (log(r"batchsize\(1\)", "batchsize(4)"), r"batch size of 4"),
    "an accuracy log of another OM": (
        accuracy_log(r"files/\w+/", "files/0123456789abcdef/"),
        r"ais_bench-0\.log: it loaded .*/01234",
    ),
    "an accuracy log of another device": (
        accuracy_log("device 0", "device 5"),
        r"ais_bench-0\.log: it opened device 5",
    ),
    "an accuracy log of fewer samples": (accuracy_log("runcount:13", "runcount:10"), r"ais_bench-0\.log: it ran 10"),
    "an accuracy log of another batch size": (accuracy_log("batch:1", "batch:4"), r"log: it ran 13 batches of 4"),
    "an accuracy log more": (a_unit_more, r"ais_bench-0\.log: it ran 13 batches of 1, and rows 0 to 11"),
    "no accuracy log": (lambda f: f.path("npu/bs1/ais_bench-0.log").unlink(), r"ais_bench-0\.log: missing"),
    "times end to end out of nothing": (
        record("accuracy/bs1", **{"facts.end_to_end": {"ms": 1.0, "device_ms": 0.5, "host_ms": 0.5}}),
        r"ais_bench-0\.times\.json: missing",
    ),
    "another device's results": (record("accuracy/bs1", host="npu-b:0"), r"npu/bs1: the step ran on npu-b:0"),
    "another device's figure": (record("throughput/bs1", host="npu-b:0"), r"benchmark\.json: measured on npu-b:0"),
    "a percentile out of nothing": (figure(**{"latency_ms.p90": 1.0}), r"benchmark\.json: latency_ms\.p90 is 1"),
    "copies out of nothing": (
        figure(**{"latency_ms.h2d": {"median": 0.1, "share": 0.001, "count": 1}}),
        r"benchmark\.json: latency_ms\.h2d",
    ),
    "times of no repeat": (write("npu/bs1/benchmark-1.times.json", "{}"), r"benchmark-1\.times\.json: of no repeat"),
    "memory held said to be the device's own": (
        both_checks(
            lambda c: [
                c["chip"].update(memory_used_mb=15000, processes=None),
                c.update(memory_used_mb=15000, processes=None, idle_memory_mb=15000),
            ]
        ),
        r"benchmark\.json: idle_checks\.before\.busy",
    ),
    "idle checks of another kind of chip": (
        both_checks(lambda check: check["chip"].update(name="910B3")),
        r"benchmark\.json: its idle checks are of a 910B3",
    ),
    "idle checks of two chips": (readings(**{"after.chip.bus_id": "0000:02:00.0"}), r"idle_checks\.after of"),
    "a figure taken beside another step": (at_the_same_time, r"throughput/bs1: ran from .*accuracy/bs4 did"),
    "the slowest repeat left out": (a_slow_repeat_less, r"benchmark\.json: of 2 repeats"),
    "the gate loosened": (record("score", **{"inputs.gate": 0.5}), r"gate was 0\.5"),
    "a metric's own gate": (
        card(lambda d: d["metrics"][0].update(gate=0.9)),
        r"metrics\[0\]\.gate is 0\.9",
    ),
    "a class renamed": (
        card(lambda d: d["classes"].__setitem__(0, "flying")),
        r"model\.json: classes\[0\]",
    ),
    "another published accuracy": (
        record("score", **{"inputs.reference.top1": 0.1}),
        r"manifest\.json: reference\.top1 is 0\.1",
    ),
    "another CANN": (everywhere(cann="8.0.0-simulated"), r"st_gcn_bs1\.om: its CANN is 6\.0\.RC1-simulated"),
    "another chip": (everywhere(soc_version="Ascend910B3"), r"st_gcn_bs1\.om: its SoC is Ascend310P3"),
    "simulated called real": (not_simulated, r"convert/bs1: simulated is False"),
    "simulated called real, its versions too": (
        a_real_device,
        r"st_gcn_bs1\.om: .* the record of convert/bs1",
    ),
    "an OM of another CANN": (om(lambda c, _: with_metadata(c, cann="1-simulated")), r"st_gcn_bs1\.om: its CANN is 1-"),
    "an OM of another batch size": (
        om(lambda _, f: f.path("npu/bs4/st_gcn_bs4.om").read_bytes()),
        r"st_gcn_bs1\.om: its batch size is \[?\(?4",
    ),
    "an OM that is none": (om(lambda *_: b"om" * 500), r"st_gcn_bs1\.om: no OM that can be loaded"),
    "a torn OM": (om(lambda *_: b"IMOD" + b"\0" * 400), r"st_gcn_bs1\.om: no OM that can be loaded"),
    "other weights": (onnx_of(other_weights), r"reference\.npy: sample \d+"),
    "an ONNX of one batch size": (onnx_of(for_one_batch), r"st_gcn\.onnx: its input input1"),
    "an ONNX of other inputs": (onnx_of(renamed_input), r"st_gcn\.onnx: it has not the inputs of its card"),
    "an ONNX that is none": (lambda f: f.replace("gpu/st_gcn.onnx", b"onnx"), r"st_gcn\.onnx isn't an ONNX model"),
    "measured before it was converted": (
        started("accuracy/bs1", "2026-01-01T00:00:00+00:00"),
        r"accuracy/bs1: began at 2026-01-01.*before (convert/bs1|preprocess) had made",
    ),
    "run tomorrow": (days(1), r"began at .*, which is yet to come"),
    "scored before it was measured": (started("score", "2026-01-01T00:00:00+00:00"), r"score: began at 2026-01-01"),
    "another precision in the record": (
        record("convert/bs1", **{"inputs.flags": {"precision_mode": "allow_mix_precision"}}),
        r"convert/bs1: its command had --precision_mode=force_fp16",
    ),
    "another batch size in the record": (record("convert/bs4", **{"inputs.batch_size": 8}), r"convert/bs4: .*8"),
    "another shape in the command": (
        lambda f: update(f.entry("convert/bs1"), {"commands.0.3": "--input_shape=input1:64,3,300,18,2"}),
        r"convert/bs1: its command made an OM for input1:64",
    ),
    "a word of the page": (page("Passed", "Perfect"), r"report\.html: line \d+ is not what"),
    "a figure on the page": (page("samples/s", "samples/ms"), r"report\.html: line \d+ is not what"),
    "a line at the page's end": (page("</html>", "</html>\n<!-- approved -->"), r"report\.html: (line|not as long)"),
    "a script in the page": (page("</body>", "<script>1</script></body>"), r"report\.html: line \d+ is not what"),
    "the page's skeletons": (page('"clips":', '"Clips":'), r"report\.html: line \d+ is not what"),
    "a key more in the summary": (verdict(lambda d: d.update(approved=True)), r"summary\.json: approved is true"),
    "a key less in the summary": (verdict(lambda d: d["batches"][0].pop("flipped")), r"batches\[0\]\.flipped is null"),
    "a hit more": (
        verdict(lambda d: d["batches"][0].update(top1_hits=12)),
        r"summary\.json: batches\[0\]\.top1_hits",
    ),
    "a speed": (
        verdict(lambda d: d["batches"][1]["throughput"].update(median=999.0)),
        r"summary\.json: batches\[1\]\.throughput\.median is 999",
    ),
    "the verdict's device": (
        verdict(lambda d: d["device"].update(simulated=False)),
        r"summary\.json: device",
    ),
    "a cell of the CSV": (csv_with("\n4,13,", "\n4,14,"), r"summary\.csv: samples of batch size 4"),
    "a line of the CSV": (csv_with("\n4,", "\n\n4,"), r"summary\.csv: not the rows"),
    "a foreign file": (write("report/notes.txt", "fine"), r"report/notes\.txt: foreign"),
    "a log more": (write("npu/bs1/more.log", "fine"), r"npu/bs1/more\.log: foreign"),
    "a foreign file called an output": (an_output_more, r"npu/bs1/approval\.json: none of what accuracy/bs1 makes"),
    "a key more in a record": (record("accuracy/bs1", approved=True), r"manifest\.json: steps\.accuracy/bs1\.approved"),
    "an OM of another name": (an_om_of_another_name, r"approved\.om: not what convert/bs1 calls its OM"),
    "a failed conversion": (
        lambda f: f.replace("npu/bs1/atc.log", b"ATC run failed, Please check the detail log\n"),
        r"bs1/atc\.log",
    ),
    "a foreign script": (write("npu/bs1/run.sh", "true"), r"npu/bs1/run\.sh: foreign"),
    "a step that was never run": (
        lambda f: f.steps.update({"tune": {**f.entry("export"), "outputs": {}}}),
        r"tune: foreign",
    ),
    "a figure dropped": (no_figure, r"throughput/bs4: manifest\.json has no entry"),
}

# What no audit can tell of an unsigned run: nothing that is kept contradicts it.
CONSISTENT: dict[str, Forgery] = {
    "better results": perfect_results,
    "results swapped between batch sizes": swapped_results,
    "all logs twice as fast": twice_as_fast,
    "the best repeats chosen": the_best_repeats,
    "another network, and its reference": another_network,
    "another operator": every("export", "score", "convert", by="someone@else"),
    "another host": every("preprocess", "export", host="other"),
    "another revision": every("export", "accuracy", "score", revision="f" * 40),
    "a day earlier": days(-1),
    "a cooler device": figure(temperature_c=20, power_w=5.0),
    "another driver": everywhere(driver="25.5.0-simulated"),
    "another ais_bench": everywhere(ais_bench="cd" * 32),
    "another CANN, in the OMs too": another_cann,
    "another log of ATC": lambda f: f.replace("npu/bs1/atc.log", b"ATC run success\n"),
}

QUICK = {"the reference is the device's", "a device in use called idle", "a log of another OM", "a foreign file"}
QUICK |= {"simulated called real, its versions too", "a word of the page", "the gate loosened", "better results"}


def tiers(names: Any) -> list[Any]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.full) for name in names]


@pytest.fixture(scope="session")
def signed(scored: Workspace, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same run, signed by the operator."""
    copied = made_up.copy(scored, tmp_path_factory.mktemp("signed"))
    workspace = Workspace(copied.inventory.model_copy(update={"sign": str(keys / "operator")}))
    made_up.score(workspace)
    return workspace


def forged(workspace: Workspace, folder: Path, forge: Forgery) -> Path:
    """The newest kept run, copied, forged and made consistent."""
    run = find(workspace.folder, "latest")
    copied = folder / "runs" / run.folder.name
    shutil.copytree(run.folder, copied)
    forger = Forger(copied, workspace.model)
    forge(forger)
    return forger.finish()


def audit(workspace: Workspace, folder: Path, **demands: str) -> None:
    inventory = workspace.inventory.model_copy(update={"sign": None, **demands})
    print_audit(Workspace(inventory), str(folder), made_up.SAMPLES)


def test_a_run_that_nobody_forged_holds(scored: Workspace, tmp_path: Path) -> None:
    """So what is refused below is refused for what was forged."""
    audit(scored, forged(scored, tmp_path, lambda _: None))


@pytest.mark.parametrize("what", tiers(TOLD))
def test_a_forgery_is_named(scored: Workspace, tmp_path: Path, what: str) -> None:
    forge, named = TOLD[what]
    folder = forged(scored, tmp_path, forge)
    with pytest.raises(KitError, match=named):
        audit(scored, folder)


def test_a_seal_of_another_form_is_none(scored: Workspace, tmp_path: Path) -> None:
    """What sed and sha256sum would not read as the kit does; and an id is checked wherever a run lies."""
    folder = forged(scored, tmp_path, lambda _: None)
    elsewhere = tmp_path / "kept" / folder.name.replace("-", "-0")[: len(folder.name)]
    shutil.copytree(folder, elsewhere)
    with pytest.raises(KitError, match="its name is not the id"):
        audit(scored, elsewhere)
    (folder / seal.SEAL).write_bytes(json.dumps(seal.read(folder)).encode())
    with pytest.raises(KitError, match=r"seal\.json: not a seal"):
        audit(scored, folder.rename(folder.with_name(Run(folder).id)))


@pytest.mark.parametrize("what", tiers(CONSISTENT))
def test_only_a_signature_tells(scored: Workspace, tmp_path: Path, what: str) -> None:
    """Such a run holds, under another id. Where this fails, audit has learnt to tell: the case goes up."""
    folder = forged(scored, tmp_path, CONSISTENT[what])
    assert folder.name != find(scored.folder, "latest").folder.name
    audit(scored, folder)


@pytest.mark.parametrize("what", tiers(CONSISTENT))
def test_none_passes_for_a_signed_run(signed: Workspace, keys: Path, tmp_path: Path, what: str) -> None:
    """With the old signature, with none, and signed by the forger. (What is told is told of a signed run too.)"""
    folder = forged(signed, tmp_path, CONSISTENT[what])
    demands = {"allowed_signers": str(keys / "allowed_signers")}
    with pytest.raises(KitError):
        audit(signed, folder, **demands)
    (folder / seal.SIGNATURE).unlink()
    with pytest.raises(KitError):
        audit(signed, folder, **demands)
    signature.sign(folder, keys / "forger")
    with pytest.raises(KitError):
        audit(signed, folder, **demands)
