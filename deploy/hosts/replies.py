"""What each operation of `remote/` replies: a host's word is data, and is looked at before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, NonNegativeInt, TypeAdapter, ValidationError
from typing_extensions import TypedDict

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
AbsolutePath = Annotated[str, Field(pattern=r"^/[^\x00]*$")]
Mode = Annotated[int, Field(ge=0, lt=1 << 32)]  # of a file, or the number of its user or group
Done = Literal[True]


class Digest(TypedDict):
    bytes: NonNegativeInt
    sha256: Sha256


class Landed(TypedDict):
    clips: list[NonNegativeInt]
    codecs: list[str]


class Ended(TypedDict):
    status: int


class TimedOut(TypedDict):
    timed_out: Done


class NotStarted(TypedDict):
    refused: str


class Lost(TypedDict):
    lost: Done


class Facts(TypedDict):
    python: str
    machine: str
    cores: int
    codecs: dict[str, str]
    free_bytes: NonNegativeInt
    writable: bool
    uid: int
    time: FiniteFloat
    programs: dict[str, str | None]
    sizes: dict[str, NonNegativeInt | None]
    devices: dict[str, Annotated[list[Mode], Field(min_length=3, max_length=3)]]


class Cleaned(TypedDict):
    removed: list[str]
    left: list[str]


class Contact(TypedDict):
    home: AbsolutePath
    workspace: AbsolutePath


_FORMS: Mapping[str, Any] = {
    "abandon": Done,
    "clean": Cleaned,
    "clips": Done,
    "contact": Contact,
    "digest": dict[str, Digest | None],
    "exec": Ended | TimedOut | NotStarted,
    "facts": Facts,
    "gather": Digest,
    "hold": dict[str, Any],  # its owner reads it field by field
    "job": Ended | TimedOut | NotStarted | Lost,
    "job_state": Literal["running", "ended"] | None,
    "landed": Landed,
    "link": Done,
    "listing": dict[str, NonNegativeInt],
    "put_folder": Done,
    "receive": Done,
    "remove": Done,
    "send": Digest,
    "stop": Done,
    "unpack": Done,
}
REPLIES = {operation: TypeAdapter[Any](form) for operation, form in _FORMS.items()}


def checked(operation: str, reply: Any) -> Any:
    """`reply`, which is of the operation's form. Raises ValueError where it isn't."""
    try:
        return REPLIES[operation].validate_python(reply, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"its reply is not one: {place} {first['msg']}".replace("  ", " ")) from None
