"""CANN's coded errors, as ATC, AOE and the runtime under ais_bench print them: the grammar of every age."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

# An error's line in every age: `E10001: Value [x] ...`, with `[PID: n] <time>` behind the code since CANN 7 and, since
# 8.5, before a title: `[PID: n] <time> Invalid_Argument(E10001): ...`; of an inner error `E19999[PID: n] <time> ...`.
_ERROR = re.compile(
    r"^(?:\[(?:ACL )?ERROR\] *)?(?:\[PID:\s*[0-9]+\]\s*)?(?:[0-9]{4}-[0-9]{2}-[0-9]{2}[-T ][0-9:.]+\s+)?"
    r"(?:(?P<title>\w*)\()?(?P<code>E[0-9]{5}|E[A-Z][0-9]{4})\b\)?(?P<text>\s*(?:[:\[]|  ).*|:?)$"
)
_HEADING = re.compile(
    r"(?:Inner|Internal) Error!?|Unknown error occurred.*", re.IGNORECASE
)  # the cause is on the next line
_FRAME = re.compile(r"Trace ?Back|Possible Cause|Solution|\[?W[0-9]{5}", re.IGNORECASE)
# `[ERROR] GE(69,atc.bin):2025-03-18-14:35:48.620.302 [graph_loader.cc:143]69 words`, from the words on.
_FIRST_ERROR = re.compile(
    r"\[ERROR\]\s*(?:\w+\([0-9]+,[^)]*\):[0-9.:-]+\s*(?:\[[^\]]*\])?\s*(?:[0-9]+\s)?)?\s*(?P<logged>\S.*)"
    r"|^(?P<compiling>(?:Failed to compile|Pre-compile op\[).*)"
)
_CAUSE_LINES = 60  # below a heading
_MOST = 200  # errors of one run that are read: what follows so many is their consequence
_INNER = re.compile(r"E[A-Z0-9]9999")

Kinds: TypeAlias = "tuple[tuple[re.Pattern[str], str], ...]"  # what `CODE Title` is about -> what to do


def kinds(*rows: tuple[str, str, str]) -> Kinds:
    """Codes, the beginnings of their titles, and what to do: a code that is new has a title that is not."""
    return tuple((re.compile(rf"(?:{codes}) |\w+ (?:{titles})"), advice) for codes, titles, advice in rows)


# Where the host is at fault, whichever tool tells; codes and titles are of the vendor's reference of errors.
_OF_HOST = kinds(
    (
        r"E10024|E10410|E1300[0-6]|E1301[58]|E13026|E1900[0-5]|E19021|E2100[12]|E40003|E40023|EH000[34]|EK0003|EK0204",
        "File_|Directory_",
        "correct that path on the NPU host, its owner or its mode (yours under `atc`, else in its `workspace`), or "
        "make room there (df -h)",
    ),
    (
        "EE1013|EH0010|EK020[12]",
        "Resource_Error_Insufficient_Host_Memory",
        "the host is short of memory: stop what else runs there, or give it more",
    ),
    (
        "EE1015",
        "Package_Error_Incorrect_Driver",
        "upgrade the driver (Ascend HDK), which is older than this CANN, or use an older CANN",
    ),
    (
        "E13024|E40001|EE2002",
        "Config_Error_Invalid_Environment",
        "correct that variable under `tools.env` in the inventory, and name CANN's set_env.sh in `tools.env_scripts`",
    ),
    (
        "EL000[0-9]",
        "Driver_|Device_",
        "check the device with `npu-smi info`, that no other process or container holds it, and that its driver fits "
        "this CANN (restart the host after an upgrade)",
    ),
)


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

    def advice(self, table: Kinds = _OF_HOST) -> str | None:
        """What to do about an error of its kind: about the host, or by another table. None where that does not tell."""
        kind = f"{self.code} {self.title}"
        return next((advice for pattern, advice in table if pattern.match(kind)), None)


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


def _message(text: str) -> str:
    """An error's own words, without the process and time before them and the source places behind."""
    text = re.sub(
        r"^[:\s]*(?:\[PID:\s*[0-9]+\]\s*)?(?:[0-9]{4}-[0-9]{2}-[0-9]{2}[-T ][0-9:.]+)?[:\s]*(?:\w*\(E\w{5}\)[:\s]*)?",
        "",
        text,
    )
    return re.sub(r"(?:\s*\[(?:FUNC|FILE|LINE|THREAD): ?[^\]]*\])+\s*$", "", text).strip()
