"""Worlds on the Hugging Face Hub: files of a world and nothing else, of one commit, cached by huggingface_hub.

Its own login is used, and its own cache: what was fetched once is there without a network, for every program.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

SCHEME = "hf://"
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubAddress:
    """A repository of the Hub, and a branch, tag or commit of it."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}" + (f"@{self.revision}" if self.revision else "")

    @staticmethod
    def matches(name: str | os.PathLike[str]) -> bool:
        """Whether a world's name is an address of the Hub."""
        return isinstance(name, str) and name.startswith(SCHEME)

    @classmethod
    def parse(cls, text: str) -> HubAddress:
        """
        Raises:
            ValueError: `text` is no such address.
        """
        part = r"[A-Za-z0-9][\w.-]*"
        found = re.fullmatch(rf"{SCHEME}({part}/{part})(?:@({part}(?:/{part})*))?", text, re.ASCII)
        if found is None or ".." in text or "--" in found[1]:
            raise ValueError(
                f"{text!r} is no address of the Hub; allowed is hf://user/name or hf://user/name@revision"
            )
        return cls(found[1], found[2])


def fetched(address: HubAddress, files: Sequence[str], most_bytes: int) -> tuple[Path, HubAddress]:
    """The folder in the cache that holds those of `files` that there are, and the address with its commit.

    An address without a commit asks the Hub for the newest; where the Hub cannot be reached it is the newest that is
    cached. A commit that is cached asks nothing.

    Raises:
        ValueError: there is no such repository or revision, or none that the login may read; or the files have more than
            `most_bytes` together.
        OSError: the Hub cannot be reached, and it is not cached.
        ImportError: the extra `hub` is not installed.
    """
    hub = _hub()
    with _said_of(address):
        api = hub.HfApi()
        commit = api.resolve_revision(address.repository, revision=address.revision).resolved
        pinned = replace(address, revision=commit)

        def snapshot(**arguments: Any) -> Any:
            return hub.snapshot_download(
                address.repository, revision=commit, allow_patterns=list(files), **arguments
            )

        try:
            listed = snapshot(dry_run=True, tqdm_class=_Quiet)
        except hub.errors.DryRunError as error:
            raise error.__cause__ or error from None
        size = sum(file.file_size or 0 for file in listed)
        if size > most_bytes:
            raise ValueError(f"{pinned}: the world has {size:,} bytes; allowed are {most_bytes:,}")
        quiet = {} if any(file.will_download for file in listed) else {"tqdm_class": _Quiet}
        return Path(snapshot(**quiet)), pinned


class _Quiet(tqdm):
    """No bar, for what is there at once."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **(named | {"disable": True}))


def push(folder: Path, address: HubAddress, files: Sequence[str]) -> HubAddress:
    """Upload those of `files` that `folder` holds, and delete those that it does not; the address with the new commit.

    The repository is made where there is none.

    Raises:
        ValueError: the address names a commit; or the login may not write there.
        OSError: the Hub cannot be reached.
        ImportError: the extra `hub` is not installed.
    """
    if address.revision is not None and COMMIT.fullmatch(address.revision):
        raise ValueError(f"{address} is a commit, which stays as it is; leave it out, or name a branch")
    hub = _hub()
    with _said_of(address):
        api = hub.HfApi()
        api.create_repo(address.repository, exist_ok=True)
        if address.revision:
            api.create_branch(address.repository, branch=address.revision, exist_ok=True)
        there = {file.path for file in api.list_repo_tree(address.repository, revision=address.revision)}
        here = [name for name in files if (folder / name).is_file()]
        gone = (there & set(files)) - set(here)
        done = api.create_commit(  # one commit: a world is never there in parts
            address.repository,
            [
                *(hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in here),
                *(hub.CommitOperationDelete(path_in_repo=name) for name in sorted(gone)),
            ],
            commit_message="Upload a flam_rl world",
            revision=address.revision,
        )
    return replace(address, revision=done.oid)


def cached() -> Iterator[tuple[HubAddress, Path]]:
    """The worlds in the cache, each commit with its folder; none where the extra `hub` is not installed."""
    try:
        hub = _hub()
    except ImportError:
        return
    for starts in sorted(
        Path(hub.constants.HF_HUB_CACHE).glob("models--*--*/snapshots/*/starts.safetensors")
    ):
        folder = starts.parent
        repository = folder.parent.parent.name.removeprefix("models--").replace("--", "/")
        yield HubAddress(repository, folder.name), folder


def _hub() -> Any:
    """huggingface_hub, imported when it is needed: nothing of it runs before.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError(
            f"worlds on the Hub need the package {error.name}: pip install 'flam_rl[hub]'"
        ) from error
    return huggingface_hub


@contextmanager
def _said_of(address: HubAddress) -> Iterator[None]:
    """What the Hub and its client raise, as an error that says which address and what to do."""
    errors = _hub().errors
    login = "if it is private, log in with `hf auth login` or set HF_TOKEN"
    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise ValueError(
            f"{address}: the repository has no revision {address.revision or 'main'!r}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(f"{address}: there is no such repository that you may read; {login}") from error
    except (
        errors.RevisionResolutionError,
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
    ) as error:
        raise OSError(
            f"{address}: the Hub cannot be reached, and the world is not cached ({_first_line(error.__cause__ or error)})"
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise ValueError(f"{address}: the Hub refuses this login ({status}); {login}") from error
        raise OSError(
            f"{address}: the Hub answers {status}: {error.server_message or 'no reason given'}"
        ) from error
    except (errors.HTTPError, RuntimeError) as error:  # the second is of an upload that failed
        raise OSError(f"{address}: the Hub cannot be reached ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
