"""How well a tokenizer keeps frames, and how many changed codes are predicted right; for models of codes only."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..core.threads import one_core
from ..types import Json, Truth
from .encoded import Encoded, left_out
from .prediction import HORIZONS, Clips, mean_psnr

FIGURES = ("codes", "ambiguous_patches", "reconstruction_psnr", "token_accuracy_changed")


@one_core()
@torch.inference_mode()
def measure(encoded: Encoded, truth: Sequence[Truth] | None = None) -> Json | None:
    """How many codes a model has and how well it predicts them; None for a model without codes.

    Returns:
        `codes`; `ambiguous_patches`, the share of the training patches that lie between two codes; `reconstruction_psnr`, dB of
        the tokenizer alone; `token_accuracy_changed` by horizon, the share of the tokens that changed since the first
        frame that is predicted right, open loop from there, and its `floors`: that of the first frame copied,
        `last_frame`, 0 by definition.
    """
    model = encoded.world.model
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        left_out("tokens", "the model has no codes")
        return None

    def codes(clips: Clips, step: int) -> torch.Tensor:
        return tokenizer.encode(torch.as_tensor(clips.frames(step), device=encoded.world.device))

    accuracy: Json = {}
    copied: Json = {}
    for horizon in HORIZONS:
        clips = Clips.from_encoded(encoded, 0, horizon)
        accuracy[str(horizon)] = None
        if clips is not None:
            first, last = codes(clips, 0), codes(clips, horizon)
            drawn = model.aggregate(clips.unroll()[-1].factors).log_probs_BNV.argmax(-1)  # type: ignore[operator]
            if (changed := first != last).any():
                accuracy[str(horizon)] = float((drawn == last)[changed].float().mean())
                copied[str(horizon)] = 0.0
    clips = Clips.from_encoded(encoded, 0, min(HORIZONS[-1], max(map(len, encoded.frames)) - 1))
    assert clips is not None
    return {
        "codes": len(tokenizer.codebook),
        "ambiguous_patches": float(tokenizer.ambiguous),
        "reconstruction_psnr": mean_psnr(tokenizer.decode(codes(clips, 1)), clips.frames(1)),
        "token_accuracy_changed": accuracy | {"floors": {"last_frame": copied}},
    }
