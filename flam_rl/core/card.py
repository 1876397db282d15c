"""A world's card: what it is, where its figures come from, what it cannot do, how to rebuild it."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict

from ..results import source_text
from .world import World

HEADINGS = {
    "figures": "Measured on held-out episodes at the end of training",
    "limits": "Limits",
    "rebuild": "How to rebuild it",
}


def facts(world: World) -> dict[str, str]:
    """What a world is and what made it, by name, for people."""
    info, origin = world.info, world.info.origin
    height, width = world.frame_size
    said = {
        "model": world.model.kind,
        "task": " ".join([info.task, json.dumps(info.task_kwargs)]) if info.task else "none: video files",
        "frames": f"{height}x{width} (height x width)",
        "factors": f"{world.factors} of {world.factor_dim} numbers",
        "latent actions": f"{world.latent_actions} of {world.latent_action_dim} numbers",
        "labels": _labels(world),
        "parameters": f"{sum(p.numel() for p in world.parameters()):,}",
        "licence": info.license,
    }
    if origin is not None:
        said |= {
            "trained on": f"{origin.frames:,} frames without actions",
            "training": f"{origin.minutes} minutes, evaluation included; seed {origin.seed}",
            "made by": source_text(asdict(origin)),
            "machine": f"{origin.machine}, torch {origin.torch}, Python {origin.python}",
        }
    return {name: plain(text) for name, text in said.items()}


def _labels(world: World) -> str:
    if world.labels is None:
        return "none"
    agents = world.labels.agents
    return f"{world.labels.budget:,} transitions of {agents.actions}; agent's factors {list(agents.factors)}"


def figures(world: World) -> str:
    """What was measured at the end of training, or that nothing was."""
    origin = world.info.origin
    return plain(origin.figures) if origin and origin.figures else "nothing was measured"


def limits(world: World) -> list[str]:
    """What follows from how it was made."""
    height, width = world.frame_size
    task = "another source" if not world.info.task else f"other settings of {plain(world.info.task)}"
    said = [
        f"It knows what its video showed, in frames of {height}x{width}; video of {task} may be out of its reach.",
        "Its figures are of one training, on held-out episodes of the same source: they have no interval over seeds.",
    ]
    if world.labels is None:
        said.append(
            "It has no labels: it gives no rewards and no ends, and its latent actions have no real ones beside them."
        )
    else:
        said.append(
            f"Rewards, ends and the adapter to real actions were fitted to {world.labels.budget:,} labelled transitions."
        )
    return said


def rebuild(world: World) -> list[str]:
    """Commands, and what they need."""
    info, origin = world.info, world.info.origin
    if origin is None:
        return ["config.json has the settings that it was trained with."]
    said = []
    if info.task:
        arguments = shlex.quote(json.dumps(info.task_kwargs))
        said.append(
            f"video of the task, {origin.frames:,} frames and those held out: flam-rl collect --task {info.task} --task-kwargs {arguments} --out DATA"
        )
    said += [
        f"training: {origin.command}",
        f"with {source_text(asdict(origin))}; config.json has all settings. Another machine gives another world of the same quality.",
    ]
    return [plain(line) for line in said]


def card_of(world: World) -> str:
    """README.md of a world's folder: Markdown, with the metadata that the Hub shows."""
    tags = ["flam_rl", "world-model", "latent-actions", "gymnasium", world.model.kind]
    table = "\n".join(f"| {name} | {_cell(text)} |" for name, text in facts(world).items())
    return f"""---
library_name: flam_rl
pipeline_tag: reinforcement-learning
license: {world.info.license}
tags:
{_list(tags)}
---

# A FLAM world

A world that was learned from video without actions, with {_per(world)}. `NAME` is its folder, its
name where it is shipped with flam_rl, or `hf://user/name` where it is on the Hub:

```python
import gymnasium as gym, flam_rl

env = gym.make("FLAM-v0", world="NAME", control="all")
```

| | |
| --- | --- |
{table}

## {HEADINGS["figures"]}

```
{figures(world)}
```

## {HEADINGS["limits"]}

{_list(limits(world))}

## {HEADINGS["rebuild"]}

{_list(rebuild(world))}

## Files

`model.safetensors` came from video alone, `labels.safetensors` from labels alone, `starts.safetensors` holds what
imagination starts from, of held-out clips. `config.json` holds the settings. Nothing in them is code.
"""


def _per(world: World) -> str:
    return (
        "a latent action for each factor" if world.latent_actions > 1 else "one latent action for the scene"
    )


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def plain(text: str) -> str:
    """`text` without what a terminal would obey: a world may be anyone's."""
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n")
