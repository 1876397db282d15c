"""Imagination of a model in which one latent action moves everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float

from ...core.compiling import check_compiler
from ...core.stepping import Events, Imagined, Taken, judge
from ...core.threads import LoneThreads, lone_threads


@runtime_checkable
class Moved(Protocol):
    """A model that one latent action moves; its `prior` draws them."""

    def step(self, factors_BKS: torch.Tensor, latent_actions_BLA: torch.Tensor) -> torch.Tensor:
        """As `Model.step`."""

    def snap(
        self, factors_BKS: torch.Tensor, index: int, latent_actions_BA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Model.snap`."""

    def sample_actions(self, factors_BKS: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """As `Rival.sample_actions`."""

    def parameters(self, recurse: bool = True) -> Iterator[torch.nn.Parameter]:
        """As `nn.Module.parameters`."""


class SceneImagination:
    """Steps imagined worlds of a model in which one latent action moves everything, as FLAM's `Imagination` does.

    Args:
        controlled: `[0]` if the caller acts, else the prior does.
        dtype: of the products; factors stay float32.
        compile: whether the model's step is compiled.
        events: the heads of reward and end of the next state; without them both are 0.

    Raises:
        ValueError: `compile` on a CPU without a C++ compiler.
    """

    def __init__(
        self,
        model: Moved,
        controlled: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        events: Events | None = None,
    ) -> None:
        self.model, self.controlled, self.dtype, self.events = model, list(controlled), dtype, events
        if compile:
            check_compiler(next(model.parameters()).device)
        self._move = torch.compile(model.step) if compile else model.step
        self._threads: LoneThreads | None = None

    def begin(self, factors_BKS: Float[torch.Tensor, "B K S"]) -> Imagined:
        """Worlds in which the factors are these, without places: these models need none."""
        factors_KBS = factors_BKS.transpose(0, 1).contiguous()
        return Imagined(factors_KBS, factors_KBS[..., :0])

    def step(
        self,
        now: Imagined,
        latent_actions_BCA: Float[torch.Tensor, "B C A"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Imagined, Taken]:
        """One step of every world; arguments as `Imagination.step`."""
        self._threads = self._threads or lone_threads()
        return self._threads.run(lambda: self._step(now, latent_actions_BCA, generator))

    def close(self) -> None:
        """Give threads back; a step that is taken later has new ones."""
        self._threads = None

    def _step(
        self,
        now: Imagined,
        latent_actions_BCA: torch.Tensor | None,
        generator: torch.Generator | None,
    ) -> tuple[Imagined, Taken]:
        factors = now.factors_BKS
        if self.controlled:
            assert latent_actions_BCA is not None
            wanted = latent_actions_BCA[:, 0]
            snapped, nearest = self.model.snap(factors, 0, wanted)
            taken = (snapped + wanted - wanted.detach() if wanted.requires_grad else snapped).unsqueeze(1)
            log_prior = nearest.unsqueeze(1)
        else:
            taken, log_prior = (
                self.model.sample_actions(factors, generator),
                factors.new_zeros(len(factors), 0),
            )
        with torch.autocast(factors.device.type, self.dtype, enabled=self.dtype != torch.float32):
            following = self._move(factors, taken).float()
        return self.begin(following), Taken(taken, log_prior, *judge(self.events, following))
