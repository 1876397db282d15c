"""Latent-action transfer: what was done in one video, done again in another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..core.threads import one_core
from ..core.world import World
from ..progress import progress
from ..types import Tiles, Video
from .correspondence import LEFT, NOTHING, RIGHT, WALKED, effective_actions
from .pictures import scene_of
from .validity import TOLERANCE, read_frames

AHEAD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""The cell in front of each heading."""


@one_core()
@torch.inference_mode()
def evaluate_transfer(
    world: World,
    video: Video,
    entities: Sequence[dict[str, np.ndarray]],
    tiles: Tiles,
    seed: int = 0,
    pairs: int = 1000,
) -> dict[str, float | None]:
    """Share of entities that do the same again when latent actions inferred in one episode act in another.

    Of random pairs of transitions in different episodes. Counted are entities that turned or walked in the
    first and can in the second: in front of those that walked must be a free cell. What an entity did in
    imagination is read from the decoded frame: it must be shown once, by a tile of the renderer, in the right
    cell and heading the right way.

    Args:
        entities: of each episode, `position` and `direction` as `effective_actions` takes them.

    Returns:
        `same_heading`: of entities that head the same way in both, so that "the same" has one meaning;
        `any_heading`: of all, where a latent action that says "face north" in place of "turn left" is wrong.
        None where there was nothing to count.
    """
    rng = np.random.default_rng(seed)
    codes = [
        world.encode_episode(frames, truth) for frames, truth in zip(video.episodes, entities, strict=True)
    ]
    factors = [world.factorize(z[None]) for z in progress(codes, desc="transfer", unit="episode")]
    latent = [world.infer_actions(f).mean[0] if f.shape[1] > 1 else None for f in factors]
    done = [effective_actions(truth["position"], truth["direction"]) for truth in entities]
    walkable = {tuple(cell) for truth in entities for cell in truth["position"].reshape(-1, 2).tolist()}
    long = [index for index, frames in enumerate(video.episodes) if len(frames) > 1]
    drawn = []
    for _ in range(pairs):
        one, two = rng.choice(long, 2, replace=False)
        drawn.append((one, rng.integers(len(done[one])), two, rng.integers(len(done[two]))))
    start = torch.stack([factors[two][0, t2] for _, _, two, t2 in drawn])
    taken = torch.stack([latent[one][t1] for one, t1, _, _ in drawn])
    frames = world.draw(scene_of(world.step(start, taken))).cpu().numpy()
    tile, difference = read_frames(frames, tiles)
    shown = np.where(difference <= TOLERANCE, tiles.owner[tile], -1)
    columns = frames.shape[2] // tiles.images.shape[2]
    right: list[bool] = []
    alike: list[bool] = []
    for pair, (one, t1, two, t2) in enumerate(drawn):
        position, direction = (entities[two][key][t2] for key in ("position", "direction"))
        stand = {tuple(cell) for cell in position.tolist()}
        for entity, wanted in enumerate(done[one][t1]):
            cell, heading = position[entity], direction[entity]
            ahead = cell + AHEAD[heading]
            blocked = tuple(ahead.tolist()) in stand or tuple(ahead.tolist()) not in walkable
            if wanted == NOTHING or (wanted == WALKED and blocked):
                continue
            expected = {WALKED: (ahead, heading), LEFT: (cell, heading - 1), RIGHT: (cell, heading + 1)}[
                wanted
            ]
            found = np.flatnonzero(shown[pair] == entity)
            right.append(
                len(found) == 1
                and bool(found[0] == expected[0][1] * columns + expected[0][0])
                and bool(tiles.heading[tile[pair, found[0]]] == expected[1] % 4)
            )
            alike.append(bool(entities[one]["direction"][t1, entity] == heading))
    same = [found for found, heading in zip(right, alike, strict=True) if heading]
    return {"same_heading": _share(same), "any_heading": _share(right)}


def _share(right: list[bool]) -> float | None:
    return sum(right) / len(right) if right else None
