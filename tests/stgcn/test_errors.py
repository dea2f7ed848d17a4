"""How a program ends."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from stgcn.errors import InputError, run_main


@pytest.mark.parametrize(
    ("raised", "status", "stderr"),
    [
        (InputError("no file x: give one"), 1, "error: no file x: give one"),
        (FileNotFoundError(2, "No such file or directory", "x"), 1, "error: x: No such file or directory"),
        (OSError(28, "No space left on device"), 1, "error: input or output: No space left on device"),
        (InputError("a\x1b[31mb\x1b]0;title\x07c\x9bd\re\n\tf\u202eg"), 1, "error: abcd e fg"),
        (InputError("\ud800"), 1, "error: \\ud800"),
        (OSError(2, "No such file or directory", "x\x1b[2J\ny"), 1, "error: x y: No such file or directory"),
        (KeyboardInterrupt(), 130, None),
    ],
)
def test_an_error_becomes_a_sentence_and_a_status(raised: BaseException, status: int, stderr: Any) -> None:
    def main(argv: Any) -> None:
        raise raised

    with pytest.raises(SystemExit) as ended:
        run_main(main)
    assert ended.value.code == (stderr or status)


def test_a_long_quotation_loses_its_middle() -> None:
    text = str(InputError("no file " + 100000 * "x" + ": give one"))
    assert len(text) < 5000
    assert text.startswith("no file xxx")
    assert text.endswith("xxx: give one")


def test_success_ends_without_an_exit() -> None:
    seen = []
    run_main(seen.append)
    assert seen == [None]


def test_a_program_prints_one_line_and_no_traceback() -> None:
    command = [sys.executable, "-m", "stgcn.score", "--result_dir", "/nowhere", "--label_path", "/nowhere"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 1
    assert ended.stdout == b""
    assert ended.stderr == b"error: can't read /nowhere (No such file or directory): give the folder of the results\n"
