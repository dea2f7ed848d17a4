"""What a user may meet."""

from __future__ import annotations

from stgcn.errors import InputError


class KitError(InputError):
    """A condition the user can mend: its text is one sentence naming the thing, its value and the way out."""


class LinkLost(KitError):  # noqa: N818 (it says what happened)
    """The connection to a host is gone: what runs there goes on, and the next command finds it."""


class OverrunError(KitError):
    """A program that was stopped at its deadline."""
