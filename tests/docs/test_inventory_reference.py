"""The tables of the inventory, in both languages, have every key and no other."""

from __future__ import annotations

import re

import pytest

from deploy.inventory import ROOT, Benchmark, Dataset, Gpu, Inventory, Npu, Tools, Tune

DOCUMENTS = ("docs/inventory.md", "docs/inventory.zh.md")


def section(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_rows_are_the_inventory_s_keys(document: str) -> None:
    rows = re.findall(r"^\| `(\S+)` \|", section(document), re.M)
    of_host = [row for row in rows if row.startswith("npu[].")]
    assert sorted(row for row in rows if row not in of_host) == sorted(Inventory.model_fields)
    assert {row.removeprefix("npu[].") for row in of_host} <= Npu.model_fields.keys()


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("part", [Gpu, Npu, Tools, Dataset, Benchmark, Tune])
def test_the_keys_below_are_named(document: str, part: type[Inventory]) -> None:
    named = set(re.findall(r"`(?:npu\[\]\.)?([a-z_0-9]+)`", section(document)))
    assert part.model_fields.keys() <= named
