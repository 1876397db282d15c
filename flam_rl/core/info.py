"""What a world says of itself beside its networks: its task, how it was trained, its figures and licence."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ..types import FitName, Json, check_ranges


@dataclass(frozen=True)
class Origin:
    """How a world was trained, for its card.

    Attributes:
        version, commit, dirty: of flam_rl; the last two are None where it was installed.
        python, torch: their versions.
        machine: processor or GPU, instruction set and threads.
        seed: of the training.
        command: the command line.
        frames: frames of video that it was trained on.
        minutes: what that took, with its evaluation.
        figures: what was measured on held-out video, floors included, as text; empty if nothing was.
    """

    version: str
    commit: str | None
    dirty: bool | None
    python: str
    torch: str
    machine: str
    seed: int
    command: str
    frames: int
    minutes: float
    figures: str = ""

    @classmethod
    def from_made_by(cls, made_by: Json, frames: int, seconds: float, figures: str = "") -> Origin:
        """That of a world whose results say `made_by`."""
        machine = (
            f"{made_by['gpu'] or made_by['cpu']}, {made_by['instruction_set']}, {made_by['threads']} threads"
        )
        kept = {name: made_by[name] for name in ("version", "commit", "dirty", "python", "torch")}
        return cls(
            **kept,
            machine=machine,
            seed=made_by["seed"],
            command=made_by["command"],
            frames=frames,
            minutes=round(seconds / 60, 1),
            figures=figures,
        )


@dataclass(frozen=True)
class WorldInfo:
    """What a world's config.json holds beyond the settings of its networks.

    Attributes:
        task: gymnasium id of the real task that the video shows; empty if there is none.
        task_kwargs: its arguments.
        horizon: steps of an imagined episode by default.
        fit: how frames of another aspect were brought to the world's size; those of its task are so too.
        training: the resolved configs that it was trained with.
        metrics: the figures of its card, what evaluation on held-out video measured; None for what it could not.
        license: identifier of its licence as the Hub knows them, `mit` for instance.
        origin: how it was trained; None until its training has ended.
    """

    task: str = ""
    task_kwargs: dict[str, Any] = field(default_factory=dict)
    horizon: int = 64
    fit: FitName = "letterbox"
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, float | None] | None] = field(default_factory=dict)
    license: str = "unknown"
    origin: Origin | None = None

    def __post_init__(self) -> None:
        check_ranges(self, horizon=(1, 10**6))
        check_license(self.license)


def check_license(license: str) -> None:
    """
    Raises:
        ValueError: it is no identifier of the Hub's form.
    """
    if re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,63}", license) is None:
        raise ValueError(f"license is {license!r}; allowed is an identifier of the Hub, as mit or cc-by-4.0")
