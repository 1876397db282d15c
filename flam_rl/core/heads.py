"""What labels add to a world: whom actions move, reward and termination."""

from __future__ import annotations

import torch
from torch import nn

from .agent import Agents
from .layers import EnsembleMLP, FrozenLinear


class Head(nn.Module):
    """An ensemble that looks at some factors of the state that is entered.

    Args:
        sees: indices of the factors that it looks at.
    """

    sees: torch.Tensor

    def __init__(self, factor_dim: int, sees: tuple[int, ...]) -> None:
        super().__init__()
        self.factor_dim = factor_dim
        self.register_buffer("sees", torch.tensor(sees))
        self.net = EnsembleMLP(factor_dim * len(sees), 1)

    def outputs(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """Factors `(B, K, S)` to the output of each member `(members, B)`."""
        return self.net(factors_BKS[:, self.sees].flatten(1)).squeeze(-1)


class EventHead(Head):
    """Probability that entering a state is an event: a reward, or the end of the episode.

    Args:
        value: what the event is worth, the mean over the labelled ones.
    """

    value: torch.Tensor

    def __init__(self, factor_dim: int, sees: tuple[int, ...], value: float) -> None:
        super().__init__(factor_dim, sees)
        self.register_buffer("value", torch.tensor(float(value)))

    def forward(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """Probability of the event, the ensemble's mean: float `(B,)`."""
        return self.outputs(factors_BKS).sigmoid().mean(0)

    def expected(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """What entering the state is worth, float `(B,)`."""
        return self(factors_BKS) * self.value

    def agreed(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """A reward that no member doubts, float `(B,)`: the event's value where all find it likely, or where any does and it is bad."""
        likely = self.outputs(factors_BKS) > 0
        return torch.where(self.value < 0, likely.any(0), likely.all(0)) * self.value

    def leaning(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """Log-probability of what is wanted, by the member that doubts it most: the event, or if it is bad none. Float `(B,)`, 0 at
        most; where all members agree on the reward it still tells which state is nearer to a better one."""
        return nn.functional.logsigmoid(self.outputs(factors_BKS) * self.value.sign()).amin(0)


class DenseHead(Head):
    """The reward of entering a state, where rewards are no single kind of rare event.

    Attributes:
        mean, scale: of the labelled rewards, by which they are standardised.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, factor_dim: int, sees: tuple[int, ...], mean: float = 0.0, scale: float = 1.0) -> None:
        super().__init__(factor_dim, sees)
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("scale", torch.tensor(float(scale)))

    def expected(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """The ensemble's mean, float `(B,)`."""
        return self.outputs(factors_BKS).mean(0) * self.scale + self.mean

    def agreed(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """The least output of all members, a reward that none of them doubts: float `(B,)`."""
        return self.outputs(factors_BKS).amin(0) * self.scale + self.mean

    def leaning(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """0 for each state, float `(B,)`: the reward itself tells which is nearer to a better one."""
        return factors_BKS.new_zeros(len(factors_BKS))


class Labels(nn.Module):
    """Everything in a world that came from labels; `budget` is how many transitions were read."""

    def __init__(
        self, agents: Agents, reward: EventHead | DenseHead, termination: EventHead, budget: int
    ) -> None:
        super().__init__()
        self.agents, self.reward, self.termination, self.budget = agents, reward, termination, budget

    def judge(self, factors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Expected reward and probability of the end, `(...)` each, of entering factors `(..., K, S)`."""
        flat, lead = factors.flatten(0, -3), factors.shape[:-2]
        return self.reward.expected(flat).view(lead), self.termination(flat).view(lead)


class FrozenEvents:
    """Both heads in two products, with the weights that they have now, for steps of imagination.

    Args:
        sure: give only what no member of the ensembles doubts: `Head.agreed` of both.
    """

    def __init__(self, labels: Labels, dtype: torch.dtype = torch.float32, sure: bool = False) -> None:
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
        reward = labels.reward
        self.value = (reward.scale if isinstance(reward, DenseHead) else reward.value).clone()
        self.mean = reward.mean.clone() if isinstance(reward, DenseHead) else None
        self.sure = sure

    def __call__(self, factors_BKS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reward, float `(B,)`, and whether it is an end, bool `(B,)`, of entering factors `(B, K, S)`; of events
        what is more likely than not, or is sure."""
        seen = factors_BKS.index_select(1, self.sees).flatten(1)
        outputs = self.last(nn.functional.gelu(self.first(seen))).float().unflatten(-1, (2, -1))
        if self.sure:
            likely = outputs.amin(-1) > 0
            happens = torch.where(self.value < 0, outputs[:, 0].amax(-1) > 0, likely[:, 0])
        else:
            likely = outputs.sigmoid().mean(-1) > 0.5
            happens = likely[:, 0]
        if self.mean is not None:
            value = outputs[:, 0].amin(-1) if self.sure else outputs[:, 0].mean(-1)
            return value * self.value + self.mean, likely[:, 1]
        return happens * self.value, likely[:, 1]
