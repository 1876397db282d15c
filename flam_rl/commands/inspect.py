"""`flam-rl inspect`: what training would see of anyone's video."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..data.episodes import EpisodeInfo
from ..data.labels import find_labels
from ..data.minari import find_dataset
from ..data.reading import Reading, ReadingConfig, read
from ..files import written_whole
from ..results import write_results
from ..types import Json
from .checks import check_out
from .endings import ended
from .labels import placed_labels

SHOWN = 64
"""Frames of each episode in frames.npz."""
COLUMNS, ROWS, THUMBNAIL = 8, 40, 96
"""Frames of an episode, episodes, and pixels of a frame on the contact sheet."""


@dataclass(frozen=True)
class InspectConfig:
    """Show what `flam-rl train` would read, with what is wrong with it.

    Example: flam-rl inspect --data my-videos --out runs/inspect

    OUT/results.json lists each episode and what is skipped, OUT/contact_sheet.png shows them, OUT/frames.npz holds the
    first 64 frames of each as training sees them: arrays 0, 1, ... in the order of results.json.
    """

    data: Path
    """A film, a folder of films or of folders of numbered pictures, or a Minari dataset (folder, root or name)."""
    out: Path | None = None
    """Folder for results.json, contact_sheet.png and frames.npz; without it only a table is printed."""
    files: ReadingConfig = field(default_factory=ReadingConfig)


def inspect(config: InspectConfig) -> None:
    """Run the command.

    Raises:
        ValueError: no video can be read, its labels are damaged, or `out` cannot be written.
    """
    if config.out:
        check_out(config.out)
    films = find_labels(config.data, config.out) if find_dataset(config.data) is None else {}
    reading = read(config.data, config.files, but=config.out)
    print(table(reading))
    counts = placed_labels(reading, films)[1]
    for name, (rows, dropped) in counts.items():
        print(f"labels of {name}: {rows} rows, {rows - dropped} of transitions, {dropped} dropped")
    wrote = None
    if config.out:
        results = {
            "episodes": [_facts(info) for info in reading.episodes],
            "skipped": [dataclasses.asdict(source) for source in reading.skipped],
            "labels": {name: {"rows": rows, "dropped": dropped} for name, (rows, dropped) in counts.items()},
        }
        path = write_results(config.out, results, None)
        frames = {str(number): array[:SHOWN] for number, array in enumerate(reading.arrays)}
        with written_whole(config.out / "frames.npz") as scratch:
            np.savez_compressed(scratch, allow_pickle=False, **frames)
        if reading.arrays:
            with written_whole(config.out / "contact_sheet.png") as scratch:
                contact_sheet(reading).save(scratch)
        wrote = f"{path}, contact_sheet.png and frames.npz"
    reading.video  # noqa: B018  # says so where there is none
    ended(wrote, "flam-rl", "train", "--data", config.data, "--out", "runs/mine")


def _facts(info: EpisodeInfo) -> Json:
    """The record of an episode but for its list of frames."""
    return {name: value for name, value in dataclasses.asdict(info).items() if name != "numbers"}


def table(reading: Reading) -> str:
    """A line an episode, its warnings and what is skipped below."""
    rows: list[tuple[str, ...]] = [
        ("", "source", "kept", "of frames", "from", "size", "fps", "turned", "seconds")
    ]
    for number, info in enumerate(reading.episodes):
        counts = (info.kept, info.frames, info.start_frame)
        facts = (_or_dash(info.fps), _or_dash(info.rotation), _or_dash(info.duration_s))
        rows.append((str(number), info.source, *map(str, counts), f"{info.width}x{info.height}", *facts))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    for number, row in enumerate(rows):
        cells = [
            cell.ljust(width) if i == 1 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells))
        if number:
            lines += [f"{'':{widths[0]}}    ! {said}" for said in reading.episodes[number - 1].warnings]
    lines += [f"skipped {left.source}: {left.reason}" for left in reading.skipped]
    size = "x".join(map(str, reading.arrays[0].shape[2:0:-1])) if reading.arrays else "no size"
    kept = sum(info.kept for info in reading.episodes)
    lines.append(f"{len(reading.episodes)} episodes, {kept} frames of {size} (width x height)")
    return "\n".join(lines)


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def contact_sheet(reading: Reading) -> Image.Image:
    """A row an episode: frames spread over it, and a line of its facts above."""
    height, width = reading.arrays[0].shape[1:3]
    zoom = THUMBNAIL / max(height, width)
    zoom = round(zoom) if zoom > 1 else zoom  # whole pixels stay square
    cell = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    line, gap = 16, 2
    rows = min(len(reading.arrays), ROWS)
    more = [f"and {len(reading.arrays) - rows} more episodes"] if len(reading.arrays) > rows else []
    sheet = Image.new(
        "RGB", (COLUMNS * (cell[0] + gap), rows * (cell[1] + line + gap) + line * len(more)), "#202020"
    )
    draw = ImageDraw.Draw(sheet)
    for row in range(rows):
        frames, info = reading.arrays[row], reading.episodes[row]
        top = row * (cell[1] + line + gap)
        said = f"{row}  {info.source}  {info.kept} of {info.frames} frames  {info.width}x{info.height}"
        said += "  !" * bool(info.warnings)
        draw.text((2, top + 2), said, "#ffb040" if info.warnings else "white")
        for column, index in enumerate(np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int)):
            picture = Image.fromarray(np.asarray(frames[index])).resize(cell, Image.Resampling.NEAREST)
            sheet.paste(picture, (column * (cell[0] + gap), top + line))
    for text in more:
        draw.text((2, sheet.height - line + 2), text, "white")
    return sheet
