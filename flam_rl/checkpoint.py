"""Save and load a world: safetensors and JSON in one folder, written whole or not at all, no pickle."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from .models.aggregator import AggregatorConfig
from .models.baselines import MODELS, name_of
from .models.dynamics import DynamicsConfig
from .models.factorizer import FactorizerConfig
from .models.heads import Adapter, EventHead, Labels
from .models.tokenizer import Tokenizer, TokenizerConfig
from .models.world import World, WorldInfo
from .models.world_model import CodeFacts, FLAMConfig

VERSION = 2
SHIPPED = Path(__file__).parent / "worlds"


def shipped_worlds() -> list[str]:
    """Names of the worlds that come with the package."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/config.json"))


def save_world(world: World, folder: Path, card: str) -> None:
    """Write `world` to `folder` atomically: it is complete in a scratch folder before it takes its place.

    Args:
        card: the model card, Markdown.

    Raises:
        FileExistsError: `folder` exists and is no world.
        ValueError: two codes of the tokenizer are so near that rounding decides between them.
    """
    world.tokenizer.check_separated()
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / "config.json").exists():
        raise FileExistsError(f"{folder} exists and is not a world; give another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        _save_tensors(
            nn.ModuleDict({"tokenizer": world.tokenizer, "model": world.model}).state_dict(),
            scratch / "model.safetensors",
        )
        _save_tensors({"starts": world.starts_STN}, scratch / "starts.safetensors")
        if world.labels is not None:
            _save_tensors(world.labels.state_dict(), scratch / "labels.safetensors")
        (scratch / "config.json").write_text(json.dumps(_config(world), indent=2) + "\n")
        (scratch / "README.md").write_text(card)
        scratch.chmod(0o755)
        for path in scratch.iterdir():
            path.chmod(0o644)  # a temporary folder and its files are private; a world is to be shared
        if folder.exists():
            old = folder.with_name(f".{folder.name}-old")
            shutil.rmtree(old, ignore_errors=True)
            os.replace(folder, old)
            os.replace(scratch, folder)
            shutil.rmtree(old)
        else:
            os.replace(scratch, folder)
        world.source = str(folder.resolve())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, path)


def _config(world: World) -> dict[str, Any]:
    labels = world.labels
    return {
        "version": VERSION,
        "tokenizer": asdict(world.tokenizer.config) | {"frame_size": list(world.tokenizer.frame_size)},
        "model": name_of(world.model),
        "flam": asdict(world.model.config),
        "info": asdict(world.info),
        "labels": labels
        and {
            "agent_factor": labels.agent_factor,
            "budget": labels.budget,
            "actions": labels.adapter.actions,
            "reward_sees": labels.reward.sees.tolist(),
            "termination_sees": labels.termination.sees.tolist(),
        },
    }


def load_world(name: str | os.PathLike[str] = "multigrid", device: torch.device | str = "cpu") -> World:
    """A shipped world by its name, or one in a folder, its own or that of the run that trained it.

    Raises:
        ValueError: there is no such world, or a file of it is missing, truncated, of another version or
            does not fit the others; the message names the file and the reason.
    """
    folder = SHIPPED / name if str(name) in shipped_worlds() else Path(name)
    if (folder / "world" / "config.json").is_file():
        folder = folder / "world"
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"no world {str(name)!r}: allowed are the shipped worlds {shipped_worlds()} and folders with a config.json"
        )
    try:
        config = json.loads(path.read_text())
        if config["version"] != VERSION:
            raise ValueError(f"version {config['version']}, this flam_rl reads {VERSION}")
        world = _build(config, _load_tensors(folder / "starts.safetensors")["starts"])
    except (KeyError, TypeError, ValueError) as error:
        if str(error).startswith(str(folder)):
            raise
        raise ValueError(f"{path}: {error}") from error
    _fill(nn.ModuleDict({"tokenizer": world.tokenizer, "model": world.model}), folder / "model.safetensors")
    if world.labels is not None:
        _fill(world.labels, folder / "labels.safetensors")
    world.source = str(name) if str(name) in shipped_worlds() else str(folder.resolve())
    return world.to(device, torch.float32)  # whatever torch's default dtype is


def _build(config: dict[str, Any], starts: torch.Tensor) -> World:
    settings = dict(config["tokenizer"])
    tokenizer = Tokenizer(
        TokenizerConfig(**{k: v for k, v in settings.items() if k != "frame_size"}),
        tuple(settings["frame_size"]),
    )
    flam = config["flam"]
    flam_config = FLAMConfig(
        **flam
        | {
            "factorizer": FactorizerConfig(**flam["factorizer"]),
            "dynamics": DynamicsConfig(**flam["dynamics"]),
            "aggregator": AggregatorConfig(**flam["aggregator"]),
        }
    )
    codes, pixels = tokenizer.looks().shape
    if config["model"] not in MODELS:
        raise ValueError(f"model {config['model']!r}; allowed are {', '.join(MODELS)}")
    facts = CodeFacts.blank(flam_config, tokenizer.grid, codes, pixels, tokenizer.config.code_dim)
    world = World(tokenizer, MODELS[config["model"]](flam_config, facts), starts, WorldInfo(**config["info"]))
    if config["labels"]:
        world.labels = _build_labels(config["labels"], world).eval().requires_grad_(False)
    return world


def _build_labels(found: dict[str, Any], world: World) -> Labels:
    dim = world.factor_dim
    if not 0 <= found["agent_factor"] < world.factors:
        raise ValueError(f"agent_factor {found['agent_factor']} of {world.factors} factors")
    return Labels(
        found["agent_factor"],
        Adapter(dim, world.latent_action_dim, found["actions"]),
        EventHead(dim, tuple(found["reward_sees"]), 0.0),
        EventHead(dim, tuple(found["termination_sees"]), 0.0),
        found["budget"],
    )


def _load_tensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ValueError(f"{path}: missing")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: truncated or not safetensors ({error})") from error


def _fill(module: nn.Module, path: Path) -> None:
    try:
        module.load_state_dict(_load_tensors(path))
    except RuntimeError as error:
        raise ValueError(f"{path}: does not fit config.json ({error})") from error
