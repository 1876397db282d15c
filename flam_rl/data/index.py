"""Which sources of video there are: films, folders of numbered pictures, animations, a Minari dataset."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from natsort import natsorted
from PIL import Image, UnidentifiedImageError

from .episodes import Skipped
from .films import is_film
from .pictures import BROKEN

_KNOWN_ENDINGS = {".mkv", ".webp", ".avif", ".heic", ".ts", ".m2ts", ".mts", ".m4v", ".wmv", ".flv", ".webm"}
"""What Python 3.11 does not know to be pictures or films; only to say which files could not be read."""


@dataclass(frozen=True)
class Source:
    """One film, animation or folder of pictures.

    Attributes:
        name: path below the data.
        files: of a film or animation one; pictures in natural order.
    """

    name: str
    kind: str
    files: tuple[Path, ...]


@dataclass
class Index:
    """What lies below a path, in natural order of the paths."""

    sources: list[Source] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def files(self) -> list[Path]:
        """The files of all sources, in order."""
        return [path for source in self.sources for path in source.files]


def find_sources(data: Path, but: Path | None = None) -> Index:
    """Look at `data`, a file or a folder, and at all folders below it, linked ones too.

    What is a film is for the demuxer to say, what is a picture for Pillow. Files that begin with a dot are not
    looked at. A picture beside films is a poster, not an episode.

    Args:
        but: a folder to leave out.

    Raises:
        FileNotFoundError: there is nothing at `data`.
    """
    data = Path(data)
    if not data.exists():
        raise FileNotFoundError(f"no readable video below {data}: there is no such file or folder")
    if data.is_file():
        folders: Iterator[tuple[Path, list[Path]]] = iter([(data.parent, [data])])
    else:
        folders = _walk(data, but.resolve() if but else None)
    index = Index()
    for folder, files in folders:
        kinds = {path: _kind(path, index, _name(path, data)) for path in files}
        films = [path for path in files if kinds[path] in ("film", "animation")]
        stills = [path for path in files if kinds[path] == "picture"]
        index.sources += [Source(_name(path, data), kinds[path], (path,)) for path in films]
        if films or len(stills) == 1:
            reason = "a picture beside films is no episode" if films else "a single picture is no episode"
            index.skipped += [Skipped(_name(path, data), reason) for path in stills]
        elif stills:
            index.sources.append(Source(_name(folder, data), "pictures", tuple(stills)))
    return index


def _name(path: Path, data: Path) -> str:
    name = path.relative_to(data).as_posix() if path.is_relative_to(data) else path.name
    return data.resolve().name if name == "." else name


def _walk(data: Path, but: Path | None) -> Iterator[tuple[Path, list[Path]]]:
    """Each folder once, however many links lead to it, with its files in natural order."""
    seen = set()
    for here, folders, files in os.walk(data, followlinks=True):
        real = Path(here).resolve()
        if real in seen or (real == but and Path(here) != data):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = natsorted(sorted(f for f in folders if not f.startswith(".")))
        names = natsorted(sorted(f for f in files if not f.startswith(".")))
        yield Path(here), [path for name in names if (path := Path(here) / name).is_file()]


def _kind(path: Path, index: Index, name: str) -> str:
    """film, animation, picture, or nothing; a file that should be one of them and is not is skipped by name."""
    try:
        with Image.open(path) as picture:
            if Image.MIME.get(picture.format or "", "").startswith("image/"):
                return "animation" if getattr(picture, "is_animated", False) else "picture"
    except UnidentifiedImageError:
        pass
    except BROKEN:
        return "picture"  # a broken one, which its folder names
    try:
        if is_film(path):
            return "film"
        reason = "neither a film nor a picture"
    except ValueError as error:
        reason = str(error)
    kind = mimetypes.MimeTypes().guess_type(path.name)[0] or ""
    if kind.startswith("image/"):
        return "picture"
    if kind.startswith("video/") or path.suffix.lower() in _KNOWN_ENDINGS:
        index.skipped.append(Skipped(name, reason))
    return ""
