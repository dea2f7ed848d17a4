"""How fast torch runs the model in float32, which is what the NPU's figures are set beside:

    python -m stgcn.bench --ckpt X.pth --output benchmark.json --batch_sizes 1,4,8 [--model NAME] [--device auto]

The input is made once, on the device, and one batch follows the other: a latency is of the computation alone, as
ais_bench's is. Repeats of `--loop` batches go on, `--min_repeats` at least, until their throughputs lie within
`--spread`, or there are `--max_repeats`. A repeat ends after `--repeat_s` seconds with the batches that it has done, at
least one.
A run that was cut short goes on with the next batch size, if checkpoint, torch, device and settings are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import torch

from stgcn.cards import card_of, program
from stgcn.checkpoint import load_model
from stgcn.errors import InputError, run_main, sentence
from stgcn.files import PathLike, remove, sha256_file, write_whole
from stgcn.reference import torch_device

FORMAT = 1
SETTINGS = ("loop", "warmup", "min_repeats", "max_repeats", "spread", "repeat_s")


def write_benchmark(
    checkpoint: PathLike,
    output: PathLike,
    batch_sizes: Sequence[int],
    settings: Dict[str, Any],
    device: str = "auto",
    model: str = "",
) -> Dict[str, Any]:
    """Measure every batch size and write the figures as JSON; what was written.

    `settings` are those of SETTINGS. Raises InputError for a bad checkpoint (see load_state_dict) or a device that
    torch hasn't.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as nvidia-smi counts
    if device == "auto":
        device = "cuda:0" if _cuda_works() else "cpu"
    place, card = torch_device(device), card_of(model)
    told = describe(place)
    network = load_model(checkpoint, card).to(place).eval()
    inputs = [card.name, sha256_file(checkpoint), told, settings]
    name = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    path = Path(output)
    part = path.with_name(f".{path.name}.{name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.glob(f".{path.name}.*.part"):
        if other != part:
            other.unlink()  # of other inputs
    done = json.loads(part.read_text()) if part.exists() else {}
    for size in batch_sizes:
        if str(size) not in done:
            shape = (size, *card.shape())
            done[str(size)] = measure(network, shape, place, settings, card.rows_per_sample)
            write_whole(part, json.dumps(done).encode())
        figure = done[str(size)]["throughput"]
        print(
            sentence("batch size {}: {:.2f} samples/s on {}".format(size, figure["median"], told["name"])), flush=True
        )
    found = {"format": FORMAT, "device": told, "batches": [done[str(size)] for size in batch_sizes]}
    write_whole(path, json.dumps(found, indent=2).encode())
    remove(part)
    return found


def _cuda_works() -> bool:
    """Whether this torch computes on the first GPU: an old one has no kernels for a new GPU."""
    if not torch.cuda.is_available():
        return False
    try:
        one = torch.ones(1, 1, 3, 3, device="cuda:0")
        return float(torch.nn.functional.conv2d(one, one).sum()) == 9
    except RuntimeError as error:
        print(sentence(f"torch {torch.__version__} cannot compute on this GPU ({error}), so the CPU is measured"))
        return False


def describe(device: torch.device) -> Dict[str, Any]:
    """What the figures are of: `kind` (cuda, rocm or cpu), `name`, torch's version and CUDA's, threads on a CPU."""
    found = {"kind": device.type, "torch": torch.__version__, "cuda": torch.version.cuda}
    if device.type == "cuda":
        if getattr(torch.version, "hip", None):
            found["kind"] = "rocm"
        return {**found, "name": torch.cuda.get_device_name(device), "threads": None}
    threads = torch.get_num_threads()
    return {**found, "name": f"{_cpu()}, {threads} thread{'s' * (threads > 1)}", "threads": threads}


def measure(
    network: Any, shape: Sequence[int], device: torch.device, settings: Dict[str, Any], rows_per_sample: int = 1
) -> Dict[str, Any]:
    """The figures of one batch of `shape`: samples/s, ms per batch, and every latency of each repeat in ms."""
    torch.manual_seed(0)
    batch = torch.rand(*shape).to(device)
    repeats = []  # type: List[List[float]]
    with torch.no_grad():
        for _ in range(settings["warmup"]):
            _run(network, batch, device)
        least, most = max(settings["min_repeats"], 2), settings["max_repeats"]
        while len(repeats) < most and (len(repeats) < least or _spread(repeats) > settings["spread"]):
            repeats.append(_repeat(network, batch, device, settings["loop"], settings["repeat_s"]))
    rates = [1000 * shape[0] / rows_per_sample / rate for rate in map(statistics.mean, repeats)]
    every = np.array([latency for repeat in repeats for latency in repeat])
    return {
        "batch_size": shape[0],
        "throughput": {
            "median": statistics.median(rates),
            "min": min(rates),
            "max": max(rates),
            "repeats": len(rates),
            "values": rates,
            "spread": _spread(repeats),
            "noisy": _spread(repeats) > settings["spread"],
        },
        "latency_ms": {
            "mean": float(every.mean()),
            "median": float(np.median(every)),
            "p90": float(np.percentile(every, 90)),
            "p99": float(np.percentile(every, 99)),
            "batches": len(every),
        },
        "raw_ms": repeats,
    }


def _repeat(network: Any, batch: torch.Tensor, device: torch.device, loop: int, most_s: float) -> List[float]:
    latencies = []  # type: List[float]
    end = time.perf_counter() + most_s
    while len(latencies) < loop and (not latencies or time.perf_counter() < end):
        start = time.perf_counter()
        _run(network, batch, device)
        latencies.append(round(1000 * (time.perf_counter() - start), 4))  # as it is kept: figures follow from it
    return latencies


def _run(network: Any, batch: torch.Tensor, device: torch.device) -> None:
    network(batch)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _spread(repeats: Sequence[Sequence[float]]) -> float:
    """(max - min) / median of the repeats' throughputs."""
    rates = [1 / statistics.mean(repeat) for repeat in repeats]
    return (max(rates) - min(rates)) / statistics.median(rates)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _batch_sizes(text: str) -> List[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise InputError(f"--batch_sizes {text} isn't a list of numbers from 1 on: give some as in 1,4,8")
    return sizes


def main(argv: Optional[List[str]] = None) -> None:
    """Measure the model in float32 by torch."""
    parser = program("bench", main.__doc__)
    parser.add_argument("--ckpt", required=True, help="checkpoint of the model")
    parser.add_argument("--output", required=True, help="JSON file to write")
    parser.add_argument("--batch_sizes", required=True, help="separated by commas")
    parser.add_argument("--device", default="auto", help="torch's name of the device (default: CUDA if there is one)")
    parser.add_argument("--loop", type=int, default=100, help="batches per repeat (default 100)")
    parser.add_argument("--warmup", type=int, default=1, help="batches before the first repeat (default 1)")
    parser.add_argument("--min_repeats", type=int, default=5, help="(default 5)")
    parser.add_argument("--max_repeats", type=int, default=10, help="(default 10)")
    parser.add_argument("--spread", type=float, default=0.02, help="of the repeats' throughputs (default 0.02)")
    parser.add_argument("--repeat_s", type=float, default=60.0, help="seconds that a repeat takes at most (default 60)")
    options = parser.parse_args(argv)
    settings = {name: getattr(options, name) for name in SETTINGS}
    sizes = _batch_sizes(options.batch_sizes)
    write_benchmark(options.ckpt, options.output, sizes, settings, options.device, options.model)


if __name__ == "__main__":
    run_main(main)
