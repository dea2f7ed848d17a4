"""`seal.json`: the sha256 of every file of a kept run, by path; whoever has the run's id has what the seal says.

The id ends with the first half of the sha256 of seal.json (128 bits). docs/evidence.md says how a seal is checked with
`sha256sum` and its signature with `ssh-keygen` alone, and what neither says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from deploy.errors import KitError
from deploy.pipeline.manifest import json_text
from stgcn import plain_json
from stgcn.files import read_record, sha256_file

SEAL, SIGNATURE = "seal.json", "seal.json.sig"
DIGITS = 32  # hexadecimal ones of the seal's sha256 in a run's id
_SHA256 = re.compile(r"[0-9a-f]{64}")


def content(digests: Mapping[str, str]) -> bytes:
    """The seal of files of these sha256, by path."""
    return json_text(dict(sorted(digests.items())))


def digest(folder: Path) -> str:
    """sha256 (hex) of seal.json itself."""
    return sha256_file(folder / SEAL)


def read(folder: Path) -> dict[str, str]:
    """What the seal says: sorted path -> sha256.

    Raises:
        KitError: there is none, or it is of another form.
    """
    path = folder / SEAL
    try:
        text = read_record(path)
        sealed = plain_json.loads(text)
    except OSError as error:
        raise KitError(
            f"{path}: cannot be read ({error.strerror}), so the run is not sealed; run `make score`"
        ) from None
    except ValueError as error:
        raise KitError(f"{path}: not a JSON file ({error}); the run cannot be checked") from None
    whole = isinstance(sealed, dict) and all(
        isinstance(digest, str) and _SHA256.fullmatch(digest) and _is_plain(name) for name, digest in sealed.items()
    )
    if not whole or text != content(sealed):  # sorted, and one a line: what sed and sha256sum read
        raise KitError(f"{path}: not a seal, which maps sorted paths to sha256; the run cannot be checked")
    return dict(sealed)


def check(folder: Path, digest: Callable[[Path], str] = sha256_file) -> None:
    """Whether a folder holds the sealed files and no others.

    Raises:
        KitError: naming the file that is missing, changed, foreign, or a link.
    """
    sealed = read(folder)
    found = set(_files(folder))
    for name in sorted(found - sealed.keys()):
        raise KitError(f"{folder / name}: foreign, the run was sealed without it")
    check_files(folder, sealed, digest)


def check_files(folder: Path, sealed: Mapping[str, str], digest: Callable[[Path], str]) -> None:
    """Whether the sealed files are there as they were sealed; others may be there too.

    Raises:
        KitError: naming the first that is not.
    """
    for name, expected in sealed.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise KitError(f"{path}: missing, or no file, although the run was sealed with it")
        if digest(path) != expected:
            raise KitError(f"{path}: changed since the run was sealed (sha256 {expected[:12]} then)")


def _files(folder: Path) -> Iterator[str]:
    """The paths of a folder's files but the seal and its signature; a link is refused, not followed."""
    for parent, folders, names in os.walk(folder, onerror=_raise):
        for name in (*folders, *names):
            path = Path(parent, name)
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise KitError(f"{path}: a link, or no regular file; a sealed run has none")
        relative = (Path(parent, name).relative_to(folder).as_posix() for name in names)
        yield from (name for name in relative if name not in (SEAL, SIGNATURE))


def _raise(error: OSError) -> None:
    raise error


def _is_plain(name: str) -> bool:
    """Whether a path leads to somewhere in its folder, and can stand in a line of `sha256sum --check`."""
    parts = name.split("/")
    return name.isprintable() and not {"", ".", ".."} & set(parts) and not set('"\\') & set(name)
