"""ais_bench's own summary of a run, brought from its host."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from deploy.hosts import transfer
from deploy.hosts.host import Host
from deploy.npu import results
from stgcn import plain_json

SUMMARY_BYTES = 256 << 20  # it names every row of a unit


def fetch(host: Host, output: PurePosixPath, dirname: str, listing: Mapping[str, int] | None = None) -> Any:
    """The summary of a run that was told to write `<output>/<dirname>`; None where there is none, or a torn one.

    `listing` is of `output`, asked for where it is not given.
    """
    if listing is None:
        listing = host.call("listing", {"folder": str(output)})
    place = next((place for place in results.summary_places(dirname) if place in listing), None)
    if place is None:
        return None
    path, stream = output / place, io.BytesIO()
    host.call("send", {"path": str(path)}, sink=transfer.Limited(stream, SUMMARY_BYTES, f"{host.name}: {path}"))
    try:
        return plain_json.loads(stream.getvalue())
    except ValueError:
        return None
