"""What a host says is data: nothing of it reaches the terminal as more than text, endless output is cut, and a claim
without files is none."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from rich.table import Table

from deploy.console import console
from deploy.doctor import Check
from deploy.errors import KitError
from deploy.hosts import transfer
from deploy.hosts.capture import HEAD_BYTES, LOG_BYTES, TAIL_BYTES, Capture
from deploy.hosts.local import LocalHost
from deploy.hosts.owner import Owner
from deploy.hosts.piped import PipedHost
from deploy.hosts.pipes import LocalPipe
from deploy.hosts.remote.folders import KIT, MARKER, MARKER_TEXT
from deploy.hosts.remote.launch import ARGUMENTS, payload
from deploy.hosts.remote.operations import OPERATIONS
from deploy.hosts.remote.protocol import MAGIC
from deploy.hosts.replies import REPLIES
from deploy.pipeline.index import Array, Shard
from deploy.pipeline.manifest import Manifest, Step

ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\x1bP1$r\x1b\\"
DIGEST = {"bytes": 1, "sha256": "0" * 64}


class Liar(PipedHost):
    """A host whose helper says what it is told to, whatever it is asked."""

    def __init__(self, folder: Path, said: bytes, end: str = "") -> None:
        super().__init__("npu-a")
        self.workspace = PurePosixPath(folder)
        (folder / "said").write_bytes(said)
        script = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read()); sys.stdout.flush();" + end
        self.operations = [sys.executable, "-I", "-c", script, str(folder / "said")]

    def start(self, argv: Sequence[str]) -> LocalPipe:
        return LocalPipe(argv)

    def path(self, text: str) -> PurePosixPath:
        return PurePosixPath(text)


def lie(folder: Path, reply: Any) -> Liar:
    return Liar(folder, MAGIC + json.dumps({"ok": reply}).encode() + b"\n")


def test_every_operation_has_a_form_for_its_reply() -> None:
    assert set(REPLIES) == set(OPERATIONS)


@pytest.mark.parametrize(
    ("operation", "reply"),
    [
        ("digest", {"/a": {"bytes": -1, "sha256": "0" * 64}}),
        ("digest", {"/a": {"bytes": 10**18}}),
        ("digest", {"/a": {"bytes": 1, "sha256": "../../x"}}),
        ("digest", ["/a"]),
        ("listing", {"a": "1"}),
        ("listing", {"a": -1}),
        ("listing", None),
        ("landed", {"clips": [True], "codecs": []}),
        ("landed", [1]),
        ("job", {}),
        ("job", {"status": "0"}),
        ("job", {"status": 1.5}),
        ("job_state", "dancing"),
        ("facts", {"python": "3.9"}),
        ("send", {"sha256": None}),
        ("unpack", "yes"),
        ("contact", {"home": "relative", "workspace": "/w"}),
    ],
)
def test_a_reply_of_another_form_is_a_sentence(operation: str, reply: Any, tmp_path: Path) -> None:
    with pytest.raises(KitError, match=rf"^npu-a: {operation} "):
        lie(tmp_path, reply).call(operation, {})


@pytest.mark.parametrize(
    "said",
    [
        *(b'{"bytes": %s}\nx' % size for size in (b"1000000000000000000", b"-1", b"1.5", b'"7"', b"null", b"true")),
        *(
            b"[]\n",
            b"7\n",
            b"null\n",
            b"{}\n",
            b"NaN\n",
            b"9" * 5000 + b"\n",
            b"[" * 10000 + b"\n",
            b"\xff\xfe\n",
            b'{"ok"',
        ),
        *(b'{"error": 7}\n', b'{"error": null}\n', b'{"ok": NaN}\n', b'{"bytes": 1}\nx{"ok": true}\n'),
    ],
)
def test_an_answer_that_is_none_is_a_sentence(said: bytes, tmp_path: Path) -> None:
    with pytest.raises(KitError, match="^npu-a: remove "):
        Liar(tmp_path, MAGIC + said).call("remove", {"paths": []})


@pytest.mark.parametrize("noise", ["y\\n", "y"])
def test_endless_noise_is_cut(noise: str, tmp_path: Path) -> None:
    host = Liar(tmp_path, b"", f"\nwhile True: sys.stdout.write('{noise}' * 65536)")
    with pytest.raises(KitError, match="^npu-a: "):
        host.call("remove", {"paths": []})


def test_a_file_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FILE_BYTES", 1 << 20)
    frame = "b'{\"bytes\": 65536}\\n' + bytes(65536)"
    host = Liar(tmp_path, MAGIC, f"\nwhile True: sys.stdout.buffer.write({frame})")
    with pytest.raises(KitError, match="1048576 bytes"):
        transfer.get(host, PurePosixPath("/model.om"), tmp_path / "model.om")
    assert {path.name for path in tmp_path.iterdir()} == {"said"}


def test_a_sha256_of_other_bytes_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"model\.om"):
        transfer.get(lie(tmp_path, DIGEST), PurePosixPath("/model.om"), tmp_path / "model.om")
    assert not (tmp_path / "model.om").exists()


@pytest.mark.parametrize("clips", [[], [1, 1]])
def test_shards_that_were_not_asked_for_are_refused(clips: list[int], tmp_path: Path) -> None:
    host = lie(tmp_path, {"clips": clips, "codecs": []})
    array = Array("input1", None, "float32", (1,), (Shard(0, 1, "0" * 64),))
    with pytest.raises(KitError, match=r"\b1\b"):
        transfer.push_rows(host, PurePosixPath("/data.npy"), array, host, PurePosixPath("/clips"))


@pytest.mark.parametrize("error", ["gone", ESCAPES + "a\nb\r\tc\ud800"])
def test_a_hosts_sentence_is_one_printable_line(error: str, tmp_path: Path) -> None:
    host = Liar(tmp_path, MAGIC + json.dumps({"error": error}).encode() + b"\n")
    with pytest.raises(KitError) as refusal:
        host.call("remove", {"paths": []})
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "record", [{}, {"who": ESCAPES}, {"pid": "../../dev", "started": [], "machine": None, "since": 7}]
)
def test_the_owner_of_a_lock_is_somebody_printable(record: dict[str, Any]) -> None:
    owner = Owner.read(record)
    assert not owner.is_dead()
    assert str(KitError(f"in use by {owner}")).isprintable()


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: capsys.readouterr().out


def test_what_a_program_prints_is_shown_as_text(shown: Callable[[], str]) -> None:
    Capture(None, echo=True).write(f"a{ESCAPES}b [bold]c[/bold]\n".encode())
    assert shown() == "    a1$rb [bold]c[/bold]\n".replace("a1$r", "a31m1$r")


def test_so_is_a_table_of_what_hosts_say(shown: Callable[[], str]) -> None:
    check = Check("npu-a", "devices", True, f"0: 310P3{ESCAPES}[/red]")
    grid = Table(title=ESCAPES)
    grid.add_column(ESCAPES)
    grid.add_row(check.detail)
    console.print(grid)
    assert not {"\x1b", "\x07", "\x9b"} & set(shown())


@pytest.mark.parametrize("block", [b"x" * (1 << 20), b"x\n" * (1 << 19)])
def test_a_program_that_prints_gigabytes_is_cut(block: bytes, tmp_path: Path, shown: Callable[[], str]) -> None:
    with (tmp_path / "log").open("wb") as log:
        capture = Capture(log, echo=block.count(b"\n") == 0)
        tracemalloc.start()
        for _ in range(200):
            capture.write(block)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 << 20
    assert (tmp_path / "log").stat().st_size == LOG_BYTES
    assert len(capture.text()) < HEAD_BYTES + TAIL_BYTES + 100
    assert "bytes cut" in capture.text()


@pytest.mark.parametrize("left", [None, b"", b"of an earlier run"])
def test_a_step_that_claims_success_without_its_files_fails(left: bytes | None, tmp_path: Path) -> None:
    output = tmp_path / "model.om"
    if left is not None:
        output.write_bytes(left)
    with pytest.raises(KitError, match=str(output)):
        Manifest(tmp_path).run_step(Step("convert/bs1", "npu-a", {}, [output], dict))
    assert Manifest(tmp_path).steps["convert/bs1"]["state"] == "FAILED"


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """The kit's folder of a workspace."""
    (tmp_path / KIT).mkdir(mode=0o700)
    (tmp_path / KIT / MARKER).write_bytes(MARKER_TEXT)
    return tmp_path / KIT


@pytest.mark.parametrize("name", ["../beside", "/tmp/beside", "a/b", "..", "."])
def test_no_operation_leaves_its_folder(name: str, kit: Path) -> None:
    (kit / "one").write_bytes(b"1")
    (kit / "folder").mkdir()
    folder, host = str(kit / "folder"), LocalHost("a", kit.parent)
    for operation, request, body in (
        ("put_folder", {"folder": folder + "/new", "files": {name: 1}}, [b"1"]),
        ("link", {"folder": folder, "files": {name: str(kit / "one")}}, []),
        ("gather", {"folder": folder, "names": [name]}, []),
    ):
        with pytest.raises(KitError, match=re.escape(repr(name))):
            host.call(operation, request, body)
    assert not Path("/tmp/beside").exists()


def test_a_pipe_in_place_of_a_result_is_refused(kit: Path) -> None:
    os.mkfifo(kit / "pipe")
    path = str(kit / "pipe")
    for operation, request in (
        ("send", {"path": path}),
        ("gather", {"folder": str(kit), "names": ["pipe"]}),
        ("clips", {"path": path, "clip_bytes": 1, "first": 0, "count": 1, "codecs": []}),
    ):
        with pytest.raises(KitError, match="pipe"):
            LocalHost("a", kit.parent).call(operation, request)


def test_a_link_in_place_of_a_result_is_refused(kit: Path) -> None:
    (kit / "link").symlink_to("/etc/passwd")
    for operation, request in (
        ("send", {"path": str(kit / "link")}),
        ("gather", {"folder": str(kit), "names": ["link"]}),
    ):
        with pytest.raises(KitError, match="link"):
            LocalHost("a", kit.parent).call(operation, request)


def test_a_name_that_is_no_text_is_listed_as_text(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_bytes(b"1")
    assert LocalHost("a", tmp_path).call("listing", {"folder": str(tmp_path)}) == {"\ufffd": 1}


def test_no_host_is_needed_to_refuse_an_unknown_operation() -> None:
    done = subprocess.run(
        [sys.executable, *ARGUMENTS, "serve"],
        input=payload() + b'{"operation": "nonsense", "request": {}, "body": false}\n',
        capture_output=True,
        timeout=60,
    )
    assert b"error" in done.stdout
    assert done.stderr == b""
