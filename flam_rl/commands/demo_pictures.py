"""Pictures of `flam-rl demo`: the agent at work, and how the policies do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import matplotlib.pyplot as plt
import numpy as np
import torch
from stable_baselines3 import PPO

from ..agents.ppo import Judgement
from ..core.world import World
from ..envs.decoded_env import DecodedEnv
from ..evaluation.pictures import enlarge, factor_colors, figure_to_image, mask_picture
from ..evaluation.policies import PolicyScore
from ..types import Scene


@torch.inference_mode()
def rollout_frames(
    world: World, decoded: DecodedEnv, model: PPO, seed: int, episodes: int = 4
) -> list[np.ndarray]:
    """Frames of a GIF: the agent on the real task | in imagination from the same frame | the factors' masks."""
    assert world.labels is not None
    frames: list[np.ndarray] = []
    task: Any = decoded.env
    controlled = world.moved_by_agents(decoded.agents)
    imagination = world.imagination(controlled)
    colors = factor_colors(world, world.starts().select(slice(None, None, 16)))  # the same in every frame
    for index in range(episodes):
        observation, _ = decoded.reset(seed=seed + index)
        imagined_steps = 0
        state, context = imagination.begin(decoded.scene.factors), decoded.scene.context
        code = world.context_code(context)
        generator = torch.Generator().manual_seed(seed + index)
        done = finished = False
        real = task.render()
        while not (done and finished):
            factors = state.factors_BKS
            scene = Scene(factors, context)
            imagined = world.draw(scene)[0].numpy()
            frames.append(_side_by_side([real, imagined, mask_picture(world, scene, colors)[0]]))
            if not done:
                action = model.predict(observation, deterministic=True)[0]
                observation, _, terminated, truncated, _ = decoded.step(action)
                real = task.render()
                done = terminated or truncated
            if not finished:
                seen = world.observation(factors, code).numpy()
                wanted = torch.as_tensor(model.predict(seen, deterministic=True)[0])
                wanted = wanted.unflatten(1, (len(controlled), -1))
                state, _ = imagination.step(state, wanted, generator)
                imagined_steps += 1
                ended = bool(world.labels.termination(state.factors_BKS) > 0.5)
                finished = ended or imagined_steps == world.info.horizon
        frames += frames[-1:] * 4
    return frames


def _side_by_side(images: list[np.ndarray], gap: int = 8) -> np.ndarray:
    large = [enlarge(image, 3) for image in images]
    between = np.full((large[0].shape[0], gap, 3), 255, np.uint8)
    return np.concatenate([large[0], between, large[1], between, large[2]], 1)


def write_plot(path: Path, scores: dict[str, PolicyScore], history: list[Judgement]) -> None:
    """Success of each policy, or its return on a task without, and what was seen during training in imagination."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    succeeds = all(score.success_rate is not None for score in scores.values())
    for index, (name, score) in enumerate(scores.items()):
        value, interval = score.mean_return, score.return_ci95
        if succeeds:
            value, interval = score.success_rate or 0.0, score.ci95
        low, high = interval or (value, value)
        left.barh(
            index,
            value,
            xerr=np.maximum([[value - low], [high - value]], 0),
            color="tab:blue" if "imagination" in name else "silver",
            capsize=3,
        )
    left.set_yticks(range(len(scores)), list(scores))
    left.invert_yaxis()
    if succeeds:
        left.set_xlim(0, 1.05)
    left.set_xlabel(f"{'success' if succeeds else 'return'} on the real task, 95% interval")
    checks = np.arange(1, len(history) + 1)
    right.plot(checks, [found.success for found in history], label="imagined success, pessimistic")
    right.plot(checks, [found.plausible for found in history], label="plausible latent actions")
    right.set_ylim(0, 1.05)
    right.set_xlabel("check during training in imagination")
    right.legend()
    imageio.imwrite(path, figure_to_image(figure))
