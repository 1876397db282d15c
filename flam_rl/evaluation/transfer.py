"""Latent-action transfer: latent actions inferred in one episode, applied in another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..core.threads import one_core
from ..types import Json, Scene, Truth
from .encoded import Encoded, left_out
from .truth import LEFT, NOTHING, RIGHT, WALKED, effective_actions
from .validity import TOLERANCE, DrawsTiles, read_frames

AHEAD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""The cell in front of each heading."""


@one_core()
@torch.inference_mode()
def measure(
    encoded: Encoded,
    truth: Sequence[Truth] | None,
    task: object = None,
    seed: int = 0,
    pairs: int = 1000,
) -> Json | None:
    """Share of entities that repeat their action when latent actions inferred in one episode are applied in another.

    Pairs of transitions are drawn at random from different episodes. An entity counts if it turned or walked in the
    first and can do so in the second: if it walked, the cell in front of it must be free. Its action in imagination
    is read from the decoded frame: the entity must be shown exactly once, by a tile of the renderer, in the right
    cell and with the right heading.

    Args:
        truth: of each episode, with centres of entities in cells of a grid, and their headings.
        task: the real task, which lists the tiles that its renderer draws.

    Returns:
        `same_heading`: the share among entities that head the same way in both episodes, so that "the same action"
            has one meaning; `any_heading`: the share among all, where a latent action that means "face north" instead
            of "turn left" counts as wrong. Either is None if no entity counts. `floors`: the same with the latent
            actions of a random other transition (`random_actions`).
        None where the task has no tiles, truth no headings, or fewer than two episodes have two frames.
    """
    world = encoded.world
    long = [index for index, acted in enumerate(encoded.latent_actions) if len(acted)]
    if not isinstance(task, DrawsTiles):
        left_out("transfer", "there is no task that lists the tiles of its renderer")
        return None
    if truth is None or any(one.heading is None or one.centre is None for one in truth):
        left_out("transfer", "there is no truth of where entities head")
        return None
    if len(long) < 2:
        left_out("transfer", f"it needs two episodes of two frames or more; given {len(long)}")
        return None
    tiles = task.tiles()
    cell = tiles.images.shape[1]
    cells = [np.floor(one.centre / cell).astype(int) for one in truth if one.centre is not None]
    headings = [one.heading for one in truth if one.heading is not None]
    rng = np.random.default_rng(seed)
    done = [effective_actions(place, heading) for place, heading in zip(cells, headings, strict=True)]
    walkable = {tuple(place) for places in cells for place in places.reshape(-1, 2).tolist()}
    drawn = []
    for _ in range(pairs):
        one, two = rng.choice(long, 2, replace=False)
        drawn.append((one, rng.integers(len(done[one])), two, rng.integers(len(done[two]))))
    start = torch.stack([encoded.scenes[two].factors[t2] for _, _, two, t2 in drawn])
    context = torch.stack([encoded.scenes[two].context for _, _, two, _ in drawn])
    taken = torch.stack([encoded.latent_actions[one][t1] for one, t1, _, _ in drawn])
    columns = world.frame_size[1] // cell

    def figures(latent_actions: torch.Tensor) -> Json:
        frames = world.draw(Scene(world.step(start, latent_actions), context)).cpu().numpy()
        tile, difference = read_frames(frames, tiles)
        shown = np.where(difference <= TOLERANCE, tiles.owner[tile], -1)
        right: list[bool] = []
        alike: list[bool] = []
        for pair, (one, t1, two, t2) in enumerate(drawn):
            stand = {tuple(place) for place in cells[two][t2].tolist()}
            for entity, wanted in enumerate(done[one][t1]):
                place, heading = cells[two][t2, entity], headings[two][t2, entity]
                ahead = place + AHEAD[heading]
                blocked = tuple(ahead.tolist()) in stand or tuple(ahead.tolist()) not in walkable
                if wanted == NOTHING or (wanted == WALKED and blocked):
                    continue
                expected, facing = {
                    WALKED: (ahead, heading),
                    LEFT: (place, heading - 1),
                    RIGHT: (place, heading + 1),
                }[wanted]
                found = np.flatnonzero(shown[pair] == entity)
                right.append(
                    len(found) == 1
                    and bool(found[0] == expected[1] * columns + expected[0])
                    and bool(tiles.heading[tile[pair, found[0]]] == facing % 4)
                )
                alike.append(bool(headings[one][t1, entity] == heading))
        same = [found for found, heading in zip(right, alike, strict=True) if heading]
        return {"same_heading": _share(same), "any_heading": _share(right)}

    found = figures(taken)
    anyone = torch.as_tensor(rng.permutation(pairs), device=taken.device)
    return found | {"floors": {"random_actions": figures(taken[anyone])}}


def _share(right: list[bool]) -> float | None:
    return sum(right) / len(right) if right else None
