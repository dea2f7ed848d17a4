"""Which result file of ais_bench belongs to which sample: by the tool's own summary or by name, never by position."""

from __future__ import annotations

import io
import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import PurePosixPath
from typing import Any

from deploy.errors import KitError
from deploy.hosts import transfer
from deploy.hosts.host import Host
from stgcn import plain_json

SUMMARY_BYTES = 256 << 20  # it names every row of a unit
_SUMMARY_NAMES = frozenset({"_summary.json", "sumary.json"})  # those that lie inside the results folder


def summary_places(dirname: str) -> list[str]:
    """Where the summary may lie, relative to --output: since 2022-11, with a trailing `/` on the name, and before."""
    name = dirname.rstrip("/")
    return [f"{name}_summary.json", f"{name}/_summary.json", f"{name}/sumary.json"]


def fetch_summary(host: Host, output: PurePosixPath, dirname: str, listing: Mapping[str, int] | None = None) -> Any:
    """The summary of a run that was told to write `<output>/<dirname>`; None where there is none, or a torn one.

    `listing` is of `output`, asked for where it is not given.
    """
    if listing is None:
        listing = host.call("listing", {"folder": str(output)})
    place = next((place for place in summary_places(dirname) if place in listing), None)
    if place is None:
        return None
    path, stream = output / place, io.BytesIO()
    host.call("send", {"path": str(path)}, sink=transfer.Limited(stream, SUMMARY_BYTES, f"{host.name}: {path}"))
    try:
        return plain_json.loads(stream.getvalue())
    except ValueError:
        return None


def match_results(
    listing: Mapping[str, int],
    summary: Any,
    stems: Sequence[str],
    filler_stems: Set[str],
    results_dir: str,
    output_bytes: int,
) -> list[str]:
    """The result file of each sample, in the samples' order.

    `listing` is the results folder (name -> bytes), `results_dir` that folder as ais_bench was told it, `stems` the
    samples' file names up to the first dot, `filler_stems` those of the files that fill the last batch, whose results
    are expected and not wanted. Files are matched by the summary's `filesinfo`, else by `<stem>_<output index>.bin`.

    Raises KitError that names the sample whose result is missing, double, or not `output_bytes` long, and the result
    that belongs to no sample.
    """
    known = {*stems, *filler_stems}
    filesinfo = summary.get("filesinfo") if isinstance(summary, dict) else None
    by_stem = _by_filesinfo(filesinfo, results_dir) if filesinfo else _by_name(listing, known)

    missing = [stem for stem in stems if not any(name in listing for name in by_stem.get(stem, ()))]
    _refuse(missing, "sample {} has no result", f"{{}} more of {len(stems)} have none", results_dir)
    strangers = sorted(name for stem, names in by_stem.items() if stem not in known for name in names)
    claims = Counter(name for names in by_stem.values() for name in names)
    strangers += sorted(name for name in listing if name not in claims and name not in _SUMMARY_NAMES)
    _refuse(strangers, "the result {} belongs to no sample", "{} more belong to none", results_dir)
    double = [stem for stem in stems if len(by_stem[stem]) > 1 or claims[by_stem[stem][0]] > 1]
    _refuse(double, "sample {} has not exactly one result of its own", "{} more have not", results_dir)
    matched = [by_stem[stem][0] for stem in stems]
    wrong = [
        f"sample {stem} ({listing[name]} bytes in {name}, not {output_bytes})"
        for stem, name in zip(stems, matched, strict=True)
        if listing[name] != output_bytes
    ]
    _refuse(wrong, "the result of {} has the wrong size", "{} more have", results_dir)
    return matched


def only_output(listing: Mapping[str, int], summary: Any, output: int) -> tuple[dict[str, int], Any]:
    """`listing` and `summary` as they would be if an OM of several inputs and outputs had that output alone.

    ais_bench names results after the file of the first input.
    """
    suffix = f"_{output}.bin"
    own = {name: size for name, size in listing.items() if name.endswith(suffix) or name in _SUMMARY_NAMES}
    filesinfo = summary.get("filesinfo") if isinstance(summary, dict) else None
    if not isinstance(filesinfo, dict):
        return own, None
    entries = {
        key: {
            "infiles": _paths(entry, "infiles")[:1],
            "outfiles": [path for path in _paths(entry, "outfiles") if path.endswith(suffix)],
        }
        for key, entry in filesinfo.items()
    }
    return own, {"filesinfo": entries}


def _by_filesinfo(filesinfo: Any, results_dir: str) -> dict[str, list[str]]:
    """`{id: {"infiles": [path], "outfiles": [path]}}` as stem -> file names in the results folder."""
    by_stem: dict[str, list[str]] = {}
    folder = posixpath.normpath(results_dir)
    for entry in filesinfo.values() if isinstance(filesinfo, dict) else [None]:
        infiles, outfiles = (_paths(entry, key) for key in ("infiles", "outfiles"))
        if len(infiles) != 1:
            raise KitError("ais_bench's summary has a `filesinfo` this kit cannot read: infer again with --fresh")
        names = by_stem.setdefault(posixpath.basename(infiles[0]).partition(".")[0], [])
        for path in outfiles:
            parent, name = posixpath.split(posixpath.normpath(path))
            if parent != folder:
                raise KitError(
                    f"ais_bench's summary names the result {path!r}, which is not in {results_dir}: "
                    "infer again with --fresh"
                )
            names.append(name)
    return by_stem


def _paths(entry: Any, key: str) -> list[str]:
    value = entry.get(key) if isinstance(entry, dict) else None
    value = [value] if isinstance(value, str) else value
    return [path for path in value if isinstance(path, str)] if isinstance(value, list) else []


def _by_name(listing: Mapping[str, int], known: Set[str]) -> dict[str, list[str]]:
    """`<stem>_<k>.bin` as stem -> names: k is 0, or, as in the guide's earlier era, the one index that all files bear.

    Results of another index are left out, so that they are reported as belonging to no sample.
    """
    named = [(found[1], found[2], name) for name in listing if (found := re.fullmatch(r"([^.]*)_([0-9]+)\.bin", name))]
    indices = {index for stem, index, _ in named if stem in known}
    wanted = indices.pop() if len(indices) == 1 else "0"
    by_stem: dict[str, list[str]] = {}
    for stem, index, name in named:
        if stem in known and index == wanted:
            by_stem.setdefault(stem, []).append(name)
    return by_stem


def _refuse(items: Sequence[str], first: str, others: str, results_dir: str) -> None:
    if items:
        also = f", and {others.format(len(items) - 1)}" if len(items) > 1 else ""
        raise KitError(f"{first.format(items[0])}{also}, in {results_dir}: infer again with --fresh")
