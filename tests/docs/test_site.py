"""The commands' reference follows from the tasks, and the documents build as a site without a broken link."""

from __future__ import annotations

import subprocess

import pytest

from deploy.inventory import ROOT
from docs import reference


def test_the_reference_of_the_commands_is_made_of_the_tasks() -> None:
    assert reference.DOCUMENT.read_text(encoding="utf-8") == reference.commands(), "run `python -m docs.reference`"


@pytest.mark.full
def test_the_site_builds_in_both_languages() -> None:
    done = subprocess.run(["make", "docs"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    english, chinese = ((ROOT / "work/site" / path).read_text() for path in ("index.html", "zh/index.html"))
    assert "Real hosts" in english
    assert "真实主机" in chinese
    assert (ROOT / "work/site/search/search_index.json").stat().st_size > 10_000
