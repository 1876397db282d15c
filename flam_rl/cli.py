"""The `flam-rl` command."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import tyro


def main(args: list[str] | None = None) -> None:
    """Parse `args`, by default the command line's, and run the command; errors of use end with status 2."""
    from .commands.agent import AgentConfig, agent
    from .commands.benchmark import BenchmarkConfig, benchmark
    from .commands.collect import CollectConfig, collect
    from .commands.demo import DemoConfig, demo
    from .commands.evaluate import EvaluateConfig, evaluate
    from .commands.inspect import InspectConfig, inspect
    from .commands.train import TrainConfig, train

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    commands: dict[str, tuple[type, Callable[[Any], None]]] = {
        "collect": (CollectConfig, collect),
        "inspect": (InspectConfig, inspect),
        "train": (TrainConfig, train),
        "evaluate": (EvaluateConfig, evaluate),
        "agent": (AgentConfig, agent),
        "demo": (DemoConfig, demo),
        "benchmark": (BenchmarkConfig, benchmark),
    }
    config = tyro.extras.subcommand_cli_from_dict(
        {name: kind for name, (kind, _) in commands.items()},
        prog="flam-rl",
        description="Learn controllable worlds from action-free video, and agents inside them.",
        args=args,
    )
    run = {kind: function for kind, function in commands.values()}[type(config)]
    try:
        run(config)
    except (ValueError, FileNotFoundError, FileExistsError, ImportError) as error:
        logging.getLogger(__name__).debug("", exc_info=True)
        print(f"flam-rl: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "flam-rl: interrupted; train and benchmark go on from here with the same command", file=sys.stderr
        )
        sys.exit(130)


if __name__ == "__main__":
    main()
