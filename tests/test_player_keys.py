"""The player's keys mean the same in every state."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import suites
import torch

from flam_rl.evaluation.validity import TOLERANCE, read_frames
from flam_rl.types import Scene

suites.need("fastapi", "play")
suites.need("uvicorn", "play")
suites.need("websockets", "play")

from pages import make_task  # noqa: E402

from flam_rl.player.keys import SLOTS  # noqa: E402
from flam_rl.player.stage import Stage  # noqa: E402

AHEAD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def slot(stage: Stage, index: int, name: str) -> int:
    return [key.slot for key in stage.keys.by_action[index]].index(name)


def agents_of(stage: Stage, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Cell (x, y) and heading of each agent `(B, 4)` in what a MultiGrid world draws; heading -1 where it is not shown once."""
    tiles = make_task().unwrapped.tiles()
    tile, difference = read_frames(stage.world.draw(scene).numpy(), tiles)
    owner = np.where(difference <= TOLERANCE, tiles.owner[tile], -1)
    columns = stage.world.frame_size[1] // tiles.images.shape[2]
    cells, headings = np.zeros((len(tile), 4, 2), int), np.full((len(tile), 4), -1)
    for row, agent in np.ndindex(headings.shape):
        at = np.flatnonzero(owner[row] == agent)
        if len(at) == 1:
            cells[row, agent] = at[0] % columns, at[0] // columns
            headings[row, agent] = tiles.heading[tile[row, at[0]]]
    return cells, headings


def after(stage: Stage, scene: Scene, index: int, held: list[int]) -> Scene:
    """One step under keys, each state by itself."""
    keys, rows = stage.keys, range(len(scene.factors))
    wanted = torch.cat([keys.latent_action(scene.factors[i : i + 1], index, held) for i in rows])
    stepper = stage.stepper((index,))
    generator = torch.Generator().manual_seed(0)
    state, _ = stepper.step(stepper.begin(scene.factors), wanted[:, None], generator)
    return Scene(state.factors_BKS, scene.context)


def test_the_agents_keys_are_its_tasks_actions_in_every_state(stage: Stage) -> None:
    assert len(stage.agents) == 1
    named = {key.name: (number, key.slot) for number, key in enumerate(stage.keys.by_action[stage.agents[0]])}
    assert {name: slot for name, (_, slot) in named.items()} == {
        "turn left": "left", "turn right": "right", "forward": "up", "stay": "down",
    }  # fmt: skip
    scene = stage.starts.select(slice(0, None, 10))
    cells, headings = agents_of(stage, scene)
    agent = 0  # the adapter's
    shown = headings[:, agent] >= 0
    right = {}
    for name, (number, _) in named.items():
        then, now = agents_of(stage, after(stage, scene, stage.agents[0], [number]))
        turn = {"turn left": -1, "turn right": 1}.get(name, 0)
        turned = now[:, agent] == (headings[:, agent] + turn) % 4
        walked = (then[:, agent] == cells[:, agent] + AHEAD[headings[:, agent]]).all(-1)
        stood = (then[:, agent] == cells[:, agent]).all(-1)
        right[name] = (turned & ((walked | stood) if name == "forward" else stood))[shown].mean()
    assert min(right.values()) > 0.95, right


@pytest.mark.learning
def test_directions_mean_the_same_where_no_label_says_what_a_factor_does(stage: Stage) -> None:
    """Who faces there walks or is blocked, who faces aside turns there, who faces away does not walk away."""
    scene = stage.starts.select(slice(0, None, 10))
    cells, headings = agents_of(stage, scene)
    shares = {}
    for index in set(range(4)) - set(stage.agents):
        own = stage.world.shares(scene)[:, index].unflatten(1, (8, 8)).unflatten(-1, (8, 8)).mean((2, 4))
        drawn = [
            sum(float(own[row, y, x]) for row, (x, y) in enumerate(cells[:, agent])) for agent in range(4)
        ]
        agent = int(np.argmax(drawn))  # whom this factor draws
        for wanted, name in ((3, "up"), (2, "left"), (1, "down"), (0, "right")):
            then, now = agents_of(stage, after(stage, scene, index, [slot(stage, index, name)]))
            before, there = headings[:, agent], (headings[:, agent] >= 0) & (now[:, agent] >= 0)
            moved = then[:, agent] - cells[:, agent]
            faces = now[:, agent] == wanted
            along = (moved * AHEAD[wanted]).sum(-1)
            away = (before - wanted) % 4 == 2
            right = np.where(away, along >= 0, faces & (along >= 0))
            shares[index, name] = right[there].mean()
    assert np.mean(list(shares.values())) > 0.85, shares
    assert min(shares.values()) > 0.6, shares


@pytest.mark.learning
def test_directions_push_pucks_that_way_wherever_the_prior_finds_it_plausible(pucks_stage: Stage) -> None:
    """And never the other way, where it does not."""
    scene, codes = pucks_stage.starts.select(slice(0, None, 20)), pucks_stage.keys.codes_MA
    states, count, velocity = len(scene.factors), len(codes), slice(2, 4)
    towards = torch.tensor([[0.0, -1.0], [-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    right, wrong = [], []
    for index in range(pucks_stage.world.latent_actions):
        rest = after(pucks_stage, scene, index, []).factors[:, index, velocity]
        stepper = pucks_stage.stepper((index,))
        everywhere = stepper.begin(scene.factors.repeat_interleave(count, 0))
        wanted = codes.repeat(states, 1)
        there, taken = stepper.step(everywhere, wanted[:, None], torch.Generator().manual_seed(0))
        plausible = (taken.latent_actions_BLA[:, index] - wanted).abs().amax(-1) < 1e-4
        moves = (
            there.factors_BKS[:, index, velocity].view(states, count, 2) - rest[:, None]
        ) @ towards.T > 0.02
        possible = (moves & plausible.view(states, count, 1)).any(1)
        for direction, slot in enumerate(SLOTS):
            pushed = after(pucks_stage, scene, index, [SLOTS.index(slot)]).factors[:, index, velocity]
            along = (pushed - rest) @ towards[direction]
            right.append(float((along > 0.02)[possible[:, direction]].float().mean()))
            wrong.append(float((along < -0.02).float().mean()))
    assert min(right) > 0.8, right
    assert np.mean(right) > 0.9, right
    assert max(wrong) < 0.15, wrong
    assert np.mean(wrong) < 0.05, wrong
