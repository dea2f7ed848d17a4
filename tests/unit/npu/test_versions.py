from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given

from deploy.errors import KitError
from deploy.npu import versions

from .mutation import damaged

INSTALL_INFO = """package_name=Ascend-cann-toolkit
version=6.0.RC1
innerversion=V100R001C84B115SP001
compatible_version=[V100R001C29,V100R001C30],[V100R001C84]
arch=aarch64
os=linux
path=/usr/local/Ascend/ascend-toolkit/6.0.RC1/aarch64-linux
"""
VERSION_CFG = """# version: 1.0
runtime_running_version=[7.6.0.1.220:8.0.0]
toolkit_running_version=[7.6.0.1.220:8.0.0]
toolkit_upgrade_version=[7.6.0.1.220:8.0.0]
toolkit_installed_version=[7.0.0.5.242:7.0.RC1][7.6.0.1.220:8.0.0]
"""
DRIVER_INFO = """Version=22.0.2
ascendhal_version=6.21.22
aicpu_version=1.0
Innerversion=V100R001C83SPC001B220
compatible_version=[V100R001C30],[V100R001C13]
package_version=22.0.2
"""


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (INSTALL_INFO, "6.0.RC1"),
        ("version=8.5.0\r\n", "8.5.0"),
        ("package_name=Ascend-cann-nnrt\nversion: 7.0.1\n", "7.0.1"),
        ("Version=7.6.0.1.220\nversion_dir=8.0.0\n", "8.0.0"),
        ("version_dir=cann-9.0.1\nVersion=9.0.1\n", "9.0.1"),
        ("# runtime\nVersion=9.0.0\n", "9.0.0"),
        ("# version: 1.0\nruntime_running_version=[7.5.0.1.129:8.0.RC3]\n", "8.0.RC3"),
        ("version=6.0.RC1-simulated\n", "6.0.RC1-simulated"),
        (VERSION_CFG, "8.0.0"),
        ("toolkit_installed_version=[7.0.0.5.242:7.0.RC1][7.3.0.1.231:8.0.RC2]\n", "8.0.RC2"),
    ],
)
def test_cann(text: str, version: str) -> None:
    assert versions.parse_cann(text) == version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (DRIVER_INFO, "22.0.2"),
        ("Version=24.1.rc1\nascendhal_version=7.35.19\n", "24.1.rc1"),
        ("Version=22.0.2-simulated\n", "22.0.2-simulated"),
        ("Version=7.35.23\npackage_version=26.0.rc1\nascendhal_version=7.35.23\n", "26.0.rc1"),
    ],
)
def test_driver(text: str, version: str) -> None:
    assert versions.parse_driver(text) == version


@pytest.mark.parametrize("text", ["", "No such file or directory", "# version: 1.0\n", "innerversion=V1\n"])
def test_a_file_without_a_version_is_refused(text: str) -> None:
    with pytest.raises(KitError, match=r"set_env\.sh"):
        versions.parse_cann(text)
    with pytest.raises(KitError, match="driver"):
        versions.parse_driver(text)


@given(damaged([INSTALL_INFO, VERSION_CFG, DRIVER_INFO]))
def test_only_a_kit_error_is_raised_on_any_text(text: str) -> None:
    for parse in (versions.parse_cann, versions.parse_driver):
        with suppress(KitError):
            assert parse(text)


def test_the_simulator_is_known_by_its_own_version_alone() -> None:
    assert versions.simulated("6.0.RC1-simulated")
    assert not versions.simulated("6.0.RC1")


@pytest.mark.parametrize(
    ("cann", "driver", "line"),
    [
        ("6.0.RC1", "22.0.2", None),
        ("6.0.RC1", "21.0.4", "22.0"),
        ("6.0.RC1-simulated", "22.0.2-simulated", None),
        ("6.3.RC2", "23.0.rc2.b020", None),
        ("7.0.0", "22.0.4", "23.0"),
        ("8.0.0", "23.0.6", None),
        ("8.1.RC1", "24.1.rc2", None),
        ("8.3.RC1", "23.0.6", "24.1"),
        ("8.5.0", "25.0.rc1", None),
        ("8.5.0", "24.1.0", "25.0"),
        ("9.1.0", "24.1.0", "25.0"),
        ("5.1.RC2", "1.0", None),  # older than the table
        ("unknown", "22.0.2", None),
    ],
)
def test_a_driver_older_than_its_cann_is_warned_of(cann: str, driver: str, line: str | None) -> None:
    warning = versions.mismatch(cann, driver)
    assert warning is None if line is None else warning and driver in warning and f"{line} line" in warning
