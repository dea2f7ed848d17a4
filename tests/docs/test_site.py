"""The commands' reference follows from the tasks, and the documents build as a site without a broken link."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml

from deploy.inventory import ROOT
from docs import reference


def test_the_reference_of_the_commands_is_made_of_the_tasks() -> None:
    assert reference.DOCUMENT.read_text(encoding="utf-8") == reference.commands(), "run `python -m docs.reference`"


def test_every_title_of_the_navigation_is_in_chinese_too() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    (languages,) = (plugin["i18n"]["languages"] for plugin in site["plugins"] if "i18n" in plugin)
    entries = list(site["nav"])
    for entry in entries:
        entries += next((pages for pages in entry.values() if isinstance(pages, list)), [])
    titles = {title for entry in entries for title in entry}
    assert set(languages[1]["nav_translations"]) == titles


@pytest.mark.full
def test_the_site_builds_in_both_languages() -> None:
    done = subprocess.run(["make", "docs"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    english, chinese = ((ROOT / "work/site" / path).read_text() for path in ("index.html", "zh/index.html"))
    assert "Real hosts" in english
    assert "真实主机" in chinese
    index = json.loads((ROOT / "work/site/search/search_index.json").read_text(encoding="utf-8"))
    found = [doc["location"] for doc in index["docs"] if "精度" in re.split(index["config"]["separator"], doc["text"])]
    assert any(location.startswith("zh/precision") for location in found)
