"""`flam-rl imagine`: a film of a world, in which given factors keep to a path and the prior moves the others."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..core.checkpoint import load_world
from ..core.holding import HeldPath, check_factor, hold, seen
from ..core.threads import one_core
from ..core.world import World
from ..envs.flam_vector_env import FLAMVectorEnv
from ..files import written_whole
from ..player.film import MOST_FRAMES, Film
from ..results import write_results
from ..types import Scene, check_ranges
from .checks import check_out
from .endings import ended


@dataclass(frozen=True)
class ImagineConfig:
    """Imagine in a world, all factors by its prior or some of them held on a path, and write a film of it.

    Example: flam-rl imagine --world pucks --steps 200 --out runs/imagined

    Example: flam-rl imagine --world pucks --steps 200 --hold 2=runs/imagined/imagined.npz --seed 1 --out runs/held
    """

    out: Path
    """Folder for film.mp4, imagined.npz (frames, factors, latent_actions, rewards) and results.json."""
    world: str = "multigrid"
    """A shipped world's name, a folder, a zip, or hf://user/name, also with @revision."""
    steps: int = 200
    """Imagined steps."""
    hold: tuple[str, ...] = ()
    """Factors and their paths, K=path.npz each, with `frames` (uint8, T + 1 of them, in which factor K goes that way; it starts
    there) or `latent_actions` (T of factor K, or of all)."""
    seed: int = 0
    """Of where it starts, and of what the prior decides."""

    def __post_init__(self) -> None:
        check_ranges(self, steps=(1, MOST_FRAMES - 1), seed=(0, 2**31))


@one_core()
@torch.inference_mode()
def imagine(config: ImagineConfig) -> None:
    """Run the command.

    Raises:
        ValueError: there is no such world or factor, a path is none or too short, or `out` cannot be written.
        ImportError: PyAV is missing.
    """
    check_out(config.out)
    world = load_world(config.world)
    generator = torch.Generator(world.device).manual_seed(config.seed)
    start = world.start(1, generator)
    paths: dict[int, HeldPath] = {}
    for given in config.hold:
        factor, file = _named(world, given)
        shown = _read(file)
        if "frames" in shown:
            scene = seen(world, shown["frames"][: config.steps + 1])
            if not paths:  # all that the first film shows beside its factor is there too
                start = Scene(scene.factors[:1], scene.context[None])
            paths[factor] = HeldPath.from_factors(world, scene.factors, factor)
        else:
            paths[factor] = _latent(world, shown["latent_actions"], factor, file)
    rollout = hold(world, paths, start, config.steps, generator)
    scenes = Scene(rollout.factors_BTKS[0], rollout.context_BX.expand(config.steps + 1, -1))
    frames = np.concatenate(
        [world.draw(scenes.select(slice(i, i + 64))).cpu().numpy() for i in range(0, config.steps + 1, 64)]
    )
    film = Film(FLAMVectorEnv.metadata["render_fps"])
    for step, frame in enumerate(frames):
        film.add(step, frame, None, None)
    content = io.BytesIO()
    np.savez_compressed(
        content,
        frames=frames,
        factors=rollout.factors_BTKS[0].cpu().numpy(),
        latent_actions=rollout.latent_actions_BTLA[0].cpu().numpy(),
        rewards=rollout.rewards_BT[0].cpu().numpy(),
    )
    config.out.mkdir(parents=True, exist_ok=True)
    for name, written in (("film.mp4", film.mp4()), ("imagined.npz", content.getvalue())):
        with written_whole(config.out / name) as scratch:
            scratch.write_bytes(written)
    results = {
        "world": config.world,
        "steps": config.steps,
        "held": {str(factor): len(path) for factor, path in paths.items()},
    }
    write_results(config.out, results | {"reward": float(rollout.rewards_BT.sum())}, config.seed)
    ended(f"{config.out / 'film.mp4'} and imagined.npz beside it", "flam-rl", "play", "--world", config.world)


def _named(world: World, given: str) -> tuple[int, Path]:
    factor, _, file = given.partition("=")
    if not factor.isdecimal() or not file:
        raise ValueError(f"--hold {given}: allowed is K=path.npz, K the index of a factor")
    check_factor(world, int(factor))
    return int(factor), Path(file)


def _read(file: Path) -> dict[str, np.ndarray]:
    """What of a path the file holds.

    Raises:
        ValueError: it is no npz file, or holds none.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in ("frames", "latent_actions") if name in arrays}
            names = arrays.files
    except (ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: not an npz file of arrays ({error})") from error
    if not found:
        raise ValueError(f"{file} holds {names}; allowed are 'frames' or 'latent_actions'")
    return found


def _latent(world: World, given: np.ndarray, factor: int, file: Path) -> HeldPath:
    """Raises:
    ValueError: these are no latent actions of a factor, nor of all.
    """
    own = world.latent_action_dim
    every = (world.latent_actions, own)
    if given.dtype.kind != "f" or given.shape[1:] not in ((own,), every) or not np.isfinite(given).all():
        raise ValueError(
            f"{file}: latent_actions are {given.dtype} {given.shape}; allowed are finite floats (T, {own}) or (T, {every[0]}, {own})"
        )
    one = given if given.ndim == 2 else given[:, factor]
    return HeldPath(torch.as_tensor(one, dtype=torch.float32, device=world.device))
