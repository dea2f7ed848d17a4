"""What CI sees of the commands: exit statuses, one JSON document on standard output, JUnit XML, the step summary."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from deploy.inventory import ROOT
from deploy.workspace import Workspace
from tests.unit import made_up

FAB = Path(sys.executable).with_name("fab")


class Ci:
    """A finished workspace with a baseline beside it, and an environment as GitHub has it."""

    def __init__(self, folder: Path, **differences: Any) -> None:
        self.folder = folder
        self.baseline = self._made("baseline").folder
        self.workspace = self._made("now", **differences)
        self.inventory, self.summary = folder / "inventory.yaml", folder / "summary.md"
        written = self.workspace.inventory.model_dump(mode="json", exclude_unset=True)
        self.inventory.write_text(yaml.safe_dump(written))

    def _made(self, name: str, **differences: Any) -> Workspace:
        workspace = made_up.make(self.folder / name, **differences)
        made_up.score(workspace)
        return workspace

    def fab(self, *words: str) -> tuple[int, dict[str, Any], str]:
        environment = {"INVENTORY": str(self.inventory), "GITHUB_STEP_SUMMARY": str(self.summary)}
        done = subprocess.run(
            [FAB, *words], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
        return done.returncode, json.loads(done.stdout), done.stderr


def test_a_gate_that_fails_is_status_2_in_every_report(tmp_path: Path) -> None:
    ci, xml = Ci(tmp_path, slower=1.2), tmp_path / "gate.xml"
    status, told, error = ci.fab("gate", "--baseline", str(ci.baseline), "--json", "--junit", str(xml))
    assert status == told["status"] == 2
    assert told["passed"] is False
    slower = {
        comparison["batch_size"]: comparison for comparison in told["comparisons"] if comparison["verdict"] == "worse"
    }
    assert slower.keys() == set(made_up.SIZES)
    assert all(comparison["change"] == pytest.approx(-1 / 6) for comparison in slower.values())
    assert told["error"] in " ".join(error.split())
    suite = ElementTree.parse(xml).getroot()[0]
    assert suite.attrib["failures"] == str(len(made_up.SIZES))
    assert ci.summary.read_text().count("❌") == len(made_up.SIZES)


def test_what_passes_is_status_0_and_the_lists_agree(tmp_path: Path) -> None:
    ci = Ci(tmp_path)
    status, told, _ = ci.fab("gate", "--baseline", str(ci.baseline), "--json")
    assert (status, told["passed"]) == (0, True)
    assert told["baseline"]["folder"] == str(ci.baseline)
    status, listed, _ = ci.fab("runs", "--json")
    assert (status, [run["id"] for run in listed["runs"]]) == (0, [told["run"]["id"]])
    status, compared, _ = ci.fab("compare", "latest", str(ci.baseline), "--json")
    assert (status, len(compared["comparisons"])) == (0, len(told["comparisons"]))


def test_an_audit_lists_what_it_checked_and_what_failed(tmp_path: Path) -> None:
    ci, xml = Ci(tmp_path), tmp_path / "audit.xml"
    status, told, _ = ci.fab("audit", "--json")
    assert (status, told["passed"]) == (0, True)
    assert len(told["checks"]) > 5
    rates = ci.workspace.folder / "report/summary.csv"
    rates.write_text(rates.read_text().replace("PASSED", "passed").replace("1,", "2,", 1))
    status, told, _ = ci.fab("audit", "--json", "--junit", str(xml))
    assert (status, told["passed"]) == (1, False)
    (failed,) = [check for check in told["checks"] if check["passed"] is False]
    assert "summary.csv" in failed["detail"]
    assert int(ElementTree.parse(xml).getroot().attrib["failures"]) == 1


def test_an_error_is_status_1_and_a_document(tmp_path: Path) -> None:
    ci = Ci(tmp_path)
    status, told, _ = ci.fab("gate", "--baseline", "1999", "--json")
    assert status == told["status"] == 1
    assert "1999" in told["error"]


def test_an_unfit_host_is_status_3_and_named(tmp_path: Path) -> None:
    ci = Ci(tmp_path)
    written = yaml.safe_load(ci.inventory.read_text())
    written["npu"][0] |= {"connection": "ssh", "host": "127.0.0.1", "port": 1, "name": "npu-a"}
    ci.inventory.write_text(yaml.safe_dump(written))
    status, told, _ = ci.fab("doctor", "--json")
    assert status == told["status"] == 3
    failed = [check for check in told["checks"] if check["passed"] is False]
    assert {check["subject"] for check in failed} == {"npu-a"}
    assert all(check["fix"] for check in failed)
