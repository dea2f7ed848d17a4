"""`inventory.yaml` as validated, frozen objects: the only file a user edits.

Every error names the file, the key, its value and what is allowed. Relative paths are relative to the kit's folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from deploy.errors import KitError, did_you_mean
from deploy.hosts.remote.places import refuse_place
from stgcn.cards import DEFAULT
from stgcn.errors import shown
from stgcn.files import open_regular

_COMPARE = "compare its indentation (by spaces), quotes and brackets with deploy/inventory.template.yaml"
ROOT = Path(__file__).resolve().parent.parent
DEFAULT_FILE = "inventory.yaml"
MAX_BYTES = 1 << 17  # an inventory is a page of text; PyYAML takes seconds for more
MAX_S = 1e6  # eleven days; a clock cannot be asked to wait for any number

_WORDS = {  # what a text must be, by its pattern
    (
        NAME := r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
    ): "at most 63 letters (A to Z), digits, `.`, `_` and `-`, no sign first",
    (TEXT := r"^[^\x00]+$"): "text without a NUL",
    (VALUE := r"^[^\x00]*$"): "text without a NUL",
    (WORD := r"^[^\s\x00-][^\s\x00]*$"): "one word that does not begin with `-`",
    (VARIABLE := r"^[A-Za-z_][A-Za-z0-9_]*$"): "an environment variable's name",
}
Name = Annotated[str, Field(pattern=NAME)]
Text = Annotated[str, Field(min_length=1, max_length=1000, pattern=TEXT)]
Value = Annotated[str, Field(pattern=VALUE)]
Word = Annotated[str, Field(pattern=WORD, max_length=1000)]  # that no program takes for a flag
BatchSize = Annotated[int, Field(gt=0, le=1 << 16)]  # samples of 8 GB
Port = Annotated[int, Field(ge=1, le=65535)]
Device = Annotated[int, Field(ge=0)]
Persons = Literal["both", "nonempty"]
Reference = dict[Text, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
AtcFlags = Annotated[  # a number and a truth value are taken as text
    dict[Text, Value],
    WithJsonSchema({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}),
]
AoeJobType = Literal[1, 2]  # subgraphs, operators


class _Section(BaseModel):
    # The validator is built when it is first used; defaults are made by model_construct, which needs none.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class Tools(_Section):
    """How the NPU tools are reached on a host (native) or in the image (docker); the defaults are CANN's."""

    env_scripts: list[Text] = ["/usr/local/Ascend/ascend-toolkit/set_env.sh"]
    env: dict[Annotated[str, Field(pattern=VARIABLE)], Value] = {}
    python: Text = "python3"
    atc: Text = "atc"
    aoe: Text = "aoe"  # the tuner; a host may lack it
    npu_smi: Text = "npu-smi"


class _Host(_Section):
    connection: Literal["local", "ssh"] = "local"
    host: Word | None = None
    user: Word | None = None
    port: Port | None = None
    key: Text | None = None
    jump: Word | None = None
    runtime: Literal["docker", "native"] = "docker"

    @property
    def is_example(self) -> bool:
        """Whether the host is that of the inventory as the kit brings it; RFC 2606 gives `.example` to no site."""
        return bool(self.host and self.host.endswith(".example"))

    @model_validator(mode="after")
    def _address(self) -> _Host:
        if self.connection == "ssh" and self.host is None:
            raise ValueError("connection: ssh needs a `host`")
        return self


class Gpu(_Host):
    """The host that preprocesses, exports and computes the fp32 reference."""

    name: Name = "gpu"
    image: Text = "stgcn-gpu"
    workspace: Text = "stgcn-work"  # used by connection: ssh alone; dataset and checkpoint lie on that host then
    python: Text | None = None  # native: the Python with torch; this kit's own when local


class Npu(_Host):
    """A host with Ascend NPUs."""

    name: Name
    image: Text = "stgcn-npu"
    workspace: Text = "stgcn-work"
    devices: list[Device] | Literal["all"] = [0]
    vendor_runtime: bool = False  # docker: the vendor's container runtime (`ascend`) hands the devices in
    chip: Word | None = None  # what atc is given as --soc_version, e.g. 310P3; npu-smi is asked where it is left out
    tools: Tools = Tools.model_construct()

    @field_validator("devices")
    @classmethod
    def _distinct(cls, devices: list[int] | str) -> list[int] | str:
        if devices != "all" and (not devices or len(set(devices)) != len(devices)):
            raise ValueError("list each logical device once, or say `all`")
        return devices


class Engine(_Section):
    """What shares work out over the NPU hosts."""

    kind: Literal["ssh", "ray"] = "ssh"
    address: Text | None = None  # ray: HOST:PORT of the cluster's head

    @model_validator(mode="after")
    def _addressed(self) -> Engine:
        if self.kind == "ray" and self.address is None:
            raise ValueError("kind: ray needs the `address` of the cluster's head, HOST:PORT")
        return self


class Dataset(_Section):
    data: Text
    labels: Text


class Benchmark(_Section):
    loop: PositiveInt = 100  # batches a repeat
    warmup: PositiveInt = 1
    threads: PositiveInt = 1  # computing side by side, each with an OM of its own; ais_bench of 2024 or later
    min_repeats: PositiveInt = 5  # from which on a comparison finds a slowdown of 5% (docs/ci.md)
    max_repeats: PositiveInt = 10  # obeyed first
    spread: Annotated[float, Field(gt=0, le=1)] = 0.02  # stop repeating once (max - min) / median is under this
    idle_timeout_s: Annotated[float, Field(ge=0, le=MAX_S)] = 600

    @property
    def decisive(self) -> dict[str, Any]:
        """What a figure depends on. One thread is not told: no figure of an earlier version has another."""
        return self.model_dump(exclude={"idle_timeout_s", *(("threads",) if self.threads == 1 else ())})


class Tune(_Section):
    """What `fab npu-tune` tries, each with each; then AOE on the best of them."""

    variants: list[Name] = []  # the model's own where empty, as `persons`
    persons: list[Persons] = []
    precision_modes: Annotated[list[Text], Field(min_length=1)] = ["force_fp16", "allow_mix_precision"]
    batch_sizes: list[BatchSize] = []  # the inventory's own where empty
    threads: list[PositiveInt] = []  # besides benchmark.threads, with each batch size of the best
    aoe: list[AoeJobType] = [2]  # job types, where the host has AOE
    samples: PositiveInt = 512  # the first so many pass the gate
    latency_ms: Annotated[float, Field(gt=0, le=MAX_S)] | None = None  # of a batch: p99 of computing, and both copies


class Inventory(_Section):
    workspace: Text = "work"
    gpu: Gpu = Gpu.model_construct()
    npu: Annotated[list[Npu], Field(min_length=1)]
    engine: Engine = Engine.model_construct()
    known_hosts: Text | None = None  # OpenSSH's own files, as ~/.ssh/config has them
    model: Text = DEFAULT  # one of the kit's, or the folder of one's own (docs/own-model.md)
    dataset: Dataset | None = None  # by default what the model's card names, as for `checkpoint` and `reference`
    checkpoint: Text | None = None
    batch_sizes: Annotated[list[BatchSize], Field(min_length=1)] = [1, 4, 8, 16, 32, 64]
    variant: Name = "reference"
    persons: Persons = "both"  # of a clip go through the model together, or each who is seen by itself
    atc: AtcFlags = {"precision_mode": "force_fp16"}
    aoe: AoeJobType | None = None  # have AOE tune each OM on the device
    benchmark: Benchmark = Benchmark.model_construct()
    tune: Tune = Tune.model_construct()
    reference: Reference | None = None  # the published accuracy: `samples`, and a value per metric
    timeout_s: Annotated[float, Field(gt=0, le=MAX_S)] = 7200  # of any one run of atc or ais_bench
    link_timeout_s: Annotated[float, Field(ge=1, le=MAX_S)] = 30  # without an answer: the link to a host counts as dead
    gate: Annotated[float, Field(gt=0, lt=1)] = 0.01
    sign: Text | None = None  # an SSH key that signs every run: a private one, or a public one that the agent has
    allowed_signers: Text | None = None  # ssh-keygen's file of those who may (docs/evidence.md)

    @property
    def inputs(self) -> dict[str, str]:
        """What the user has named on the GPU host: key -> path."""
        dataset = {f"dataset.{key}": path for key, path in self.dataset.model_dump().items()} if self.dataset else {}
        return {**dataset, **({"checkpoint": self.checkpoint} if self.checkpoint else {})}

    @property
    def environment(self) -> dict[str, Any]:
        """`tools.env` of the NPU hosts as an input of every step that runs their tools: names, and a digest in place of
        the values. Empty where there is none."""
        given = [host.tools.env for host in self.npu]
        names = sorted({name for env in given for name in env})
        values = sorted({json.dumps(env, sort_keys=True) for env in given})
        return (
            {"env": {"names": names, "sha256": hashlib.sha256("\n".join(values).encode()).hexdigest()}} if names else {}
        )

    @field_validator("atc", mode="before")
    @classmethod
    def _flags_are_text(cls, flags: Any) -> Any:
        """ATC's flags are text; YAML reads `1` and `true` as something else."""
        if not isinstance(flags, dict):
            return flags
        read = {k: v for k, v in flags.items() if isinstance(v, (bool, int, float))}
        return {**flags, **{k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in read.items()}}

    @field_validator("batch_sizes")
    @classmethod
    def _distinct(cls, sizes: list[int]) -> list[int]:
        if len(set(sizes)) != len(sizes):
            raise ValueError("list each batch size once")
        return sizes

    @field_validator("npu")
    @classmethod
    def _distinct_names(cls, hosts: list[Npu]) -> list[Npu]:
        if len({h.name for h in hosts}) != len(hosts):
            raise ValueError("give each NPU host a `name` of its own")
        return hosts


def _not_allowed(what: str, event: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, f"{what} are not allowed", event.start_mark)


class _Loader(yaml.SafeLoader):
    """Plain YAML: no tags, no aliases (a billion laughs fit in a page), no key twice.

    What is not quoted is null, true, false, a decimal number or text, as in YAML 1.2: in 1.1 010 is 8 and 1:30 is 90.
    """

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012 - filled below; the base's are of YAML 1.1

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _not_allowed("aliases (*name)", event)
        if event.tag is not None:
            raise _not_allowed("tags (!name)", event)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _form in (
    ("null", r"null|Null|NULL|~|"),
    ("bool", r"true|True|TRUE|false|False|FALSE"),
    ("int", r"[-+]?(0|[1-9][0-9]*)"),
    ("float", r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_form})$"), None)


def local_path(text: str) -> Path:
    """A path of the inventory on this machine: `~` expanded, relative to the kit's folder."""
    try:
        return ROOT / Path(text).expanduser()
    except RuntimeError:
        raise KitError(f"{text}: there is no such user on this machine; write the path without `~`") from None


def chosen() -> str:
    """The file that this command reads, as the user named it."""
    return os.environ.get("INVENTORY") or DEFAULT_FILE


def with_inventory(command: str) -> str:
    """A command line of the kit that reads the same inventory as this one."""
    return command if chosen() == DEFAULT_FILE else f"INVENTORY={shlex.quote(chosen())} {command}"


def load(path: Path) -> Inventory:
    """Read and validate an inventory.

    Raises:
        KitError: naming the file, the key, the value and what is allowed.
    """
    try:
        with open_regular(path) as stream:
            text = stream.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise KitError(f"{path}: larger than {MAX_BYTES} bytes, so not an inventory; see inventory.yaml for one")
        data = yaml.load(text.decode("utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise KitError(f"{path}: cannot be read ({reason}); name another with INVENTORY=FILE") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # as of "\\UFFFFFFFF"
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error) or "nested too deeply"
        raise KitError(f"{path}{where}: not a plain YAML inventory: {problem}; {_COMPARE}") from None
    if not isinstance(data, dict):
        what = "it is empty" if data is None else f"an inventory is a mapping of keys, not {type(data).__name__}"
        raise KitError(f"{path}: {what}; {_COMPARE}")
    try:
        inventory = Inventory.model_validate(data)
    except ValidationError as error:
        raise KitError(f"{path}: " + _sentences(error.errors()[:5])) from None
    _refuse_places(path, inventory)
    return inventory


def _refuse_places(path: Path, inventory: Inventory) -> None:
    """Raises KitError for a workspace of this machine that is not the kit's alone; other machines tell at contact."""
    places = {"workspace": inventory.workspace}
    if inventory.engine.kind == "ssh":
        hosts = enumerate(inventory.npu)
        places |= {f"npu[{i}].workspace": host.workspace for i, host in hosts if host.connection == "local"}
    is_here = inventory.gpu.connection == "local"
    inputs = {key: str(local_path(text)) for key, text in inventory.inputs.items()} if is_here else {}
    for key, place in places.items():
        try:
            refuse_place(str(local_path(place)), inputs)
        except ValueError as error:
            raise KitError(f"{path}: {key}: {error}") from None


def _sentences(errors: Iterable[Any]) -> str:
    """What is wrong with which key; of a value that may be of several kinds, all that it is none of at once."""
    found: dict[str, str] = {}
    for error in errors:
        what, must = _sentence(error)
        found[what] = f"{found[what]} or {must.removeprefix('it must be ')}" if what in found else must
    return "; ".join("; ".join(filter(None, said)) for said in found.items())


def _sentence(error: Mapping[str, Any]) -> tuple[str, str]:
    """What is wrong, and what it must be."""
    if error["type"] == "extra_forbidden":
        return _unknown_key(error["loc"], _place(error["loc"])), ""
    where = _place([part for part in error["loc"] if "[" not in str(part)])  # list[...] names a kind of value
    if error["type"] == "missing":
        return f"{where} is missing", ""
    must = error["msg"].removeprefix("Value error, ").replace("Input should be ", "it must be ")
    if error["type"] == "string_pattern_mismatch":
        must = f"it must be {_WORDS[error['ctx']['pattern']]}"
    return f"{where or 'inventory'}: {shown(error['input'])} is not allowed", must.replace(" after validation", "")


def _place(location: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _unknown_key(location: tuple[str | int, ...], where: str) -> str:
    section: Any = Inventory
    for part in location[:-1]:
        if isinstance(part, str) and part in section.model_fields:
            section = _section_of(section.model_fields[part].annotation)
    allowed = sorted(section.model_fields)
    return f"unknown key {where}{did_you_mean(str(location[-1]), allowed)} allowed: {', '.join(allowed)}"


def _section_of(annotation: Any) -> Any:
    """The section model inside `X`, `list[X]`, `Annotated[...]` or a union."""
    if get_origin(annotation) in (list, Annotated, Union, UnionType):
        return next((_section_of(a) for a in get_args(annotation) if _section_of(a) is not None), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
