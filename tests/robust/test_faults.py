"""The instruments themselves: the faults come where they are asked for, and the reader sees what is torn."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.robust.faults import Fault, Faults, Ran
from tests.robust.reader import Reader, states

# Of the full tier, as what they are the instruments of: they need a C compiler.
pytestmark = pytest.mark.full

WRITES = """
import os, pathlib, subprocess, sys
folder = pathlib.Path(sys.argv[1])
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
try:
    (folder / "kept").mkdir()
    (folder / "kept/file").write_bytes(b"0123456789")
    os.replace(folder / "kept/file", folder / "kept/renamed")
except OSError as error:
    print(error.strerror)
child.kill()
"""
POINTS = ["mkdir kept", "open kept/file", "write kept/file", "rename kept/renamed"]


class Program:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "watched"
        self.folder.mkdir()
        self.faults = Faults(folder / "faults", self.folder)

    def run(self, fault: Fault = Fault.NONE, at: int = 0) -> Ran:
        return self.faults.run([sys.executable, "-I", "-c", WRITES, str(self.folder)], os.environ, fault, at)

    def left(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def test_every_change_of_a_file_is_a_point_and_nothing_else_is(program: Program) -> None:
    ran = program.run()
    names = [f"{point.operation} {Path(point.path).relative_to(program.folder)}" for point in ran.points]
    assert (ran.status, names, ran.fired) == (0, POINTS, None)


@pytest.mark.parametrize("fault", [Fault.KILL_ALL, Fault.KILL_ONE])
@pytest.mark.parametrize(
    ("at", "left"), [(1, {}), (2, {}), (3, {"file": 5}), (4, {"file": 10})], ids=lambda value: str(value)
)
def test_a_kill_comes_at_its_point_and_halves_a_write(program: Program, fault: Fault, at: int, left: object) -> None:
    ran = program.run(fault, at)
    assert ran.status == -9
    assert ran.fired
    assert ran.fired.number == at
    assert program.left() == left
    assert bool(program.faults.running()) == (fault is Fault.KILL_ONE)  # the detached `sleep`
    program.faults.kill_all()


@pytest.mark.parametrize(
    ("fault", "sentence"), [(Fault.FULL, "No space left on device"), (Fault.DENIED, "Permission denied")]
)
def test_what_is_refused_stays_refused(program: Program, fault: Fault, sentence: str) -> None:
    for at, left in ((2, {}), (3, {"file": 0} if fault is Fault.FULL else {"file": 10})):
        ran = program.run(fault, at)
        assert (ran.status, ran.output.strip()) == (0, sentence)
        assert program.left() == left
        for path in program.folder.glob("kept/*"):
            path.unlink()
        (program.folder / "kept").rmdir()


def test_a_reader_sees_a_torn_file_and_a_strange_entry_but_not_a_passing_time(tmp_path: Path) -> None:
    def write(result: bytes, seconds: float, key: str) -> None:
        (tmp_path / "result.npy").write_bytes(result)
        entry = {"state": "OK", "seconds": seconds, "started": "2026-01-01T00:00:00+00:00", "flag": key}
        (tmp_path / "manifest.json").write_text(json.dumps({"steps": {"score": entry}}))

    write(b"whole", 1.0, "a")
    reader = Reader(tmp_path, states(tmp_path))
    write(b"whole", 2.5, "a")
    (tmp_path / ".result.npy.1234.tmp").write_bytes(b"wh")
    reader.look()
    assert (reader.torn, reader.read) == ([], 2)
    write(b"who", 2.5, "b")
    reader.look()
    assert sorted(reader.torn) == ["manifest.json", "result.npy"]
    reader.look()
    assert reader.read == 4
    (tmp_path / "manifest.json").write_text('{"steps": ')
    reader.look()
    assert sorted(reader.torn) == ["manifest.json", "manifest.json", "result.npy"]
