"""Which factor is the agent's, where that differs by episode."""

from __future__ import annotations

import torch
from torch import nn

from .adapters import Adapter
from .layers import EnsembleMLP, first_least

SURE = 1.0
"""Nats by which a factor must be likelier than another to be taken for the agent's in its place."""
MEMORY = 0.9
"""The evidence of earlier actions keeps this share of its weight at each step."""
MOST_LOOKS = 3.0
"""Nats by which looks alone may speak against a factor."""


class AgentFinder(nn.Module):
    """Tells by the look of its state how likely a factor is to be the agent's."""

    def __init__(self, factor_dim: int) -> None:
        super().__init__()
        self.net = EnsembleMLP(factor_dim, 1)

    def scores(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """What each member says of each factor: logits float `(members, B, K)`."""
        return self.net(factors_BKS.flatten(0, 1)).unflatten(1, factors_BKS.shape[:2]).squeeze(-1)

    def looks(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """Log-probability that a factor is the agent's, by looks alone: float `(B, K)`."""
        return self.scores(factors_BKS).log_softmax(-1).exp().mean(0).log().clamp_min(-MOST_LOOKS)


def agent_first(agent_B: torch.Tensor, place: int, factors: int) -> torch.Tensor:
    """Orders of factors, int64 `(B, K)`, in which the agent's has changed places with the one at `place`."""
    order = torch.arange(factors, device=agent_B.device).repeat(len(agent_B), 1)
    order[:, place] = agent_B
    return order.scatter(1, agent_B.unsqueeze(1), place)


class FollowedAgent:
    """Which factor is the agent's in B running tasks, by its look and by how the real actions moved it."""

    def __init__(self, finder: AgentFinder, adapter: Adapter) -> None:
        self.finder, self.adapter = finder, adapter
        self.agent_B = torch.empty(0, dtype=torch.int64)
        self._evidence_BK = torch.empty(0, 0)

    def begin(self, factors_BKS: torch.Tensor, fresh_B: torch.Tensor) -> None:
        """Forget the tasks in the mask `fresh_B`, all of them at first. Factors are float `(B, K, S)`."""
        looks = self.finder.looks(factors_BKS)
        if self._evidence_BK.shape != looks.shape:
            self._evidence_BK, self.agent_B = torch.zeros_like(looks), first_least(-looks, SURE)
        self._evidence_BK = torch.where(fresh_B.unsqueeze(1), 0.0, self._evidence_BK)
        self.agent_B = torch.where(fresh_B, first_least(-looks, SURE), self.agent_B)

    def acted(
        self,
        before_BKS: torch.Tensor,
        latent_actions_BKA: torch.Tensor,
        real_B: torch.Tensor,
        after_BKS: torch.Tensor,
        moved_B: torch.Tensor,
    ) -> None:
        """Learn from a step of the tasks in the mask bool `(B,)`: each factor's inferred latent action `(B, K, A)` beside the real
        one `(B, *shape)`, with factors `(B, K, S)` before and after it."""
        factors = before_BKS.shape[1]
        explained = -self.adapter.errors(
            before_BKS.flatten(0, 1), latent_actions_BKA.flatten(0, 1), real_B.repeat_interleave(factors, 0)
        ).view(-1, factors)
        evidence = MEMORY * self._evidence_BK + explained - explained.amax(-1, keepdim=True)
        self._evidence_BK = torch.where(moved_B.unsqueeze(1), evidence, self._evidence_BK)
        total = self._evidence_BK + self.finder.looks(after_BKS)
        best = first_least(-total, SURE)
        gain = total.gather(1, torch.stack([best, self.agent_B], 1))
        self.agent_B = torch.where(moved_B & (gain[:, 0] > gain[:, 1] + SURE), best, self.agent_B)
