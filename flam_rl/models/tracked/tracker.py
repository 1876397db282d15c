"""The factorizer without learning: factors follow entities by propagating, correcting, looking around and discovering.

The tracker takes one causal step per frame, for many episodes at once. It *propagates* each factor by its velocity
and *corrects* all places together by fitting the factors' sprites to the frame. A factor that lost its entity *looks
around* for it. Pixels that no sprite explains are *discovered*, and start a new factor if there are enough of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .fitting import FitConfig, evidence, fit, gains, look_around, try_orders
from .known import KnownLooks
from .looks import STATISTICS, LookConfig, first, learn, look_of, reach, smaller_pieces
from .sprites import Extent, Layers, Scene, blend, cut, draw, extent
from .tokens import Token, differs, filled, find_tokens
from .windows import Ground, Sprites, Windows, lift, look_at, paste, trimmed

GROWTH = 2
"""Pixels by which a look may grow per frame, on each side."""


@dataclass(frozen=True)
class TrackerConfig:
    """Settings of the tracker."""

    factors: int = 32
    """Most factors at one time."""
    patch: int = 24
    """Height and width of a look in pixels: those of the largest thing and a few pixels more."""
    threshold: float = 0.1
    """A pixel is explained if no channel differs by more; colours are in 0..1."""
    area: int = 4
    """Least number of pixels of a thing."""
    belief: float = 0.4
    """A factor counts as seen if drawing it removes this share of the error that it would remove if it were exactly
    right."""
    patience: int = 8
    """Frames for which an unseen factor is kept."""
    smoothing: float = 0.5
    """Share of the previous velocity in the new one."""
    fit: FitConfig = FitConfig()
    look: LookConfig = LookConfig()


@dataclass(frozen=True)
class TrackerState:
    """The tracker's state after a frame. Rows are factors; a factor keeps its row while it is alive.

    Attributes:
        alive: whether the row holds a factor. unseen: frames since the factor was last seen, 0 if it is in this
            frame. age: frames since its birth. identity: number of its track, unique within an episode. born: number
            of tracks so far. place: centre of the patch, (x, y) in pixels. velocity: pixels per frame. depth: smaller
            is nearer. statistics, look: see looks.py.
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
        """Offsets of the looks within their patches, and their sizes."""
        return extent(self.look[:, :, 3])

    def first(self, count: int) -> TrackerState:
        """The states of the first `count` episodes, a view of this state."""
        return TrackerState(**{f.name: getattr(self, f.name)[:count] for f in fields(self)})

    def clone(self) -> TrackerState:
        """A copy that shares no memory with this state."""
        return TrackerState(**{f.name: getattr(self, f.name).clone() for f in fields(self)})


class Tracker:
    """Steps a state by a frame; the module's docstring says how.

    Args:
        looks: what entities look like, as far as that is known: what shows several of these is discovered as several.
    """

    def __init__(
        self, config: TrackerConfig = TrackerConfig(), looks: Float[Tensor, "M 4 P P"] | None = None
    ) -> None:
        self.config = config
        self.known = None if looks is None else KnownLooks(looks)

    def start(self, batch: int, device: torch.device | str = "cpu") -> TrackerState:
        """The state of `batch` episodes without any factor."""
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
            context_B3HW: the background where this frame shows it.
            moved_B2: pixels (x, y) by which the context moved since the last frame; 0 by default.
        """
        state = state.clone()
        self.advance(state, frame_B3HW, context_B3HW, moved_B2)
        return state

    @torch.no_grad()
    def advance(
        self,
        state: TrackerState,
        frame_B3HW: Float[Tensor, "B 3 H W"],
        context_B3HW: Float[Tensor, "B 3 H W"],
        moved_B2: Float[Tensor, "B 2"] | None = None,
    ) -> None:
        """As `step`, in place."""
        ground = Ground(frame_B3HW, context_B3HW)
        if bool(state.alive.any()):
            self._follow(state, ground, moved_B2)
        present, sprites = self._present(state)
        windows = look_at(sprites, ground, room=GROWTH + 1) if len(present) else None
        if self._discover(state, ground, windows, sprites):
            present, sprites = self._present(state)
            windows = look_at(sprites, ground, room=GROWTH + 1)
        if windows is not None:
            self._learn(state, present, sprites, windows)
        self._bury(state, ground.size)

    def _follow(self, state: TrackerState, ground: Ground, moved: Tensor | None) -> None:
        """Propagate, correct and look around, in place."""
        config, rows = self.config, state.alive.nonzero().unbind(1)
        before, last, velocity = state.presence[rows], state.place[rows], state.velocity[rows]
        drift = torch.zeros_like(last) if moved is None else moved[rows[0]]
        predicted = last + velocity + drift
        look = trimmed(state.look[rows])
        sprites = Sprites(rows[0], look, predicted, state.depth[rows])
        found = before
        if bool(before.any()):
            sprites, found = self._corrected(sprites, before, ground, config.fit)
        again = look_around(sprites, predicted, found, ground, config.fit, config.area, config.threshold)
        if again is not None:
            place, found = again
            sprites, found = self._corrected(
                replace(sprites, place=place), found, ground, config.fit, orders=False
            )
        place = torch.where(found[:, None], sprites.place, predicted)
        age = state.age[rows] + 1
        kept = torch.where(age > 1, config.smoothing, 0.0)[:, None]
        smooth = kept * velocity + (1 - kept) * (place - last - drift)
        state.place[rows] = place
        state.depth[rows] = sprites.depth
        state.age[rows] = age
        state.velocity[rows] = torch.where((found & before)[:, None], smooth, velocity)
        state.unseen[rows] = torch.where(found, 0, state.unseen[rows] + 1)

    def _corrected(
        self, sprites: Sprites, there: Tensor, ground: Ground, fitting: FitConfig, orders: bool = True
    ) -> tuple[Sprites, Tensor]:
        """All sprites, with those in the mask `there` fitted to the frame, and which of these the frame supports."""
        rows = there.nonzero()[:, 0]
        now = Sprites(*(each[rows] for each in (sprites.episode, sprites.look, sprites.place, sprites.depth)))
        predicted = now.place
        now = replace(now, place=fit(now, ground, fitting))
        if orders:
            place, depth = try_orders(now, predicted, ground, fitting)
            now = replace(now, place=place, depth=depth)
        gain, hoped = evidence(look_at(now, ground), fitting)
        found = there.clone()
        found[rows] = (gain > self.config.belief * hoped) & (hoped > fitting.least)
        place, depth = sprites.place.clone(), sprites.depth.clone()
        place[rows], depth[rows] = now.place, now.depth
        return replace(sprites, place=place, depth=depth), found

    def _present(self, state: TrackerState) -> tuple[Tensor, Sprites]:
        """Rows `(N, 2)` of the factors that are in the frames, and their sprites, with room to grow."""
        present = state.presence.nonzero()
        rows = present.unbind(1)
        look = trimmed(state.look[rows], GROWTH)
        return present, Sprites(rows[0], look, state.place[rows], state.depth[rows])

    def _bury(self, state: TrackerState, size: tuple[int, int]) -> None:
        """Empty the rows of factors that were unseen for too long or have left the frame, in place."""
        rows = (state.alive & (state.unseen > 0)).nonzero().unbind(1)
        if not len(rows[0]):
            return
        where, span = (each[0] for each in extent(state.look[rows][None, :, 3]))
        centre = state.place[rows] + where
        limits = torch.tensor([size[1], size[0]], device=centre.device)
        gone = ((centre < -span / 2) | (centre > limits + span / 2)).any(-1)
        state.alive[rows] = (state.unseen[rows] <= self.config.patience) & ~gone

    def _learn(self, state: TrackerState, present: Tensor, sprites: Sprites, windows: Windows) -> None:
        """Update the looks of the present factors, in place; called after new things have factors of their own."""
        config, rows = self.config, present.unbind(1)
        shown = (windows.seen * (1 - windows.others.clamp(0, 1)) * windows.inside)[:, None]
        gain = gains(windows, config.fit)[:, None]
        parts = torch.cat([shown, shown * windows.residual, shown * windows.behind, shown * gain], 1)
        patch = sprites.look.shape[-1]
        lifted = lift(parts, sprites.place, windows.corner, patch)
        whole = lifted[:, 0]
        weight = torch.where(whole > 0.3, whole.clamp(max=1), 0) * reach(sprites.look[:, 3], GROWTH)
        missing, behind, right = (lifted[:, 1:] / whole.clamp_min(1e-3)[:, None]).split((3, 3, 1), 1)
        room = (config.patch - patch) // 2
        inner = (..., slice(room, config.patch - room), slice(room, config.patch - room))
        statistics, look = state.statistics[rows], state.look[rows]
        statistics[inner] = learn(
            statistics[inner], sprites.look, behind, missing, weight, right[:, 0], config.look
        )
        look[inner] = look_of(statistics[inner], config.look)
        if (rest := smaller_pieces(look[:, 3])) is not None:
            statistics[:, 3:6].masked_fill_(rest[:, None], 0)
            statistics[:, 7:9].masked_fill_(rest[:, None], 0)
            look.masked_fill_(rest[:, None], 0)
        state.statistics[rows], state.look[rows] = statistics, look

    def _discover(
        self, state: TrackerState, ground: Ground, windows: Windows | None, sprites: Sprites
    ) -> bool:
        """Turn unexplained tokens into new factors, or into pieces of factors that enter the frame, in place.

        Returns whether there were any.
        """
        config, new = self.config, False
        scene, cover = ground.context, torch.zeros_like(ground.frame[:, 0])
        if windows is not None:
            scene, cover = paste(windows, sprites, ground)
        unexplained, explained = differs(ground.frame - scene, config.threshold), cover > 0.3
        for b in (unexplained.sum((-1, -2)) >= config.area).nonzero()[:, 0].tolist():
            tokens = find_tokens(unexplained[b].cpu().numpy(), config.area)
            if self.known is not None:
                tokens = [piece for each in tokens for piece in self.known.split(each, ground.frame[b])]
            drawn = filled(explained[b].cpu().numpy()) if tokens else None
            for token in tokens:
                if (token.mask & drawn).sum() > 0.5 * token.area:
                    continue
                residual = ground.frame[b] - scene[b]
                if (row := self._comes_in(state, b, token, ground)) is not None:
                    self._extend(state, b, row, filled(token.mask), residual, scene[b])
                elif (row := _free_row(state, b)) is not None:
                    self._bear(state, b, row, token.place, filled(token.mask), residual, scene[b])
                else:
                    break
                new = True
        return new

    def _comes_in(self, state: TrackerState, b: int, token: Token, ground: Ground) -> int | None:
        """The row of a factor at the frame's edge that a token belongs to, or None: the two touch, and have one
        colour.

        Such a token must not start a factor of its own, because a piece of one colour fits anywhere in a larger area
        of that colour.
        """
        (x, y), (wide, tall) = token.place, token.size
        rim = torch.as_tensor(filled(token.mask), device=ground.frame.device)
        inner = torch.as_tensor(token.mask, device=ground.frame.device)
        color = ground.frame[b][:, inner].mean(1)
        for row in state.presence[b].nonzero()[:, 0].tolist():
            look, place = state.look[b, row], state.place[b, row]
            corner = place - self.config.patch / 2
            ends = torch.tensor([x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2]).to(corner)
            if (ends[:2] < corner - 1).any() or (ends[2:] > corner + self.config.patch + 1).any():
                continue
            own = draw(look[None, None], place[None, None], ground.size).drawn_BK4HW[0, 0, 3] > 0.5
            whole = own | inner
            if (rim & own).any() and any(
                side.any() for side in (whole[0], whole[-1], whole[:, 0], whole[:, -1])
            ):
                off = (ground.frame[b][:, own].mean(1) - color).abs().max()
                if off < 2 * self.config.threshold:
                    return row
        return None

    def _extend(self, state: TrackerState, b: int, row: int, mask, residual: Tensor, behind: Tensor) -> None:
        """Add a token to a factor's look, to the nearest whole pixel, in place."""
        corner = (state.place[b, row] - self.config.patch / 2).round().long()[None]
        new = self._born_from(corner, mask, residual, behind)
        added = (new[3:6].abs().amax(0) > 0) & (state.look[b, row, 3] < 0.5)
        state.statistics[b, row] = torch.where(added, new, state.statistics[b, row])
        state.look[b, row] = look_of(state.statistics[b, row], self.config.look)

    def _born_from(self, corner: Tensor, mask, residual: Tensor, behind: Tensor) -> Tensor:
        solid = torch.as_tensor(mask, device=behind.device, dtype=behind.dtype)[None]
        image = torch.cat([residual, behind, solid, torch.ones_like(solid)])
        crop = cut(image[None], corner, self.config.patch)[0]
        return first(crop[:3], crop[3:6], crop[6] > 0, crop[7] > 0, self.config.look)

    def _bear(
        self, state: TrackerState, b: int, row: int, place, mask, residual: Tensor, behind: Tensor
    ) -> None:
        half = self.config.patch / 2
        corner = torch.tensor([[round(v - half) for v in place]], device=behind.device)
        state.statistics[b, row] = self._born_from(corner, mask, residual, behind)
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
    """The layers of the present factors, and the scene that they form over the context."""
    layers = draw(look * present[..., None, None, None], place, (context.shape[-2], context.shape[-1]))
    return layers, blend(layers.drawn_BK4HW, depth, context)


def _free_row(state: TrackerState, b: int) -> int | None:
    """The first empty row, else the row of the factor that was unseen longest, else None."""
    empty = (~state.alive[b]).nonzero()
    if len(empty):
        return int(empty[0])
    row = int(state.unseen[b].argmax())
    return row if state.unseen[b, row] > 0 else None
