"""The READMEs' table of the inventory has every key, and no other."""

from __future__ import annotations

import re

import pytest

from deploy.inventory import ROOT, Benchmark, Dataset, Gpu, Inventory, Npu, Reference, Tools, Tune

HEADINGS = {"README.md": "## Inventory", "README.zh.md": "## 清单"}


def section(readme: str) -> str:
    text = (ROOT / readme).read_text(encoding="utf-8")
    return text.partition(f"{HEADINGS[readme]}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("readme", HEADINGS)
def test_the_rows_are_the_inventory_s_keys(readme: str) -> None:
    rows = re.findall(r"^\| `(\S+)` \|", section(readme), re.M)
    of_host = [row for row in rows if row.startswith("npu[].")]
    assert sorted(row for row in rows if row not in of_host) == sorted(Inventory.model_fields)
    assert {row.removeprefix("npu[].") for row in of_host} <= Npu.model_fields.keys()


@pytest.mark.parametrize("readme", HEADINGS)
@pytest.mark.parametrize("part", [Gpu, Npu, Tools, Dataset, Benchmark, Tune, Reference])
def test_the_keys_below_are_named(readme: str, part: type[Inventory]) -> None:
    named = set(re.findall(r"`(?:npu\[\]\.)?([a-z_0-9]+)`", section(readme)))
    assert part.model_fields.keys() <= named
