"""`fab init`: what it writes fits the host that it looked at, and nobody's work is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deploy import init
from deploy.connections import Connections
from deploy.doctor import examine
from deploy.errors import KitError
from deploy.evidence import elsewhere
from deploy.init import Answers, filled
from deploy.inventory import ROOT, Inventory, load
from deploy.options import Options
from deploy.workspace import Workspace
from tests.unit import made_up

SIMULATED = Answers(host="local", env_scripts=["docker/npu/simulator/set_env.sh"])


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INVENTORY", str(tmp_path / "inventory.yaml"))
    return tmp_path / "inventory.yaml"


def test_the_kit_brings_the_template_as_its_inventory() -> None:
    same = (ROOT / "inventory.yaml").read_bytes() == init.TEMPLATE.read_bytes()
    assert same, "cp inventory.yaml deploy/inventory.template.yaml"


def test_every_key_can_be_filled_in_and_keeps_its_remark() -> None:
    template = init.TEMPLATE.read_text()
    values = {
        "npu.host": "10.0.0.7",
        "npu.jump": "me@gate",
        "npu.port": None,
        "npu.tools.python": "true",
        "checkpoint": "a b",
    }
    text = filled(template, {**values, "npu.devices": [1, 2]})
    read = yaml.safe_load(text)
    npu = read["npu"][0]
    assert (npu["host"], npu["jump"], npu["devices"]) == ("10.0.0.7", "me@gate", [1, 2])
    assert (npu["tools"]["python"], read["checkpoint"]) == ("true", "a b")
    assert "port" not in npu
    remarks = [[line.partition(" # ")[2] for line in each.splitlines() if " # " in line] for each in (template, text)]
    assert set(remarks[0]) <= set(remarks[1]) | {"jump: user@gateway.example      # reach it through this host"}
    assert filled(template, {}) == template
    with pytest.raises(KitError, match="npu.hots"):
        filled(template, {"npu.hots": "a"})


def test_what_it_writes_of_the_simulated_host_passes_doctor(path: Path) -> None:
    made_up.make(path.parent / "made-up")
    sample = path.parent / "made-up/sample"
    files = {"data": "val_data.npy", "labels": "val_label.pkl", "checkpoint": "st_gcn.made-up.pth"}
    init.run(
        Answers(
            host="local",
            env_scripts=SIMULATED.env_scripts,
            devices="0",
            **{key: str(sample / name) for key, name in files.items()},
        ),
        force=False,
    )
    inventory = load(path)
    (npu,) = inventory.npu
    assert (npu.connection, npu.host, npu.runtime, npu.devices) == ("local", None, "native", [0])
    places = {
        "workspace": str(path.parent / "work"),
        "npu": [npu.model_copy(update={"workspace": str(path.parent / "npu")})],
    }
    with Connections(Workspace(inventory.model_copy(update=places)), Options(dry=True)) as connections:
        checks = examine(connections)
    assert {"devices", "ais_bench", "atc"} <= {check.name for check in checks}
    assert [check for check in checks if not check.passed and check.name != "disk"] == []


def test_an_inventory_that_was_edited_stays(path: Path) -> None:
    path.write_text("npu: [{name: mine}]\n")
    for answer in (None, lambda _: "no"):
        with pytest.raises(KitError, match="--force"):
            init.run(SIMULATED, False, answer)
    assert path.read_text() == "npu: [{name: mine}]\n"
    init.run(SIMULATED, False, lambda question: "yes" if "Overwrite" in question else "")
    assert load(path).npu[0].name == "npu"
    path.write_text("npu: [{name: mine}]\n")
    init.run(SIMULATED, True)
    assert load(path).npu[0].name == "npu"


def test_one_that_the_kit_brought_is_nobody_s_work(path: Path) -> None:
    path.write_bytes(init.TEMPLATE.read_bytes())
    init.run(SIMULATED, False)
    assert load(path).npu[0].connection == "local"


def test_whoever_has_the_inventory_as_the_kit_brings_it_is_sent_here(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(init.TEMPLATE.read_bytes())
    inventory = load(path).model_copy(update={"workspace": str(tmp_path / "work")})
    (check,) = [
        check
        for check in examine(Connections(Workspace(inventory), Options(dry=True)))
        if check.subject == inventory.npu[0].name
    ]
    assert (check.passed, "fab init" in check.detail) == (False, True)
    monkeypatch.setattr("deploy.evidence.elsewhere.ROOT", tmp_path)
    assert "fab init" in elsewhere.nothing_ran(Workspace(inventory), "status")


def test_a_host_that_has_nothing_yet_gets_its_inventory_too(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init.run(Answers(host="local"), False)
    assert load(path).npu[0].devices == [0]
    said = capsys.readouterr().out
    assert "missing:" in said
    assert "fab doctor" in said


def test_it_never_asks_where_nobody_sits(path: Path) -> None:
    with pytest.raises(KitError, match="--host"):
        init.run(Answers(), False, None)
    assert not path.exists()


def test_what_is_asked_is_what_no_flag_said(path: Path) -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return {"devices": "all", "NPU host": ""}.get(question[:7].strip(), "")

    init.run(Answers(env_scripts=SIMULATED.env_scripts, runtime="native"), False, ask)
    assert [question.split()[0] for question in asked] == ["NPU", "devices"]
    assert load(path).npu[0].devices == "all"


@pytest.mark.parametrize(
    "answers",
    [
        Answers(host="-oProxyCommand=x"),
        Answers(host="nowhere.invalid"),
        Answers(host="local", devices="0;1"),
        Answers(host="local", runtime="podman", env_scripts=SIMULATED.env_scripts),
    ],
)
def test_a_wrong_answer_leaves_nothing(answers: Answers, path: Path) -> None:
    with pytest.raises(KitError):
        init.run(answers, False)
    assert list(path.parent.glob("*inventory*")) == []


def test_its_inventory_is_of_the_keys_that_there_are() -> None:
    assert set(yaml.safe_load(init.TEMPLATE.read_text())) <= set(Inventory.model_fields)
