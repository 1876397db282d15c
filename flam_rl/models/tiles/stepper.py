"""Imagination: a FLAM stepped in bulk, in which the caller acts for some factors and the prior for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import nn

from ...core.codes import plausible, snap
from ...core.compiling import CompiledShares, check_compiler
from ...core.layers import MOST_LOGIT, FrozenLinear, linears, unit_rms
from ...core.stepping import Events, Imagined, Taken, judge
from ...core.threads import LoneThreads, lone_threads
from .dynamics import occupancy

if TYPE_CHECKING:
    from .flam import FLAM


class Imagination:
    """Steps imagined worlds, all of them at once, with the weights that `flam` has now.

    The controlled factors move first, the others after them, one by one in a random order, each seeing where
    those before it went. A caller's latent action is snapped to the nearest action code that the prior finds
    plausible: a learned world is only as good as the actions that it has seen. Gradients flow from the next
    factors to those before and, straight through the snapping (Bengio et al. 2013, arXiv 1308.3432), to
    the caller's latent actions.

    What the plain modules compute one by one is fused here: linear maps that follow each other are one, those
    that read the same factor are one product, and what depends on no other factor is done for all at once.

    Args:
        controlled: indices of the C factors that the caller acts for.
        dtype: of products large enough to gain from it; factors stay float32.
        compile: whether the step is compiled when it is first taken with so many worlds. On a CPU threads then
            share out the worlds, unless gradients are asked for; a plain step has one thread and one core.
        events: the heads of reward and end of the next state; without them both are 0.

    Raises:
        ValueError: `compile` on a CPU without a C++ compiler.
    """

    def __init__(
        self,
        flam: FLAM,
        controlled: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        events: Events | None = None,
    ) -> None:
        self.flam, self.controlled, self.dtype, self.compile = flam, list(controlled), dtype, compile
        self.events = events
        device = flam.weight_V.device
        others = sorted(set(range(flam.factors)) - set(controlled))
        self._controlled, self._uncontrolled = (
            torch.tensor(factors, dtype=torch.int64, device=device) for factors in (self.controlled, others)
        )
        self._shares = CompiledShares()
        self._threads: LoneThreads | None = None
        self._fused: Callable[..., tuple[Imagined, Taken]] | None = None
        if compile:
            check_compiler(device)
        prior, dynamics = flam.latent_action_prior, flam.forward_dynamics
        size = flam.config.factorizer.factor_dim
        look, *_ = linears(prior.look_at)
        choose, *choose_rest = linears(prior.net)
        move, *move_rest = linears(dynamics.net)
        with torch.no_grad():
            # What reads the factor itself is one product. What a factor sees of the others is added to it, so
            # that the dynamics read the sum of two.
            attention = dynamics.interaction
            see = move.weight[:, size : 2 * size]
            self._read = FrozenLinear(
                torch.cat(
                    [look.weight, choose.weight[:, :size], move.weight[:, :size] + see, attention.qkv.weight]
                ),
                torch.cat([look.bias, choose.bias, move.bias + see @ attention.out.bias, attention.qkv.bias]),
                dtype,
            )
            self._see = FrozenLinear(see @ attention.out.weight, dtype=dtype)
            self._widths = [look.out_features, choose.out_features, move.out_features, 3 * size]
            self._view = FrozenLinear(*prior.view_map(), dtype)
            axes = torch.eye(2).repeat_interleave(torch.tensor([len(prior.rows), len(prior.columns)]), 1)
            total = torch.kron(axes, torch.eye(prior.looks)).to(prior.rows.device)
            self._total = FrozenLinear(total, dtype=dtype)  # of rows and of columns, look by look
            stayed, came, left = choose.weight[:, size:].split(prior.looks, 1)
            self._stayed_or_left = FrozenLinear(torch.cat([stayed, left], 1), dtype=dtype)
            self._came = FrozenLinear(came, dtype=dtype)
            self._choose = [FrozenLinear(layer.weight, layer.bias, dtype) for layer in choose_rest]
            self._act = FrozenLinear(move.weight[:, 2 * size :], dtype=dtype)
            self._move = [FrozenLinear(layer.weight, layer.bias, dtype) for layer in move_rest]
            self._codebook = prior.codebook.clone()
            self._acted = self._act(self._codebook)  # (M, hidden): an action code is a lookup
            self._places = flam.aggregator.frozen_places(dtype)

    def __reduce__(self) -> tuple:
        return Imagination, (self.flam, self.controlled, self.dtype, self.compile, self.events)

    def begin(self, factors_BKS: Float[torch.Tensor, "B K S"]) -> Imagined:
        """Worlds in which the factors are these."""
        factors_KBS = factors_BKS.transpose(0, 1).contiguous()
        return Imagined(factors_KBS, self._places(factors_KBS))

    def step(
        self,
        now: Imagined,
        latent_actions_BCA: Float[torch.Tensor, "B C A"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Imagined, Taken]:
        """One step of every world.

        Args:
            latent_actions_BCA: float, what the caller wants of the controlled factors.
            generator: of the order in which uncontrolled factors move, and of their actions.
        """
        count, worlds, _ = now.factors_KBS.shape
        device, dtype = now.factors_KBS.device, torch.float32
        drawn = torch.rand(len(self._uncontrolled), generator=generator, device=device, dtype=dtype).argsort(
            stable=True
        )
        order = torch.cat([self._controlled, self._uncontrolled[drawn]])
        chance = torch.rand(count, worlds, 1, generator=generator, device=device, dtype=dtype)
        if device.type == "cpu" and not torch.is_grad_enabled():
            self._threads = self._threads or lone_threads()
            if self.compile:
                return self._step_in_shares(self._threads, now, latent_actions_BCA, order, chance)
            return self._threads.run(lambda: self._step(now, latent_actions_BCA, order, chance))
        if not self.compile:
            return self._step(now, latent_actions_BCA, order, chance)
        if self._fused is None:
            self._fused = torch.compile(self._step, dynamic=False, fullgraph=True)
        return self._fused(now, latent_actions_BCA, order, chance)

    def close(self) -> None:
        """Give threads back; a step that is taken later has new ones."""
        self._threads = None

    def _step_in_shares(
        self,
        threads: LoneThreads,
        now: Imagined,
        latent_actions_BCA: torch.Tensor | None,
        order: torch.Tensor,
        chance: torch.Tensor,
    ) -> tuple[Imagined, Taken]:
        """`_step`, compiled, each thread with its share of the worlds."""
        # What is compiled does not look at types, and is for one layout.
        now = Imagined(*(part.float().contiguous() for part in now))
        wanted = []
        if self.controlled:
            assert latent_actions_BCA is not None
            wanted.append(latent_actions_BCA.float().contiguous())

        def inputs(share: slice) -> list[torch.Tensor]:
            here = [now.factors_KBS[:, share], now.places_KBN[:, share], order, chance[:, share]]
            return here + [one[share] for one in wanted]

        following = Imagined(*map(torch.empty_like, now))

        def keep(share: slice, stepped: tuple[torch.Tensor, ...]) -> Sequence[torch.Tensor]:
            factors, places, *taken = stepped
            # Here and not after all: a large copy would wake operators' own threads.
            following.factors_KBS[:, share], following.places_KBN[:, share] = factors, places
            return taken

        worlds = now.factors_KBS.shape[1]
        taken = self._shares.map(threads, self._flat_step, worlds, inputs, keep)
        return following, Taken(*map(torch.cat, zip(*taken, strict=True)))

    def _flat_step(
        self,
        factors_KBS: torch.Tensor,
        places_KBN: torch.Tensor,
        order_K: torch.Tensor,
        chance_KB1: torch.Tensor,
        latent_actions_BCA: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """`_step` from tensors to tensors: the next `Imagined`, then what was `Taken`."""
        state, taken = self._step(Imagined(factors_KBS, places_KBN), latent_actions_BCA, order_K, chance_KB1)
        return *state, *taken

    def _step(
        self,
        now: Imagined,
        latent_actions_BCA: torch.Tensor | None,
        order_K: torch.Tensor,
        chance_KB1: torch.Tensor,
    ) -> tuple[Imagined, Taken]:
        """`step` with its randomness drawn: factor `order_K[t]` moves at turn t, and where the prior acts it
        takes the first action code at which the cumulative probability exceeds `chance_KB1[t]`."""
        factors, places = (part.index_select(0, order_K) for part in now)
        choose, scale, row, column, move = self._prepare(factors, places)
        came = torch.zeros_like(places[0])
        following: list[Imagined] = []
        codes: list[torch.Tensor] = []
        likelihood: list[torch.Tensor] = []
        through: list[torch.Tensor] = []
        for turn in range(len(factors)):
            hidden = choose[turn]
            if turn > 0:
                occupied = occupancy(came.unsqueeze(-2), row[turn], column[turn]).squeeze(-2)
                hidden = hidden + self._came(occupied * scale[turn])
            logits = self._logits(hidden)
            acted = None
            if turn < len(self.controlled):
                assert latent_actions_BCA is not None
                wanted = latent_actions_BCA[:, turn]
                code, log_prior = snap(logits.log_softmax(-1), wanted, self._codebook)
                likelihood.append(log_prior)
                if wanted.requires_grad:
                    through.append(wanted - wanted.detach())  # zeros that carry the gradient
                    acted = self._act(through[-1])
            else:
                code = _sample(logits.softmax(-1), chance_KB1[turn])
            codes.append(code)
            moved = self._moved(factors[turn], move[turn], code, acted)
            following.append(Imagined(moved, self._places(moved)))
            came = came + following[-1].places_KBN

        # The inverse of the order: what sorts takes longer to start than to compare.
        back = (order_K == torch.arange(len(order_K), device=order_K.device).unsqueeze(1)).int().argmax(1)
        state = Imagined(*(torch.stack(part).index_select(0, back) for part in zip(*following, strict=True)))
        taken = self._codebook[torch.stack(codes).index_select(0, back).T]
        if through:
            taken = taken.index_add(1, self._controlled, torch.stack(through, 1))
        nothing = chance_KB1.new_zeros(chance_KB1.shape[1], 0)
        log_prior = torch.stack(likelihood, -1) if likelihood else nothing
        return state, Taken(taken, log_prior, *judge(self.events, state.factors_BKS))

    def _prepare(self, factors_KBS: torch.Tensor, places_KBN: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What every factor's move needs that no other move changes, computed for all at once.

        Returns:
            hidden units of the prior but for what came before, `(K, B, hidden)`; scale of what came, and the
            rows and columns where it is looked for; hidden units of the dynamics `(K, B, hidden)`.
        """
        prior = self.flam.latent_action_prior
        look, choose, move, qkv = self._read(factors_KBS).split(self._widths, -1)
        seen = self._see(self.flam.forward_dynamics.interaction.attend(qkv))
        # The softmaxes of `prior.view` over short axes: a product sums faster, and the occupancy is divided.
        odds = self._view(nn.functional.gelu(look)).float().clamp(-MOST_LOGIT, MOST_LOGIT).exp()
        row_total, column_total = self._total(odds).chunk(2, -1)
        scale = (row_total * column_total).reciprocal()
        row, column = odds.unflatten(-1, (-1, prior.looks)).split([len(prior.rows), len(prior.columns)], -2)
        left = torch.stack(list(accumulate(places_KBN)))  # half the time of `cumsum`, and it fuses
        others = torch.stack([left[-1] - left, left - places_KBN], -2)
        occupied = (occupancy(others, row, column) * scale.unsqueeze(-2)).flatten(-2)
        return choose + self._stayed_or_left(occupied), scale, row, column, move + seen

    def _logits(self, choose_BH: torch.Tensor) -> torch.Tensor:
        """The prior of one factor, float32 `(B, M)`, from its first hidden units."""
        middle, last = self._choose
        return last(nn.functional.gelu(middle(nn.functional.gelu(choose_BH)))).float()

    def _moved(
        self, factor_BS: torch.Tensor, move_BH: torch.Tensor, code_B: torch.Tensor, acted: torch.Tensor | None
    ) -> torch.Tensor:
        """The next factor `(B, S)` under an action code; `acted` are zeros that carry a gradient."""
        middle, last = self._move
        hidden = move_BH + nn.functional.embedding(code_B, self._acted)
        if acted is not None:
            hidden = hidden + acted
        return unit_rms(factor_BS + last(nn.functional.gelu(middle(nn.functional.gelu(hidden)))).float())


def _sample(probs_BM: torch.Tensor, chance_B1: torch.Tensor) -> torch.Tensor:
    """The first plausible action code at which the cumulative probability exceeds `chance_B1`: int64 `(B,)`."""
    mass = (probs_BM * plausible(probs_BM)).cumsum(-1)
    return (mass <= chance_B1 * mass[:, -1:]).sum(-1)
