"""Looks as codes: a small autoencoder of patches. Its decoder is the first half of the aggregator."""

from __future__ import annotations

import torch
from jaxtyping import Float
from sklearn.cluster import KMeans
from torch import Tensor, nn

from ...core.layers import mlp, nearest_code
from .sprites import Layers, Scene, blend, draw, hats
from .states import DEPTH, LOOK, PLACE, PRESENCE, StateConfig

HIDDEN = 128
COMPONENTS = 48
"""Principal components of looks that the encoder sees."""


class LookCodes(nn.Module):
    """Look `(4, P, P)` <-> look code `(L,)`, whose numbers have mean 0 and spread 1 over the looks of the video."""

    mean_F: Tensor
    components_FC: Tensor
    center_L: Tensor
    spread_L: Tensor

    def __init__(self, config: StateConfig) -> None:
        super().__init__()
        self.patch = config.patch
        size = 4 * config.patch**2
        count = min(COMPONENTS, size)
        self.encoder = mlp(count, HIDDEN, config.look_dim)
        self.skip = nn.Linear(count, config.look_dim, bias=False)
        self.decoder = mlp(config.look_dim, HIDDEN, size, layers=3)
        self.register_buffer("mean_F", torch.zeros(size))
        self.register_buffer("components_FC", torch.zeros(size, count))
        self.register_buffer("center_L", torch.zeros(config.look_dim))
        self.register_buffer("spread_L", torch.ones(config.look_dim))

    @torch.no_grad()
    def start_from(self, looks_N4PP: Float[Tensor, "N 4 P P"]) -> None:
        """Set the principal components from looks; codes start as the first L components."""
        flat = looks_N4PP.flatten(1)
        self.mean_F.copy_(flat.mean(0))
        _, values, vectors = torch.linalg.svd(flat - self.mean_F, full_matrices=False)
        signs = vectors.sum(1).sign()
        signs[signs == 0] = 1
        count = min(self.components_FC.shape[1], len(values))
        scale = (values[:count] / len(flat) ** 0.5).clamp_min(1e-3 * float(values[0]) / len(flat) ** 0.5)
        self.components_FC.zero_()
        self.components_FC[:, :count] = (vectors[:count] * signs[:count, None]).T / scale
        self.skip.weight.copy_(torch.eye(*self.skip.weight.shape))
        shown = self.mean_F.view(4, -1).clamp(0.001, 0.999)
        last = self.decoder[-1]
        assert isinstance(last, nn.Linear)
        last.bias[-shown.shape[1] :] = torch.logit(shown[3])

    @torch.no_grad()
    def normalize(self, looks_N4PP: Float[Tensor, "N 4 P P"]) -> None:
        """Rescale codes to mean 0 and spread 1 over these looks; decoded looks stay the same."""
        raw = self._raw(looks_N4PP)
        self.center_L.copy_(raw.mean(0))
        self.spread_L.copy_(raw.std(0).clamp_min(1e-3))

    @torch.no_grad()
    def typical(self, looks_N4PP: Float[Tensor, "N 4 P P"], count: int, seed: int) -> Float[Tensor, "M L"]:
        """Codes of looks that many others are like: of each of `count` groups the one in its middle. Groups of less than half
        of an equal share are left out, and the first is repeated in their place."""
        codes_NL = self.encode(looks_N4PP)
        found = KMeans(min(count, len(codes_NL)), n_init=4, random_state=seed).fit(codes_NL.numpy())
        share = torch.from_numpy(found.labels_).bincount() / len(codes_NL)
        order = share.argsort(descending=True, stable=True)
        order = order[share[order] >= 0.5 / count]
        centres = torch.as_tensor(found.cluster_centers_, dtype=codes_NL.dtype)[order]
        middle = codes_NL[nearest_code(centres, codes_NL)]
        return middle[torch.arange(count).where(torch.arange(count) < len(middle), 0)]

    def encode(self, look_B4PP: Float[Tensor, "*B 4 P P"]) -> Float[Tensor, "*B L"]:
        """Codes of looks that are centred in their patches."""
        return (self._raw(look_B4PP) - self.center_L) / self.spread_L

    def _raw(self, look_B4PP: Tensor) -> Tensor:
        seen = (look_B4PP.flatten(-3) - self.mean_F) @ self.components_FC
        return self.skip(seen) + self.encoder(seen)

    def decode(self, code_BL: Float[Tensor, "*B L"]) -> Float[Tensor, "*B 4 P P"]:
        """Looks: colour times alpha, and alpha, in 0..1; the outermost entries of a patch are empty."""
        out = self.decoder(code_BL * self.spread_L + self.center_L)
        color, alpha = out.sigmoid().unflatten(-1, (4, self.patch, self.patch)).split((3, 1), -3)
        return torch.cat([color * alpha, alpha], -3)


def draw_factors(
    codes: LookCodes,
    config: StateConfig,
    factors_BKS: Float[Tensor, "B K S"],
    context_B3YX: Float[Tensor, "B 3 Y X"],
) -> tuple[Layers, Scene]:
    """The aggregator: draws each present factor's look at its place over the context; smaller depth is nearer."""
    behind = view(config, factors_BKS[:, -1, PLACE], context_B3YX) if config.margin else context_B3YX
    return draw_entities(codes, config, factors_BKS[:, : config.entities], behind)


def draw_entities(
    codes: LookCodes,
    config: StateConfig,
    entities_BES: Float[Tensor, "B E S"],
    context_B3HW: Float[Tensor, "B 3 H W"],
) -> tuple[Layers, Scene]:
    """As `draw_factors`, without the camera, over the camera's view of the context."""
    look = codes.decode(entities_BES[..., LOOK]) * entities_BES[..., PRESENCE, None, None, None]
    layers = draw(look, config.to_pixels(entities_BES[..., PLACE]), (config.height, config.width))
    return layers, blend(layers.drawn_BK4HW, entities_BES[..., DEPTH], context_B3HW)


def picture(
    codes: LookCodes,
    config: StateConfig,
    factors_BKS: Float[Tensor, "B K S"],
    context_B3YX: Float[Tensor, "B 3 Y X"],
) -> Float[Tensor, "B 3 H W"]:
    """The frame of `draw_factors` alone: entities are put in order before they are drawn, so that nothing large is copied."""
    frame = view(config, factors_BKS[:, -1, PLACE], context_B3YX) if config.margin else context_B3YX
    entities = factors_BKS[:, : config.entities]
    order = entities[..., DEPTH].argsort(dim=1, descending=True, stable=True)
    entities = entities.take_along_dim(order[..., None], 1)
    look = codes.decode(entities[..., LOOK]) * entities[..., PRESENCE, None, None, None]
    layers = draw(look, config.to_pixels(entities[..., PLACE]), (config.height, config.width))
    for layer in layers.drawn_BK4HW.unbind(1):
        frame = torch.addcmul(frame, layer[:, 3:], frame, value=-1).add_(layer[:, :3])
    return frame


def view(
    config: StateConfig, camera_B2: Float[Tensor, "B 2"], context_B3YX: Float[Tensor, "B 3 Y X"]
) -> Float[Tensor, "B 3 H W"]:
    """The camera's view of a context that is larger than a frame; the camera stops at the border of the context."""
    m = config.margin
    moved = (camera_B2 * config.half).clamp(-m, m)
    (height, width), (tall, wide) = (config.height, config.width), context_B3YX.shape[-2:]
    across = hats(wide / 2 - m + moved[:, 0], wide, width)[:, None]
    down = hats(tall / 2 - m + moved[:, 1], tall, height)[:, None]
    return down @ context_B3YX @ across.mT
