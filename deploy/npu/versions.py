"""CANN and driver versions, from the version files that their installers leave on a host."""

from __future__ import annotations

import re

from deploy.errors import KitError
from deploy.npu import transcript

SIMULATED = "-simulated"

_LINES = re.MULTILINE | re.ASCII
# `version=6.0.RC1`: <toolkit>/<arch>-linux/ascend_toolkit_install.info since CANN 5; nnrt and nnae have theirs. A
# component's version.info has the release as `version_dir=8.0.0` beside its own `Version=7.6.0.1.220`; since 9 in that.
_CANN_FILES = (
    re.compile(r"^[ \t]*version_dir[ \t]*[=:][ \t]*(?:cann-)?([\w.+-]{1,64})\s*$", _LINES),
    re.compile(r"^[ \t]*version[ \t]*[=:][ \t]*([\w.+-]{1,64})\s*$", _LINES),
    re.compile(r"^[ \t]*Version[ \t]*[=:][ \t]*([0-9]+\.[0-9]+(?:\.[A-Za-z0-9]+){0,2}(?:-[\w-]{1,32})?)\s*$", _LINES),
)
# `toolkit_running_version=[7.6.0.1.220:8.0.0]`: <toolkit>/version.cfg, [build:version], one pair of brackets for each
# version installed, the latest last.
_VERSION_CFG = re.compile(
    r"^[ \t]*(?:toolkit|nnrt|nnae|runtime)_(running|installed)_version[ \t]*=[ \t]*(\[\S+\])\s*$", _LINES
)
_BRACKETS = re.compile(r"\[[^:\[\]]*:([\w.+-]{1,64})\]", re.ASCII)
# `package_version=22.0.2`: <driver>/version.info, which is the release where there is one; since 26, `Version=` may be
# the HAL's.
_DRIVER_FILE = (
    re.compile(r"^[ \t]*package_version[ \t]*=[ \t]*([\w.+-]{1,64})\s*$", _LINES),
    re.compile(r"^[ \t]*[Vv]ersion[ \t]*=[ \t]*([\w.+-]{1,64})\s*$", _LINES),
)
_LINE = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")

# The lowest driver line (Ascend HDK) that the vendor's release notes list beside a CANN line; it holds for the CANN
# lines above it too, up to the next entry. Below it the pair is not necessarily broken, but nobody vouches for it.
_LOWEST_DRIVER = {(6, 0): (22, 0), (7, 0): (23, 0), (8, 1): (24, 1), (8, 5): (25, 0)}


def parse_cann(text: str) -> str:
    """The CANN version in the text of an install.info, a component's version.info or `version.cfg`, such as `6.0.RC1`.

    Raises KitError where the text holds none.
    """
    for pattern in _CANN_FILES:
        if found := pattern.search(text):
            return found[1]
    by_kind = {kind: _BRACKETS.findall(value) for kind, value in _VERSION_CFG.findall(text)}
    for kind in ("running", "installed"):
        if by_kind.get(kind):
            return str(by_kind[kind][-1])
    raise KitError(
        f"CANN's version file says no version (its first line: {transcript.first(text)}): name CANN's set_env.sh in "
        "`tools.env_scripts` of the inventory, or reinstall the toolkit"
    )


def parse_driver(text: str) -> str:
    """The driver version in the text of the driver's `version.info`, such as `22.0.2`.

    Raises KitError where the text holds none.
    """
    for pattern in _DRIVER_FILE:
        if found := pattern.search(text):
            return found[1]
    raise KitError(
        f"the driver's version.info says no `Version=` (its first line: {transcript.first(text)}): mount or reinstall "
        "the Ascend driver"
    )


def simulated(version: str) -> bool:
    """Whether a CANN or driver version is the simulator's."""
    return version.endswith(SIMULATED)


def mismatch(cann: str, driver: str) -> str | None:
    """A warning where the driver is older than any that the vendor lists for this CANN, else None."""
    cann_line, driver_line = _version_line(cann), _version_line(driver)
    if cann_line is None or driver_line is None:
        return None
    lowest = max((at for at in _LOWEST_DRIVER if at <= cann_line), default=None)
    if lowest is None or driver_line >= _LOWEST_DRIVER[lowest]:
        return None
    major, minor = _LOWEST_DRIVER[lowest]
    return (
        f"driver {driver} is older than the {major}.{minor} line that CANN {cann} is published with: "
        "upgrade the driver (Ascend HDK), or use an older CANN"
    )


def _version_line(version: str) -> tuple[int, int] | None:
    found = _LINE.search(version)
    return (int(found[1]), int(found[2])) if found else None
