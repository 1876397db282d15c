"""Do factors draw entities: masks against where entities truly are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..core.threads import one_core
from ..core.world import World
from ..types import Video
from .segmentation import foreground_ari, mask_iou


@one_core()
@torch.inference_mode()
def evaluate_masks(
    world: World, video: Video, entities: Sequence[dict[str, np.ndarray]], most: int = 1000
) -> dict[str, float]:
    """Foreground ARI and mask IoU of factorized frames, where an entity stands on one token.

    `foreground_ari` and `mask_iou` as in segmentation.py, of tokens in place of pixels, all episodes as one clip.

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
    true = np.zeros((len(mask), place.shape[1], mask.shape[2]), bool)
    np.put_along_axis(true, place[..., None], True, 2)
    return {"foreground_ari": foreground_ari(true, mask), "mask_iou": float(mask_iou(true, mask).mean())}
