"""What keys do: the same in every state of a world.

An agent's keys are its task's own actions, where labels say how those are done in latent ones. Every other factor is moved
up, left, down and right in the frame: each action code has an effect, by how much further it takes a factor than other codes
would from the same state, on average over many; in a state the code is taken that is plausible there and whose effect is
nearest to that of the keys that are held, or to none when none is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..core.layers import first_least
from ..core.stepping import Stepper
from ..core.world import World
from ..envs.tasks.registry import find
from ..types import Scene

STATES, STEPS, DRAWS = 96, 3, 1
"""Start states from which effects are measured, steps after which, and how often each, for the others act by chance."""
TIE = 0.02
"""Effects that differ by less, in pixels, are the same: the first code is taken."""
SAME = 1e-4
"""Latent actions that differ by less are one action code."""
OFTEN = 0.06
"""A key stands for a code that is plausible in this share of states at least."""
LEAST_MASS = 2.0
"""Pixels that a factor draws at least where it is anywhere."""
SLOTS = ("up", "left", "down", "right")
_ARROWS = {"ArrowUp": "up", "ArrowLeft": "left", "ArrowDown": "down", "ArrowRight": "right"}
MOST_KEYS = 12
"""Keys of one factor, four of them directions."""


@dataclass(frozen=True)
class Key:
    """A key of one factor.

    Attributes:
        slot: where it is in a set of keys: a direction, or `1`, `2`, ... for those beside them.
        name: what it does, in words.
    """

    slot: str
    name: str


class Keys:
    """The keys of every latent action of a world, and the latent actions that they stand for.

    Attributes:
        by_action: the keys of each latent action; a key is held by its index there.
    """

    @torch.inference_mode()
    def __init__(self, world: World) -> None:
        self.world = world
        self.codes_MA = _choices(world)
        self._effects, self._targets = _effects(world, self.codes_MA)
        moved = [Key(slot, slot) for slot in SLOTS]
        self.by_action: list[list[Key]] = [moved] * world.latent_actions
        self._agents = agents_of(world)
        self._actions: dict[int, list[int]] = {}
        """Of a latent action that moves an agent with an action of its own what each key is."""
        for agent, index in enumerate(self._agents):
            if named := _named_actions(world, agent):
                self.by_action[index] = [key for key, _ in named]
                self._actions[index] = [action for _, action in named]

    def latent_action(self, factors_BKS: torch.Tensor, index: int, held: Sequence[int]) -> torch.Tensor:
        """What latent action number `index` is `(1, A)` in one state `(1, K, S)` while these of its keys are held."""
        labels = self.world.labels
        if held and index in self._actions and labels is not None:
            agent = self._agents.index(index)
            numbers = torch.tensor(labels.agents.actions.start, device=factors_BKS.device)
            numbers[list(labels.agents.numbers[agent])] = self._actions[index][held[0]]
            action = numbers.view(1, *labels.agents.actions.shape)
            return labels.agents.latent(factors_BKS, action)[:, agent]
        count = len(self.codes_MA)
        kept = self.world.snap(factors_BKS.expand(count, -1, -1), index, self.codes_MA)
        plausible = (kept - self.codes_MA).abs().amax(-1) < SAME
        directions = [SLOTS.index(self.by_action[index][key].slot) for key in held]
        target = self._targets[index, directions].sum(0)
        away = (self._effects[index] - target).norm(dim=-1)
        chosen = first_least(away.masked_fill(~plausible, torch.inf), TIE)
        return self.codes_MA[chosen][None]


def agents_of(world: World) -> tuple[int, ...]:
    """The latent action that moves each of the task's agents; none where labels tell of none, or one latent action moves several."""
    if world.labels is None:
        return ()
    moved = world.moved_by_agents(world.labels.agents)
    return tuple(moved) if len(moved) == len(world.labels.agents) else ()


def _choices(world: World) -> torch.Tensor:
    """The action codes `(M, A)`; in a model without codes, latent actions of two standard deviations along each axis."""
    codes = world.model.action_codes
    if codes is not None:
        return codes
    axes = 2 * torch.eye(world.latent_action_dim, device=world.device)
    return torch.cat([axes, -axes, torch.zeros_like(axes[:1])])


def _named_actions(world: World, agent: int) -> list[tuple[Key, int]]:
    """The keys of an agent's own actions with the action of each; none where they are not single whole numbers, or too many."""
    assert world.labels is not None
    agents = world.labels.agents
    actions = agents.actions.part(agents.numbers[agent])
    if actions.kind != "discrete" or actions.size != 1 or actions.count[0] > MOST_KEYS:
        return []
    record = find(world.info.task)
    names = record.actions if record is not None and len(record.actions) == actions.count[0] else ()
    slots = {
        number: _ARROWS[key] for key, number in (record.keys if record else {}).items() if key in _ARROWS
    }
    others = iter(range(1, MOST_KEYS + 1))
    numbers = range(actions.start[0], actions.start[0] + actions.count[0])
    return [
        (
            Key(
                slots.get(number, "") or str(next(others)),
                names[number - actions.start[0]] if names else f"action {number}",
            ),
            number,
        )
        for number in numbers
    ]


def _effects(world: World, codes_MA: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each latent action the effects of codes, pixels right and down `(L, M, 2)`, infinite for codes that are never plausible;
    and the effects that its four directions aim at `(L, 4, 2)`."""
    starts = world.starts()
    scene = starts.select(torch.linspace(0, len(starts.factors) - 1, STATES).long().to(world.device))
    prior = world.imagination()
    found = [_effects_of(world, prior, scene, codes_MA, index) for index in range(world.latent_actions)]
    effects, targets = zip(*found, strict=True)
    return torch.stack(effects), torch.stack(targets)


def _effects_of(
    world: World, prior: Stepper, scene: Scene, codes_MA: torch.Tensor, index: int
) -> tuple[torch.Tensor, torch.Tensor]:
    states, count = len(scene.factors), len(codes_MA)
    state = torch.arange(states, device=world.device).repeat_interleave(count)
    code = torch.arange(count, device=world.device).repeat(states)
    kept = world.snap(scene.factors[state], index, codes_MA[code])
    plausible = ((kept - codes_MA[code]).abs().amax(-1) < SAME).nonzero()[:, 0]
    state, code = state[plausible].repeat(DRAWS), code[plausible].repeat(DRAWS)
    generator = torch.Generator(world.device).manual_seed(0)
    stepper = world.imagination([index])
    now, _ = stepper.step(stepper.begin(scene.factors[state]), codes_MA[code][:, None], generator)
    for _ in range(STEPS - 1):
        now, _ = prior.step(now, None, generator)
    before, there = (part[state] for part in _centre(world, scene, index))
    after, still = _centre(world, Scene(now.factors_BKS, scene.context[state]), index)
    moved, counted = after - before, (there & still).float()
    # The mean by state, of which more than by chance or by what a code is plausible after is the code's own.
    sums = torch.zeros(states, 3, device=world.device).index_add_(
        0, state, torch.cat([moved * counted[:, None], counted[:, None]], -1)
    )
    further = moved - (sums[:, :2] / sums[:, 2:].clamp_min(1))[state]
    total = torch.zeros(count, 3, device=world.device).index_add_(
        0, code, torch.cat([further * counted[:, None], counted[:, None]], -1)
    )
    effects, times = total[:, :2] / total[:, 2:].clamp_min(1), total[:, 2]
    towards = torch.tensor([[0.0, -1.0], [-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], device=world.device)
    score = effects @ towards.T - (effects @ towards.flip(-1).T).abs()
    aimed = score.masked_fill((times < OFTEN * states * DRAWS)[:, None], -torch.inf)
    best = torch.stack([first_least(-column, TIE) for column in aimed.T])
    return effects.masked_fill((times == 0)[:, None], torch.inf), effects[best]


def _centre(world: World, scene: Scene, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where what a latent action moves is drawn, float `(B, 2)` x and y in pixels, and whether it is, bool `(B,)`."""
    rows = []
    for some in range(0, len(scene.factors), 256):  # a share of each pixel for each factor is much at once
        shares = world.shares(scene.select(slice(some, some + 256)))
        own = shares[:, index] if world.latent_actions > 1 else shares.sum(1)
        height, width = own.shape[1:]
        x = own.sum(1) @ torch.arange(width, dtype=own.dtype, device=own.device)
        y = own.sum(2) @ torch.arange(height, dtype=own.dtype, device=own.device)
        rows.append(torch.stack([x, y, own.sum((1, 2))], -1))
    x, y, mass = torch.cat(rows).unbind(-1)
    return torch.stack([x, y], -1) / mass.clamp_min(1e-6)[:, None], mass >= LEAST_MASS
