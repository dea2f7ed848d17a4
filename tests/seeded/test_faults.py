"""The faults that `python -m tests.seeded` makes can be made: the text of each is where it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deploy.inventory import ROOT
from tests.seeded.faults import FAULTS, Fault


def test_there_are_forty_of_every_part() -> None:
    assert len({fault.what for fault in FAULTS}) == len(FAULTS) >= 40
    assert {fault.file.split("/")[0] for fault in FAULTS} == {"deploy", "docker", "stgcn"}


@pytest.mark.full  # whoever changes one of these lines is not to be stopped at once
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_it_can_be_made(fault: Fault, tmp_path: Path) -> None:
    path = tmp_path / fault.file
    path.parent.mkdir(parents=True)
    shutil.copy(ROOT / fault.file, path)
    fault.make(tmp_path)
    assert path.read_text() != (ROOT / fault.file).read_text()
    assert all((ROOT / tests).exists() for tests in fault.first.split())
