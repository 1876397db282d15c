"""What the pages need while mkdocs builds them: a folder to run in, short trainings, and a way to show frames."""

from __future__ import annotations

import base64
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np

DOCS = Path(__file__).resolve().parent
BUDGET = {
    "tracked.looks.frames": 300,
    "tracked.looks.patch-steps": 60,
    "tracked.looks.steps": 60,
    "tracked.dynamics-training.steps": 150,
    "tracked.dynamics-training.batch": 32,
    "tracked.prior-training.steps": 100,
    "tracked.prior-training.batch": 256,
}
"""Options that shorten a training on tracked layers to half a minute: pages write them as `$BUDGET`."""


def on_pre_build(config: Any) -> None:
    """Go to an empty folder, in which all pages run one after the other, with the commands of this Python on the path."""
    running = config.extra["running"] = tempfile.TemporaryDirectory()
    os.chdir(running.name)
    commands = Path(sys.prefix) / "bin"
    Path("start.sh").write_text("set -e; exec 2>log.$$; trap '[ $? = 0 ] || cat log.$$' EXIT\n")
    os.environ |= {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "BUDGET": " ".join(f"--{name} {value}" for name, value in BUDGET.items()),
        "DOCS": str(DOCS),
        "BASH_ENV": str(Path("start.sh").resolve()),  # progress and logs are shown only where a command fails
    }
    sys.path.insert(0, str(DOCS))  # so that pages can import this module


def on_post_build(config: Any) -> None:
    """Leave the folder, which goes."""
    os.chdir(DOCS.parent)
    config.extra["running"].cleanup()


def frames(*pictures: np.ndarray, caption: str) -> str:
    """HTML that shows frames uint8 `(H, W, 3)` in a row, each pixel four times as wide and high."""
    row = np.concatenate(
        [np.pad(picture, ((0, 0), (0, 2), (0, 0)), constant_values=255) for picture in pictures], 1
    )
    large = row[:, :-2].repeat(4, 0).repeat(4, 1)
    return _figure(imageio.imwrite("<bytes>", large, extension=".png"), "png", caption)


def film(pictures: np.ndarray, caption: str) -> str:
    """HTML that shows frames uint8 `(T, H, W, 3)` one after the other, eight a second."""
    large = pictures.repeat(3, 1).repeat(3, 2)
    return _figure(imageio.imwrite("<bytes>", large, extension=".gif", duration=125, loop=0), "gif", caption)


def picture(path: str, caption: str) -> str:
    """HTML that shows a picture or an animation that a command wrote."""
    return _figure(Path(path).read_bytes(), Path(path).suffix[1:], caption)


def _figure(content: bytes, kind: str, caption: str) -> str:
    data = base64.b64encode(content).decode()
    return f'<figure><img alt="{caption}" src="data:image/{kind};base64,{data}"><figcaption>{caption}</figcaption></figure>'
