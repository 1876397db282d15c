"""Sprites fitted to a frame: place by robust Gauss-Newton, depth by trying both orders, lost ones by looking around."""

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


def fit(sprites: Sprites, ground: Ground, config: FitConfig) -> Float[Tensor, "N 2"]:
    """Places where the sprites explain the frames of their episodes, found jointly from where they are; depth as given."""
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
    # Rows of an episode lie side by side in its own matrix.
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
    """Where two sprites touch, the fit with their depths exchanged if it is better: the pair of each episode that is most wrong.

    Args:
        sprites: where they were fitted. predicted: where they were fitted from.
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
    """How much capped squared error each sprite takes away from each pixel."""
    residual = windows.residual
    return (capped(residual + windows.parts, config) - capped(residual, config)).sum(1)


def evidence(windows: Windows, config: FitConfig) -> tuple[Float[Tensor, N], Float[Tensor, N]]:
    """How much capped squared error each sprite takes away, and how much it would if it were exactly right."""
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
    """Places with those of lost sprites that were found again, and who is found now; None if nobody was.

    Each lost one in turn tries all whole-pixel places within the radius on what the others leave unexplained.
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
    """The frames as those that are there draw them."""
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
