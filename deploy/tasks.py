"""The tasks of `fab`, and a command line read into calls of them.

A task is a function: a parameter without a default is a word that must follow its name, one whose default is False a
switch, one whose default is a tuple an option that may be given again, any other an option with a value.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.errors import KitError, did_you_mean


@dataclass(frozen=True)
class Option:
    """What a command line gives as `flag` (a switch), or as `flag VALUE` or `flag=VALUE`."""

    flag: str
    parameter: str
    takes_value: bool
    repeats: bool
    help: str

    @property
    def usage(self) -> str:
        return f"{self.flag} VALUE" if self.takes_value else self.flag


@dataclass(frozen=True)
class Task:
    """A function that the command line calls by `name`."""

    name: str
    body: Callable[..., None]
    help: Mapping[str, str]  # by parameter

    @property
    def summary(self) -> str:
        return " ".join((self.body.__doc__ or "").split())

    @property
    def words(self) -> list[str]:
        """The parameters whose values must follow the name."""
        return [each.name for each in self._parameters if each.default is each.empty]

    @property
    def options(self) -> dict[str, Option]:
        """By flag."""
        given = [each for each in self._parameters if each.default is not each.empty]
        return {
            (flag := "--" + each.name.replace("_", "-")): Option(
                flag, each.name, each.default is not False, each.default == (), self.help.get(each.name, "")
            )
            for each in given
        }

    @property
    def usage(self) -> str:
        """The task's name and the words that must follow it."""
        return " ".join([self.name, *(word.upper() for word in self.words)])

    @property
    def _parameters(self) -> list[inspect.Parameter]:
        return list(inspect.signature(self.body).parameters.values())


@dataclass(frozen=True)
class Call:
    """A task with the values that a command line gives it."""

    task: Task
    values: dict[str, Any] = field(default_factory=dict)  # by parameter

    @property
    def missing(self) -> list[str]:
        return [word for word in self.task.words if word not in self.values]


def read(argv: Sequence[str], tasks: Mapping[str, Task]) -> list[Call]:
    """The calls that a command line asks for, in its order: after a task's name its words and options, then the next.

    Raises:
        KitError: there is no such task or option, or a value is missing; what was meant, perhaps.
    """
    calls: list[Call] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            _take_option(word, rest, calls)
        elif calls and (missing := calls[-1].missing):
            calls[-1].values[missing[0]] = word
        else:
            calls.append(Call(find(word, tasks)))
    for call in calls:
        if call.missing:
            words = " and ".join(call.task.usage.split()[-len(call.missing) :])
            raise KitError(f"fab {call.task.name}: {words} must follow; see `fab {call.task.name} --help`")
    return calls


def find(name: str, tasks: Mapping[str, Task]) -> Task:
    """The task of that name. Raises KitError where there is none."""
    if name not in tasks:
        meant = did_you_mean(name.replace("_", "-"), tasks)
        raise KitError(f"{name}: no such task{meant} `fab --list` names them all")
    return tasks[name]


def _take_option(word: str, rest: list[str], calls: Sequence[Call]) -> None:
    """Give the last call the option `word`, whose value may be the first of the `rest`."""
    flag, assigned, value = word.partition("=")
    command = f"fab {calls[-1].task.name}" if calls else "fab"
    options = calls[-1].task.options if calls else {}
    if flag not in options:
        meant = did_you_mean(flag, [*options, "--help", *([] if calls else ["--list"])])
        raise KitError(f"{command} has no option {flag}{meant} `{command} --help` lists them")
    option, values = options[flag], calls[-1].values
    if not option.takes_value:
        if assigned:
            raise KitError(f"{command}: {flag} takes no value; see `{command} --help`")
        values[option.parameter] = True
        return
    if not assigned:
        if not rest or rest[0].startswith("--"):
            raise KitError(f"{command}: {flag} needs a value; see `{command} --help`")
        value = rest.pop(0)
    values[option.parameter] = (*values.get(option.parameter, ()), value) if option.repeats else value
