"""CANN's coded errors, as ATC, AOE and the runtime under ais_bench print them: the grammar of every age."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.npu import causes

# An error's line in every age: `E10001: Value [x] ...`, with `[PID: n] <time>` behind the code since CANN 7 and, since
# 8.5, before a title: `[PID: n] <time> Invalid_Argument(E10001): ...`; of an inner error `E19999[PID: n] <time> ...`.
_ERROR = re.compile(
    r"^(?:\[(?:ACL )?ERROR\] *)?(?:\[PID:\s*[0-9]+\]\s*)?(?:[0-9]{4}-[0-9]{2}-[0-9]{2}[-T ][0-9:.]+\s+)?"
    r"(?:(?P<title>\w*)\()?(?P<code>E[0-9]{5}|E[A-Z][0-9]{4})\b\)?(?P<text>\s*(?:[:\[]|  ).*|:?)$"
)
_HEADING = re.compile(
    r"(?:Inner|Internal) Error!?|Unknown error occurred.*", re.IGNORECASE
)  # the cause is on the next line
# The runtime failed to ask the device why it had failed, or says nothing at all: the cause is in the trace.
_EMPTY = re.compile(r"\brtGetDevMsg\b|^The argument is invalid\.?$")
_FRAME = re.compile(r"Trace ?Back|Possible Cause|Solution|\[?W[0-9]{5}", re.IGNORECASE)
# `[ERROR] GE(69,atc.bin):2025-03-18-14:35:48.620.302 [graph_loader.cc:143]69 words`, from the words on.
_FIRST_ERROR = re.compile(
    r"\[ERROR\]\s*(?:\w+\([0-9]+,[^)]*\):[0-9.:-]+\s*(?:\[[^\]]*\])?\s*(?:[0-9]+\s)?)?\s*(?P<logged>\S.*)"
    r"|^(?P<compiling>(?:Failed to compile|Pre-compile op\[).*)"
)
_CAUSE_LINES = 60  # below a heading
_MOST = 200  # errors of one run that are read: what follows so many is their consequence
_INNER = re.compile(r"E[A-Z0-9]9999")


@dataclass(frozen=True)
class CannError:
    code: str
    message: str
    detail: str = ""  # all that was printed
    title: str = ""  # such as File_Operation_Error_Open; since CANN 8.5

    @property
    def is_inner(self) -> bool:
        """Whether the code says no more than that CANN failed inside."""
        return _INNER.fullmatch(self.code) is not None

    @property
    def kind(self) -> str:
        return f"{self.code} {self.title}"

    def advice(self, *tables: str) -> str | None:
        """What to do about an error of its kind, by the first of the tables (causes.yaml) that tells."""
        return next((known[1] for table in tables if (known := causes.find(table, [self.kind]))), None)


def errors(lines: Sequence[str]) -> list[CannError]:
    """The first coded errors in the order printed, each with its cause: of a heading, what the next line says.

    ATC prints the cause first, but wrapping errors may precede it.
    """
    found_errors: list[CannError] = []
    detail, logged = "\n".join(lines), first_logged(lines)
    for at, line in enumerate(lines):
        if (found := _ERROR.search(line)) is None:
            continue
        code, message = found["code"], _message(found["text"])
        if not message or _HEADING.fullmatch(message):
            message = _below(code, lines[at + 1 : at + 1 + _CAUSE_LINES]) or logged or message
        elif _EMPTY.search(message):
            message = _traced(lines[at + 1 : at + 1 + _CAUSE_LINES]) or message
        found_errors.append(CannError(code, message, detail, found["title"] or ""))
        if len(found_errors) == _MOST:
            break
    return found_errors


def first_logged(lines: Sequence[str]) -> str | None:
    """The words of the first `[ERROR]` or `Failed to compile` line: what follows it is its consequence."""
    found = next(filter(None, map(_FIRST_ERROR.search, lines)), None)
    return (found["logged"] or found["compiling"]) if found else None


def _below(code: str, lines: Sequence[str]) -> str:
    """The cause under a heading: the next line that carries the code again, else the line below it."""
    for line in lines:
        if (found := re.match(rf"{code}\b[:\s]*(.+)", line)) and (text := _message(found[1])):
            return text
        if (found := _ERROR.search(line)) and found["code"] == code and (text := _message(found["text"])):
            return text
    below = _message(lines[0]) if lines and not _FRAME.match(lines[0]) and not _ERROR.search(lines[0]) else ""
    return "" if _HEADING.fullmatch(below) else below


def _traced(lines: Sequence[str]) -> str | None:
    """The first line of a trace that is about the failure itself."""
    start = next((at for at, line in enumerate(lines) if _FRAME.match(line) and "race" in line), len(lines))
    traced = (_message(line) for line in lines[start + 1 :] if not _EMPTY.search(line) and "ctx is NULL" not in line)
    return next(traced, None)


def _message(text: str) -> str:
    """An error's own words, without the process and time before them and the source places behind."""
    text = re.sub(
        r"^[:\s]*(?:\[PID:\s*[0-9]+\]\s*)?(?:[0-9]{4}-[0-9]{2}-[0-9]{2}[-T ][0-9:.]+)?[:\s]*(?:\w*\(E\w{5}\)[:\s]*)?",
        "",
        text,
    )
    return re.sub(r"(?:\s*\[(?:FUNC|FILE|LINE|THREAD): ?[^\]]*\])+\s*$", "", text).strip()
