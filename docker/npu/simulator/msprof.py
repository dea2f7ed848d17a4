"""msprof of a simulated host: runs an application under the profiler and writes its tables in the form of the CANN.

Operators are ONNX Runtime's own times of the OM's nodes. What a device runs in one kernel (a batch-norm or a ReLU with
what makes its input, and the rounding to float16 that the simulator plays as Casts) is one row, named by its members.
Counters of the units are not there to be read on a CPU: N/A.
"""

import csv
import json
import os
import random
import shlex
import string
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import recording
import scenario

TYPES = {"Conv": "Conv2D", "MatMul": "MatMulV2", "Gemm": "MatMulV2", "Transpose": "TransposeD", "Max": "Maximum",
         "ReduceMean": "ReduceMeanD", "AveragePool": "AvgPoolV2", "GlobalAveragePool": "GlobalAveragePool",
         "BatchNormalization": "BNInference", "Concat": "ConcatD", "Split": "SplitVD"}  # fmt: skip
RIDES = frozenset({"BatchNormalization", "Relu"})  # in the kernel of what makes its input, where that is one of
CARRIES = frozenset({"Add", "BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul", "Max", "Sum"})
NO_KERNEL = frozenset({"Constant", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"})
DATA_TYPES = {"float": "FLOAT16", "float16": "FLOAT16", "int64": "INT64", "int32": "INT32", "double": "DOUBLE"}
NA = "N/A"

PLACE = ["Task ID", "Stream ID"]
TIMES = ["Task Start Time(us)", "Task Duration(us)", "Task Wait Time(us)"]
TENSORS = [f"{side} {what}" for side in ("Input", "Output") for what in ("Shapes", "Data Types", "Formats")]
UNIFIED = ["aicore_time(us)", "total_cycles", "vec_ratio", "mac_ratio", "scalar_ratio", "mte1_ratio", "mte2_ratio",
           "mte3_ratio", "icache_miss_rate", "memory_bound"]  # fmt: skip
SPLIT = ["aicore_time(us)", "aic_total_cycles", "aic_mac_ratio", "aic_scalar_ratio", "aic_mte1_ratio",
         "aic_mte2_ratio", "aic_fixpipe_ratio", "aiv_time(us)", "aiv_total_cycles", "aiv_vec_ratio",
         "aiv_mte2_ratio", "aiv_mte3_ratio", "cube_utilization(%)"]  # fmt: skip


def headings(cann: tuple[int, ...], split: bool) -> list[str]:
    """The columns of op_summary by release: 6, 7, 8, 9 and later."""
    units = SPLIT if split else UNIFIED
    if cann < (7,):
        times = ["Task Start Time", *TIMES[1:]]
        return ["Model Name", "Model ID", *PLACE, "Infer ID", "Op Name", "OP Type", "Task Type", *times, "Block Dim",
                *TENSORS, *units]  # fmt: skip
    blocks = ["Block Dim", "Mix Block Dim"] if cann < (9,) else ["Block Num", "Mix Block Num"]
    device = ["Device_id"] if cann >= (8,) else []
    return [*device, "Model ID", *PLACE, "Op Name", "OP Type", "OP State", "Task Type", *TIMES, *blocks,
            "HF32 Eligible", *TENSORS, "Context ID", *units]  # fmt: skip


def kernels(nodes: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """The node in whose kernel each node runs, itself or an earlier one; those without a kernel are left out."""
    maker = {name: index for index, node in enumerate(nodes) for name in node["outputs"]}
    users: dict[str, int] = {}
    for node in nodes:
        for name in node["inputs"]:
            users[name] = users.get(name, 0) + 1
    found: dict[int, int] = {}
    for index, node in enumerate(nodes):
        source = node["inputs"][0] if node["inputs"] else ""
        before = found.get(maker.get(source, -1))
        if node["type"] in NO_KERNEL:
            if before is not None:
                found[index] = before  # a view: what reads it may ride on what made it
            continue
        alone = users.get(source) == 1
        rounding = node["type"] == "Cast" and not node["name"]
        rides = before is not None and (
            rounding or (node["type"] in RIDES and alone and nodes[before]["type"] in CARRIES)
        )
        found[index] = before if rides and before is not None else index
    return {index: kernel for index, kernel in found.items() if nodes[index]["type"] not in NO_KERNEL}


def rows(data: Mapping[str, Any], columns: Sequence[str]) -> Iterator[dict[str, object]]:
    """The table's rows in order of time: one a kernel and inference."""
    nodes, events = data["nodes"], sorted(data["events"], key=lambda event: event["ts"])
    of = kernels(nodes)
    casts = [index for index, kernel in of.items() if kernel == index and not nodes[index]["name"]]
    seen: dict[int, int] = {}
    open_rows: dict[tuple[int, int], dict[str, Any]] = {}
    for event in events:
        node = event["node"]
        seen[node] = seen.get(node, 0) + 1
        if node not in of:
            continue
        row = open_rows.setdefault((seen[node], of[node]), {"start": event["ts"], "us": 0.0, "members": []})
        row["us"] += event["dur"]
        row["members"].append(event)
    epoch = 1_600_000_000_000_000
    for number, ((step, kernel), row) in enumerate(open_rows.items()):
        head = nodes[kernel]
        members = [nodes[event["node"]]["name"] for event in row["members"]]
        name = "".join(filter(None, members)) or f"trans_Cast_{casts.index(kernel)}"
        first, last = row["members"][0], row["members"][-1]
        cells = {
            "Model Name": "st_gcn", "Model ID": 1, "Task ID": number, "Stream ID": 3, "Infer ID": step - 1,
            "Device_id": 0, "Op Name": name, "OP Type": TYPES.get(head["type"], head["type"]), "OP State": "static",
            "Task Type": "AI_CORE", "Task Start Time": f"{(epoch + row['start']) * 1000}",
            "Task Start Time(us)": f"{epoch + row['start']}.000\t", "Task Duration(us)": f"{max(row['us'], 1):.3f}",
            "Task Wait Time(us)": 0, "Block Dim": 8, "Block Num": 8, "Mix Block Dim": 0, "Mix Block Num": 0,
            "HF32 Eligible": "NO",
            **_tensors("Input", first["inputs"]), **_tensors("Output", last["outputs"]),
        }  # fmt: skip
        yield {column: cells.get(column, NA) for column in columns}


def _tensors(side: str, told: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, str]:
    pairs = [(kind, shape) for tensor in told for kind, shape in tensor.items()]
    shapes = ";".join(",".join(map(str, shape)) for _, shape in pairs)
    return {
        f"{side} Shapes": f'"{shapes}"' if pairs else NA,
        f"{side} Data Types": ";".join(DATA_TYPES.get(kind, kind.upper()) for kind, _ in pairs) or NA,
        f"{side} Formats": ";".join("ND" for _ in pairs) or NA,
    }


def release() -> tuple[int, ...]:
    """(6, 0) of CANN 6.0.RC1."""
    name = Path(os.environ.get("ASCEND_TOOLKIT_HOME", "6.0")).name
    return tuple(int(part) for part in name.split(".")[:2] if part.isdigit())


def export(folder: Path) -> None:
    """Write the tables of a PROF_ folder from its raw data, where the release puts them."""
    cann, split = release(), scenario.load().chips[0].has_hbm
    columns = headings(cann, split)
    stamp = f"{datetime.now():%Y%m%d%H%M%S}"
    if cann < (7,):
        table = folder / "device_0/summary/op_summary_0_1.csv"
    else:
        table = folder / f"mindstudio_profiler_output/op_summary_{stamp}.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for path in sorted((folder / "device_0/data").glob("task.*.json")):
            writer.writerows(rows(json.loads(path.read_text()), columns))


def run(application: str, output: Path) -> int:
    """Run a command with the profiler; tables come at once from CANN 7 on, before it by --export."""
    letters = "".join(random.choices(string.ascii_uppercase, k=16))  # noqa: S311 (a name)
    stamp = f"{datetime.now():%Y%m%d%H%M%S}{time.time_ns() // 1_000_000 % 1000:03}"
    folder = output / f"PROF_000001_{stamp}_{letters}"
    (folder / "device_0/data").mkdir(parents=True)
    print("[INFO] Start profiling....", flush=True)
    environment = {**os.environ, recording.FOLDER: str(folder / "device_0/data")}
    status = subprocess.run(shlex.split(application), env=environment, check=False).returncode
    print("[INFO] Profiling finished.", flush=True)
    if status == 0 and release() >= (7,):
        export(folder)
        print(f"[INFO] Process profiling data complete. Data is saved in {folder}", flush=True)
    else:
        print(f"[INFO] Profiling data is saved in {folder}", flush=True)
    return status


def main() -> int:
    flags = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv[1:])
    try:
        if flags.get("export") == "on":
            export(Path(flags["output"]))
            return 0
        return run(flags["application"], Path(flags.get("output", ".")))
    except (KeyError, scenario.ScenarioError) as error:
        print(f"[ERROR] msprof: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
