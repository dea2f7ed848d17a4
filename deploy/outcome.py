"""What a command found, for programs: a JSON document, JUnit XML, a GitHub step summary (docs/ci.md). Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from stgcn.errors import sentence

FORMAT = 1  # of the JSON document
_NOT_XML = re.compile("[\ufffe\uffff]")  # what `printable` leaves and XML 1.0 (2.2, Characters) cannot say
_MARKUP = re.compile(r"[^\w\s.,;%()+/=\-]|_", re.ASCII)


@dataclass(frozen=True)
class Check:
    """One thing that a command looked at."""

    subject: str  # a host, a batch size, a step
    name: str  # what was checked of it
    passed: bool | None  # None: it could not be told, which fails nothing
    detail: str = ""
    fix: str = ""  # the command that does


@dataclass(frozen=True)
class Outcome:
    """What a command found; `facts` are further keys of its JSON document."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    checks: Sequence[Check] = ()


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    command: str  # the task's name
    status: int = 0
    error: str | None = None  # the sentence
    outcome: Outcome | None = None

    @property
    def checks(self) -> Sequence[Check]:
        return self.outcome.checks if self.outcome else ()


def document(ending: Ending) -> str:
    """The JSON document, in ASCII; a number that JSON cannot say is null."""
    found: dict[str, Any] = {"format": FORMAT, "command": ending.command, "status": ending.status}
    if ending.error is not None:
        found["error"] = ending.error
    if ending.outcome:
        found |= _finite(dict(ending.outcome.facts))
        if ending.checks:
            found["checks"] = [asdict(check) for check in ending.checks]
    return json.dumps(found, ensure_ascii=True, allow_nan=False, indent=1)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def junit(ending: Ending) -> bytes:
    """JUnit XML, as Jenkins' junit-10.xsd has it: a case per check; an error that is no check's is one of its own."""
    from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

    suite = TestSuite(f"fab {ending.command}")
    for check in ending.checks:
        case = TestCase(_xml(check.name), f"fab.{ending.command}.{_xml(check.subject)}", 0.0)
        if check.passed is not True:
            kind = Skipped if check.passed is None else Failure
            case.result = [kind(_xml("; ".join(filter(None, (check.detail, check.fix)))))]
        else:
            case.system_out = _xml(check.detail)
        suite.add_testcase(case)
    if ending.error is not None and all(check.passed is not False for check in ending.checks):
        case = TestCase(f"fab {ending.command}", f"fab.{ending.command}", 0.0)
        case.result = [Error(_xml(ending.error))]
        suite.add_testcase(case)
    whole = JUnitXml(f"fab {ending.command}")
    whole.add_testsuite(suite)
    whole.update_statistics()  # type: ignore[no-untyped-call]
    del whole._elem.attrib["skipped"]  # junit-10.xsd of Jenkins has it of a suite alone
    return bytes(whole.tostring())  # type: ignore[no-untyped-call]


def _xml(text: str) -> str:
    return _NOT_XML.sub("", sentence(text))


_MARKS = {True: "✅", False: "❌", None: "➖"}


def step_summary(ending: Ending) -> str:
    """GitHub-flavoured Markdown: a table of the checks, and the sentence of an error."""
    word = "passed" if ending.status == 0 else f"failed (exit status {ending.status})"
    lines = [f"### fab {ending.command}: {word}", ""]
    if ending.checks:
        lines += ["| | of | check | result |", "|---|---|---|---|"]
        for check in ending.checks:
            cells = (check.subject, check.name, check.detail)
            lines.append(f"| {_MARKS[check.passed]} | " + " | ".join(_markdown(cell) for cell in cells) + " |")
        lines.append("")
    if ending.error is not None:
        lines += [_markdown(ending.error), ""]
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> str:
    """Text that is no markup, whatever it says: ASCII signs that could be are entities."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};" if ord(found[0]) < 128 else found[0], sentence(text))
