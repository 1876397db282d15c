"""Planning in imagination: actions for a world without any policy, by CEM or MPPI.

CEM is the cross-entropy method (Rubinstein 1999, https://doi.org/10.1023/A:1010091220143), MPPI model predictive path
integral control (Williams et al. 2017, arXiv 1707.02342), both over action codes, for that is what imagination takes. The first
candidates are what the prior itself does. The next descend from them: of the best alike (CEM), or of all by an exponential weight
(MPPI). What a code does depends on those before it, as going forward does on a turn, so a descendant is one plan changed here
and there, and not drawn step by step from the frequencies of all. The first action of the best plan is taken, and the rest of it
is a candidate of the next decision. A reward that no plan reaches still attracts, by how little the heads doubt it.

pytorch-mppi and cma plan for one state at a time, and over real numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from ..core.layers import first_least, nearest_code
from ..core.stepping import Events
from ..core.threads import lone_threads
from ..core.world import World
from ..envs.action_types import ActionType
from ..envs.spaces import Control, controlled_factors
from ..types import check_ranges

PlanningAlgorithm = Literal["cem", "mppi"]
Roll = Callable[[int, "Tensor | None"], tuple[Tensor, Tensor]]
"""How many candidates, and the action codes that are wanted of each, int64 `(B, N, T, C)`, or None for those of the prior; to
the codes taken, of the same shape, and the score of each candidate, float `(B, N)`."""

CHANGED = 0.1
"""The share of a plan's codes that are drawn anew from those that the best have at that step."""
LEANING = 1e-4
"""What a nat of the heads' leaning is worth: it decides among plans that all reach no reward, or one at the same time."""


@dataclass(frozen=True)
class PlanningConfig:
    """Settings of planning in imagination."""

    rollouts: int = 512
    """Imagined for a decision, all iterations together."""
    horizon: int = 15
    """Steps of each."""
    iterations: int = 4
    """The first has the prior's own actions, the others those of the best so far."""
    gamma: float = 0.95
    """Discount of a step."""
    elites: float = 0.1
    """CEM: the share of the candidates from which the next are drawn."""
    temperature: float = 0.1
    """MPPI: how much worse than the best, in units of what the best is above the mean, a candidate is at a weight of 1/e."""
    compile: bool = False
    """Compile the steps: seconds at the first decision, for each number of envs; then they take less time and all cores."""

    def __post_init__(self) -> None:
        most = (1, 10**6)
        check_ranges(self, rollouts=most, horizon=most, iterations=(1, self.rollouts), gamma=(0, 1))
        check_ranges(self, elites=(1e-6, 1), temperature=(1e-6, 1e6))


class Planner:
    """An agent with Stable-Baselines3's `predict` that plans each action anew in a world, for a batch of envs at once.

    It acts in FLAM-v0 and, for `control="agent"`, on the real task through `DecodedEnv` and `DecodedVectorEnv`, all with the
    observation `factors`. Its aim is the world's reward, of which all heads of the ensemble must be sure, or `goal`. Actions are drawn whether or not `predict` is told to be deterministic; the same seed and calls give the same.

    Args:
        algorithm: `cem` or `mppi`.
        goal: what is wanted instead of the reward: reward and end of entering a state.
        control: as FLAM-v0's; whose actions are planned, the prior acts for the others.
        actions: of the env, `latent` or `codes`.

    Raises:
        ValueError: there is no such algorithm or control; actions are of another type; the world's model has no action codes to
            plan with; there is neither a goal nor labels that tell the reward.
    """

    def __init__(
        self,
        world: World,
        algorithm: PlanningAlgorithm = "cem",
        config: PlanningConfig = PlanningConfig(),
        goal: Events | None = None,
        control: Control | None = None,
        actions: ActionType = "latent",
        seed: int = 0,
    ) -> None:
        if algorithm not in get_args(PlanningAlgorithm):
            raise ValueError(
                f"algorithm is {algorithm!r}; allowed are {', '.join(map(repr, get_args(PlanningAlgorithm)))}"
            )
        if actions not in ("latent", "codes"):
            raise ValueError(
                f"actions is {actions!r}, but {algorithm} plans with action codes; allowed are 'latent' and 'codes'"
            )
        codes = world.model.action_codes
        if codes is None:
            raise ValueError(
                f"{algorithm} plans with action codes; the model {world.model.kind!r} has none of a factor, allowed are models that have"
            )
        if goal is None and world.labels is None:
            raise ValueError(
                "this world has no labels that tell a reward; give a goal, or a world with labels"
            )
        self.world, self.algorithm, self.config, self.goal = world, algorithm, config, goal
        self.controlled, self.actions = controlled_factors(world, control), actions
        self.codes_MA = codes
        self._free, self._led = (
            world.imagination(controlled, compile=config.compile) for controlled in ((), self.controlled)
        )
        self._generator = torch.Generator(world.device).manual_seed(seed)
        self._threads = lone_threads()

    @torch.inference_mode()
    def predict(
        self,
        observation: np.ndarray,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Actions `(B, ...)` for observations `(B, observation_dim)`, or one for one.

        Args:
            state: what the last call returned; the rest of each env's plan, without which plans are made from nothing.
            episode_start: bool `(B,)`, the envs whose plan is of another episode.

        Returns:
            the actions, and the state.

        Raises:
            ValueError: the observations are none of FLAM-v0's observation `factors`.
        """
        seen = torch.as_tensor(np.asarray(observation, np.float32), device=self.world.device)
        if seen.ndim not in (1, 2) or seen.shape[-1] != self.world.observation_dim:
            raise ValueError(
                f"observations have shape {tuple(seen.shape)}; allowed are FLAM-v0's observation 'factors', "
                f"({self.world.observation_dim},) or (B, {self.world.observation_dim})"
            )
        rows = seen.view(-1, seen.shape[-1])
        factors = rows[:, : self.world.factors * self.world.factor_dim].unflatten(1, (self.world.factors, -1))
        kept = None
        if state is not None and len(state[0]) == len(rows):
            kept = torch.as_tensor(state[0], device=rows.device)
            if episode_start is not None:
                kept = kept.masked_fill(torch.as_tensor(episode_start).view(-1, 1, 1), -1)
        plan = search(
            partial(self._roll, factors),
            len(self.codes_MA),
            self.algorithm,
            self.config,
            self._generator,
            kept,
        )
        if self.actions == "latent":
            first = self.codes_MA[plan[:, 0]].flatten(1)
        else:
            first = plan[:, 0] if len(self.controlled) > 1 else plan[:, 0, 0]
        actions = first.cpu().numpy()
        rest = torch.cat([plan[:, 1:], plan[:, -1:]], 1).cpu().numpy()
        return (actions if seen.ndim == 2 else actions[0]), (rest,)

    def _roll(
        self, factors_BKS: Float[Tensor, "B K S"], count: int, plans: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As `Roll`, from these factors."""
        envs, config = len(factors_BKS), self.config
        stepper = self._free if plans is None else self._led
        now = stepper.begin(factors_BKS.repeat_interleave(count, 0))
        score = factors_BKS.new_zeros(envs * count)
        going = factors_BKS.new_ones(envs * count)
        taken = []
        for step in range(config.horizon):
            wanted = None if plans is None else self.codes_MA[plans[:, :, step].flatten(0, 1)]
            now, did = stepper.step(now, wanted, self._generator)
            taken.append(did.latent_actions_BLA[:, self.controlled])
            gain, ended = self._judged(now.factors_BKS)
            score += config.gamma**step * going * gain
            going *= 1 - ended
        codes = nearest_code(torch.stack(taken, 1), self.codes_MA)
        return codes.unflatten(0, (envs, count)), score.view(envs, count)

    def _judged(self, factors_BKS: Tensor) -> tuple[Tensor, Tensor]:
        """Reward and end, 0 to 1, of entering states."""
        if self.goal is not None:
            goal = self.goal
            return self._threads.run(lambda: goal(factors_BKS))
        labels = self.world.labels
        assert labels is not None

        def judged() -> tuple[Tensor, Tensor]:
            reward = labels.reward.agreed(factors_BKS) + LEANING * labels.reward.leaning(factors_BKS)
            return reward, labels.termination(factors_BKS)

        return self._threads.run(judged)


def search(
    roll: Roll,
    choices: int,
    algorithm: PlanningAlgorithm,
    config: PlanningConfig,
    generator: torch.Generator,
    kept_BTC: Int[Tensor, "B T C"] | None = None,
) -> Int[Tensor, "B T C"]:
    """The best plans, each an action code for each step and controlled factor.

    Args:
        roll: tries candidates. choices: M, how many action codes there are.
        kept_BTC: a candidate for each env, -1 for none.
    """
    share = config.rollouts // config.iterations
    codes, score = roll(share, None)
    for _ in range(1, config.iterations):
        plans = _descendants(codes, _weights(algorithm, score, config), share, choices, generator)
        if kept_BTC is not None:
            plans[:, 0] = torch.where(kept_BTC < 0, plans[:, 0], kept_BTC)
        more = roll(share, plans)
        codes, score = torch.cat([codes, more[0]], 1), torch.cat([score, more[1]], 1)
    best = first_least(-score)
    return codes[torch.arange(len(codes), device=codes.device), best]


def _descendants(
    codes_BNTC: Int[Tensor, "B N T C"],
    weights_BN: Float[Tensor, "B N"],
    count: int,
    choices: int,
    generator: torch.Generator,
) -> Int[Tensor, "B M T C"]:
    """`count` candidates, each one of those before, drawn by weight, with some steps changed; half of them with a step left out."""
    device, (envs, _, steps, controlled) = codes_BNTC.device, codes_BNTC.shape
    drawn = torch.multinomial(weights_BN, count, replacement=True, generator=generator)
    plans = codes_BNTC[torch.arange(envs, device=device)[:, None], drawn]
    left_out = torch.randint(2 * steps, (envs, count, 1), generator=generator, device=device)
    step = torch.arange(steps, device=device)
    source = (step + (step >= left_out)).clamp_max(steps - 1)
    plans = plans.gather(2, source[..., None].expand(-1, -1, -1, controlled))
    chances = torch.einsum("bn,bntcm->btcm", weights_BN, one_hot(codes_BNTC, choices).float())
    others = torch.multinomial(chances.flatten(0, -2), count, replacement=True, generator=generator)
    others = others.view(*chances.shape[:-1], count).movedim(-1, 1)
    changed = torch.rand(plans.shape, generator=generator, device=device) < CHANGED
    return torch.where(changed, others, plans)


def _weights(
    algorithm: PlanningAlgorithm, score_BN: Float[Tensor, "B N"], config: PlanningConfig
) -> Float[Tensor, "B N"]:
    """How much each candidate counts for the next ones; sums to 1."""
    if algorithm == "cem":
        elites = max(1, round(config.elites * score_BN.shape[1]))
        rank = score_BN.argsort(dim=1, descending=True, stable=True)[:, :elites]
        return torch.zeros_like(score_BN).scatter_(1, rank, 1 / elites)
    above = score_BN.amax(1, keepdim=True) - score_BN
    return (-above / (config.temperature * above.mean(1, keepdim=True).clamp_min(1e-6))).softmax(1)
