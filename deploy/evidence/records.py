"""The JSON files that the kit writes, as types: `docs/schemas/` is made of them, and a record is checked by them.

A value that is not of its type, a key that is missing, and one that is unknown are refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, RootModel, ValidationError

from deploy.errors import KitError
from deploy.pipeline.model import Name

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
BatchSize = Annotated[int, Field(gt=0)]
Path_ = Annotated[str, Field(pattern=r"^[^/]")]  # relative, with `/` between its parts
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class _Figures(_Record):
    """Beside its own keys it has a number per metric of the model."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Finite]


class Process(_Record):
    pid: Count
    name: str
    memory_mb: Count


class Chip(_Record):
    """A row of `npu-smi info`; null stands for what the release or the board does not tell."""

    npu_id: Count
    chip_id: Count | None
    device: Count = Field(description="The logical device: what `devices` in the inventory means.")
    name: str
    health: str
    bus_id: str
    power_w: Finite | None
    temperature_c: int | None
    aicore_percent: int | None
    memory_used_mb: int | None
    memory_total_mb: int | None
    hbm_used_mb: int | None
    hbm_total_mb: int | None
    processes: list[Process] | None


class IdleCheck(_Record):
    """The device at one moment. `busy` follows from `chip` and `idle_memory_mb`, as do the values beside them."""

    at: AwareDatetime
    busy: str | None
    aicore_percent: int | None
    memory_used_mb: int | None
    memory_total_mb: int | None
    processes: list[str] | None
    health: str
    temperature_c: int | None
    power_w: Finite | None
    asked: Literal["host", "container"]
    idle_memory_mb: int | None = Field(description="What the device is known to hold when it is idle.")
    chip: Chip


class IdleChecks(_Record):
    before: IdleCheck
    after: IdleCheck


class Rate(_Record):
    """Samples per second."""

    median: Positive
    min: Positive
    max: Positive


class Throughput(Rate):
    """Samples per second, of the repeats."""

    repeats: BatchSize
    values: list[Positive]
    spread: Finite | None = Field(description="(max - min) / median; null for one repeat.")
    health: str | None = Field(description="What ailed the device, null where it was well.")
    idle: bool
    noisy: bool
    threads: BatchSize | None = Field(None, description="That computed side by side, where there were several.")


class Persons(_Record):
    """Of an OM that takes single persons: how many make a clip on average, and their own rate."""

    a_clip: Positive
    throughput: Rate


class Copies(_Record):
    """Copies to the device (h2d) or from it (d2h): ms per batch, their share of copying and computing."""

    median: Milliseconds
    share: Share
    count: Count | None = Field(description="How many were timed.")


class Trend(_Record):
    """How the times of computing changed, as a share of the first."""

    change: Finite
    p: Share
    drifts: bool


class Drift(_Record):
    """Within the repeat that changed most, and from the first repeat to the last; null where it cannot be told."""

    within: Trend | None
    between: Trend | None


class Range(_Record):
    min: Finite
    max: Finite


class Power(Range):
    mean: Finite
    chips: BatchSize = Field(1, description="That it is of: of a card's power, all of its chips.")


class Sensors(_Record):
    """What npu-smi read during the repeats."""

    readings: Count
    at_work: bool = Field(True, description="Whether npu-smi found its AICore at work; without, there are no joules.")
    power_w: Power | None
    temperature_c: Range | None
    joules_per_sample: Finite | None


class Latency(_Record):
    """Milliseconds per batch of pure compute; the copies are apart."""

    min: Milliseconds
    median: Milliseconds
    mean: Milliseconds
    p90: Milliseconds | None = None
    p99: Milliseconds
    max: Milliseconds
    h2d: Copies | None = None
    d2h: Copies | None = None


class Benchmark(_Record):
    """npu/bs<N>/benchmark.json: one OM's throughput on one device."""

    batch_size: BatchSize
    throughput: Throughput
    persons: Persons | None
    latency_ms: Latency
    runs: list[Positive] = Field(description="Samples per second (or persons) of each repeat, as ais_bench printed it.")
    repeats: list[dict[str, Any]] = Field([], description="All that is known of each repeat.")
    drift: Drift | None = None
    sensors: Sensors | None = None
    logs: dict[str, Sha256] = Field(description="What each repeat's log is.")
    times: dict[str, Sha256] | None = Field(None, description="What each repeat's record of single batches is.")
    idle_checks: IdleChecks
    host: Name
    device: Count
    temperature_c: int | None
    power_w: Finite | None
    simulated: bool


class Output(_Record):
    sha256: Sha256
    bytes: Count
    made: AwareDatetime | None = Field(None, description="Since when the path holds these bytes.")


class Entry(_Record):
    """What is known of one step."""

    state: Literal["OK", "FAILED"]
    key: Sha256 = Field(description="sha256 of `inputs`.")
    inputs: dict[str, Any] = Field(description="All that the result depends on; see deploy/pipeline/graph.py.")
    outputs: dict[Path_, Output]
    earlier: dict[Path_, Output] = Field({}, description="Of a step that failed: what was there before.")
    prepare: list[list[str]] = []
    commands: list[list[str]]
    host: str
    by: str
    revision: str = Field(description="The kit's own.")
    started: AwareDatetime
    seconds: Annotated[float, Field(ge=0)]
    facts: dict[str, Any] = {}
    error: str | None = None


class ManifestFile(_Record):
    """manifest.json: what ran, by the name of the step."""

    format: Literal[1]
    steps: dict[str, Entry]


class Seal(RootModel[dict[Path_, Sha256]]):
    """seal.json: the sha256 of every file of a kept run but itself and its signature, by path, in their order."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})


class Class(_Record):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    number: Count = Field(alias="class")
    name: str


class Confusion(_Record):
    label: Class
    predicted: Class
    count: BatchSize


class ConfusionChange(_Record):
    label: Class
    predicted: Class
    reference_count: Count
    device_count: Count


class ClassChange(_Record):
    number: Count = Field(alias="class")
    name: str
    samples: Count
    reference_hits: Count
    device_hits: Count


class Margins(_Record):
    """A histogram of how far fp32's best output lies above its second."""

    edges: list[Finite]
    samples: list[Count]
    flipped: list[Count]


class Nearness(_Record):
    """How near a device's output is to fp32's, over the samples."""

    cosine_min: Finite
    cosine_median: Finite
    max_abs_err: Finite
    mean_abs_err: Finite


class SummarisedThroughput(Throughput):
    speed_up: Finite | None = Field(description="How many times the guide's figure; null where there is none.")


class Decisive(_Record):
    """What a batch size passes or fails by: the metric that is farthest off for its gate."""

    against: Literal["fp32", "published"]
    metric: str
    relative_error: Finite
    gate: Share


class GpuRate(Rate):
    """The fp32 model's samples per second on the GPU host, and how many times that the NPU's are."""

    repeats: BatchSize
    noisy: bool
    times: Finite | None


class GpuHost(_Record):
    host: str
    device: dict[str, Any]
    idle: bool | None


class EndToEnd(_Record):
    """Milliseconds per sample of the accuracy run, from its file to its result: the device's, copies included, and the
    host's."""

    ms: Milliseconds
    device_ms: Milliseconds
    host_ms: Milliseconds


class Part(_Record):
    """A part of the device's time in one inference."""

    ms: Milliseconds
    share: Share


class ProfiledBlock(Part):
    """A block beside what computing and moving take at the least; null where the chip's limits are not known."""

    block: str
    flops: Finite
    bytes: Finite
    compute_ms: Milliseconds | None
    bandwidth_ms: Milliseconds | None
    bound: Literal["compute", "bandwidth", "neither"] | None
    ratios: dict[str, Finite] = Field(description="Of the units, weighted by time, where the profiler collected them.")


class Profile(_Record):
    """Where the device's time goes, by profile.json."""

    device_ms: Milliseconds
    iterations: BatchSize
    attributed: Share
    blocks: list[ProfiledBlock]
    compiler: Part = Field(description="TransData, Cast and Transpose that the compiler put in.")
    communication: Part
    unattributed: Part


class Reason(_Record):
    cause: Literal[
        "weights_beyond", "given_beyond", "beyond", "largest", "weights_vanished", "given_vanished", "vanished",
        "bits_lost", "error", "type",
    ]  # fmt: skip
    figure: Finite | None = Field(description="A share of the values, a magnitude, bits, or a relative error.")


class KeptNode(_Record):
    name: str
    kind: str = Field(description="Its type; with that of the batch-norm that is folded into it.")
    block: str | None
    reasons: list[Reason] = Field(description="What float16 does to it.")


class PricedRate(Rate):
    repeats: BatchSize
    idle: bool
    noisy: bool


class Way(_Record):
    """One OM of the precision doctor over the first `samples`: its outputs against fp32's, and its rate."""

    way: Literal["fp16", "kept", "fp32"]
    samples: BatchSize
    passed: bool
    finite: bool
    relative_error: Finite | None
    agreement: Share | None = Field(description="Of answers with fp32's; null without classes or with NaN.")
    throughput: PricedRate | None


class ComparedMode(_Record):
    mode: str
    first_past: str | None = Field(description="The first block past the tolerance; null where none is.")
    refused: bool


class AtcFile(_Record):
    """What ATC is given to keep the nodes."""

    flag: Literal["keep_dtype", "modify_mixlist"]
    text: str


class Precision(_Record):
    """Which nodes must stay in float32, by precision/precision.json."""

    explained: bool = Field(description="Whether precision is why the gate does not hold, or it holds.")
    batch_size: BatchSize
    samples: BatchSize
    mode: str
    units: BatchSize = Field(description="Nodes whose precision is a choice.")
    kept: Count = Field(description="Of them, those that stay in float32.")
    conversions: Count
    blocks: list[ComparedMode] = Field(description="Where blocks were compared, each mode tried.")
    matrix: list[str] = Field(
        description="Where precision does not explain it: nodes that would, were the chip's matrix unit float16 alone."
    )
    inventory: str = Field(description="The lines for the inventory.")
    file: AtcFile | None
    nodes: list[KeptNode]
    ways: list[Way]


class Batch(_Figures):
    """One batch size; beside these keys a value per metric, its hits where it is a share, its agreement with fp32's."""

    batch_size: BatchSize
    samples: Count
    cosine_min: Finite
    cosine_median: Finite
    max_abs_err: Finite
    mean_abs_err: Finite
    flipped_count: Count | None = None
    flipped: list[Count] | None = Field(None, description="The first of them.")
    outputs: dict[str, Nearness] | None = Field(None, description="Of the model's other outputs.")
    throughput: SummarisedThroughput | None = Field(description="Null where it was not measured.")
    persons: Persons | None
    latency_ms: Latency | None
    gpu: GpuRate | None = None
    drift: Drift | None = None
    sensors: Sensors | None = None
    end_to_end: EndToEnd | None = None
    profile: Profile | None = None
    relative_error: Finite
    published_relative_error: Finite | None = None
    decisive: Decisive | None = None
    passed: bool
    confused: list[Confusion] | None = None
    class_changes: list[ClassChange] | None = None
    confusion_changes: list[ConfusionChange] | None = None
    margins: Margins | None = None


class Reference(_Figures):
    """The fp32 reference; beside these keys a value per metric, and its hits where it is a share."""

    published: dict[str, Finite] | None = Field(description="Where it is comparable.")
    confused: list[Confusion] | None = None


class Noted(_Record):
    """A sample to look at: it flipped, or came near."""

    sample: Count
    name: str
    flipped: bool
    margin: Finite
    label: Class
    reference: Class
    device: dict[str, Class] = Field(description="By batch size.")


class Guide(_Figures):
    """Another's figures; beside these keys a value per metric."""

    chip: str | None = None
    throughput: dict[str, Positive]
    latency_ms: dict[str, Milliseconds]


class ModelName(_Record):
    name: str
    title: str


class Metric(_Record):
    key: str
    title: str
    better: Literal["higher", "lower"]
    unit: Literal["share", "number"]
    gate: Share | None = Field(None, description="The relative error that passes.")


class Device(_Record):
    chip: str
    soc_version: str
    simulated: bool
    cann: str
    driver: str | None
    health: str | None


class SinglePersons(_Record):
    samples: BatchSize
    a_clip: Positive


class Verdict(_Record):
    passed: bool
    gate: Share = Field(description="The relative error that passes.")


class Summary(_Record):
    """report/summary.json: the verdict."""

    format: Literal[1]
    model: ModelName
    metrics: list[Metric]
    device: Device
    samples: BatchSize
    persons: SinglePersons | None
    gpu: GpuHost | None = Field(None, description="Where the fp32 model was measured, if it was.")
    reference: Reference
    batches: list[Batch]
    flipped_count: Count | None = None
    noted: list[Noted]
    guide: Guide
    precision: Precision | None = None
    verdict: Verdict


Kind = TypeVar("Kind", bound=BaseModel)


def check(path: Path, content: Any, kind: type[Kind]) -> Kind:
    """A record, as its type. Raises KitError that names the file and the place in it."""
    try:
        return kind.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise KitError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; make it again") from None
