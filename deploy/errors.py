"""What a user may meet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stgcn.errors import InputError


class KitError(InputError):
    """A condition the user can mend: its text is one sentence naming the thing, its value and the way out."""


class LinkLost(KitError):  # noqa: N818 (it says what happened)
    """The connection to a host is gone: what runs there goes on, and the next command finds it."""


class OverrunError(KitError):
    """A program that was stopped at its deadline."""


@contextmanager
def as_written(record: object) -> Iterator[None]:
    """While a record of the kit's own is read: one that is not of the form that the kit writes is a KitError."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise KitError(f"{record}: not of the form that the kit writes ({error!r}); make it again") from None
