"""Sprites fitted to a frame: places by robust Gauss-Newton, depths by trying both orders, lost sprites by a search."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import unfold

from .sprites import cut
from .windows import Ground, Sprites, Windows, look_at, paste, shifted_to


@dataclass(frozen=True)
class FitConfig:
    """Settings of the fit of sprites to a frame."""

    iterations: int = 4
    """Most Gauss-Newton steps."""
    enough: float = 0.02
    """The fit stops when no place moves by more pixels."""
    cap: float = 0.3
    """Cap of colour errors (0..1), so that things that a sprite cannot explain do not pull at it."""
    pull: float = 0.02
    """Weight of the distance to the predicted place, in squared colour per squared pixel."""
    stride: float = 2.0
    """Most pixels that a Gauss-Newton step moves a place by."""
    margin: float = 0.02
    """If the capped error where two sprites overlap is larger, the other order is tried; it is taken if it lowers the
    error by as much."""
    radius: int = 8
    """Radius in pixels of the search for a lost entity."""
    belief: float = 0.5
    """Share of the error it could remove that a sprite must remove to be found again."""
    far: float = 0.02
    """Reduction of that share per pixel of distance from the predicted place."""
    least: float = 0.05
    """Least capped squared error that a sprite could remove, below which it counts as hidden."""


def capped(residual: Tensor, config: FitConfig) -> Tensor:
    """Squared error, constant beyond the cap."""
    return residual.square().clamp(max=config.cap**2)


def fit(sprites: Sprites, ground: Ground, config: FitConfig) -> Float[Tensor, "N 2"]:
    """Places at which the sprites explain the frames of their episodes, fitted jointly from their present places at
    fixed depths."""
    place = sprites.place.clone()
    moving = torch.arange(len(place), device=place.device)
    for _ in range(config.iterations):
        if not len(moving):
            break
        now = _select(sprites, moving)
        step = _step(replace(now, place=place[moving]), now.place, ground, config)
        place[moving] += step
        still = torch.ones(len(ground.frame), dtype=torch.bool, device=place.device)
        still[now.episode[step.abs().amax(1) >= config.enough]] = False
        moving = moving[~still[now.episode]]
    return place


def _select(sprites: Sprites, rows: Tensor) -> Sprites:
    return Sprites(sprites.episode[rows], sprites.look[rows], sprites.place[rows], sprites.depth[rows])


def _step(
    sprites: Sprites, predicted: Float[Tensor, "N 2"], ground: Ground, config: FitConfig
) -> Float[Tensor, "N 2"]:
    """One Gauss-Newton step of all places of each episode together."""
    n = len(predicted)
    windows = look_at(sprites, ground, slopes=True)
    residual = windows.residual
    weight = (1 + (residual / config.cap).square()).reciprocal().square() * windows.inside[:, None]
    slopes = torch.stack(
        [
            torch.addcmul(tilt[:, :3], tilt[:, 3:], windows.behind, value=-1)
            for tilt in (windows.slope_x, windows.slope_y)
            if tilt is not None
        ],
        1,
    )
    slopes = slopes * windows.seen[:, None, None]
    weighed = (slopes * weight[:, None]).flatten(2)
    towards = (weighed @ residual.flatten(1)[..., None])[..., 0] + config.pull * (predicted - sprites.place)
    rows = torch.arange(n, device=predicted.device)
    own = weighed @ slopes.flatten(2).mT
    one, two = (windows.beside & windows.beside.mT).triu().nonzero().unbind(1)
    if len(one):
        near = shifted_to(slopes.flatten(1, 2), two, one, windows.corner).view(len(one), 2, -1)
        both = weighed[one] @ near.mT
    # Each episode has a matrix of its own, in which its sprites are adjacent.
    place_in = rows - torch.searchsorted(sprites.episode, sprites.episode)
    most = int(place_in.max()) + 1
    batch = len(ground.frame)
    normal = predicted.new_zeros(batch, most, 2, most, 2)
    normal.view(batch, 2 * most, 2 * most).diagonal(dim1=1, dim2=2).fill_(config.pull)
    normal[sprites.episode, place_in, :, place_in] += own
    if len(one):
        normal[sprites.episode[one], place_in[one], :, place_in[two]] = both
        normal[sprites.episode[one], place_in[two], :, place_in[one]] = both.mT
    right = predicted.new_zeros(batch, most, 2)
    right[sprites.episode, place_in] = towards
    step = torch.linalg.solve(normal.view(batch, 2 * most, 2 * most), right.view(batch, 2 * most, 1))
    step = step.view(batch, most, 2)[sprites.episode, place_in]
    return step.clamp(-config.stride, config.stride)


def try_orders(
    sprites: Sprites, predicted: Float[Tensor, "N 2"], ground: Ground, config: FitConfig
) -> tuple[Float[Tensor, "N 2"], Float[Tensor, N]]:
    """Places and depths after trying, in each episode, to exchange the depths of the touching pair with the largest
    error.

    Args:
        sprites: at their fitted places. predicted: the places that the fit started from.
    """
    place, depth = sprites.place, sprites.depth
    windows = look_at(sprites, ground)
    one, two = (windows.beside & windows.beside.mT).triu().nonzero().unbind(1)
    if not len(one):
        return place, depth
    alpha = windows.drawn[:, 3:]
    wrong = capped(windows.residual, config).sum(1)
    near = shifted_to(alpha, two, one, windows.corner)[:, 0]
    overlap = (alpha[one, 0] * wrong[one] * near).sum((1, 2))
    pairs = []
    for episode in sprites.episode[one[overlap > config.margin]].unique().tolist():
        mine = torch.where(sprites.episode[one] == episode, overlap, -1)
        pairs.append(int(mine.argmax()))
    if not pairs:
        return place, depth
    first, second = one[pairs], two[pairs]
    rows = torch.isin(sprites.episode, sprites.episode[first]).nonzero()[:, 0]
    other = depth.clone()
    other[first], other[second] = depth[second], depth[first]
    tried = _select(replace(sprites, place=predicted, depth=other), rows)
    tried = replace(tried, place=fit(tried, ground, config))
    before, after = (_error(each, ground, config) for each in (_select(sprites, rows), tried))
    better = (after < before - config.margin)[tried.episode]
    place, depth = place.clone(), depth.clone()
    place[rows[better]], depth[rows[better]] = tried.place[better], tried.depth[better]
    return place, depth


def _error(sprites: Sprites, ground: Ground, config: FitConfig) -> Float[Tensor, B]:
    scene, _ = paste(look_at(sprites, ground), sprites, ground)
    return capped(ground.frame - scene, config).sum((1, 2, 3))


def gains(windows: Windows, config: FitConfig) -> Float[Tensor, "N V V"]:
    """Capped squared error that each sprite removes from each pixel."""
    residual = windows.residual
    return (capped(residual + windows.parts, config) - capped(residual, config)).sum(1)


def evidence(windows: Windows, config: FitConfig) -> tuple[Float[Tensor, N], Float[Tensor, N]]:
    """Capped squared error that each sprite removes, and the most that it could remove."""
    return gains(windows, config).sum((1, 2)), capped(windows.parts, config).sum((1, 2, 3))


def look_around(
    sprites: Sprites,
    predicted: Float[Tensor, "N 2"],
    found: Bool[Tensor, N],
    ground: Ground,
    config: FitConfig,
    area: int,
    threshold: float,
) -> tuple[Float[Tensor, "N 2"], Bool[Tensor, N]] | None:
    """Places after a search for lost sprites, and which sprites are found now; None if the search found none.

    Each lost sprite in turn is tried at all whole-pixel places within the radius, against the error that the other
    sprites leave.
    """
    place, now = sprites.place.clone(), found.clone()
    for episode in sprites.episode[~found].unique().tolist():
        mine = sprites.episode == episode
        canvas = _canvas(replace(sprites, place=place), mine & now, ground)
        for k in (mine & ~found).nonzero()[:, 0].tolist():
            frame = ground.frame[episode, None]
            where = _search(
                sprites.look[k], predicted[k], frame, canvas[episode, None], config, area, threshold
            )
            if where is not None:
                place[k], now[k] = where, True
                canvas = _canvas(replace(sprites, place=place), mine & now, ground)
    return (place, now) if bool((now & ~found).any()) else None


def _canvas(sprites: Sprites, there: Bool[Tensor, N], ground: Ground) -> Float[Tensor, "B 3 H W"]:
    """The frames as the sprites in the mask `there` draw them."""
    rows = there.nonzero()[:, 0]
    if not len(rows):
        return ground.context
    drawn = _select(sprites, rows)
    return paste(look_at(drawn, ground), drawn, ground)[0]


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
