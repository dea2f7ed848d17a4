"""Both READMEs list every error and warning that the kit can print, and nothing that it does not."""

from __future__ import annotations

import re

import pytest

from deploy.inventory import ROOT
from tests.docs.messages import HOLE, Message, messages

HEADINGS = {"README.md": "## Troubleshooting", "README.zh.md": "## 故障排查"}
LEAST_LETTERS = 10  # fewer would fit too much


def symptoms(readme: str) -> list[str]:
    """The code spans of the tables' first column."""
    section = (ROOT / readme).read_text(encoding="utf-8").partition(HEADINGS[readme])[2]
    cells = re.findall(r"^\| (`.*?`) \| ", section, re.M)
    return [span.strip() for cell in cells for _, span in re.findall(r"(`+)(.+?)\1(?!`)", cell)]


def fits(symptom: str, message: Message) -> bool:
    """Whether the symptom's words occur in the message in their order."""
    return re.search(".*".join(map(re.escape, symptom.split(HOLE))), message.template) is not None


EVERY = [message for message in messages() if not message.passed_through]


@pytest.mark.parametrize("readme", HEADINGS)
def test_every_message_has_a_row(readme: str) -> None:
    listed = symptoms(readme)
    lacking = [f"{each.place}: {each.template}" for each in EVERY if not any(fits(row, each) for row in listed)]
    assert not lacking, f"{readme} has no symptom for\n" + "\n".join(lacking)


@pytest.mark.parametrize("symptom", symptoms("README.md"))
def test_a_symptom_is_of_some_message_and_not_vague(symptom: str) -> None:
    found = [each for each in EVERY if fits(symptom, each)]
    assert found, "no message has these words any more"
    enough = len(symptom.replace(HOLE, "").strip()) >= LEAST_LETTERS
    assert enough or [each.template for each in found] == [symptom]


def test_both_readmes_list_the_same_in_the_same_order() -> None:
    english, chinese = (symptoms(readme) for readme in HEADINGS)
    assert english == chinese
    assert len(english) == len(set(english))


def test_the_messages_are_found_in_every_form_of_source() -> None:
    """One of each: an error's kinds, %-text, a table, a function, an embedded program, a warning, a script."""
    templates = [each.template for each in EVERY]
    for words in (
        "is no .npy file",
        "has CHANGED",
        "failed with EZ3003",
        "unknown key",
        "python3 there is",
        "retires, its work",
        "cannot make the environment",
        "isn't a clip array",
    ):
        assert any(words in template for template in templates), words
