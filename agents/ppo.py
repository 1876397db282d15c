"""PPO (Schulman et al. 2017, arXiv 1707.06347; Stable-Baselines3's) trained only inside FLAM-v0.

A policy that trains long enough in a learned world finds what the world gets wrong. Three things hold it
back: latent actions outside of the prior's mass cost reward, rewards and ends are those that all heads of the ensembles
agree on, and the checkpoint that is best by these is kept. The real task is not used.
"""

from __future__ import annotations

import io
import math
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import EventCallback, StopTrainingOnNoModelImprovement
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from torch import nn

from ..core.codes import PLAUSIBLE
from ..core.heads import DenseHead, EventHead
from ..core.threads import one_core
from ..core.weights import check_shapes, shapes_of
from ..core.world import World
from ..envs.sb3 import make_sb3_vec_env
from ..files import written_whole
from ..progress import progress
from ..training.checkpoints import Checkpoint, Checkpoints
from ..types import check_ranges
from .factors_extractor import FactorsExtractor
from .ppo_state import Progress, Worlds


@dataclass(frozen=True)
class ImaginationConfig:
    """Settings of PPO in imagination."""

    steps: int = 600_000
    """Imagined steps, of all worlds together."""
    num_envs: int = 128
    """Worlds imagined at once."""
    rollout: int = 32
    """Steps of each world between two updates."""
    batch: int = 1024
    epochs: int = 4
    learning_rate: float = 1e-3
    gamma: float = 0.95
    """Discount of a step."""
    entropy: float = 1e-3
    """Weight of the policy's entropy."""
    prior_weight: float = 0.02
    """Reward lost for each nat by which a latent action is less likely than plausible."""
    checks: int = 12
    """How often the policy is judged on the way, the best being kept."""
    patience: int = 4
    """Stop after so many checks without a better one."""

    def __post_init__(self) -> None:
        most = (1, 10**12)
        check_ranges(self, steps=most, num_envs=most, rollout=most, batch=(2, 10**12), epochs=most)
        check_ranges(self, checks=most, patience=most, learning_rate=(1e-12, 10), gamma=(0, 1))
        check_ranges(self, entropy=(0, 1e6), prior_weight=(0, 1e6))


def save_policy(model: PPO, path: Path) -> None:
    """Write a policy as Stable-Baselines3 does, whole or not at all; its folder is made if need be."""
    content = io.BytesIO()
    model.save(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as scratch:
        scratch.write_bytes(content.getbuffer())


class PriorPenalty(VecEnvWrapper):
    """Takes `weight` times the nats below `PLAUSIBLE` off the reward, 5 nats at most a step.

    Args:
        venv: of `make_sb3_vec_env`; the episode returns that it logs are the world's, before this.
    """

    def __init__(self, venv: VecEnvWrapper, weight: float) -> None:
        super().__init__(venv)
        self.core, self.weight = venv.core, weight

    def reset(self) -> VecEnvObs:
        """As `VecEnv.reset`."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """As `VecEnv.step_wait`, with the penalty taken from the reward."""
        observations, rewards, dones, infos = self.venv.step_wait()
        log_prior = self.core.log_prior_BC.sum(-1).cpu().numpy()
        short = np.clip(math.log(PLAUSIBLE) - log_prior, 0.0, 5.0)
        return observations, rewards - self.weight * short.astype(np.float32), dones, infos


@dataclass(frozen=True)
class Judgement:
    """How a policy does in imagination.

    Attributes:
        score: mean discounted reward that every head of the ensemble grants.
        success: share of episodes in which that is above 0.
        plausible: share of the latent actions that the prior finds plausible.
    """

    score: float
    success: float
    plausible: float

    @property
    def worth(self) -> float:
        """What the best policy has most of: the score, less the share of its size that was not plausible."""
        return self.score - abs(self.score) * (1 - self.plausible)


@torch.inference_mode()
def judge(model: BaseAlgorithm, world: World, gamma: float, seed: int, episodes: int = 256) -> Judgement:
    """The policy's own mean actions in `episodes` imagined episodes, pessimistically rewarded.

    An episode goes on until all heads of the ensembles agree that it is over: heads that call the border of a goal an end and
    not yet a success would otherwise end each of them there.

    Args:
        model: acts by the world's latent actions.
    """
    assert world.labels is not None
    reward, termination = world.labels.reward, world.labels.termination

    def policy(seen: torch.Tensor) -> torch.Tensor:
        actions, _ = model.predict(seen.cpu().numpy(), deterministic=True)
        return torch.from_numpy(actions).to(seen.device)

    generator = torch.Generator(world.device).manual_seed(seed)
    start = world.start(episodes, generator)
    controlled = world.moved_by_agents(world.labels.agents)
    found = world.imagine(policy, start, world.info.horizon, controlled, generator)
    entered = found.factors_BTKS[:, 1:].flatten(0, 1)
    granted = reward.agreed(entered).view(episodes, -1)
    ended = termination.agreed(entered).view(episodes, -1) != 0
    if isinstance(reward, EventHead):
        ended |= granted != 0  # an event is what an episode is for
    alive = ended.cumsum(1) - ended.long() == 0
    discount = gamma ** torch.arange(granted.shape[1], device=granted.device)
    score = (alive * granted * discount).sum(1)
    plausible = (found.log_prior_BTC.exp() >= PLAUSIBLE).all(-1)[alive]
    return Judgement(float(score.mean()), float((score > 0).float().mean()), float(plausible.float().mean()))


class KeepBest(EventCallback):
    """Judges the policy every so often, keeps the best weights, draws the bar; each judgement is the event. Before each rollout
    it keeps all that training goes on from.

    Attributes:
        best_mean_reward: of all judgements, as Stable-Baselines3's callbacks of such an event read it.
        ended: whether training has.
        checkpoint: where to keep it.
    """

    checkpoint: Checkpoint

    def __init__(self, world: World, config: ImaginationConfig, seed: int) -> None:
        super().__init__(StopTrainingOnNoModelImprovement(config.patience - 1))  # it stops after one more
        self.world, self.config, self.seed = world, config, seed
        self.best_mean_reward = -math.inf
        self.best: dict[str, torch.Tensor] = {}
        self.history: list[Judgement] = []
        self.improving = True
        self.ended = False
        self.next_check = config.steps / config.checks
        self.judged: dict[str, str] = {}

    def state_dict(self) -> dict[str, Any]:
        """How the policy was judged, and the best one."""
        assert isinstance(self.callback, StopTrainingOnNoModelImprovement)
        return {
            "best": self.best,
            "worth": self.best_mean_reward,
            "worth_before": float(self.callback.last_best_mean_reward),
            "not_better": self.callback.no_improvement_evals,
            "history": [astuple(found) for found in self.history],
            "next_check": self.next_check,
            "improving": self.improving,
            "ended": self.ended,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        assert isinstance(self.callback, StopTrainingOnNoModelImprovement)
        self.best, self.best_mean_reward = state["best"], state["worth"]
        self.callback.last_best_mean_reward = state["worth_before"]
        self.callback.no_improvement_evals = state["not_better"]
        self.history = [Judgement(*found) for found in state["history"]]
        self.next_check, self.improving, self.ended = state["next_check"], state["improving"], state["ended"]

    def _on_training_start(self) -> None:
        super()._on_training_start()
        done = self.model.num_timesteps
        self.bar = progress(total=self.config.steps, initial=done, desc="imagination", unit="step")

    def _on_step(self) -> bool:
        self.bar.update(self.training_env.num_envs)
        return self.improving

    def _on_rollout_start(self) -> None:
        if (loss := self.logger.name_to_value.get("train/loss")) is not None:
            self.bar.set_postfix(self.judged, loss=f"{loss:.3f}")
        if self.num_timesteps >= self.next_check:
            self.next_check += self.config.steps / self.config.checks
            self.check()
            self.improving = self._on_event()
        if self._rollouts:
            self.checkpoint.after(self._rollouts - 1)

    @property
    def _rollouts(self) -> int:
        return self.model.num_timesteps // (self.training_env.num_envs * self.config.rollout)

    def check(self) -> None:
        """Judge now."""
        found = judge(self.model, self.world, self.config.gamma, self.seed)
        self.history.append(found)
        if found.worth > self.best_mean_reward + 1e-3:
            self.best_mean_reward = found.worth
            self.best = {key: value.clone() for key, value in self.model.policy.state_dict().items()}
        self.logger.record("imagination/score", found.score)
        self.logger.record("imagination/success", found.success)
        self.logger.record("imagination/plausible", found.plausible)
        self.judged = {"success": f"{found.success:.2f}", "plausible": f"{found.plausible:.2f}"}
        self.bar.set_postfix(self.judged)

    def _on_training_end(self) -> None:
        if self.improving:
            self.check()
        self.bar.close()
        self.ended = True
        self.checkpoint.save(self._rollouts)


def make_ppo(
    env: VecEnv,
    config: ImaginationConfig,
    seed: int,
    own: tuple[int, ...],
    shape: tuple[int, int],
    log_dir: Path | None = None,
) -> PPO:
    """The policy and how it learns, in imagination as on a task itself.

    Args:
        own, shape: of `FactorsExtractor`.
    """
    return PPO(
        "MlpPolicy",
        env,
        n_steps=config.rollout,
        batch_size=config.batch,
        n_epochs=config.epochs,
        learning_rate=config.learning_rate,
        gamma=config.gamma,
        ent_coef=config.entropy,
        policy_kwargs={
            "net_arch": [128, 128],
            "activation_fn": nn.ReLU,
            "log_std_init": 0.0,
            "features_extractor_class": FactorsExtractor,
            "features_extractor_kwargs": {"own": own, "shape": shape},
        },
        tensorboard_log=str(log_dir) if log_dir else None,
        seed=seed,
        device="cpu",
    )


@one_core()
def train_in_imagination(
    world: World,
    config: ImaginationConfig = ImaginationConfig(),
    seed: int = 0,
    log_dir: Path | None = None,
    folder: Path | None = None,
) -> tuple[PPO, list[Judgement]]:
    """PPO for the agent's factor, with the best weights by imagination's own judgement.

    Args:
        folder: where to keep, before each rollout, what an interrupted training goes on from as if it had not been.

    Returns:
        the model, its observation and action space those of FLAM-v0 with `control="agent"`, and every
        judgement on the way.

    Raises:
        ValueError: the world has no labels; or as `Checkpoint.resume`.
    """
    worlds = make_sb3_vec_env(num_envs=config.num_envs, world=world, control="agent", sure=True)
    worlds.seed(seed)
    env: VecEnvWrapper = worlds
    assert world.labels is not None
    if isinstance(world.labels.reward, DenseHead):
        env = VecNormalize(env, norm_obs=False, gamma=config.gamma)  # dense rewards may be of any size
    penalized, own = PriorPenalty(env, config.prior_weight), world.labels.agents.factors
    model = make_ppo(penalized, config, seed, own, (world.factors, world.factor_dim), log_dir)
    callback = KeepBest(world, config, seed + 1)
    callback.checkpoint = Checkpoints(folder, every=1).for_loop(
        "imagination",
        -(-config.steps // (config.num_envs * config.rollout)),
        policy=model.policy,
        optimizer=model.policy.optimizer,
        worlds=Worlds(model, worlds.core),
        progress=Progress(model),
        judged=callback,
    )
    done = callback.checkpoint.resume()
    if not callback.ended:
        left = config.steps - model.num_timesteps
        model.learn(left, callback, tb_log_name="imagination", reset_num_timesteps=not done)
    check_shapes(shapes_of(model.policy.state_dict()), shapes_of(callback.best))
    model.policy.load_state_dict(callback.best)
    return model, callback.history
