"""A user's folders of the kit's names, which nothing that the kit does may touch."""

from __future__ import annotations

from pathlib import Path

NAMES = ("data", "files", ".kit", "runs", "jobs", "clips")


def plant(folder: Path) -> dict[str, bytes | str]:
    """Put them into a folder; what `bytes_below` then says of them."""
    before = bytes_below(folder)  # `runs` is where the kit keeps its own
    for name in NAMES:
        for inner in (name, f"{name}/{'0' * 16}", f"{name}/{'0' * 16}/0", f"{name}/jobs/thesis"):
            (folder / inner).mkdir(parents=True, exist_ok=True)
        (folder / name / "thesis.tex").write_text("years of work")
        (folder / name / ("0" * 16) / "model.onnx").write_text("weights of years")
        (folder / name / ("0" * 16) / "manifest.json").write_text("{}")
        (folder / name / ("0" * 16) / "0" / "0.bin.txt").write_text("notes")
        (folder / name / "jobs/thesis/log").write_text("notes")
        (folder / name / ".draft.tmp").write_text("notes")
    (folder / "elsewhere").symlink_to(folder.parent)
    found = bytes_below(folder)
    return {
        name: was
        for name, was in found.items()
        if name not in before and name.partition("/")[0] in (*NAMES, "elsewhere")
    }


def bytes_below(folder: Path) -> dict[str, bytes | str]:
    """What is in a folder: file -> its bytes, link -> where it leads."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def harmed(folder: Path, before: dict[str, bytes | str]) -> set[str]:
    """What is not as it was."""
    after = bytes_below(folder)
    return {name for name, was in before.items() if after.get(name) != was}
