"""Everything that held-out video can say of a world."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.world import World
from ..types import Json, Video
from .correspondence import evaluate_correspondence
from .masks import evaluate_masks
from .perceptual import FVD, LPIPS
from .prediction import evaluate_prediction
from .transfer import evaluate_transfer
from .validity import imagination_validity


def measure_world(
    world: World,
    video: Video,
    entities: list[dict[str, np.ndarray]] | None,
    task: Any,
    seed: int,
    probe_iterations: int = 40,
    lpips: LPIPS | None = None,
    fvd: FVD | None = None,
) -> Json:
    """What can be measured with what is given; what cannot is None.

    Args:
        entities: what is true of each episode; with cells' positions and directions, and 4 episodes, for the probes.
        task: the real one, without wrappers; asked for its tiles if it has them.
        probe_iterations: boosting rounds of the probes.
    """
    results: Json = {
        "seed": seed,
        "frames": video.frames,
        "codes": len(world.tokenizer.codebook),
        "ambiguous_patches": float(world.tokenizer.ambiguous),
    }
    results |= evaluate_prediction(world, video, entities, lpips=lpips, fvd=fvd)
    results |= dict.fromkeys(("dci", "correspondence", "masks", "transfer", "imagination_validity"))
    if (
        entities and "direction" in entities[0] and len(entities) >= 4
    ):  # probes are tested on other episodes than they are trained on
        found = evaluate_correspondence(world, video, entities, iterations=probe_iterations)
        results |= {"dci": found.scores(), "correspondence": found.matrix.tolist()}
    if hasattr(task, "tiles"):
        tiles = task.tiles()
        results["imagination_validity"] = imagination_validity(world, task, seed)
        if entities and sum(len(episode) > 1 for episode in video.episodes) >= 2:
            results["transfer"] = evaluate_transfer(world, video, entities, tiles, seed)
        if entities and world.factors > 1 and tiles.images.shape[1] == world.tokenizer.config.patch:
            results["masks"] = evaluate_masks(world, video, entities)
    return results
