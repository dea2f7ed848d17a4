"""A small job told once: its points are what the tests cut at."""

from __future__ import annotations

import pytest

from tests.robust.interrupted import Story, make_sample


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    make_sample(folder / "sample")
    story = Story(folder / "story", folder / "sample")
    story.tell(again=False)
    return story
