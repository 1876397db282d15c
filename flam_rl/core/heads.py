"""What labels add to a world: which factor is the agent's, its adapter, reward and termination."""

from __future__ import annotations

import torch
from torch import nn

from .layers import FrozenLinear

MEMBERS = 5
"""Networks in an ensemble: their disagreement tells where labels do not reach."""


class EnsembleMLP(nn.Module):
    """`members` independent two-layer networks in one batched product."""

    def __init__(self, inputs: int, outputs: int, hidden: int = 64, members: int = MEMBERS) -> None:
        super().__init__()
        self.weight_0 = nn.Parameter(torch.randn(members, inputs, hidden) * (1.5 / inputs**0.5))
        self.bias_0 = nn.Parameter(torch.zeros(members, 1, hidden))
        self.weight_1 = nn.Parameter(torch.randn(members, hidden, outputs) * (1.0 / hidden**0.5))
        self.bias_1 = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, x_BI: torch.Tensor) -> torch.Tensor:
        """float `(B, inputs)` to `(members, B, outputs)`."""
        hidden = nn.functional.gelu(x_BI @ self.weight_0 + self.bias_0)
        return hidden @ self.weight_1 + self.bias_1


class Adapter(nn.Module):
    """Latent action of the agent's factor to real action and back, with that factor as context."""

    def __init__(self, factor_dim: int, latent_action_dim: int, actions: int) -> None:
        super().__init__()
        self.to_real = EnsembleMLP(factor_dim + latent_action_dim, actions)
        self.to_latent = EnsembleMLP(factor_dim + actions, latent_action_dim)
        self.actions = actions

    def log_probs(self, factor_BS: torch.Tensor, latent_BA: torch.Tensor) -> torch.Tensor:
        """Log-probability of each real action, each member's: float `(members, B, actions)`."""
        return self.to_real(torch.cat([factor_BS, latent_BA], -1)).log_softmax(-1)

    def real(self, factor_BS: torch.Tensor, latent_BA: torch.Tensor) -> torch.Tensor:
        """Most likely real action int64 `(B,)` by the ensemble's mean probability."""
        return self.log_probs(factor_BS, latent_BA).exp().mean(0).argmax(-1)

    def latent(self, factor_BS: torch.Tensor, action_B: torch.Tensor) -> torch.Tensor:
        """Latent action float `(B, A)` that stands for a real action, the ensemble's mean."""
        chosen = nn.functional.one_hot(action_B, self.actions).to(factor_BS)
        return self.to_latent(torch.cat([factor_BS, chosen], -1)).mean(0)


class EventHead(nn.Module):
    """Probability that entering a state is an event: a reward, or the end of the episode.

    Args:
        sees: indices of the factors that it looks at.
        value: what the event is worth, the mean over the labelled ones.
    """

    sees: torch.Tensor
    value: torch.Tensor

    def __init__(self, factor_dim: int, sees: tuple[int, ...], value: float) -> None:
        super().__init__()
        self.factor_dim = factor_dim
        self.register_buffer("sees", torch.tensor(sees))
        self.register_buffer("value", torch.tensor(float(value)))
        self.net = EnsembleMLP(factor_dim * len(sees), 1)

    def logits(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """Factors `(B, K, S)` to each member's logit `(members, B)`."""
        return self.net(factors_BKS[:, self.sees].flatten(1)).squeeze(-1)

    def forward(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """Probability of the event, the ensemble's mean: float `(B,)`."""
        return self.logits(factors_BKS).sigmoid().mean(0)


class Labels(nn.Module):
    """Everything in a world that came from labels; `budget` is how many transitions were read."""

    def __init__(
        self, agent_factor: int, adapter: Adapter, reward: EventHead, termination: EventHead, budget: int
    ) -> None:
        super().__init__()
        self.agent_factor, self.budget = agent_factor, budget
        self.adapter, self.reward, self.termination = adapter, reward, termination

    def judge(self, factors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Expected reward and probability of the end, `(...)` each, of entering factors `(..., K, S)`."""
        flat, lead = factors.flatten(0, -3), factors.shape[:-2]
        return (self.reward(flat) * self.reward.value).view(lead), self.termination(flat).view(lead)


class FrozenEvents:
    """Both heads in two products, with the weights that they have now: what a step of imagination asks."""

    def __init__(self, labels: Labels, dtype: torch.dtype = torch.float32) -> None:
        heads = (labels.reward, labels.termination)
        sees = sorted({factor for head in heads for factor in head.sees.tolist()})
        first, bias, last, offset = [], [], [], []
        for head in heads:
            weight, out = head.net.weight_0.detach(), head.net.weight_1.detach()
            members, _, hidden = weight.shape
            seen = weight.new_zeros(members, len(sees), head.factor_dim, hidden)
            own = [sees.index(factor) for factor in head.sees.tolist()]
            seen[:, own] = weight.unflatten(1, (len(own), -1))
            first.append(seen.movedim(-1, 1).flatten(2).flatten(0, 1))
            bias.append(head.net.bias_0.detach().flatten())
            last += list(out.mT)
            offset.append(head.net.bias_1.detach().flatten())
        self.sees = torch.tensor(sees, device=first[0].device)
        self.first = FrozenLinear(torch.cat(first), torch.cat(bias), dtype)
        self.last = FrozenLinear(torch.block_diag(*last), torch.cat(offset), dtype)
        self.value = labels.reward.value.clone()

    def __call__(self, factors_BKS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reward, float `(B,)`, and whether it is an end, bool `(B,)`, of entering factors `(B, K, S)`: what is
        more likely than not."""
        seen = factors_BKS.index_select(1, self.sees).flatten(1)
        logits = self.last(nn.functional.gelu(self.first(seen))).float()
        likely = logits.sigmoid().unflatten(-1, (2, -1)).mean(-1) > 0.5
        return likely[:, 0] * self.value, likely[:, 1]
