"""What a user may meet, and the exit status that each kind of it ends a command with (docs/ci.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stgcn.errors import InputError

if TYPE_CHECKING:
    from deploy.outcome import Outcome

ERROR, GATE_FAILED, HOST_UNFIT, INTERRUPTED = 1, 2, 3, 130  # exit statuses; 0 is passed


class KitError(InputError):
    """A condition the user can mend: its text is one sentence naming the thing, its value and the way out.

    `outcome` is what the command had found by then, for programs.
    """

    status = ERROR

    def __init__(self, sentence: str, outcome: Outcome | None = None) -> None:
        super().__init__(sentence)
        self.outcome = outcome


class GateFailed(KitError):  # noqa: N818 (it says what happened)
    """Everything ran, and a result misses the gate."""

    status = GATE_FAILED


class HostUnfit(KitError):  # noqa: N818
    """A host that cannot do its part: not reachable or trusted, without the tools or the device, or busy."""

    status = HOST_UNFIT


class LinkLost(HostUnfit):
    """The connection to a host is gone: what runs there goes on, and the next command finds it."""


class OverrunError(KitError):
    """A program that was stopped at its deadline."""


def status_of(error: InputError) -> int:
    """The exit status of a command that ends with this error."""
    return error.status if isinstance(error, KitError) else ERROR


def of_all(sentence: str, failures: Iterable[InputError]) -> KitError:
    """The error of a command in which these happened: a host is unfit where nothing else was wrong."""
    only_hosts = all(isinstance(failure, HostUnfit) for failure in failures)
    return (HostUnfit if only_hosts else KitError)(sentence)


@contextmanager
def host_is_unfit() -> Iterator[None]:
    """While a host is asked whether it can do its part: what refuses is a HostUnfit of the same sentence."""
    try:
        yield
    except KitError as error:
        if type(error) is not KitError:
            raise
        raise HostUnfit(str(error), error.outcome) from None


@contextmanager
def reject_malformed(record: object) -> Iterator[None]:
    """While a record of the kit's own is read: one that is not of the form that the kit writes is a KitError."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise KitError(f"{record}: not of the form that the kit writes ({error!r}); make it again") from None


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """`; did you mean WORD?` of the likeliest of the allowed words, `;` where none is likely."""
    import difflib  # when it is needed: every command waits for what is imported here

    close = difflib.get_close_matches(word, sorted(allowed), n=1)
    return f"; did you mean {close[0]}?" if close else ";"
