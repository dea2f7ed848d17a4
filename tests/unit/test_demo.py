"""`make demo MODEL=NAME`: the inventory of another model's demo."""

from __future__ import annotations

import pytest

from deploy import demo, inventory
from deploy.errors import KitError
from deploy.inventory import ROOT, local_path


@pytest.mark.parametrize(("name", "said"), [("st_gcn.nothing", "st_gcn.nothing"), ("examples/own_model", "sample")])
def test_a_model_without_sample_data_is_refused(name: str, said: str) -> None:
    with pytest.raises(KitError, match=said):
        demo.prepare(name)


@pytest.mark.full
def test_the_inventory_is_the_demo_s_with_the_model_s_own_files() -> None:
    path = demo.prepare("mmaction.stgcnpp-2d")
    found, base = inventory.load(path), inventory.load(ROOT / "inventory.demo.yaml")
    assert found.model == "mmaction.stgcnpp-2d"
    assert found.workspace != base.workspace
    assert found.npu[0].workspace != base.npu[0].workspace
    assert found.npu[0].tools == base.npu[0].tools
    assert found.dataset
    assert found.checkpoint
    for file in (found.dataset.data, found.dataset.labels, found.checkpoint):
        assert local_path(file).is_file()
    made = local_path(found.dataset.data).stat()
    assert demo.prepare("mmaction.stgcnpp-2d") == path
    assert local_path(found.dataset.data).stat() == made  # what is there is kept
