"""The one exception a user may meet."""

from __future__ import annotations

from stgcn.errors import InputError


class KitError(InputError):
    """A condition the user can mend: its text is one sentence naming the thing, its value and the way out."""
