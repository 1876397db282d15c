"""Every model by its name, and where its folder is; a folder is imported when one of its models is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .model import Model

ModelName = Literal[
    "flam",
    "genie",
    "genie-matched",
    "adaworld",
    "lapo",
    "playslot",
    "joint",
    "copy",
    "oracle",
    "tracked",
    "tracked-joint",
]
MODELS: tuple[ModelName, ...] = get_args(ModelName)
"""`copy` is copy-last-frame."""
WHERE: dict[ModelName, str] = dict.fromkeys(MODELS, "flam_rl.models.tiles.kinds") | {
    "tracked": "flam_rl.models.tracked.model",
    "tracked-joint": "flam_rl.models.tracked.joint",
}
"""The module of each, whose `KINDS` has it by name."""
TILE_MODELS: tuple[ModelName, ...] = tuple(name for name in MODELS if WHERE[name].endswith("tiles.kinds"))
"""FLAM on tiles and the rivals that are compared with it on the same codes."""
CONTROLS: dict[ModelName, ModelName] = {"flam": "joint", "tracked": "tracked-joint"}
"""Each FLAM with one latent action for all of its factors."""


@dataclass(frozen=True)
class Kind:
    """What is known of a model before there is one.

    Attributes:
        settings: the frozen dataclass that config.json holds of it.
        make: a model of such settings, whose weights mean nothing yet; on the meta device it takes no memory. ValueError
            for settings that do not go together.
        trained_by: the module whose `build` makes a world of it from video, and whose `check` says before what can be known.
        about: what it is, in a line.
        needs_actions: whether it is given the entities' true actions.
    """

    settings: type
    make: Callable[[Any], Model]
    trained_by: str
    about: str
    needs_actions: bool = False


def kind_of(name: str) -> Kind:
    """
    Raises:
        ValueError: there is no model of that name.
    """
    if name not in WHERE:
        raise ValueError(f"model is {name!r}; allowed are {', '.join(MODELS)}")
    return importlib.import_module(WHERE[name]).KINDS[name]
