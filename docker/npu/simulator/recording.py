"""What a profiled program leaves for msprof: ONNX Runtime's own profile of the OM, and the OM's nodes.

msprof names the folder of its raw data in MSPROF_DATA; without it nothing is recorded. Nodes are renamed for the run by
their place, and run one by one as they stand in the OM: a runtime's own fusions are not a device's.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

FOLDER = "MSPROF_DATA"


@dataclass(frozen=True)
class Recording:
    folder: Path
    model: bytes
    nodes: list[dict[str, Any]]

    def end(self, profile: str) -> None:
        """Keep the profile that ONNX Runtime wrote."""
        events = [
            {"node": int(event["name"].removesuffix("_kernel_time")), "ts": event["ts"], "dur": event["dur"],
             "inputs": event["args"].get("input_type_shape", []),
             "outputs": event["args"].get("output_type_shape", [])}
            for event in json.loads(Path(profile).read_text())
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        ]  # fmt: skip
        Path(profile).unlink()
        data = {"nodes": self.nodes, "events": events}
        (self.folder / f"task.{os.getpid()}.json").write_text(json.dumps(data))


def begin(path: str, options: onnxruntime.SessionOptions) -> Recording | None:
    """Have the session that `options` are for record the OM of `path`; None where nobody asked, or it is no model."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return None
    try:
        model = onnx.load(path)
    except Exception:  # what it is instead is told by whoever opens it
        return None
    nodes = [
        {"name": node.name, "type": node.op_type, "inputs": list(node.input), "outputs": list(node.output)}
        for node in model.graph.node
    ]
    for index, node in enumerate(model.graph.node):
        node.name = str(index)
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(folder, "onnxruntime"))
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return Recording(Path(folder), model.SerializeToString(), nodes)
