"""The agents of a task: the factors that its actions move (found anew in each episode where they differ), and their
adapters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from ..actions import ActionSpace
from .adapters import Adapter
from .layers import EnsembleMLP

SURE = 1.0
"""Nats by which a factor must be more likely than the present one to replace it as the agent's."""
MEMORY = 0.9
"""The share of the evidence from actions so far that still counts one step later."""
MOST_LOOKS = 3.0
"""Most nats that looks alone count against a factor."""


class AgentFinder(nn.Module):
    """Network that estimates from the look in its state how likely a factor is to be an agent's."""

    def __init__(self, factor_dim: int) -> None:
        super().__init__()
        self.net = EnsembleMLP(factor_dim, 1)

    def scores(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """Logits of each member for each factor: float `(members, B, K)`."""
        return self.net(factors_BKS.flatten(0, 1)).unflatten(1, factors_BKS.shape[:2]).squeeze(-1)

    def looks(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """Log-probability that a factor is the agent's, by looks alone: float `(B, K)`."""
        return self.scores(factors_BKS).log_softmax(-1).exp().mean(0).log().clamp_min(-MOST_LOOKS)


class Agents(nn.Module):
    """The C agents that a task's actions move: one, or several that each have a part of each action.

    Args:
        actions: of the task.
        factors: index of each agent's factor; with `finders`, the places that the agents' factors are moved to.
        numbers: which numbers of an action (in C order) belong to each agent.
        adapters: of each agent, for `actions.part(numbers)`.
        finders: one for each agent where the agents' factors differ by episode; else none.
    """

    def __init__(
        self,
        actions: ActionSpace,
        factors: Sequence[int],
        numbers: Sequence[Sequence[int]],
        adapters: Sequence[Adapter],
        finders: Sequence[AgentFinder] = (),
    ) -> None:
        super().__init__()
        self.actions, self.factors = actions, tuple(factors)
        self.numbers = tuple(map(tuple, numbers))
        self.adapters = nn.ModuleList(adapters)
        self.finders = nn.ModuleList(finders)

    @property
    def differ(self) -> bool:
        """Whether the agents' factors differ by episode."""
        return len(self.finders) > 0

    def __len__(self) -> int:
        """C."""
        return len(self.factors)

    def real(self, factors_BKS: torch.Tensor, latent_actions_BCA: torch.Tensor) -> torch.Tensor:
        """Real actions `(B, *shape)` for the agents' latent actions `(B, C, A)`; the agents' factors must be at their
        places."""
        parts = [
            adapter.real(factors_BKS[:, factor], latent_actions_BCA[:, agent]).reshape(len(factors_BKS), -1)
            for agent, (factor, _, adapter) in enumerate(self._each())
        ]
        order = torch.tensor([number for numbers in self.numbers for number in numbers]).argsort()
        return torch.cat(parts, 1)[:, order].view(-1, *self.actions.shape)

    def latent(self, factors_BKS: torch.Tensor, action_B: torch.Tensor) -> torch.Tensor:
        """Latent actions float `(B, C, A)` that stand for real actions `(B, *shape)`, as `Adapter.latent`."""
        found = [
            adapter.latent(factors_BKS[:, factor], self._part(action_B, numbers, adapter))
            for factor, numbers, adapter in self._each()
        ]
        return torch.stack(found, 1)

    def _part(self, real_B: torch.Tensor, numbers: tuple[int, ...], adapter: Adapter) -> torch.Tensor:
        """One agent's part of real actions `(B, *shape)`."""
        return real_B.reshape(len(real_B), -1)[:, numbers].view(-1, *adapter.actions.shape)

    def errors(
        self, factors_BKS: torch.Tensor, latent_actions_BKA: torch.Tensor, real_B: torch.Tensor
    ) -> torch.Tensor:
        """Nats by which the latent action of each factor misses each agent's part of real actions: float `(B, C, K)`."""
        count = factors_BKS.shape[1]
        found = []
        for _, numbers, adapter in self._each():
            part = self._part(real_B, numbers, adapter)
            missed = adapter.errors(
                factors_BKS.flatten(0, 1), latent_actions_BKA.flatten(0, 1), part.repeat_interleave(count, 0)
            )
            found.append(missed.view(-1, count))
        return torch.stack(found, 1)

    def looks(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """Log-probability that a factor is an agent's, by looks alone: float `(B, C, K)`."""
        finders = cast("list[AgentFinder]", list(self.finders))
        return torch.stack([finder.looks(factors_BKS) for finder in finders], 1)

    def find(self, factors: torch.Tensor) -> torch.Tensor:
        """Index of each agent's factor in states `(B, K, S)` or clips `(B, T, K, S)`, int64 `(B, C)`; where the index
        differs by episode, it is found by looks."""
        if not self.differ:
            return torch.tensor(self.factors, device=factors.device).expand(len(factors), -1)
        looks = self.looks(factors.flatten(0, -3)).unflatten(0, (len(factors), -1))
        return assigned(looks.sum(1))

    def _each(self) -> Iterator[tuple[int, tuple[int, ...], Adapter]]:
        adapters = cast("list[Adapter]", list(self.adapters))
        return zip(self.factors, self.numbers, adapters, strict=True)

    def in_place(self, factors: torch.Tensor) -> torch.Tensor:
        """States `(B, K, S)` or clips `(B, T, K, S)` with the agents' factors moved to their places, the indices
        `factors`."""
        if not self.differ:
            return factors
        order = in_order(self.find(factors), self.factors, factors.shape[-2])
        return factors.take_along_dim(order.view(len(factors), *[1] * (factors.ndim - 3), -1, 1), -2)


def assigned(evidence_BCK: torch.Tensor) -> torch.Tensor:
    """A different factor for each agent, with the most evidence in sum; among factors within `SURE` nats, the first.

    Returns:
        int64 `(B, C)`.
    """
    factors = evidence_BCK.shape[-1]
    first = SURE * torch.arange(factors, device=evidence_BCK.device) / factors
    rows = [
        linear_sum_assignment(one, maximize=True)[1] for one in (evidence_BCK - first).detach().cpu().numpy()
    ]
    return torch.as_tensor(np.array(rows).reshape(evidence_BCK.shape[:2]), device=evidence_BCK.device)


def in_order(agents_BC: torch.Tensor, places: Sequence[int], factors: int) -> torch.Tensor:
    """Orders of factors, int64 `(B, K)`, that exchange each agent's factor with the factor at the agent's place. If
    two agents have the same factor, it goes to the first."""
    order = torch.arange(factors, device=agents_BC.device).repeat(len(agents_BC), 1)
    for agent, place in enumerate(places):
        wanted = agents_BC[:, agent, None]
        free = (agents_BC[:, :agent] != wanted).all(1, keepdim=True)
        wanted = torch.where(free, wanted, order[:, place, None])
        at = (order == wanted).int().argmax(1, keepdim=True)
        order = order.scatter(1, at, order[:, place, None].clone())
        order[:, place] = wanted[:, 0]
    return order


class FollowedAgents:
    """Follows the agents' factors in B running tasks, by their looks and by how real actions moved them.

    Attributes:
        agents_BC: int64 `(B, C)`.
    """

    def __init__(self, agents: Agents) -> None:
        self.agents = agents
        self.agents_BC = torch.empty(0, 0, dtype=torch.int64)
        self._evidence_BCK = torch.empty(0, 0, 0)

    def begin(self, factors_BKS: torch.Tensor, fresh_B: torch.Tensor) -> None:
        """Forget the evidence of tasks that start: all tasks at first, later those in the mask `fresh_B`."""
        looks = self.agents.looks(factors_BKS)
        if self._evidence_BCK.shape != looks.shape:
            self._evidence_BCK, self.agents_BC = torch.zeros_like(looks), assigned(looks)
        if fresh_B.any():
            self._evidence_BCK = torch.where(fresh_B[:, None, None], 0.0, self._evidence_BCK)
            self.agents_BC = torch.where(fresh_B[:, None], assigned(looks), self.agents_BC)

    def acted(
        self,
        before_BKS: torch.Tensor,
        latent_actions_BKA: torch.Tensor,
        real_B: torch.Tensor,
        after_BKS: torch.Tensor,
        moved_B: torch.Tensor,
    ) -> None:
        """Add the evidence of a step of the tasks in the mask `moved_B`: how well each factor's inferred latent
        action fits the real action."""
        evidence = -self.agents.errors(before_BKS, latent_actions_BKA, real_B)
        evidence = MEMORY * self._evidence_BCK + evidence - evidence.amax(-1, keepdim=True)
        self._evidence_BCK = torch.where(moved_B[:, None, None], evidence, self._evidence_BCK)
        total = self._evidence_BCK + self.agents.looks(after_BKS)
        best = assigned(total)
        gain = [total.gather(2, agents[..., None]).sum((1, 2)) for agents in (best, self.agents_BC)]
        better = moved_B & (gain[0] > gain[1] + SURE)
        self.agents_BC = torch.where(better[:, None], best, self.agents_BC)
