"""Save and load a world: safetensors and JSON in one folder, written whole or not at all, no pickle.

A world may be anyone's: settings are checked against their types and ranges, and the tensors that they ask for
against those that the files say they hold, before memory is taken for any.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from ..files import folder_written_whole
from .card import card_of
from .config import WorldConfig, read_config
from .heads import Labels
from .model import Model
from .sources import world_source
from .weights import Shapes, check_shapes, fill, shapes_of
from .world import World

MOST_NUMBERS = 2**31
"""Numbers that a tensor of starts may have."""
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""What safetensors calls them."""


def save_world(world: World, folder: Path) -> None:
    """Write `world` with its card to `folder` atomically: it is complete in a scratch folder before it takes its place.

    Raises:
        FileExistsError: `folder` exists and is no world.
        ValueError: rounding decides something in the model, as between two codes that are too near each other.
    """
    world.model.check()
    folder = Path(folder)
    check_replaceable(folder)
    with folder_written_whole(folder) as scratch:
        _save_tensors(world.model.state_dict(), scratch / "model.safetensors")
        _save_tensors(world.stored_starts, scratch / "starts.safetensors")
        if world.labels is not None:
            _save_tensors(world.labels.state_dict(), scratch / "labels.safetensors")
        (scratch / "config.json").write_text(
            json.dumps(asdict(WorldConfig.from_world(world)), indent=2) + "\n"
        )
        (scratch / "README.md").write_text(card_of(world))
    world.source = str(folder.resolve())


def check_replaceable(folder: Path) -> None:
    """
    Raises:
        FileExistsError: `folder` exists and is no world, so none may be saved there.
    """
    if folder.exists() and (
        not folder.is_dir() or (any(folder.iterdir()) and not (folder / "config.json").exists())
    ):
        raise FileExistsError(f"{folder} exists and is not a world; give another folder")


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    # By Python: of a full disk safetensors' own writer makes an error that is no OSError.
    path.write_bytes(save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}))


def load_world(name: str | os.PathLike[str] = "multigrid", device: torch.device | str = "cpu") -> World:
    """A shipped world by its name; one in a folder, its own or that of the run that trained it, or in a zip of one; or one
    on the Hugging Face Hub, `hf://user/name` or `hf://user/name@revision`.

    Nothing in it is run, and nothing that it names is imported. Only an `hf://` address touches the network.

    Raises:
        ValueError: there is no such world, or a file of it is missing, damaged, of another version or does not fit
            the others; the message names the file, what was found in it and what is allowed.
        OSError: the Hub cannot be reached, and the world is not cached.
        ImportError: the world is on the Hub, and the extra `hub` is not installed.
    """
    with world_source(name) as source:
        world = _load(source.folder).to(device)
    world.source = source.name
    return world


def _load(folder: Path) -> World:
    path = folder / "config.json"
    with _default_float32():
        with _said_of(path):
            config = read_config(path)
            allowed = _allowed(config)
        _check_header(allowed.networks, folder / "model.safetensors")
        if config.labels is not None:
            _check_header(allowed.labels, folder / "labels.safetensors")
        starts = _load_starts(folder / "starts.safetensors", allowed.model)
        model, labels = config.make()
    _fill(model, folder / "model.safetensors")
    if labels is not None:
        _fill(labels, folder / "labels.safetensors")
        _check_sees(folder / "labels.safetensors", config, labels)
        labels.eval().requires_grad_(False)
    return World(model, starts, config.info, labels)


class _Allowed(NamedTuple):
    """What the networks of a config take, and the model on the meta device."""

    networks: Shapes
    labels: Shapes
    model: Model


@lru_cache(16)
def _allowed(config: WorldConfig) -> _Allowed:
    """Without taking memory; cached, for it takes longer than all else of loading."""
    with torch.device("meta"):
        model, labels = config.make()
    return _Allowed(shapes_of(model.state_dict()), shapes_of(labels.state_dict()) if labels else {}, model)


@contextmanager
def _default_float32() -> Iterator[None]:
    """Networks made of float32, whatever the caller's programs are made of."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file, as a ValueError that names it."""
    try:
        yield
    except (ValueError, RuntimeError, AssertionError, OSError, SafetensorError) as error:
        # The second and third are torch's, of sizes that do not go together.
        raise ValueError(f"{path}: {error}") from error


def _shapes(path: Path) -> Shapes:
    """The header of the file; safetensors checks that the file has the length that it needs."""
    if not path.is_file():
        raise ValueError(f"{path}: missing")
    try:
        with safe_open(path, "pt") as file:
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: (TYPES.get(part.get_dtype(), part.get_dtype()), tuple(part.get_shape()))
                for name, part in found.items()
            }
    except (SafetensorError, OSError, UnicodeError) as error:
        raise ValueError(f"{path}: truncated or not safetensors ({error})") from error


def _check_header(allowed: Shapes, path: Path) -> None:
    found = _shapes(path)
    try:
        check_shapes(allowed, found)
    except ValueError as error:
        raise ValueError(f"{path}: does not fit config.json: {error}") from error


def _fill(module: nn.Module, path: Path) -> None:
    with _said_of(path):
        fill(module, load_file(path))


def _load_starts(path: Path, model: Model) -> dict[str, torch.Tensor]:
    """What the model keeps of starts, checked by its sizes before it is read, and by its values after."""
    found = _shapes(path)
    with _said_of(path):
        for name, (dtype, shape) in found.items():
            if math.prod(shape) > MOST_NUMBERS:
                raise ValueError(
                    f"tensor {name!r} has shape {shape}; allowed are {MOST_NUMBERS} numbers in all"
                )
            if isinstance(dtype, str):
                raise ValueError(f"tensor {name!r} is {dtype}; allowed are {sorted(TYPES)}")
        model.check_starts(
            {name: torch.empty(shape, dtype=dtype, device="meta") for name, (dtype, shape) in found.items()}
        )
        starts = load_file(path)
        model.check_starts(starts)
    return starts


def _check_sees(path: Path, config: WorldConfig, labels: Labels) -> None:
    """config.json and labels.safetensors both say what a head sees."""
    assert config.labels is not None
    for name, head, said in (
        ("reward", labels.reward, config.labels.reward_sees),
        ("termination", labels.termination, config.labels.termination_sees),
    ):
        if head.sees.tolist() != list(said):
            raise ValueError(
                f"{path}: tensor '{name}.sees' is {head.sees.tolist()}; allowed is {list(said)}, as config.json says"
            )
