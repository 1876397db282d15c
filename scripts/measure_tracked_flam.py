"""What a world of tracked layers predicts and imagines, on episodes that it never saw.

    python scripts/measure_tracked_flam.py --world runs/pucks --data data/held-out --out docs/results/tracked/four-looks

Predictions are open loop from several frames of each episode, with latent actions inferred from the true frames; the context is what
the frames up to the first show. Imagination runs under the prior, and counts, speeds and distances of what it shows are
compared with those of the video. One processor core.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch
import tyro
from scipy.stats import wasserstein_distance

from flam_rl import load_world
from flam_rl.core.world import World
from flam_rl.data.reading import ReadingConfig, read
from flam_rl.files import written_whole
from flam_rl.models.tracked.model import TrackedModel
from flam_rl.models.tracked.states import PLACE, PRESENCE, VELOCITY, StateConfig
from flam_rl.progress import progress
from flam_rl.results import write_results
from flam_rl.types import Json, Scene

HORIZONS = (1, 5, 15)
FIRST, EVERY = 8, 24
"""Frames of an episode from which predictions start: the first, and how far apart the others are."""
IMAGINED, WORLDS, LONG = 64, 256, 1000
"""Steps whose distributions are compared with the video's, imagined worlds, and steps after which nothing may have drifted."""


@dataclass(frozen=True)
class MeasureConfig:
    """Measure a world of tracked layers, and write OUT/results.json and OUT/film.png."""

    world: str
    data: Path
    out: Path
    episodes: int = 40
    """Episodes at most."""
    seed: int = 0


def main(config: MeasureConfig) -> None:
    """Run the script."""
    torch.set_num_threads(1)
    world = load_world(config.world)
    if not isinstance(world.model, TrackedModel):
        raise ValueError(f"{config.world} is a world of {world.model.kind!r}; this script measures 'tracked'")
    video = read(config.data, ReadingConfig()).video
    episodes = [np.asarray(frames) for frames in video.episodes[: config.episodes]]
    film: list[np.ndarray] = []
    results = {"prediction": prediction(world, episodes, film)}
    results["imagination"] = imagination(world, episodes, config.seed, film)
    write_results(config.out, results, config.seed)
    with written_whole(config.out / "film.png") as scratch:
        imageio.imwrite(scratch, np.concatenate(film))
    print(results)


def prediction(world: World, episodes: list[np.ndarray], film: list[np.ndarray]) -> Json:
    """By horizon PSNR in dB, mean of the frames' and of the mean error, of predictions, the last frame copied, and the context alone."""
    errors: dict[int, dict[str, list[float]]] = {h: {} for h in HORIZONS}
    steps = max(HORIZONS)
    for frames in progress(episodes, desc="prediction", unit="episode"):
        for start in range(FIRST, len(frames) - steps, EVERY):
            drawn = world.predict(frames, start, steps)
            seen = world.see(torch.as_tensor(frames[None, : start + 1]))
            empty = torch.zeros_like(seen.factors[:, -1])
            if world.model.settings.state.margin:
                empty[:, -1] = seen.factors[:, -1, -1]  # the camera looks
            context = world.draw(Scene(empty, seen.context))[0].cpu().numpy()
            for h in HORIZONS:
                true = frames[start + h]
                shots = {"": drawn[h - 1], "last_frame": frames[start], "context": context}
                for name, shot in shots.items():
                    errors[h].setdefault(name, []).append(squared_error(shot, true))
            if start == FIRST and len(film) < 6:
                picked = [frames[start + h] for h in HORIZONS] + [drawn[h - 1] for h in HORIZONS]
                film.append(enlarged([frames[start], *picked]))
    return {
        str(h): quality(found.pop("")) | {"floors": {name: quality(e) for name, e in found.items()}}
        for h, found in errors.items()
    }


@torch.inference_mode()
def imagination(world: World, episodes: list[np.ndarray], seed: int, film: list[np.ndarray]) -> Json:
    """Distances of the distributions of counts, speeds and distances to the nearest from the video's, beside those of its halves."""
    state = world.model.settings.state
    real = [world.see(torch.as_tensor(frames[None])).factors[0] for frames in episodes]
    generator = torch.Generator().manual_seed(seed)
    start = world.start(WORLDS, generator)
    stepper = world.imagination([])
    now = stepper.begin(start.factors)
    imagined, strip = [], []
    for step in range(1, LONG + 1):
        now, _ = stepper.step(now, None, generator)
        if step <= IMAGINED or step > LONG - IMAGINED:
            imagined.append(now.factors_BKS.clone())
        if step in (1, 5, 15, 30, IMAGINED, LONG):
            strip.append(world.draw(Scene(now.factors_BKS[:6], start.context[:6])).numpy())
    film += [enlarged([frames[row] for frames in [world.draw(start).numpy(), *strip]]) for row in range(6)]
    soon, late = torch.stack(imagined[:IMAGINED]), torch.stack(imagined[-IMAGINED:])
    halves = [numbers(torch.cat(real[half::2]), state) for half in (0, 1)]
    whole = numbers(torch.cat(real), state)
    result: Json = {"finite": bool(torch.isfinite(late).all())}
    for when, factors in {"first": soon, "last": late}.items():
        found = numbers(factors.flatten(0, 1), state)
        result[f"{when}_{IMAGINED}"] = {
            name: {
                "mean": float(found[name].mean()),
                "distance": float(wasserstein_distance(found[name], values)),
            }
            for name, values in whole.items()
        }
    result["video"] = {
        name: {"mean": float(values.mean()), "distance_of_halves": distance_of(halves, name)}
        for name, values in whole.items()
    }
    return result


def distance_of(halves: list[dict[str, np.ndarray]], name: str) -> float:
    """Wasserstein distance between the values of one name in the two halves."""
    return float(wasserstein_distance(halves[0][name], halves[1][name]))


def numbers(factors_NKS: torch.Tensor, state: StateConfig) -> dict[str, np.ndarray]:
    """How many are there, how fast they are, and how far the nearest other is, in pixels."""
    shown = factors_NKS[:, : state.entities]
    there = shown[..., PRESENCE] > 0.5
    place = shown[..., PLACE] * state.half
    apart = (place[:, :, None] - place[:, None]).norm(dim=-1)
    alone = ~(there[:, :, None] & there[:, None]) | torch.eye(state.entities, dtype=torch.bool)
    nearest = apart.masked_fill(alone, torch.inf).amin(-1)
    speed = shown[..., VELOCITY].norm(dim=-1) * state.speed
    return {
        "count": there.sum(-1).numpy().astype(float),
        "speed": speed[there].numpy(),
        "nearest": nearest[there & nearest.isfinite()].numpy(),
    }


def squared_error(shot: np.ndarray, true: np.ndarray) -> float:
    """Mean squared error of two uint8 frames, colours taken as 0..1."""
    return float(np.square(shot.astype(float) - true).mean()) / 255**2


def quality(errors: list[float]) -> Json:
    """PSNR in dB of frames with these mean squared errors: the mean of the frames' own, and that of the mean error."""
    decibels = -10 * np.log10(np.maximum(errors, 1e-10))
    return {
        "psnr": float(decibels.mean()),
        "psnr_of_mean_error": float(-10 * np.log10(np.mean(errors))),
        "frames": len(errors),
    }


def enlarged(frames: list[np.ndarray], times: int = 2) -> np.ndarray:
    """Frames side by side."""
    return np.concatenate(frames, 1).repeat(times, 0).repeat(times, 1)


if __name__ == "__main__":
    main(tyro.cli(MeasureConfig, description=__doc__))
