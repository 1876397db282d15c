"""The figures of a cell that reports show, beside their floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..evaluation.summary import FLOORS
from ..types import Json
from .estimates import Reader


@dataclass(frozen=True)
class Measure:
    """A figure of a cell.

    Attributes:
        title: of its table, column or plot, with its unit.
        read: reads the figure from a cell.
        digits: after the point.
        floors: what it would be if the model knew nothing, by name.
    """

    title: str
    read: Reader
    digits: int
    floors: Mapping[str, Reader] = field(default_factory=dict)


def at(*keys: str) -> Reader:
    """The entry of a cell at nested keys; None where one of them is missing or empty, or there are none."""

    def read(cell: Json) -> float | None:
        found = cell
        for key in keys:
            if not found or key not in found:
                return None
            found = found[key]
        return found if keys else None  # type: ignore[return-value]  # the last one is a number

    return read


def figure(title: str, digits: int, *keys: str, floors: Sequence[str] = ()) -> Measure:
    """The figure at nested keys of a cell, and the same figure of its floors, which are beside it."""
    beside = {FLOORS[name]: at(*keys[:-1], "floors", name, keys[-1]) for name in floors}
    return Measure(title, at(*keys), digits, beside)


HORIZONS = {"1": "1 step", "5": "5 steps", "15": "15 steps"}
PSNR = {
    steps: figure(f"PSNR after {text}, dB", 1, "psnr", steps, floors=["last_frame"])
    for steps, text in HORIZONS.items()
}
FOREGROUND = {
    steps: figure(
        f"PSNR of the foreground after {text}, dB",
        1,
        "foreground",
        steps,
        "foreground_psnr",
        floors=["last_frame", "background"],
    )
    for steps, text in HORIZONS.items()
}
DISENTANGLEMENT = figure("Disentanglement (DCI)", 3, "dci", "disentanglement", floors=["chance"])
INFORMATIVENESS = figure("Informativeness (DCI)", 3, "dci", "informativeness", floors=["chance"])
TRANSFER = figure(
    "Latent-action transfer, entities that head the same way in both videos",
    3,
    "transfer",
    "same_heading",
    floors=["random_actions"],
)
ARI = figure(
    "Foreground ARI of masks", 3, "masks", "foreground_ari", floors=["one_factor", "random_identities"]
)
IOU = figure("IoU of masks and entities", 3, "masks", "mask_iou", floors=["one_factor", "random_identities"])
HOTA = figure("Tracking, HOTA", 3, "tracking", "hota", floors=["random_identities", "nothing"])
IDF1 = figure("Tracking, IDF1", 3, "tracking", "idf1", floors=["random_identities", "nothing"])
SWITCHES = figure(
    "Identity switches for 1,000 entity-frames away from contact",
    1,
    "tracking",
    "switches_per_1000_apart",
    floors=["random_identities"],
)
VALID = figure(
    "Imagined frames valid after 10 steps of the prior, which in the rivals does not see the state",
    3,
    "imagination_validity",
    "10",
    floors=["random_actions"],
)
PARAMETERS = Measure("Parameters, thousands", lambda cell: cell["parameters"] / 1000, 0)
TRAINING = Measure("Seconds of training", at("training_s"), 0)
COPIED = FLOORS["last_frame"]
PSNR_BY_CODE = Measure(
    "PSNR after 1 step by the nearest action codes, dB; as many bits for all that have codes",
    at("psnr_by_code", "1"),
    1,
    {COPIED: at("psnr", "floors", "last_frame", "1")},
)
FVD = Measure("FVD", at("fvd"), 1, {COPIED: at("fvd_floors", "last_frame")})
NATS = Measure(
    "What latent actions tell at most, nats: KL, or entropy of codes",
    lambda cell: sum(cell["kl_per_factor"]),
    1,
)
ENTITIES = [
    *PSNR.values(),
    PSNR_BY_CODE,
    *FOREGROUND.values(),
    *(
        figure(f"SSIM after {text}", 4, "ssim", steps, floors=["last_frame"])
        for steps, text in HORIZONS.items()
    ),
    *(
        figure(
            f"Changed tokens predicted right after {text}",
            3,
            "token_accuracy_changed",
            steps,
            floors=["last_frame"],
        )
        for steps, text in HORIZONS.items()
    ),
    DISENTANGLEMENT,
    INFORMATIVENESS,
    TRANSFER,
    figure("Latent-action transfer, all entities", 3, "transfer", "any_heading", floors=["random_actions"]),
    ARI,
    IOU,
    HOTA,
    IDF1,
    SWITCHES,
    figure(
        "Pixels changed by a latent action that lie on its own entity",
        3,
        "intervention",
        "on_entity",
        floors=["chance"],
    ),
    VALID,
    *(
        figure(f"LPIPS after {text}", 4, "lpips", steps, floors=["last_frame"])
        for steps, text in HORIZONS.items()
    ),
    FVD,
    figure("Tokenizer alone, PSNR in dB", 1, "reconstruction_psnr"),
    NATS,
    PARAMETERS,
    TRAINING,
]
"""The tables of the suite of entities, in their order."""


ABLATIONS = [
    replace(measure, title=title)
    for title, measure in {
        "PSNR 1, dB": PSNR["1"],
        "PSNR 15, dB": PSNR["15"],
        "foreground PSNR 15, dB": FOREGROUND["15"],
        "disentanglement": DISENTANGLEMENT,
        "informativeness": INFORMATIVENESS,
        "transfer": TRANSFER,
        "valid after 10": VALID,
        "foreground ARI": ARI,
        "HOTA": HOTA,
        "KL, nats": NATS,
        "parameters, thousands": PARAMETERS,
        "training, s": TRAINING,
        "LPIPS 1": figure("", 4, "lpips", "1", floors=["last_frame"]),
        "FVD": FVD,
    }.items()
]
"""The columns of the suite of ablations."""


def _from_8(title: str, key: str) -> list[Measure]:
    """Of predictions from frame 8, after each number of steps."""
    return [
        figure(f"{title} {steps}, dB", 1, "foreground", steps, key, floors=["last_frame", "background"])
        for steps in HORIZONS
    ]


WHOLE, INSIDE = _from_8("PSNR", "psnr"), _from_8("foreground PSNR", "foreground_psnr")
MATCHED = [
    figure(name, 3, "disentanglement", name, floors=["factors_alone", "random_matching"])
    for name in ("disentanglement", "informativeness")
]
MOTION = [
    *WHOLE,
    figure(
        "PSNR 15 of the mean error, dB",
        1,
        "foreground",
        "15",
        "psnr_of_mean_error",
        floors=["last_frame", "background"],
    ),
    *INSIDE,
    Measure("tokenizer alone, dB", at("reconstruction_psnr"), 1),
    replace(HOTA, title="HOTA"),
    replace(SWITCHES, title="switches per 1,000 apart"),
    *MATCHED,
    replace(NATS, title="KL of a step, nats"),
    replace(PARAMETERS, title="parameters, thousands"),
    Measure("minutes in all", lambda cell: cell["wall_s"] / 60, 1),
]
"""The columns of the suite of motion."""
MOTION_SHOWN = [WHOLE[0], WHOLE[-1], INSIDE[-1], replace(HOTA, title="HOTA"), MATCHED[1]]
"""What is plotted of it."""
