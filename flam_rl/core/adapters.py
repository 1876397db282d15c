"""Adapters: the networks between latent actions of the agent's factor and real actions, discrete or continuous."""

from __future__ import annotations

import torch
from torch import nn

from ..actions import ActionSpace
from .layers import EnsembleMLP

NEVER = -1e4
"""Logit of an action that labels never showed: it has probability 0."""
LEAST_SCALE, LEAST_SPREAD = 1e-4, 0.3
"""A number of a box that never varies is divided by the first; no adapter is surer than the second, a share of the scale."""
LEAST_PROB = 1e-3
"""Least probability of an action in a likelihood: an action that no label showed is not infinitely unlikely."""


class Adapter(nn.Module):
    """Latent action of the agent's factor to real action and back, with that factor as context."""

    def __init__(self, factor_dim: int, latent_action_dim: int, actions: ActionSpace) -> None:
        super().__init__()
        self.to_real = EnsembleMLP(factor_dim + latent_action_dim, actions.width)
        self.to_latent = EnsembleMLP(factor_dim + actions.width, latent_action_dim)
        self.actions = actions

    def outputs(self, factor_BS: torch.Tensor, latent_BA: torch.Tensor) -> torch.Tensor:
        """Outputs of each member for the real action: float `(members, B, width)`."""
        return self.to_real(torch.cat([factor_BS, latent_BA], -1))

    def real(self, factor_BS: torch.Tensor, latent_BA: torch.Tensor) -> torch.Tensor:
        """The task's own action `(B, *shape)`: int64, each number the most likely, or float, the mean within bounds."""
        raise NotImplementedError

    def latent(self, factor_BS: torch.Tensor, action_B: torch.Tensor) -> torch.Tensor:
        """Latent action float `(B, A)` that stands for a real action `(B, *shape)`, the ensemble's mean; of one that
        labels never showed it means nothing."""
        return self.to_latent(torch.cat([factor_BS, self.encode(action_B).to(factor_BS)], -1)).mean(0)

    def encode(self, action_B: torch.Tensor) -> torch.Tensor:
        """Real actions `(B, *shape)` as a network reads them, float `(B, width)`."""
        raise NotImplementedError

    def constant(self, action_B: torch.Tensor) -> torch.Tensor:
        """Outputs, float `(width,)`, that predict the distribution of these real actions whatever the transition."""
        raise NotImplementedError

    def standardize(self, action_B: torch.Tensor) -> None:
        """Take the units of these real actions `(n, *shape)` as those of the networks; called before fitting."""

    def conclude(self, factor_BS: torch.Tensor, latent_BA: torch.Tensor, action_B: torch.Tensor) -> None:
        """Learn what the networks cannot know by themselves; called after fitting.

        Args:
            factor_BS, latent_BA, action_B: what the networks were fitted to; actions are `(B, *shape)`.
        """

    def member_errors(self, outputs: torch.Tensor, action_B: torch.Tensor) -> torch.Tensor:
        """What is learned from: of each member the nats, but for a constant, by which it misses, float `(..., B)`.

        Args:
            outputs: float `(..., B, width)`. action_B: real actions `(..., B, *shape)`.
        """
        raise NotImplementedError

    def errors(
        self, factor_BS: torch.Tensor, latent_BA: torch.Tensor, action_B: torch.Tensor
    ) -> torch.Tensor:
        """Nats, but for a constant, by which the ensemble misses real actions `(B, *shape)`: float `(B,)`."""
        raise NotImplementedError


class DiscreteAdapter(Adapter):
    """Adapter of whole numbers, each with a distribution of its own."""

    def real(self, factor_BS: torch.Tensor, latent_BA: torch.Tensor) -> torch.Tensor:
        """The most likely value of each number, int64 `(B, *shape)`."""
        chosen = [probs.argmax(-1) for probs in self._probs(factor_BS, latent_BA)]
        return (torch.stack(chosen, -1) + self._start(factor_BS)).view(-1, *self.actions.shape)

    def encode(self, action_B: torch.Tensor) -> torch.Tensor:
        """One-hot indicators of each number, int64 `(B, width)`."""
        numbers = self._numbers(action_B)
        hot = [nn.functional.one_hot(numbers[..., i], count) for i, count in enumerate(self.actions.count)]
        return torch.cat(hot, -1)

    def constant(self, action_B: torch.Tensor) -> torch.Tensor:
        """Log-counts of each action, every action counted once more than it occurs."""
        return (self.encode(action_B).sum(0) + 1).log()  # each action once more than it is there

    def conclude(self, factor_BS: torch.Tensor, latent_BA: torch.Tensor, action_B: torch.Tensor) -> None:
        """An action that was never taken is never chosen."""
        never = self.encode(action_B).sum(0) == 0
        self.to_real.bias_1[..., never] = NEVER

    def member_errors(self, outputs: torch.Tensor, action_B: torch.Tensor) -> torch.Tensor:
        """Cross-entropy, summed over the numbers of an action."""
        numbers = self._numbers(action_B)
        parts = enumerate(outputs.split(self.actions.count, -1))
        misses = [
            nn.functional.cross_entropy(logits.flatten(0, -2), numbers[..., i].flatten(), reduction="none")
            for i, logits in parts
        ]
        return torch.stack(misses).sum(0).view(outputs.shape[:-1])

    def errors(
        self, factor_BS: torch.Tensor, latent_BA: torch.Tensor, action_B: torch.Tensor
    ) -> torch.Tensor:
        """Negative log-probability under the members' mean distribution, summed over the numbers of an action."""
        numbers = self._numbers(action_B)
        probs = [
            part.gather(-1, numbers[:, i : i + 1]) for i, part in enumerate(self._probs(factor_BS, latent_BA))
        ]
        return -torch.cat(probs, -1).clamp_min(LEAST_PROB).log().sum(-1)

    def _probs(self, factor_BS: torch.Tensor, latent_BA: torch.Tensor) -> list[torch.Tensor]:
        outputs = self.outputs(factor_BS, latent_BA)
        return [logits.log_softmax(-1).exp().mean(0) for logits in outputs.split(self.actions.count, -1)]

    def _start(self, like: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.actions.start, device=like.device)

    def _numbers(self, action_B: torch.Tensor) -> torch.Tensor:
        """Each number of an action, from 0 on: `(..., B, size)`."""
        dims = action_B.ndim - len(self.actions.shape)
        return action_B.reshape(*action_B.shape[:dims], self.actions.size) - self._start(action_B)


class BoxAdapter(Adapter):
    """Adapter of real numbers, fitted by squared error.

    Attributes:
        mean, scale: of each number in the labels, by which it is standardised. spread: standard deviation of what the
            adapter misses, in units of `scale`.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    spread: torch.Tensor

    def __init__(self, factor_dim: int, latent_action_dim: int, actions: ActionSpace) -> None:
        super().__init__(factor_dim, latent_action_dim, actions)
        self.register_buffer("mean", torch.zeros(actions.size))
        self.register_buffer("scale", torch.ones(actions.size))
        self.register_buffer("spread", torch.ones(actions.size))

    def real(self, factor_BS: torch.Tensor, latent_BA: torch.Tensor) -> torch.Tensor:
        """The members' mean, float `(B, *shape)`, within the bounds."""
        wanted = self.outputs(factor_BS, latent_BA).mean(0) * self.scale + self.mean
        low = [-torch.inf if bound is None else bound for bound in self.actions.low]
        high = [torch.inf if bound is None else bound for bound in self.actions.high]
        bounds = torch.tensor([low, high], dtype=wanted.dtype, device=wanted.device)
        return wanted.clamp(bounds[0], bounds[1]).view(-1, *self.actions.shape)

    def encode(self, action_B: torch.Tensor) -> torch.Tensor:
        """Standardised numbers, float `(B, width)`."""
        dims = action_B.ndim - len(self.actions.shape)
        return (action_B.reshape(*action_B.shape[:dims], self.actions.size) - self.mean) / self.scale

    def constant(self, action_B: torch.Tensor) -> torch.Tensor:
        """The mean of the standardised numbers."""
        return self.encode(action_B).mean(0)

    def standardize(self, action_B: torch.Tensor) -> None:
        """Set `mean` and `scale` from real actions `(n, *shape)`."""
        numbers = action_B.reshape(len(action_B), -1).to(self.mean)
        self.mean.copy_(numbers.mean(0))
        self.scale.copy_(numbers.std(0, correction=0).clamp_min(LEAST_SCALE))

    def conclude(self, factor_BS: torch.Tensor, latent_BA: torch.Tensor, action_B: torch.Tensor) -> None:
        """Set `spread` from the errors on the transitions that were fitted to."""
        missed = self.outputs(factor_BS, latent_BA).mean(0) - self.encode(action_B)
        self.spread.copy_(missed.square().mean(0).sqrt().clamp_min(LEAST_SPREAD))

    def member_errors(self, outputs: torch.Tensor, action_B: torch.Tensor) -> torch.Tensor:
        """Squared error in units of `spread`, halved and summed over the numbers of an action."""
        return ((outputs - self.encode(action_B)) / self.spread).square().sum(-1) / 2

    def errors(
        self, factor_BS: torch.Tensor, latent_BA: torch.Tensor, action_B: torch.Tensor
    ) -> torch.Tensor:
        """As `member_errors`, of the members' mean."""
        return self.member_errors(self.outputs(factor_BS, latent_BA).mean(0), action_B)


def make_adapter(factor_dim: int, latent_action_dim: int, actions: ActionSpace) -> Adapter:
    """The adapter for such actions."""
    kind = DiscreteAdapter if actions.kind == "discrete" else BoxAdapter
    return kind(factor_dim, latent_action_dim, actions)
