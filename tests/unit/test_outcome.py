"""What programs are given: one JSON document, JUnit XML, a step summary, an exit status; whatever hosts say in them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from invoke import Exit

from deploy.command import carry_out
from deploy.errors import GateFailed, HostUnfit, KitError
from deploy.outcome import Check, Ending, Outcome, document, junit, step_summary

HOSTILE = (
    "\x1b[2Jbs1 | <img src=x onerror=alert(1)> [a](http://e.vil) `x` \n::set-output ]]> \u202e\ufffe\x00\ud800 **b**"
)
CHECKS = [Check("bs1", "accuracy", True, "31.59%"), Check("bs4", "speed", False, HOSTILE), Check(HOSTILE, "x", None)]
FAILED = Ending("gate", 2, HOSTILE, Outcome({"change": float("inf"), "deep": [{"x": float("nan")}], "n": 1}, CHECKS))


def test_the_document_is_ascii_of_finite_numbers() -> None:
    text = document(FAILED)
    assert text.isascii()
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    found = json.loads(text, parse_constant=pytest.fail)
    assert (found["status"], found["change"], found["deep"], found["n"]) == (2, None, [{"x": None}], 1)
    assert [check["passed"] for check in found["checks"]] == [True, False, None]
    assert "error" not in json.loads(document(Ending("runs", outcome=Outcome({"runs": []}))))


def counts(suite: ElementTree.Element) -> tuple[int, ...]:
    (found,) = suite.iter("testsuite")
    return tuple(int(found.attrib[name]) for name in ("tests", "failures", "errors", "skipped"))


def test_junit_counts_what_it_lists() -> None:
    root = ElementTree.fromstring(junit(FAILED))
    assert root.tag == "testsuites"
    (suite,) = root
    assert counts(suite) == (3, 1, 0, 1)
    assert [case.attrib["name"] for case in suite.iter("testcase")] == ["accuracy", "speed", "x"]
    assert [len(case.findall("failure")) for case in suite.iter("testcase")] == [0, 1, 0]


# Jenkins' schema of JUnit XML, junit-10.xsd of its xunit plugin, of what the kit uses: an element's children, the
# attributes that it must have, and those that it may have.
SCHEMA = {
    "testsuites": ("testsuite", "", "name time tests failures errors"),
    "testsuite": (
        "testcase",
        "name tests failures errors",
        "time skipped timestamp hostname id package file log url group",
    ),
    "testcase": ("skipped error failure system-out", "name", "time classname group"),
    **dict.fromkeys(("skipped", "error", "failure"), ("", "", "type message")),
    "system-out": ("", "", ""),
}


@pytest.mark.parametrize("ending", [FAILED, Ending("gate", 1, "no run is kept"), Ending("runs", outcome=Outcome())])
def test_junit_is_of_its_schema(ending: Ending) -> None:
    root = ElementTree.fromstring(junit(ending))
    assert root.tag == "testsuites"
    for element in root.iter():
        children, required, optional = (set(names.split()) for names in SCHEMA[element.tag])
        assert {child.tag for child in element} <= children
        assert required <= element.attrib.keys() <= required | optional
        assert re.fullmatch(r"[0-9]{0,3}(\.[0-9]*)?", element.get("time", ""))


def test_an_error_before_any_check_is_a_case_of_junit() -> None:
    (suite,) = ElementTree.fromstring(junit(Ending("gate", 1, "no run is kept")))
    assert counts(suite) == (1, 0, 1, 0)
    assert suite.find("testcase/error").attrib["message"] == "no run is kept"  # type: ignore[union-attr]


def test_a_step_summary_is_a_table_whatever_is_in_its_cells() -> None:
    table = [line for line in step_summary(FAILED).splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(CHECKS)
    assert {line.count("|") for line in table} == {5}
    for markup in ("<img", "](", "`", "**", "http:", "\x1b", "\u202e"):
        assert markup not in step_summary(FAILED)


def failing(error: BaseException) -> Callable[[], Outcome]:
    def body() -> Outcome:
        print("progress")
        subprocess.run(["echo", "a child"], check=True)
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KitError("a mistake"), 1),
        (GateFailed("bs4 missed", Outcome({}, CHECKS)), 2),
        (HostUnfit("npu-a is away"), 3),
        (OSError(28, "No space left", "work"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_end_has_its_status_and_one_document(error: BaseException, status: int, capfd: Any) -> None:
    with pytest.raises(Exit) as ended:
        carry_out("gate", failing(error), json=True)
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert ended.value.code == found["status"] == status
    assert found["error"]
    assert "progress" in err
    assert "a child" in err


def test_a_fault_of_the_kit_s_own_is_a_document_too(capfd: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        carry_out("gate", failing(ZeroDivisionError()), json=True)
    assert json.loads(capfd.readouterr().out)["status"] == 1


def test_files_are_written_on_failure_and_appended_for_github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary, xml = tmp_path / "summary.md", tmp_path / "new/junit.xml"
    summary.write_text("earlier\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    with pytest.raises(Exit):
        carry_out("gate", failing(GateFailed("missed", Outcome({}, CHECKS))), junit_file=str(xml), summarised=True)
    assert counts(ElementTree.parse(xml).getroot()) == (3, 1, 0, 1)
    assert summary.read_text().startswith("earlier\n### fab gate: failed (exit status 2)")


def test_a_file_that_cannot_be_written_is_an_error_and_the_document_says_so(tmp_path: Path, capfd: Any) -> None:
    with pytest.raises(Exit) as ended:
        carry_out("gate", Outcome, json=True, junit_file=str(tmp_path))
    found = json.loads(capfd.readouterr().out)
    assert (ended.value.code, found["status"]) == (1, 1)
    assert str(tmp_path) in found["error"]
