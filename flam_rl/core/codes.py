"""Action codes: which of them are plausible, and which is taken where a latent action is wanted."""

from __future__ import annotations

import torch

from .layers import nearest_code

PLAUSIBLE = 0.02
"""Action codes to which the prior gives less are never taken in imagination, but for the most likely one."""


def snap(
    log_probs_BM: torch.Tensor, latent_actions_BA: torch.Tensor, codebook_MA: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The plausible action code nearest to a wanted latent action, int64 `(B,)`, and the log-probability `(B,)`
    of the nearest of all."""
    wanted = latent_actions_BA.detach()
    nearest = nearest_code(wanted, codebook_MA).unsqueeze(-1)
    code = nearest_code(wanted, codebook_MA, plausible(log_probs_BM.exp()))
    return code, log_probs_BM.gather(-1, nearest).squeeze(-1)


def plausible(probs_BM: torch.Tensor) -> torch.Tensor:
    """Which action codes may be taken, bool `(B, M)`: the most likely one, and all at `PLAUSIBLE` or above."""
    return probs_BM >= probs_BM.amax(-1, keepdim=True).clamp_max(PLAUSIBLE)
