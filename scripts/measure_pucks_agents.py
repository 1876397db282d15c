"""How an agent that learned in imagination from few labels does on Pucks, beside the same PPO on true states.

Example: python scripts/measure_pucks_agents.py --world pucks --out runs/pucks-agents
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv

import flam_rl
from flam_rl.agents.behavior_cloning import BehaviorCloning
from flam_rl.agents.ppo import ImaginationConfig, make_ppo, save_policy, train_in_imagination
from flam_rl.core.threads import one_core
from flam_rl.envs.decoded_env import DecodedVectorEnv
from flam_rl.envs.tasks.record import record_labels
from flam_rl.evaluation.policies import PolicyScore, score_policy, several
from flam_rl.grounding.adapter import fit_labels
from flam_rl.results import write_results
from flam_rl.types import Truth


class TrueStates(gym.Wrapper):
    """Pucks whose observations are the truth of it: presence, place, velocity and radius of each, the agent's first."""

    def __init__(self, task: gym.Env) -> None:
        super().__init__(task)
        unwrapped: Any = task.unwrapped
        self.size = np.array([unwrapped.width, unwrapped.height], np.float32)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (6 * unwrapped.rows,), np.float32)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset the task; the observation is its true state."""
        _, info = self.env.reset(**kwargs)
        return self._state(info["truth"]), info

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step the task; the observation is its true state."""
        _, reward, terminated, truncated, info = self.env.step(action)
        return self._state(info["truth"]), float(reward), terminated, truncated, info

    def _state(self, truth: Truth) -> np.ndarray:
        assert truth.centre is not None
        assert truth.velocity is not None
        assert truth.radius is not None
        numbers = [2 * truth.centre / self.size - 1, truth.velocity, truth.radius[:, None] / 5]
        return (
            np.nan_to_num(np.concatenate([np.asarray(truth.presence)[:, None], *numbers], 1))
            .ravel()
            .astype(np.float32)
        )


@one_core()
def train_on_states(task: gym.Env, steps: int, seed: int) -> Any:
    """The same PPO, on true states and true rewards."""
    config, spec = ImaginationConfig(), task.spec
    assert spec is not None
    env = DummyVecEnv([lambda: TrueStates(gym.make(spec)) for _ in range(config.num_envs)])
    env.seed(seed)
    rows = env.observation_space.shape[0] // 6
    return make_ppo(env, config, seed, (0,), (rows, 6)).learn(steps)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="pucks", help="name of a shipped world of Pucks, or a folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json and policies")
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of PPO on true states")
    parser.add_argument("--episodes", type=int, default=200, help="on the real task for each policy")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    world = flam_rl.load_world(args.world)
    task = gym.make(world.info.task, **world.info.task_kwargs)
    seeds = [int(s) for s in np.random.SeedSequence(args.seed).generate_state(3)]
    labelled = record_labels(task, args.labels, seeds[0])
    world.labels, adapter = fit_labels(world, labelled, args.labels, args.seed)
    print(adapter.summary, flush=True)
    imagined, history = train_in_imagination(world, seed=args.seed)
    save_policy(imagined, args.out / "imagination.zip")
    tasks, rng = several(task), np.random.default_rng(seeds[1])
    scores: dict[str, PolicyScore] = {}

    def score(name: str, env: Any, act: Any) -> None:
        scores[name] = found = score_policy(env, act, args.episodes, seeds[2], name)
        print(f"{name}: success {found.success_rate:.3f}, return {found.mean_return:.3f}", flush=True)

    score("random", tasks, lambda seen: rng.integers(labelled.action_space.count[0], size=len(seen)))
    score("expert", tasks, lambda seen: np.array(tasks.call("expert_action")))
    decoded = DecodedVectorEnv(several(task), world)
    score("imagination", decoded, lambda seen: imagined.predict(seen, deterministic=True)[0])
    cloned = BehaviorCloning.from_labels(labelled, args.seed)
    score("BC on the labels", tasks, lambda seen: cloned.predict(seen)[0])
    real = train_on_states(task, args.steps, args.seed)
    save_policy(real, args.out / "states.zip")
    states = gym.vector.SyncVectorEnv(
        [lambda: TrueStates(gym.make(world.info.task, **world.info.task_kwargs)) for _ in range(16)],
        autoreset_mode=gym.vector.AutoresetMode.DISABLED,
    )
    score("PPO on true states", states, lambda seen: real.predict(seen, deterministic=True)[0])
    rates = {name: found.success_rate or 0.0 for name, found in scores.items()}  # the task tells them
    base, best = rates["random"], rates["PPO on true states"]
    share = {name: (rate - base) / max(best - base, 1e-6) for name, rate in rates.items()}
    results = {
        "steps_on_states": args.steps,
        "labels": args.labels,
        "policies": {name: asdict(found) for name, found in scores.items()},
        "share_of_real_trained": share,
        "adapter": {"explained": adapter.explained, "accuracy": adapter.accuracy},
        "imagination": [asdict(found) for found in history],
    }
    print(f"share of what PPO on true states gains over random: {share}")
    print(f"wrote {write_results(args.out, results, args.seed)}")


if __name__ == "__main__":
    main()
