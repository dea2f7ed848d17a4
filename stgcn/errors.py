"""A user's mistake, and how a program reports it."""

from __future__ import annotations

import codecs
import io
import re
import reprlib
import sys
from typing import Callable, List, Optional, Tuple

SENTENCE = 4000  # characters: what it quotes may be longer than anybody reads

# ECMA-48 control sequences; every other control character but newline and tab; what turns the direction of writing.
_CONTROL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)"
    "|[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]",
    re.S,
)


def printable(text: str) -> str:
    """`text` without control sequences: what a file or a host says is data, never a command to this terminal."""
    encodable = text.encode("utf-8", "backslashreplace").decode("utf-8")  # a lone surrogate ends no print in an error
    return _CONTROL.sub("", encodable.replace("\r", "\n"))


def sentence(text: str) -> str:
    """`text` as one printable line; a longer one than SENTENCE loses its middle."""
    line = re.sub(r"[\n\t]+", " ", printable(text))
    return line if len(line) <= SENTENCE else f"{line[: SENTENCE // 2]} … {line[-SENTENCE // 2 :]}"


class _Short(reprlib.Repr):
    def repr_int(self, number: int, level: int) -> str:
        # Python prints no number of thousands of digits; before 3.7.14 it does, in quadratic time
        return super().repr_int(number, level) if number.bit_length() < 1000 else "a number of hundreds of digits"


# A value that somebody wrote into a file, of whatever type, short enough to stand inside a sentence
shown = _Short().repr


class InputError(Exception):
    """A user's mistake: its text is one sentence that names the thing, its value and the way out.

    What it quotes may come from anywhere; as text it is one printable line all the same.
    """

    def __str__(self) -> str:
        return sentence(super().__str__())


def run_main(main: Callable[[Optional[List[str]]], None]) -> None:
    """Run a program's `main(argv)`; a user's mistake or a refused file becomes one line on stderr and exit status 1."""
    tolerate_narrow_output()
    try:
        main(None)
    except InputError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(sentence(f"error: {error.filename or 'input or output'}: {error.strerror or error}"))
    except MemoryError:
        sys.exit("error: out of memory; close other programs, or run this on a machine with more")
    except KeyboardInterrupt:
        sys.exit(130)


# What stands for a character that the output's encoding lacks (GBK and Latin-1 have no ✓): pass and fail must not look
# alike.
_WORDS = {"✓": "ok", "✗": "failed", "…": "...", "→": "->", "–": "-", "—": "-", "−": "-", "×": "x", "≥": ">=", "≤": "<="}


def in_encoding(text: str, encoding: str) -> str:
    """`text` with words in place of the characters that `encoding` lacks, and `?` where there is no word."""
    return text.encode(encoding, "words").decode(encoding)


def _in_words(error: UnicodeError) -> Tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_WORDS.get(character, "?") for character in lacking), error.end


codecs.register_error("words", _in_words)


def tolerate_narrow_output() -> None:
    """From now on what the output's encoding lacks is printed in words, or as `?`, and ends no program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="words")
