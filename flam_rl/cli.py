"""The `flam-rl` command."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import re
import shlex
import sys
import threading
import traceback
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import gymnasium as gym
import tyro

COMMANDS = (
    *("collect", "inspect", "train", "evaluate", "agent", "imagine", "demo", "play", "benchmark"),
    *("worlds", "info", "push", "pull", "doctor"),
)
"""`flam-rl NAME` is the function NAME in `commands/NAME.py`, with its NameConfig."""


def main(args: list[str] | None = None) -> None:
    """Parse `args`, by default the command line's, and run the command.

    An error of use (what was asked for cannot be, a file cannot be read or written, something is not installed) is
    one line and status 2.
    """
    args = sys.argv[1:] if args is None else args
    debug = "--debug" in args
    hook, threading.excepthook = threading.excepthook, _say_of_thread
    try:
        run([arg for arg in args if arg != "--debug"])
    except (ValueError, OSError, ImportError, gym.error.Error) as error:
        if debug:
            traceback.print_exc()
        print("flam-rl:", " ".join(str(error).split("\n")), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "flam-rl: interrupted; collect, train, agent and benchmark go on from here with the same command",
            file=sys.stderr,
        )
        sys.exit(130)
    finally:
        threading.excepthook = hook


def _say_of_thread(failed: threading.ExceptHookArgs) -> None:
    """TensorBoard writes in a thread, and hands what fails there to the main one, which says it: once is enough."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)


def run(args: list[str]) -> None:
    """Parse `args` and run the command, errors as they come."""
    from .results import COMMAND, source

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    # Only the command that is asked for is imported: those that need torch take seconds.
    names = args[:1] if args and args[0] in COMMANDS else COMMANDS
    modules = {name: importlib.import_module(f".commands.{name}", __package__) for name in names}
    kinds = {name: getattr(module, f"{name.capitalize()}Config") for name, module in modules.items()}
    config = _parse(kinds, args)
    COMMAND.set(shlex.join(["flam-rl", *args]))
    source()  # what runs from here on, whatever happens to the source tree meanwhile
    (name,) = (name for name, kind in kinds.items() if type(config) is kind)
    getattr(modules[name], name)(config)


def _parse(kinds: Mapping[str, type], args: list[str]) -> Any:
    """The config of the command that `args` name.

    tyro prints a box and exits. Those about missing and unknown options stay as they are: they list what there is. A value that
    is refused is raised instead, for it is an error of use like any other.

    Raises:
        ValueError: a value is none of its option's choices, of another type, or outside of its range.
        SystemExit: an option is missing or unknown, or `args` ask for help.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.extras.subcommand_cli_from_dict(
                dict(kinds),
                prog="flam-rl",
                description="Learn controllable worlds from action-free video, and agents inside them. "
                "With --debug, before or after the command, an error shows where it was raised.",
                args=args,
            )
    except SystemExit as stopped:
        error: BaseException | None = stopped
        while error is not None and not isinstance(error, ValueError):
            error = error.__context__
        box = re.sub(r"\x1b\[[\d;]*m", "", printed.getvalue())  # without colours
        if error is not None:
            place = re.search(r"Error parsing (?:__tyro-dummy-inner__\.)?(?:--)?([a-z][\w.-]*)", box)
            raise ValueError(f"--{place[1]}: {error}" if place else str(error)) from error
        if "invalid choice" in box:
            rows = (row.strip("│ ") for row in box.splitlines()[1:])
            raise ValueError(" ".join(takewhile(lambda row: "──" not in row, rows))) from stopped
        sys.stderr.write(printed.getvalue())
        raise


if __name__ == "__main__":
    main()
