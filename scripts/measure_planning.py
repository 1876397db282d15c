"""What planning in imagination reaches without a policy, and at what speed.

Each part writes PART/results.json: `speed`, decisions/s and what they cost in plain steps; `multigrid`, success on the real task
with the shipped world; `simulator`, the same search whose candidates are copies of the real task; `pucks`, success on Pucks with
heads fitted to few labels; `multigrid_pictures` and `pucks_pictures`, how often the agent comes to where it is in a frame of another
episode; `held`, how well a factor keeps to a film's path while the others go their own ways.

Example: python scripts/measure_planning.py multigrid pucks --out docs/results/planning
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import flam_rl
from flam_rl.agents.goals import PictureGoal
from flam_rl.agents.planning import Planner, PlanningAlgorithm, PlanningConfig, search
from flam_rl.commands.tasks import make_task
from flam_rl.core.checkpoint import save_world
from flam_rl.core.holding import HeldPath, hold, seen
from flam_rl.core.threads import one_core
from flam_rl.core.world import World
from flam_rl.envs.decoded_env import DecodedVectorEnv
from flam_rl.envs.tasks.record import record_episodes, record_labels
from flam_rl.evaluation.policies import acting, score_policy, several, wilson
from flam_rl.evaluation.prediction import BEST_PSNR
from flam_rl.evaluation.truth import truths_of
from flam_rl.evaluation.validity import DrawsTiles, valid_frames
from flam_rl.grounding.adapter import fit_labels
from flam_rl.results import source, write_results
from flam_rl.types import Json, Scene

ALGORITHMS: tuple[PlanningAlgorithm, ...] = get_args(PlanningAlgorithm)
CONFIG = PlanningConfig(compile=True)


def task_of(world: World) -> gym.Env:
    """The real task of a shipped world."""
    return make_task(world.info.task, world.info.task_kwargs)


def speed(args: argparse.Namespace) -> Json:
    """Decisions for one env in a second of processor time, which neighbours do not lengthen much, and a decision over as many plain steps of all rollouts as its horizon has, in turns."""
    world = flam_rl.load_world("multigrid")
    start = world.start(1)
    observation = world.observation(start.factors, world.context_code(start.context)).numpy()
    found: Json = {}
    for compiled in (False, True):
        config = replace(CONFIG, compile=compiled)
        planner = Planner(world, "cem", config, seed=args.seed)
        plain = world.imagination(planner.controlled, events=True)
        state = plain.begin(start.factors.expand(config.rollouts, -1, -1))
        wanted = torch.zeros(config.rollouts, len(planner.controlled), world.latent_action_dim)

        def steps() -> None:
            with torch.inference_mode():
                for _ in range(config.horizon):  # noqa: B023, it runs at once
                    plain.step(state, wanted)  # noqa: B023

        taken: dict[str, list[float]] = {"decision": [], "steps": []}
        for _ in range(7):
            for name, function in (("decision", lambda: planner.predict(observation)), ("steps", steps)):  # noqa: B023
                began = time.process_time()
                function()
                taken[name].append(time.process_time() - began)
        decision, plainly = (float(np.median(taken[name][2:])) for name in ("decision", "steps"))
        found["compiled" if compiled else "not compiled"] = {
            "decisions_per_processor_second": 1 / decision,
            "over_plain_steps": decision / plainly,
        }
    return found | {"planning": asdict(CONFIG)}


def multigrid(args: argparse.Namespace) -> Json:
    """Success of each algorithm, the shipped world's heads as its score."""
    return {"planning": asdict(CONFIG), "policies": _rewarded(flam_rl.load_world("multigrid"), args)}


def pucks(args: argparse.Namespace) -> Json:
    """The same on Pucks; the shipped world has no labels, so heads are fitted to some."""
    return {"planning": asdict(CONFIG), "policies": _rewarded(_labelled_pucks(args), args)}


def _labelled_pucks(args: argparse.Namespace) -> World:
    """Pucks with heads, which the shipped world has not: of the folder `labelled`, where they are kept."""
    if not args.labelled.exists():
        world = flam_rl.load_world("pucks")
        seed = int(np.random.SeedSequence(args.seed).generate_state(1)[0])
        labels = record_labels(task_of(world), args.labels, seed)
        world.labels, _ = fit_labels(world, labels, args.labels, args.seed)
        save_world(world, args.labelled)
    return flam_rl.load_world(args.labelled)


def _rewarded(world: World, args: argparse.Namespace) -> Json:
    decoded = DecodedVectorEnv(several(task_of(world), args.at_once), world)
    agents = {name: acting(Planner(world, name, CONFIG, seed=args.seed)) for name in args.algorithms}
    return _scores(decoded, agents, args)


def _scores(
    decoded: DecodedVectorEnv,
    agents: Mapping[PlanningAlgorithm, Callable[[np.ndarray], np.ndarray]],
    args: argparse.Namespace,
) -> Json:
    """The score of each agent, and of random actions of the task."""
    tasks = decoded.env
    tasks.action_space.seed(args.seed)
    scores = {
        name: score_policy(decoded, act, args.episodes, args.seed, name) for name, act in agents.items()
    }
    floor = score_policy(tasks, lambda seen: tasks.action_space.sample(), args.episodes, args.seed, "random")
    found = {str(name): asdict(score) for name, score in scores.items()} | {"random": asdict(floor)}
    for name, score in found.items():
        print(name, score, flush=True)
    return found


@one_core()
def simulator(args: argparse.Namespace) -> Json:
    """Planning on the true simulator: candidates are copies of the real task, the first ones take random actions."""
    task: Any = task_of(flam_rl.load_world("multigrid")).unwrapped
    generator = torch.Generator().manual_seed(args.seed)
    seeds = np.random.default_rng(args.seed).integers(2**31, size=args.simulated)
    actions, seconds, successes = int(task.action_space.n), [], 0

    def roll(count: int, plans: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        if plans is None:
            plans = torch.randint(actions, (1, count, CONFIG.horizon, 1), generator=generator)
        futures = torch.randint(2**31, (count,), generator=generator).tolist()
        played = zip(plans[0].flatten(1).tolist(), futures, strict=True)
        scores = [_simulated(task, plan, future) for plan, future in played]
        return plans, torch.tensor([scores])

    for seed in seeds:
        task.reset(seed=int(seed))
        kept, over, info = None, False, {}
        while not over:
            began = time.perf_counter()
            plan = search(roll, actions, "cem", CONFIG, generator, kept)
            seconds.append(time.perf_counter() - began)
            kept = torch.cat([plan[:, 1:], plan[:, -1:]], 1)
            _, _, terminated, truncated, info = task.step(int(plan[0, 0, 0]))
            over = terminated or truncated
        successes += bool(info["success"])
        print(f"{successes} of {seed}: {np.mean(seconds):.1f} s a decision", flush=True)
    return {
        "planning": asdict(CONFIG),
        "episodes": len(seeds),
        "success_rate": successes / len(seeds),
        "ci95": wilson(successes, len(seeds)),
        "seconds_per_decision": float(np.mean(seconds)),
    }


def _copied(task: Any) -> Any:
    """A copy of MultiGrid; of agents' states, which are views of one array, deepcopy keeps the numbers only."""
    from multigrid.core.agent import AgentState

    copied = copy.deepcopy(task)
    room, agents = copied._room, copied._room.agents
    room.agent_states = AgentState(len(agents))
    for agent in agents:
        agent.state = room.agent_states[agent.index]
        agent.state._view[...] = task._room.agents[agent.index].state._view
    return copied


def _simulated(task: Any, plan: list[int], future: int) -> float:
    """The discounted reward of a plan in a copy of the task, in which nothing is drawn as it will be: `future` steps later."""
    copied, total = _copied(task), 0.0
    copied.render = lambda: None
    copied.np_random.bit_generator.advance(future)
    for step, action in enumerate(plan):
        _, reward, terminated, truncated, _ = copied.step(action)
        total += CONFIG.gamma**step * reward
        if terminated or truncated:
            break
    return total


class Reach(gym.Wrapper):
    """A task in which the agent is to come to where a frame of another episode shows it.

    Args:
        near: pixels from there at which it has come; at reset it is farther away. steps: until truncation.

    Attributes:
        goal: that frame, uint8 `(H, W, 3)`.
    """

    def __init__(self, make: Callable[[], gym.Env], near: float, steps: int) -> None:
        super().__init__(make())
        self.shown, self.near, self.steps = make(), near, steps

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset the task, and draw a goal."""
        frame, info = self.env.reset(seed=seed, options=options)
        self.elapsed, rng, self.where = 0, np.random.default_rng(seed), info["truth"].centre[0]
        while self._came(info):
            self.goal, shown = self.shown.reset(seed=int(rng.integers(2**31)))
            self.where = shown["truth"].centre[0]
        return frame, info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step the task; reward, end and success are those of the picture."""
        frame, _, terminated, truncated, info = self.env.step(action)
        self.elapsed += 1
        info["success"] = came = self._came(info)
        return frame, float(came), came or terminated, truncated or self.elapsed >= self.steps, info

    def _came(self, info: dict[str, Any]) -> bool:
        return bool(np.linalg.norm(info["truth"].centre[0] - self.where) <= self.near)


def multigrid_pictures(args: argparse.Namespace) -> Json:
    """How often the agent comes within a cell of where a frame of another episode shows it."""
    return {"planning": asdict(CONFIG), **_reached(flam_rl.load_world("multigrid"), 8.0, 32, args)}


def pucks_pictures(args: argparse.Namespace) -> Json:
    """The same on Pucks, within 4 pixels."""
    return {"planning": asdict(CONFIG), **_reached(_labelled_pucks(args), 4.0, 64, args)}


def _reached(world: World, near: float, steps: int, args: argparse.Namespace) -> Json:
    """The shares of episodes in which agent 0 is `near` pixels from the goal or nearer within so many steps."""
    reach: Callable[[], gym.Env] = lambda: Reach(lambda: task_of(world), near, steps)  # noqa: E731
    tasks = SyncVectorEnv([reach] * args.at_once, autoreset_mode=AutoresetMode.DISABLED)
    decoded = DecodedVectorEnv(tasks, world)

    def aimed(planner: Planner) -> Callable[[np.ndarray], np.ndarray]:
        act = acting(planner)

        def aim_and_act(seen: np.ndarray) -> np.ndarray:
            planner.goal = PictureGoal.from_frames(world, np.stack(tasks.get_attr("goal")))
            return act(seen)

        return aim_and_act

    agents = {
        name: aimed(Planner(world, name, CONFIG, control="agent", seed=args.seed)) for name in args.algorithms
    }
    return {"near_pixels": near, "steps": steps, "policies": _scores(decoded, agents, args)}


def held(args: argparse.Namespace) -> Json:
    """How well a held factor keeps to a film's path, beside open loop, and how valid the others stay, beside free imagination."""
    return {name: _held(flam_rl.load_world(name), args) for name in ("multigrid", "pucks")}


@one_core()
@torch.inference_mode()
def _held(world: World, args: argparse.Namespace) -> Json:
    """Entity 0 is held from frame 8 of clips on, for 15 steps; the others go on in 16 ways."""
    start, steps, ways = 8, 15, 16
    task = task_of(world)
    generator = torch.Generator().manual_seed(args.seed)
    errors: dict[str, list[float]] = {"held": [], "open_loop": [], "last_frame": []}
    valid: dict[str, list[float]] = {"held": [], "free": []}
    clips = 0
    for episode in record_episodes(task, 10**9, args.seed):
        if len(episode.frames) <= start + steps:
            continue
        frames = episode.frames[: start + steps + 1]
        scene = seen(world, frames)
        told = truths_of([episode.entities])
        assert told is not None
        assert told[0].box is not None
        x0, y0, x1, y1 = told[0].box[:, 0].round().astype(int).T
        middle = torch.tensor([x0[start] + x1[start], y0[start] + y1[start]]) / 2
        centres = world.model.centres(scene.factors[start : start + 1])[0]
        factor = int((centres - middle).norm(dim=-1).argmin())
        now = Scene(scene.factors[start : start + 1].expand(ways, -1, -1), scene.context.expand(ways, -1))
        path = HeldPath.from_factors(world, scene.factors[start:], factor)
        rollouts = {
            "held": hold(world, {factor: path}, now, steps, generator),
            "free": hold(world, {}, now, steps, generator),
        }
        drawn = {
            name: world.draw(Scene(found.factors_BTKS[:, -1], found.context_BX)).numpy()
            for name, found in rollouts.items()
        }
        last = start + steps
        box = slice(y0[last], y1[last]), slice(x0[last], x1[last])
        shown = {
            "held": drawn["held"][0],
            "open_loop": world.predict(frames, start, steps)[-1],
            "last_frame": frames[start],
        }
        for name, frame in shown.items():
            apart = frame[box].astype(float) - frames[last][box]
            errors[name].append(float(np.square(apart).mean()))
        for name, found in rollouts.items():
            if isinstance(task.unwrapped, DrawsTiles):
                valid[name] += valid_frames(drawn[name], task.unwrapped.tiles()).tolist()
            else:
                valid[name] += _apart(world, found.factors_BTKS[:, -1]).tolist()
        clips += 1
        if clips == args.episodes:
            break
    return {
        "steps": steps,
        "clips": clips,
        "psnr_of_its_box": {name: _db(float(np.mean(each))) for name, each in errors.items()},
        "mean_db_of_its_box": {
            name: float(np.mean([_db(one) for one in each])) for name, each in errors.items()
        },
        "valid": {name: float(np.mean(all_)) for name, all_ in valid.items()},
    }


def _db(error: float) -> float:
    """PSNR of a mean squared error of grey levels."""
    return min(BEST_PSNR, float(10 * np.log10(255**2 / max(error, 1e-9))))


def _apart(world: World, factors_BKS: torch.Tensor) -> torch.Tensor:
    """Which scenes of pucks have all of them, no two nearer than the smallest pucks that touch, less a pixel."""
    centres = world.model.centres(factors_BKS)
    between = torch.cdist(centres, centres) + 1e3 * torch.eye(centres.shape[1])
    return (between.flatten(1).amin(1) > 6) & world.model.present(factors_BKS).all(1)


PARTS = {
    function.__name__: function
    for function in (speed, multigrid, simulator, pucks, multigrid_pictures, pucks_pictures, held)
}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=100, help="on the real task for each algorithm")
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=ALGORITHMS)
    parser.add_argument("--at-once", type=int, default=8, help="tasks side by side")
    parser.add_argument(
        "--simulated", type=int, default=20, help="episodes of planning on the true simulator"
    )
    parser.add_argument("--labels", type=int, default=1000, help="transitions for the heads of Pucks")
    parser.add_argument("--labelled", type=Path, default=Path("runs/pucks-labelled"), help="of that world")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    source()  # what runs from here on, whatever happens to the source tree meanwhile
    for part in args.parts:
        print(f"wrote {write_results(args.out / part, PARTS[part](args), args.seed)}")


if __name__ == "__main__":
    main()
