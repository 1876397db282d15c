"""The factorizer without learning: factors follow entities by propagating, correcting, looking around and discovering.

One step a frame, causal, for many episodes at once. *Propagate* each factor by its velocity; *correct* its place by fitting
its sprite to the frame, all factors jointly; a factor that lost its entity *looks around* for it; what nothing drawn
explains is *discovered* and starts a new factor, if it is not too small.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .fitting import FitConfig, evidence, fit, gains, look_around, try_orders
from .looks import STATISTICS, LookConfig, first, learn, look_of, reach, smaller_pieces
from .sprites import Extent, Layers, Scene, blend, cut, draw, extent, lift, masks
from .tokens import differs, filled, find_tokens


@dataclass(frozen=True)
class TrackerConfig:
    factors: int = 32
    """Factors at most."""
    patch: int = 24
    """Height and width of a look in pixels: of the largest thing, and some pixels more."""
    threshold: float = 0.1
    """A pixel is explained if no channel is off by more; colours are in 0..1."""
    area: int = 8
    """Pixels that a thing has at least."""
    belief: float = 0.4
    """A factor is seen where drawing it explains so much of what it should."""
    patience: int = 8
    """Frames that a factor is kept unseen."""
    smoothing: float = 0.5
    """Share of the old velocity that is kept."""
    fit: FitConfig = FitConfig()
    look: LookConfig = LookConfig()


@dataclass(frozen=True)
class TrackerState:
    """What a tracker knows after a frame. Rows are factors; one keeps its row as long as it is alive.

    Attributes:
        alive: the row holds a factor. unseen: frames since it was last seen, 0 if it is in this frame.
        age: frames since birth. identity: number of the track, never given again in an episode.
        born: how many tracks there have been. place: centre of the patch, (x, y) in pixels. velocity: pixels a frame.
        depth: those of less are nearer. statistics, look: see looks.py.
    """

    alive: Bool[Tensor, "B K"]
    unseen: Int[Tensor, "B K"]
    age: Int[Tensor, "B K"]
    identity: Int[Tensor, "B K"]
    born: Int[Tensor, B]
    place: Float[Tensor, "B K 2"]
    velocity: Float[Tensor, "B K 2"]
    depth: Float[Tensor, "B K"]
    statistics: Float[Tensor, "B K 10 P P"]
    look: Float[Tensor, "B K 4 P P"]

    @property
    def presence(self) -> Bool[Tensor, "B K"]:
        """Which factors are in the frame."""
        return self.alive & (self.unseen == 0)

    @property
    def extent(self) -> Extent:
        """Where looks lie in their patches, and how large they are."""
        return extent(self.look[:, :, 3])

    def clone(self) -> TrackerState:
        """A state that shares no memory with this one."""
        return TrackerState(**{f.name: getattr(self, f.name).clone() for f in fields(self)})


class Tracker:
    """Steps a state by a frame; see the module's text."""

    def __init__(self, config: TrackerConfig = TrackerConfig()) -> None:
        self.config = config

    def start(self, batch: int, device: torch.device | str = "cpu") -> TrackerState:
        """No factor yet in any of `batch` episodes."""
        k, p = self.config.factors, self.config.patch
        whole = torch.zeros(batch, k, dtype=torch.long, device=device)
        return TrackerState(
            alive=whole > 0,
            unseen=whole.clone(),
            age=whole.clone(),
            identity=whole - 1,
            born=whole[:, 0].clone(),
            place=torch.zeros(batch, k, 2, device=device),
            velocity=torch.zeros(batch, k, 2, device=device),
            depth=torch.zeros(batch, k, device=device),
            statistics=torch.zeros(batch, k, STATISTICS, p, p, device=device),
            look=torch.zeros(batch, k, 4, p, p, device=device),
        )

    @torch.no_grad()
    def step(
        self,
        state: TrackerState,
        frame_B3HW: Float[Tensor, "B 3 H W"],
        context_B3HW: Float[Tensor, "B 3 H W"],
        moved_B2: Float[Tensor, "B 2"] | None = None,
    ) -> TrackerState:
        """The state after a frame.

        Args:
            frame_B3HW: colours in 0..1.
            context_B3HW: as this frame shows it.
            moved_B2: by how many pixels (x, y) the context moved since the last frame; not at all by default.
        """
        state = state.clone()
        n = _rows_in_use(state.alive)
        if n:
            now = replace(
                state, **{f.name: getattr(state, f.name)[:, :n] for f in fields(state) if f.name != "born"}
            )
            self._follow(now, frame_B3HW, context_B3HW, moved_B2)
        self._discover(state, frame_B3HW, context_B3HW)
        self._learn(state, frame_B3HW, context_B3HW)
        self._bury(state, (frame_B3HW.shape[-2], frame_B3HW.shape[-1]))
        return state

    def _follow(self, now: TrackerState, frame: Tensor, context: Tensor, moved: Tensor | None) -> None:
        """Propagate, correct, look around, learn looks; writes into `now`."""
        config = self.config
        before = now.presence
        last = now.place.clone()
        now.place.add_(now.velocity if moved is None else now.velocity + moved[:, None])
        predicted = now.place.clone()
        place, depth = fit(
            now.look * before[..., None, None, None], predicted, now.depth, frame, context, config.fit
        )
        place, depth = try_orders(
            now.look * before[..., None, None, None], predicted, place, depth, frame, context, config.fit
        )
        found = before & self._believed(now.look, place, depth, before, frame, context)
        again = look_around(
            now.look,
            predicted,
            place,
            depth,
            now.alive,
            found,
            frame,
            context,
            config.fit,
            config.area,
            config.threshold,
        )
        if again is not None:
            place, found = again
            place, depth = fit(
                now.look * found[..., None, None, None], place, depth, frame, context, config.fit
            )
            found = found & self._believed(now.look, place, depth, found, frame, context)
        place = torch.where(found[..., None], place, predicted)
        now.place.copy_(place)
        now.depth.copy_(depth)
        now.age.add_(1)
        moved_by = place - last if moved is None else place - last - moved[:, None]
        kept = torch.where(now.age > 1, config.smoothing, 0.0)[..., None]
        now.velocity.copy_(
            torch.where(
                (found & before)[..., None], kept * now.velocity + (1 - kept) * moved_by, now.velocity
            )
        )
        now.unseen.copy_(torch.where(found, 0, now.unseen + 1))

    def _bury(self, state: TrackerState, size: tuple[int, int]) -> None:
        """Empties the rows of factors that were not seen for too long, or left the frame; writes into `state`."""
        where, span = state.extent
        centre = state.place + where
        limits = torch.tensor([size[1], size[0]], device=centre.device)
        gone = ((centre < -span / 2) | (centre > limits + span / 2)).any(-1)
        lost = state.unseen > 0
        state.alive.logical_and_((state.unseen <= self.config.patience) & ~(gone & lost))

    def _believed(
        self, look: Tensor, place: Tensor, depth: Tensor, present: Tensor, frame: Tensor, context: Tensor
    ) -> Tensor:
        layers, scene = scene_of(look, place, depth, present, context)
        gain, hoped = evidence(layers, scene, frame, self.config.fit)
        return (gain > self.config.belief * hoped) & (hoped > self.config.fit.least)

    def _learn(self, state: TrackerState, frame: Tensor, context: Tensor) -> None:
        """Looks of what is seen, after all that is new has a factor of its own; writes into `state`."""
        config, n = self.config, _rows_in_use(state.alive)
        if not n:
            return
        look, place, found = state.look[:, :n], state.place[:, :n], state.presence[:, :n]
        layers, scene = scene_of(look, place, state.depth[:, :n], found, context)
        alpha = layers.drawn_BK4HW[:, :, 3]
        others = (alpha.sum(1, keepdim=True) - alpha).clamp(0, 1)
        shown = (scene.seen_BKHW * (1 - others))[:, :, None]
        residual = (frame - scene.frame_B3HW)[:, None]
        gain = gains(layers, scene, frame, config.fit)[:, :, None]
        parts = torch.cat([shown, shown * residual, shown * scene.behind_BK3HW, shown * gain], 2)
        lifted = lift(parts, place, config.patch)
        whole = lifted[:, :, 0]
        weight = (
            torch.where(whole > 0.3, whole.clamp(max=1), 0) * reach(look[:, :, 3]) * found[..., None, None]
        )
        missing, behind, right = (lifted[:, :, 1:] / whole.clamp_min(1e-3)[:, :, None]).split((3, 3, 1), 2)
        state.statistics[:, :n] = learn(
            state.statistics[:, :n], look, behind, missing, weight, right[:, :, 0], config.look
        )
        state.look[:, :n] = look_of(state.statistics[:, :n], config.look)
        if (rest := smaller_pieces(state.look[:, :n, 3], found)) is not None:
            state.statistics[:, :n, 3:6].masked_fill_(rest[:, :, None], 0)
            state.statistics[:, :n, 7:9].masked_fill_(rest[:, :, None], 0)
            state.look[:, :n].masked_fill_(rest[:, :, None], 0)

    def _discover(self, state: TrackerState, frame: Tensor, context: Tensor) -> None:
        """New factors from tokens that nothing drawn explains; writes into `state`."""
        config = self.config
        n = max(1, _rows_in_use(state.alive))
        layers, scene = scene_of(
            state.look[:, :n], state.place[:, :n], state.depth[:, :n], state.presence[:, :n], context
        )
        unexplained = differs(frame - scene.frame_B3HW, config.threshold)
        explained = masks(layers.drawn_BK4HW, scene.seen_BKHW).sum(1) > 0.3
        for b in (unexplained.sum((-1, -2)) >= config.area).nonzero()[:, 0].tolist():
            drawn = filled(explained[b].cpu().numpy())
            for token in find_tokens(unexplained[b].cpu().numpy(), config.area):
                if (token.mask & drawn).sum() > 0.5 * token.area:
                    continue
                if (row := _free_row(state, b)) is None:
                    break
                self._bear(
                    state,
                    b,
                    row,
                    token.place,
                    filled(token.mask),
                    frame[b] - scene.frame_B3HW[b],
                    scene.frame_B3HW[b],
                )

    def _bear(
        self, state: TrackerState, b: int, row: int, place, mask, residual: Tensor, behind: Tensor
    ) -> None:
        half = self.config.patch / 2
        corner = torch.tensor([[round(v - half) for v in place]], device=behind.device)
        solid = torch.as_tensor(mask, device=behind.device, dtype=behind.dtype)[None]
        image = torch.cat([residual, behind, solid, torch.ones_like(solid)])
        crop = cut(image[None], corner, self.config.patch)[0]
        state.statistics[b, row] = first(crop[:3], crop[3:6], crop[6] > 0, crop[7] > 0, self.config.look)
        state.look[b, row] = look_of(state.statistics[b, row], self.config.look)
        state.place[b, row] = corner[0] + half
        state.velocity[b, row] = 0
        state.depth[b, row] = state.born[b]
        state.alive[b, row] = True
        state.unseen[b, row] = state.age[b, row] = 0
        state.identity[b, row] = state.born[b]
        state.born[b] += 1


def scene_of(
    look: Float[Tensor, "B K 4 P P"],
    place: Float[Tensor, "B K 2"],
    depth: Float[Tensor, "B K"],
    present: Bool[Tensor, "B K"],
    context: Float[Tensor, "B 3 H W"],
) -> tuple[Layers, Scene]:
    """The layers of those present, and the scene that they make over the context."""
    layers = draw(look * present[..., None, None, None], place, (context.shape[-2], context.shape[-1]))
    return layers, blend(layers.drawn_BK4HW, depth, context)


def _rows_in_use(alive_BK: Tensor) -> int:
    used = alive_BK.any(0).nonzero()
    return int(used[-1]) + 1 if len(used) else 0


def _free_row(state: TrackerState, b: int) -> int | None:
    """The first empty row, else that of the factor unseen for longest, else None."""
    empty = (~state.alive[b]).nonzero()
    if len(empty):
        return int(empty[0])
    row = int(state.unseen[b].argmax())
    return row if state.unseen[b, row] > 0 else None
