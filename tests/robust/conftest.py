"""A small job told once: its points are what the tests cut at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.robust.interrupted import Story, make_sample


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    make_sample(folder / "sample")
    with Story(folder / "story", folder / "sample") as story:
        story.tell(again=False)
        yield story
