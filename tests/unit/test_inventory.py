"""inventory.yaml: what is accepted, and the sentence for what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import inventory
from deploy.errors import KitError
from deploy.pipeline.model import find, published

NPU = "npu: [{name: a, connection: local}]\n"


def load(tmp_path: Path, text: str) -> inventory.Inventory:
    path = tmp_path / "inventory.yaml"
    path.write_text(text)
    return inventory.load(path)


@pytest.mark.parametrize("name", ["inventory.yaml", "inventory.demo.yaml"])
def test_the_committed_inventories_are_valid(name: str) -> None:
    assert inventory.load(inventory.ROOT / name).npu


def test_every_key_but_npu_has_a_default(tmp_path: Path) -> None:
    found = load(tmp_path, NPU)
    assert found.batch_sizes == [1, 4, 8, 16, 32, 64]
    assert found.gate == 0.01
    assert found.npu[0].tools.env_scripts == ["/usr/local/Ascend/ascend-toolkit/set_env.sh"]


@pytest.mark.parametrize("devices", ["all", "[1, 0]"])
def test_devices_are_listed_or_all(tmp_path: Path, devices: str) -> None:
    found = load(tmp_path, f"npu: [{{name: a, devices: {devices}}}]")
    assert found.npu[0].devices in ("all", [1, 0])


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("FALSE", False)])
def test_true_and_false_are_what_yaml_1_2_calls_so(tmp_path: Path, text: str, value: bool) -> None:
    assert load(tmp_path, f"npu: [{{name: a, vendor_runtime: {text}}}]").npu[0].vendor_runtime is value


def test_atc_flags_are_text(tmp_path: Path) -> None:
    found = load(tmp_path, NPU + "atc: {log: error, enable_small_channel: 1, soc: true, core: 010, mode: on}\n")
    assert found.atc == {"log": "error", "enable_small_channel": "1", "soc": "true", "core": "010", "mode": "on"}


@pytest.mark.parametrize(("text", "value"), [("0.5", 0.5), (".5", 0.5), ("5e-1", 0.5), ("+0.5", 0.5)])
def test_numbers_are_decimal(tmp_path: Path, text: str, value: float) -> None:
    assert load(tmp_path, NPU + f"gate: {text}").gate == value


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it is empty"),
        ("[1, 2]", "mapping of keys, not list"),
        ("workspace: work", "npu is missing"),
        ("npu: [{name: a, devices: 0}]", "npu[0].devices: 0 is not allowed; it must be a valid list or 'all'"),
        ("npu: []", "npu: [] is not allowed"),
        (NPU + "batchsizes: [1]", "unknown key batchsizes; did you mean batch_sizes? allowed: "),
        ("npu: [{name: a, devcies: [0]}]", "unknown key npu[0].devcies; did you mean devices?"),
        ("npu: [{name: a, tools: {npu-smi: x}}]", "unknown key npu[0].tools.npu-smi; did you mean npu_smi?"),
        ("npu: [{name: a, connection: ssh}]", "connection: ssh needs a `host`"),
        (
            "npu: [{name: a, connection: telnet}]",
            "npu[0].connection: 'telnet' is not allowed; it must be 'local'",
        ),
        ("npu: [{name: a}, {name: a}]", "a `name` of its own"),
        ("npu: [{name: '../a'}]", "npu[0].name: '../a' is not allowed; it must be at most 63 letters"),
        ("npu: [{name: a, devices: [0, 0]}]", "each logical device once"),
        ("npu: [{name: a, devices: []}]", "each logical device once"),
        ("npu: [{name: a, devices: some}]", "devices"),
        (NPU + "batch_sizes: [0]", "batch_sizes[0]: 0 is not allowed; it must be greater than 0"),
        (NPU + "batch_sizes: [4, 4]", "list each batch size once"),
        (NPU + "batch_sizes: ['4']", "batch_sizes[0]: '4' is not allowed"),
        (NPU + "engine: {kind: ray}", "engine: {'kind': 'ray'} is not allowed; kind: ray needs the `address`"),
        (NPU + "engine: {kind: slurm}", "engine.kind: 'slurm' is not allowed; it must be 'ssh' or 'ray'"),
        (NPU + "gate: 1.5", "gate: 1.5 is not allowed; it must be less than 1"),
        (NPU + "benchmark: {loop: -1}", "benchmark.loop: -1 is not allowed"),
        ("a: &x [1]\nb: *x\n", "aliases (*name) are not allowed"),
        ("npu: 1\nnpu: 2\n", "the key 'npu' stands twice"),
        ("a: !!python/object/apply:os.system ['true']", "tags (!name) are not allowed"),
        ("a: !!timestamp x", "tags (!name) are not allowed"),
        ("a: !!int ''", "tags (!name) are not allowed"),
        ("%TAG ! tag:yaml.org,2002:\n---\na: !bool x", "tags (!name) are not allowed"),
        ("a: !<tag:yaml.org,2002:seq> []", "tags (!name) are not allowed"),
        ('a: "\\UFFFFFFFF"', "not a plain YAML inventory"),
        (NPU + "<<: {gate: 0.5}", "unknown key <<"),
        ("npu: [{name: a, devices: [010]}]", "'010' is not allowed"),
        ("npu: [{name: a, port: 0x16}]", "npu[0].port: '0x16' is not allowed"),
        (NPU + "timeout_s: 1:30", "timeout_s: '1:30' is not allowed"),
        (NPU + "timeout_s: 1_000", "timeout_s: '1_000' is not allowed"),
        (NPU + "gate: 2001-13-45", "gate: '2001-13-45' is not allowed"),
        (NPU + "gate: .nan", "gate: nan is not allowed"),
        (
            NPU + "batch_sizes: [4611686018427387904]",
            "batch_sizes[0]: 4611686018427387904 is not allowed; it must be",
        ),
        (NPU + "atc: {log: [error]}", "atc.log: ['error'] is not allowed"),
        (NPU + 'atc: {log: "a\\0b"}', "atc.log: 'a\\x00b' is not allowed"),
        (NPU + 'atc: {log: "\\uD800"}', "atc.log: '\\ud800' is not allowed"),
        ('npu: [{name: a, tools: {env: {A: "\\0"}}}]', "npu[0].tools.env.A: '\\x00' is not allowed"),
        (
            f"workspace: {'a/' * 1500}a\n" + NPU,
            "workspace: 'a/a/a/a/a/a/...a/a/a/a/a/a/a' is not allowed; String should",
        ),
        ("npu: [{name: a, connection: ssh, host: -oProxyCommand=x}]", "npu[0].host: '-oProxyCommand=x' is not"),
        ("a: [", "line 1: not a plain YAML inventory"),
        ("[" * 5000, "not a plain YAML inventory"),
    ],
)
def test_a_mistake_is_a_sentence_naming_the_key_and_the_way_out(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(KitError) as caught:
        load(tmp_path, text)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "inventory.yaml"))
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_way_to_choose_another(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"none.yaml: cannot be read .*INVENTORY=FILE"):
        inventory.load(tmp_path / "none.yaml")


@given(st.binary(max_size=200))
def test_any_bytes_are_an_inventory_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "inventory.yaml"
    path.write_bytes(data)
    with pytest.raises(KitError):
        inventory.load(path)


def test_the_published_accuracy_is_the_publishers() -> None:
    whole = inventory.Inventory.model_validate({"npu": [{"name": "a"}]})
    card = find(whole.model, Path()).card
    assert published(whole, card) == {"top1": 0.3160, "top5": 0.5368, "samples": 19796}


def test_a_reference_of_an_unknown_metric_is_refused() -> None:
    whole = inventory.Inventory.model_validate({"npu": [{"name": "a"}], "reference": {"top3": 0.5, "samples": 10}})
    with pytest.raises(KitError, match=r"reference\.top3"):
        published(whole, find(whole.model, Path()).card)
