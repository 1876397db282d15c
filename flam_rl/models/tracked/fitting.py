"""Sprites fitted to a frame: place by robust Gauss-Newton, depth by trying both orders, lost ones by looking around."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import unfold

from .sprites import Layers, Scene, blend, cut, draw


@dataclass(frozen=True)
class FitConfig:
    iterations: int = 4
    """Gauss-Newton steps at most."""
    enough: float = 0.02
    """Stop when no place moves by more pixels."""
    cap: float = 0.3
    """An error of a colour (0..1) counts no more than this: what a sprite cannot explain does not pull at it."""
    pull: float = 0.02
    """Weight of the predicted place, squared colour for a squared pixel."""
    stride: float = 2.0
    """A Gauss-Newton step moves no place further, in pixels."""
    margin: float = 0.02
    """Where two sprites overlap the other order is tried if the capped error there is more, and taken if it lowers it by so much."""
    radius: int = 8
    """How far a factor that lost its entity looks around, in pixels."""
    belief: float = 0.5
    """Share of what its sprite should explain that it must explain where it is found again."""
    far: float = 0.02
    """That share is lowered by so much for each pixel from where it was looked for."""
    least: float = 0.05
    """What a sprite that is not hidden explains at least, capped squared colour."""


def capped(residual: Tensor, config: FitConfig) -> Tensor:
    """Squared error that grows no further where it passes the cap."""
    return residual.square().clamp(max=config.cap**2)


def fit(
    look: Float[Tensor, "B K 4 P P"],
    predicted: Float[Tensor, "B K 2"],
    depth: Float[Tensor, "B K"],
    frame: Float[Tensor, "B 3 H W"],
    context: Float[Tensor, "B 3 H W"],
    config: FitConfig,
) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
    """Places where the sprites explain the frame, found jointly from where they are predicted; depth as given."""
    b, k = depth.shape
    place = predicted.clone()
    size = (frame.shape[-2], frame.shape[-1])
    pull = config.pull * torch.eye(2 * k, device=frame.device)
    for _ in range(config.iterations):
        layers = draw(look, place, size, slopes=True)
        scene = blend(layers.drawn_BK4HW, depth, context)
        residual = frame - scene.frame_B3HW
        weight = (1 + (residual / config.cap).square()).reciprocal().square()
        slopes = torch.stack(
            [
                torch.addcmul(tilt[:, :, :3], tilt[:, :, 3:], scene.behind_BK3HW, value=-1)
                for tilt in (layers.along_x_BK4HW, layers.along_y_BK4HW)
                if tilt is not None
            ],
            2,
        )
        slopes = (slopes * scene.seen_BKHW[:, :, None, None]).view(b, 2 * k, -1)
        weighed = slopes * weight.reshape(b, 1, -1)
        drift = (predicted - place).reshape(b, -1, 1)
        towards = weighed @ residual.reshape(b, -1, 1) + config.pull * drift
        step = torch.linalg.solve(weighed @ slopes.mT + pull, towards).view(b, k, 2)
        step = step.clamp(-config.stride, config.stride)
        place = place + step
        if step.abs().max() < config.enough:
            break
    return place, depth


def try_orders(
    look: Float[Tensor, "B K 4 P P"],
    predicted: Float[Tensor, "B K 2"],
    place: Float[Tensor, "B K 2"],
    depth: Float[Tensor, "B K"],
    frame: Float[Tensor, "B 3 H W"],
    context: Float[Tensor, "B 3 H W"],
    config: FitConfig,
) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
    """Where two sprites touch, the fit with their depths exchanged if it is better: the pair of each episode that is most wrong."""
    k = depth.shape[1]
    if k < 2:
        return place, depth
    size = (frame.shape[-2], frame.shape[-1])
    drawn = draw(look, place, size).drawn_BK4HW
    wrong = capped(frame - blend(drawn, depth, context).frame_B3HW, config).sum(1).flatten(1)
    alpha = drawn[:, :, 3].flatten(2)
    overlap = ((alpha * wrong[:, None]) @ alpha.mT).triu(1).flatten(1)
    most, pair = overlap.max(1)
    rows = (most > config.margin).nonzero()[:, 0]
    if not len(rows):
        return place, depth
    one, two = pair[rows] // k, pair[rows] % k
    other = depth[rows].clone()
    at = torch.arange(len(rows), device=depth.device)
    other[at, one], other[at, two] = depth[rows, two], depth[rows, one]
    moved, _ = fit(look[rows], predicted[rows], other, frame[rows], context[rows], config)

    def error(where: Tensor, order: Tensor) -> Tensor:
        scene = blend(draw(look[rows], where, size).drawn_BK4HW, order, context[rows])
        return capped(frame[rows] - scene.frame_B3HW, config).sum((1, 2, 3))

    better = rows[error(moved, other) < error(place[rows], depth[rows]) - config.margin]
    chosen = torch.isin(rows, better)
    place, depth = place.clone(), depth.clone()
    place[better], depth[better] = moved[chosen], other[chosen]
    return place, depth


def gains(
    layers: Layers, scene: Scene, frame: Float[Tensor, "B 3 H W"], config: FitConfig
) -> Float[Tensor, "B K H W"]:
    """How much capped squared error each sprite takes away from each pixel."""
    residual = (frame - scene.frame_B3HW)[:, None]
    return (capped(residual + _parts(layers, scene), config) - capped(residual, config)).sum(2)


def evidence(
    layers: Layers, scene: Scene, frame: Float[Tensor, "B 3 H W"], config: FitConfig
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
    """How much capped squared error each sprite takes away, and how much it would if it were exactly right."""
    hoped = capped(_parts(layers, scene), config).sum((2, 3, 4))
    return gains(layers, scene, frame, config).sum((2, 3)), hoped


def _parts(layers: Layers, scene: Scene) -> Tensor:
    """What each sprite adds to the frame."""
    drawn = layers.drawn_BK4HW
    return (drawn[:, :, :3] - drawn[:, :, 3:] * scene.behind_BK3HW) * scene.seen_BKHW[:, :, None]


def look_around(
    look: Float[Tensor, "B K 4 P P"],
    predicted: Float[Tensor, "B K 2"],
    place: Float[Tensor, "B K 2"],
    depth: Float[Tensor, "B K"],
    alive: Bool[Tensor, "B K"],
    found: Bool[Tensor, "B K"],
    frame: Float[Tensor, "B 3 H W"],
    context: Float[Tensor, "B 3 H W"],
    config: FitConfig,
    area: int,
    threshold: float,
) -> tuple[Float[Tensor, "B K 2"], Bool[Tensor, "B K"]] | None:
    """Places with those of lost factors that were found again, and who is found now; None if nobody was.

    Each lost factor in turn tries all whole-pixel places within the radius on what the others leave unexplained.
    """
    rows = (alive & ~found).any(1).nonzero()[:, 0].tolist()
    changed = False
    for b in rows:
        one = slice(b, b + 1)
        canvas = _canvas(look[one], place[one], depth[one], found[one], context[one])
        for k in (alive[b] & ~found[b]).nonzero()[:, 0].tolist():
            where = _search(look[b, k], predicted[b, k], frame[one], canvas, config, area, threshold)
            if where is not None:
                if not changed:
                    place, found, changed = place.clone(), found.clone(), True
                place[b, k] = where
                found[b, k] = True
                canvas = _canvas(look[one], place[one], depth[one], found[one], context[one])
    return (place, found) if changed else None


def _canvas(look: Tensor, place: Tensor, depth: Tensor, found: Tensor, context: Tensor) -> Tensor:
    """The frame as those that were found draw it."""
    size = (context.shape[-2], context.shape[-1])
    return blend(
        draw(look * found[..., None, None, None], place, size).drawn_BK4HW, depth, context
    ).frame_B3HW


def _search(
    look: Float[Tensor, "4 P P"],
    predicted: Float[Tensor, 2],
    frame: Float[Tensor, "1 3 H W"],
    canvas: Float[Tensor, "1 3 H W"],
    config: FitConfig,
    area: int,
    threshold: float,
) -> Float[Tensor, 2] | None:
    patch, radius = look.shape[-1], config.radius
    corner = (predicted - patch / 2).round().long() - radius
    image = torch.cat([frame, canvas, torch.ones_like(frame[:, :1])], 1)
    window = cut(image, corner[None], patch + 2 * radius)
    if ((window[:, :3] - window[:, 3:6]).abs().amax(1) > threshold).sum() < area:
        return None
    tried = unfold(window, patch).view(7, patch * patch, -1)
    shown, behind, inside = tried[:3], tried[3:6], tried[6]
    part = look[:3].reshape(3, -1, 1) - look[3].reshape(1, -1, 1) * behind
    residual = shown - behind
    gain = ((capped(residual, config) - capped(residual - part, config)) * inside).sum((0, 1))
    hoped = (capped(part, config) * inside).sum((0, 1))
    apart = torch.arange(2 * radius + 1, device=look.device) - radius
    far = (apart[:, None].square() + apart.square()).sqrt().flatten()
    share = gain / hoped.clamp_min(1e-6) - config.far * far
    share = torch.where(hoped > 0.3 * hoped.max().clamp_min(config.least), share, -torch.inf)
    best = int(share.argmax())
    if share[best] < config.belief - config.far * far[best]:
        return None
    step = torch.tensor([best % (2 * radius + 1), best // (2 * radius + 1)], device=look.device)
    return corner + step + patch / 2
