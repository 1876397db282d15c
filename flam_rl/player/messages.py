"""What a page may say to its world: every message is checked before anything is done, and small."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MOST_BYTES = 2**16
"""Of a message."""
MOST_FACTORS = 256
MOST_STEPS = 5000
"""Steps that a link replays at most."""
LARGEST_SEED = 2**31 - 1

Index = Annotated[int, Field(ge=0, lt=MOST_FACTORS)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


class _Said(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Hold(_Said):
    """Which keys are held now: pairs of latent action and key."""

    kind: Literal["hold"]
    keys: list[tuple[Index, Index]] = Field(max_length=64)


class Control(_Said):
    """Which latent actions are the visitor's, in this order; the prior decides the others."""

    kind: Literal["control"]
    indices: list[Index] = Field(max_length=MOST_FACTORS)


class Run(_Said):
    """Go on by itself, or pause."""

    kind: Literal["run"]
    on: bool


class Step(_Said):
    """One step, which pauses."""

    kind: Literal["step"]


class Undo(_Said):
    """Go back so many steps, which pauses."""

    kind: Literal["undo"]
    steps: Annotated[int, Field(ge=1, le=100)]


class Restart(_Said):
    """Begin anew at the start of this seed."""

    kind: Literal["restart"]
    seed: Seed


class Speed(_Said):
    """Steps a second."""

    kind: Literal["speed"]
    fps: Annotated[int, Field(ge=1, le=60)]


class Task(_Said):
    """Whether the real task runs beside; begins anew, so that both begin at the same frame."""

    kind: Literal["task"]
    on: bool


class Record(_Said):
    """Begin or end a film."""

    kind: Literal["record"]
    on: bool


class Link(_Said):
    """Ask for the link that replays what happened since the start."""

    kind: Literal["link"]


class Replay(_Said):
    """Do again what a link says."""

    kind: Literal["replay"]
    link: str = Field(max_length=MOST_BYTES)


Message = Hold | Control | Run | Step | Undo | Restart | Speed | Task | Record | Link | Replay
_messages: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


class Inputs(_Said):
    """What a visitor did in `steps` steps on end: the latent actions that are theirs, and the keys held."""

    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)]
    indices: list[Index] = Field(max_length=MOST_FACTORS)
    keys: list[tuple[Index, Index]] = Field(max_length=64)


class Recording(_Said):
    """What a link holds: with the world, it determines everything that is seen.

    Attributes:
        world: fingerprint of the world. seed: of start and others. task: whether the real task begins with it.
    """

    world: str = Field(max_length=16)
    seed: Seed
    task: bool
    inputs: list[Inputs] = Field(max_length=MOST_STEPS)


def read_message(text: str) -> Message:
    """
    Raises:
        ValueError: it is none, in a line.
    """
    try:
        return _messages.validate_json(text)
    except ValidationError as error:
        raise ValueError(f"no message of this page: {_first(error)}") from error


def write_link(recording: Recording) -> str:
    """As text for an address."""
    return (
        base64.urlsafe_b64encode(zlib.compress(recording.model_dump_json().encode(), 9)).decode().rstrip("=")
    )


def read_link(link: str) -> Recording:
    """
    Raises:
        ValueError: it is none, in a line.
    """
    try:
        packed = base64.b64decode(link + "=" * (-len(link) % 4), altchars=b"-_", validate=True)
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(packed, 16 * MOST_BYTES)
        if not unpacker.eof:
            raise ValueError("it is cut or too long")
        recording = Recording.model_validate_json(text)
        if sum(inputs.steps for inputs in recording.inputs) > MOST_STEPS:
            raise ValueError(f"it has more than {MOST_STEPS} steps")
    except ValidationError as error:
        raise ValueError(f"the link is none that this page made: {_first(error)}") from error
    except (ValueError, binascii.Error, zlib.error) as error:
        raise ValueError(f"the link is none that this page made: {error}") from error
    return recording


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in found["loc"])
    return f"{where}: {found['msg']}" if where else str(found["msg"])
