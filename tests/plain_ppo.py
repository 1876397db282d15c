"""PPO (Schulman et al. 2017, arXiv 1707.06347) in one file, knowing nothing but gymnasium's vector API.

For tests: any agent written for gymnasium trains in FLAM-v0 as it stands.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Normal


class ActorCritic(nn.Module):
    def __init__(self, observation: int, action: int) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(observation, 128), nn.ReLU(), nn.Linear(128, action))
        self.critic = nn.Sequential(nn.Linear(observation, 128), nn.ReLU(), nn.Linear(128, 1))
        self.log_std = nn.Parameter(torch.zeros(action))

    def forward(self, observations: torch.Tensor) -> tuple[Normal, torch.Tensor]:
        return Normal(self.actor(observations), self.log_std.exp()), self.critic(observations).squeeze(-1)


def train(
    env: gym.vector.VectorEnv,
    steps: int,
    seed: int,
    rollout: int = 32,
    gamma: float = 0.95,
    lam: float = 0.95,
) -> list[float]:
    """Train on a next-step autoreset vector env; returns the mean reward of a step, a rollout each."""
    torch.manual_seed(seed)
    num_envs = env.num_envs
    net = ActorCritic(env.single_observation_space.shape[0], env.single_action_space.shape[0])
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    observation, _ = env.reset(seed=seed)
    done = np.zeros(num_envs, bool)
    history = []
    for _ in range(steps // (rollout * num_envs)):
        rows = []
        for _ in range(rollout):
            with torch.no_grad():
                seen = torch.as_tensor(observation)
                policy, value = net(seen)
                action = policy.sample()
            observation, reward, terminated, truncated, _ = env.step(action.numpy())
            reset, done = done, terminated | truncated  # the step after an end only resets
            rows.append(
                (seen, action, policy.log_prob(action).sum(-1), value, reward, terminated, reset, done)
            )
        with torch.no_grad():
            following = net(torch.as_tensor(observation))[1]
        seen, action, log_prob, value, reward, terminated, reset, ended = (
            torch.stack([torch.as_tensor(row[i]) for row in rows]) for i in range(8)
        )
        advantage = torch.zeros(rollout, num_envs)
        running = torch.zeros(num_envs)
        for t in reversed(range(rollout)):
            after = following if t == rollout - 1 else value[t + 1]
            error = reward[t].float() + gamma * after * ~terminated[t] - value[t]
            running = error + gamma * lam * ~ended[t] * running
            advantage[t] = running
        history.append(float(reward[~reset].mean()))
        keep = (~reset).flatten()
        data = [x.flatten(0, 1)[keep] for x in (seen, action, log_prob, advantage, advantage + value)]
        for _ in range(4):
            for index in torch.randperm(len(data[0])).split(512):
                s, a, old, adv, target = (x[index] for x in data)
                policy, predicted = net(s)
                ratio = (policy.log_prob(a).sum(-1) - old).exp()
                adv = (adv - adv.mean()) / (adv.std() + 1e-8)
                surrogate = torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean()
                loss = -surrogate + 0.5 * (predicted - target).square().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(net.parameters(), 0.5)
                optimizer.step()
    return history
