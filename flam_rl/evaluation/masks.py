"""Do factors draw entities: masks against where entities truly are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score

from ..models.threads import one_core
from ..models.world import World
from ..types import Video


@one_core()
@torch.inference_mode()
def evaluate_masks(
    world: World, video: Video, entities: Sequence[dict[str, np.ndarray]], most: int = 1000
) -> dict[str, float]:
    """Foreground ARI and mask IoU of factorized frames, where an entity stands on one token.

    `foreground_ari`: adjusted Rand index of which factor draws most of a token, over the tokens that show
    entities (Greff et al. 2019), all frames at once, so that a factor has to keep its entity. `mask_iou`: tokens
    that a factor draws more than half of against those of an entity, mean over entities, factors matched to
    entities once for all frames.

    Args:
        entities: of each episode, `position` int `(T, entities, 2)`: column and row of tokens.
        most: frames looked at.
    """
    columns = world.tokenizer.grid[1]
    masks, places = [], []
    for frames, truth in zip(video.episodes, entities, strict=True):
        z = world.encode_episode(frames, truth)
        masks.append(world.aggregate(world.factorize(z[None])[0]).masks_BKN)
        places.append(truth["position"][..., 1] * columns + truth["position"][..., 0])
        if sum(map(len, places)) >= most:
            break
    mask, place = torch.cat(masks).cpu().numpy(), np.concatenate(places)
    background = 1 - mask.sum(1, keepdims=True)
    label = np.concatenate([mask, background], 1).argmax(1)
    shown = np.take_along_axis(label, place, 1)
    whose = np.arange(place.shape[1])
    ari = adjusted_rand_score(np.tile(whose, len(shown)), shown.ravel())
    true = np.zeros((len(mask), place.shape[1], mask.shape[2]), bool)
    np.put_along_axis(true, place[..., None], True, 2)
    drawn = (mask > 0.5).astype(np.float64)
    both = np.einsum("bkn,ben->ke", drawn, true.astype(np.float64))
    either = drawn.sum((0, 2))[:, None] + true.sum((0, 2))[None] - both
    iou = both / np.maximum(either, 1)
    matched = iou[linear_sum_assignment(-iou)].sum() / place.shape[1]
    return {"foreground_ari": float(ari), "mask_iou": float(matched)}
