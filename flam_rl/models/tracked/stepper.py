"""Imagination on tracked layers: many worlds stepped at once; the caller acts for some factors, the prior for the
others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ...core.codes import plausible, snap
from ...core.compiling import CompiledShares, check_compiler
from ...core.stepping import Events, Imagined, Taken, judge
from ...core.threads import FEWEST, LoneThreads, lone_threads
from .flam import TrackedFLAM
from .states import PRESENCE


class TrackedImagination:
    """Steps imagined worlds, all at once. Factors move at the same time; entities that appear or leave are drawn from
    the prior.

    A caller's latent action is snapped to the nearest action code that the prior finds plausible; for an empty row it
    is ignored.

    Args:
        controlled: indices of the C factors that the caller acts for.
        dtype: of products; factors stay float32.
        compile: whether the step is compiled, when it is first taken with a number of worlds.
        events: the heads of reward and end of the next state; without them both are 0.

    Raises:
        ValueError: `compile` on a CPU without a C++ compiler.
    """

    def __init__(
        self,
        flam: TrackedFLAM,
        controlled: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        events: Events | None = None,
    ) -> None:
        self.flam, self.controlled, self.dtype, self.events = flam, list(controlled), dtype, events
        self.compile = compile
        if compile:
            check_compiler(flam.spread_A.device)
        self._shares = CompiledShares()
        self._threads: LoneThreads | None = None

    def __reduce__(self) -> tuple:
        return TrackedImagination, (self.flam, self.controlled, self.dtype, self.compile, self.events)

    def begin(self, factors_BKS: Float[Tensor, "B K S"]) -> Imagined:
        """Worlds with these factors; their tokens are empty."""
        factors_KBS = factors_BKS.transpose(0, 1).contiguous()
        return Imagined(factors_KBS, factors_KBS[..., :0])

    def close(self) -> None:
        """Give the threads back; a later step takes new ones."""
        self._threads = None

    def step(
        self,
        now: Imagined,
        latent_actions_BCA: Float[Tensor, "B C A"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Imagined, Taken]:
        """One step of every world.

        Args:
            latent_actions_BCA: float, the caller's latent actions of the controlled factors.
            generator: for draws from the prior.
        """
        factors = now.factors_BKS.contiguous()
        worlds, count, _ = factors.shape
        chance = torch.rand(worlds, 3, count, generator=generator, device=factors.device, dtype=torch.float32)
        inputs = [factors, chance]
        if self.controlled:
            assert latent_actions_BCA is not None
            inputs.append(latent_actions_BCA.float().contiguous())
        if factors.device.type != "cpu" or torch.is_grad_enabled():
            following, *taken = self._step(*inputs)
            return self.begin(following), Taken(*taken)
        self._threads = self._threads or lone_threads()
        if self.compile:
            found = self._shares.map(
                self._threads,
                self._step,
                worlds,
                lambda share: [part[share] for part in inputs],
                lambda _, made: made,
            )
        else:
            count = max(1, min(self._threads.count, worlds // FEWEST))
            parts = list(zip(*(part.chunk(count) for part in inputs), strict=True))
            found = self._threads.map(lambda part: self._step(*part), parts)
        following, *taken = map(torch.cat, zip(*found, strict=True))
        return self.begin(following), Taken(*taken)

    def _step(self, factors: Tensor, chance: Tensor, wanted: Tensor | None = None) -> tuple[Tensor, ...]:
        """The next factors `(B, K, S)`, and what was `Taken`, with the randomness `(B, 3, K)` drawn."""
        with torch.autocast(factors.device.type, self.dtype, enabled=self.dtype != torch.float32):
            prior, dynamics = self.flam.latent_action_prior, self.flam.forward_dynamics
            seen = dynamics.interaction(factors)
            chances = prior(factors, seen)
            log_probs = chances.code_BKM.float().log_softmax(-1)
            probs = log_probs.exp()
            mass = (probs * plausible(probs)).cumsum(-1)
            code = (mass <= chance[:, 0, :, None] * mass[..., -1:]).sum(-1)
            there = factors[..., PRESENCE] > 0.5
            codes = torch.nn.functional.embedding(code, prior.codebook)
            births = len(prior.bank_NA)
            drawn = (chance[:, 2] * births).long().clamp(max=births - 1)
            born = torch.nn.functional.embedding(drawn, prior.bank_NA)
            stays = chance[:, 1] >= chances.death_BK.float().sigmoid()
            comes = chance[:, 1] < chances.birth_BK.float().sigmoid()
            lives = torch.where(there, stays, comes)
            arrives = torch.where(lives[..., None], born, prior.nobody_A)
            taken = torch.where(there[..., None], codes, arrives)
            log_prior = factors.new_zeros(len(factors), 0)
            if wanted is not None:
                own = there[:, self.controlled, None]
                index, log_prior = snap(log_probs[:, self.controlled], wanted, prior.codebook)
                acted = torch.nn.functional.embedding(index, prior.codebook)
                acted = (
                    acted + wanted - wanted.detach()
                )  # the value is the code's, the gradient that of the wanted action
                taken = taken.index_copy(
                    1,
                    torch.tensor(self.controlled, device=taken.device),
                    torch.where(own, acted, taken[:, self.controlled]),
                )
            following = dynamics.look_and_move(factors, seen, taken).factors_BKS
            following = self.flam.within(following.float()) * lives[..., None]
        return following, taken.float(), log_prior, *judge(self.events, following)
