"""One visitor's imagined world: its state, what can be undone, what is recorded."""

from __future__ import annotations

import json
import struct
from collections import deque
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch

from ..core.stepping import Imagined, Taken
from ..envs.seeds import start_of
from ..types import Json, Scene
from . import messages as said
from .beside import Beside
from .film import Film
from .stage import Stage

UNDONE = 100
"""Steps that can be undone."""
FPS = 10
"""Steps a second at first."""
PATIENCE = 12
"""Steps for which a factor rests after its keys were let go; then the prior acts for it. A world learned from films in which nobody
stands still for long does not know for long what that looks like."""
OWNS = 0.5
"""A pixel is a factor's of which it draws more than this share."""


class Moment(NamedTuple):
    """A state, and what led to it, nothing at a start.

    Attributes:
        acting: the latent actions for which the visitor acted. actions: each agent's real action, in words.
    """

    now: Imagined
    taken: Taken | None = None
    acting: tuple[int, ...] = ()
    actions: tuple[str, ...] = ()


class Step(NamedTuple):
    """What the visitor did in a step: the latent actions for which they acted, and pairs of one and of a key that was held."""

    acting: tuple[int, ...]
    held: tuple[tuple[int, int], ...]


class Visit:
    """What others do in step t is drawn from seed and t, so that after an undo another key shows what would have been.

    Attributes:
        controlled: the latent actions that are the visitor's, in the order in which keys are given out. held: pairs of one and of a
            key. running, fps: whether the world goes on by itself, and how fast. film: what is recorded. shot: what was.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.controlled: tuple[int, ...] = stage.agents or (0,)
        self.held: tuple[tuple[int, int], ...] = ()
        self.running, self.fps = True, FPS
        self.film: Film | None = None
        self.shot: Film | None = None
        self._beside: Beside | None = None
        self._replay: Iterator[Step] | None = None
        self.restart(0)

    def obey(self, message: said.Message) -> Json | None:
        """Do what a message says; returns the answer for the page, beside the view.

        Raises:
            ValueError: it cannot be.
        """
        ended = None
        if self.film is not None and isinstance(message, said.Restart | said.Task | said.Replay):
            ended = self.end_film()  # a film is of one start
        match message:
            case said.Hold():
                self.held = tuple(message.keys)
                if self.held:
                    self._replay = None  # the visitor takes over
            case said.Control():
                self._control(message.indices)
            case said.Run():
                self.running = message.on
            case said.Step():
                self.running = False
                self.step()
            case said.Undo():
                self.running = False
                self.undo(message.steps)
            case said.Restart():
                self.restart(message.seed)
            case said.Speed():
                self.fps = message.fps
            case said.Task():
                self._with_task(message.on)
            case said.Record(on=True):
                self.film = Film(self.fps)
                self._shoot()
            case said.Record():
                return self.end_film()
            case said.Link():
                return {"kind": "link", "link": self.link()}
            case said.Replay():
                self.replay(message.link)
        return ended

    def restart(self, seed: int) -> None:
        """Begin at the start of this seed: the real task's, where it runs beside."""
        self.seed = seed
        if self._beside is not None:
            self._beside.begin(seed)
            self._begin(self._beside.scene)
        else:
            row = start_of(seed, len(self.stage.starts.factors))
            self._begin(self.stage.starts.select(slice(row, row + 1)))
        self.linkable = True

    def restart_from(self, frames_THWC: np.ndarray) -> None:
        """Begin at the last frame of a clip uint8 `(T, H, W, 3)`.

        Raises:
            ValueError: the world cannot see it.
        """
        world = self.stage.world
        clip = torch.tensor(frames_THWC, device=world.device)
        seen = world.see(clip[None])
        factors = seen.factors if world.labels is None else world.labels.agents.in_place(seen.factors)
        if self._beside is not None:
            self._beside.close()
            self._beside = None
        self._begin(Scene(factors[:, -1], seen.context))
        self.linkable = False

    def _begin(self, scene: Scene) -> None:
        self.context, self.steps, self.reward = scene.context, 0, 0.0
        begun = self.stage.stepper(self.controlled).begin(scene.factors)
        self._moments = deque([Moment(begun)], UNDONE + 1)
        self._log: list[Step] = []
        self._rested: dict[int, int] = {}
        self._replay = None

    @property
    def scene(self) -> Scene:
        """What is shown, one row."""
        return Scene(self._moments[-1].now.factors_BKS, self.context)

    def step(self) -> None:
        """One step, under the keys that are held, or those of the link that is replayed."""
        done = Step(self._acting(), self.held) if self._replay is None else next(self._replay, None)
        if done is None:
            self._replay, self.running = None, False
            return
        stage, now = self.stage, self._moments[-1].now
        wanted = [self._wanted(now.factors_BKS, index, done) for index in done.acting]
        latent = torch.stack(wanted, 1) if wanted else None
        state = np.random.SeedSequence([self.seed, self.steps]).generate_state(1, np.uint64)[0]
        generator = torch.Generator(stage.world.device).manual_seed(int(state) >> 1)
        following, taken = stage.stepper(done.acting).step(now, latent, generator)
        if self._beside is not None and stage.agents:
            real = self._beside.scene.factors
            acted = [
                self._wanted(real, agent, done)
                if agent in done.acting
                else taken.latent_actions_BLA[:, agent]
                for agent in stage.agents
            ]
            self._beside.step(torch.cat(acted, 1)[0])
        self._moments.append(Moment(following, taken, done.acting, self._real_actions(now, taken)))
        self.linkable = self.linkable and self.steps < said.MOST_STEPS
        if self.linkable:
            self._log[self.steps :] = [done]
        self.steps += 1
        self._shoot()
        if bool(taken.ended_B[0]) and self._replay is None:
            self.running = False

    def _acting(self) -> tuple[int, ...]:
        """The latent actions for which the visitor acts now: those whose keys are held, or were not long ago."""
        pressed = {index for index, _ in self.held}
        for index in self.controlled:
            self._rested[index] = 0 if index in pressed else self._rested.get(index, PATIENCE) + 1
        return tuple(sorted(index for index in self.controlled if self._rested[index] <= PATIENCE))

    def _wanted(self, factors_BKS: torch.Tensor, index: int, done: Step) -> torch.Tensor:
        held = [key for at, key in done.held if at == index and key < len(self.stage.keys.by_action[index])]
        return self.stage.keys.latent_action(factors_BKS, index, held)

    def _real_actions(self, before: Imagined, taken: Taken) -> tuple[str, ...]:
        labels, agents = self.stage.world.labels, self.stage.agents
        if labels is None or not agents:
            return ()
        latent = taken.latent_actions_BLA[:, list(agents)]
        return tuple(self.stage.action_names(labels.agents.real(before.factors_BKS, latent)[0]))

    def undo(self, steps: int) -> None:
        """Go back, as far as is remembered."""
        back = min(steps, len(self._moments) - 1)
        for _ in range(back):
            self._moments.pop()
        self.steps -= back
        self._replay = None
        if self.film is not None:
            self.film.back_to(self.steps)
        if self._beside is not None:
            self._beside.back_to(self.steps)

    def _control(self, indices: list[int]) -> None:
        count = self.stage.world.latent_actions
        if len(set(indices)) < len(indices) or not set(indices) <= set(range(count)):
            raise ValueError(f"control is {indices}; allowed are different numbers 0 to {count - 1}")
        self.controlled, self._replay = tuple(indices), None

    def _with_task(self, on: bool) -> None:
        if on and self.stage.make_task is None:
            raise ValueError("this world has no real task here")
        if self._beside is not None:
            self._beside.close()
        self._beside = Beside(self.stage) if on else None
        self.restart(self.seed)

    def link(self) -> str:
        """What replays all since the start.

        Raises:
            ValueError: there are too many steps, or it began with what was dropped on the page.
        """
        if not self.linkable:
            raise ValueError(
                f"a link replays up to {said.MOST_STEPS} steps from one of the world's own starts; begin anew for one"
            )
        runs = [(step, len(list(group))) for step, group in groupby(self._log[: self.steps])]
        inputs = [
            said.Inputs(steps=steps, indices=list(step.acting), keys=list(step.held)) for step, steps in runs
        ]
        task = self._beside is not None
        return said.write_link(
            said.Recording(world=self.stage.fingerprint, seed=self.seed, task=task, inputs=inputs)
        )

    def replay(self, link: str) -> None:
        """Begin anew, and do again what a link says.

        Raises:
            ValueError: it is damaged, or of another world.
        """
        recording = said.read_link(link)
        if recording.world != self.stage.fingerprint:
            raise ValueError("the link is of another world, or of another training of this one")
        count = self.stage.world.latent_actions
        for inputs in recording.inputs:
            if max([-1, *inputs.indices, *(index for index, _ in inputs.keys)]) >= count or len(
                set(inputs.indices)
            ) < len(inputs.indices):
                raise ValueError(f"the link controls {inputs.indices}; allowed are numbers 0 to {count - 1}")
        if recording.task != (self._beside is not None):
            self._with_task(recording.task)
        self.restart(recording.seed)
        self._replay = (
            Step(tuple(inputs.indices), tuple(inputs.keys))
            for inputs in recording.inputs
            for _ in range(inputs.steps)
        )
        self.running = True

    def _shoot(self) -> None:
        """Film what is shown now, if a film is recorded."""
        if self.film is None:
            return
        taken = self._moments[-1].taken
        frame = self.stage.world.draw(self.scene)[0].cpu().numpy()
        real = None if self._beside is None else self._beside.frame
        led = None if taken is None else taken.latent_actions_BLA[0].cpu().numpy()
        self.film.add(self.steps, frame, real, led)

    def end_film(self) -> Json:
        """Keep what was recorded as `shot`; returns the answer for the page.

        Raises:
            ValueError: nothing was recorded.
        """
        film, self.film = self.film, None
        if film is None or not film.shots:
            raise ValueError("nothing was recorded")
        link = self.link() if self.linkable else ""
        film.facts = {
            "world": self.stage.name,
            "fingerprint": self.stage.fingerprint,
            "seed": self.seed,
            "link": link,
        }
        self.shot = film
        return {"kind": "film", "frames": len(film.shots), "link": link}

    def close(self) -> None:
        """Give back what the real task holds."""
        if self._beside is not None:
            self._beside.close()

    def view(self) -> bytes:
        """What the page shows: length of the JSON that follows, little-endian in 4 bytes; that JSON; the frame, H x W x 3 bytes; the
        factor that each pixel is of, H x W bytes, 255 for none; and the real frame, where there is one."""
        world, scene = self.stage.world, self.scene
        moment = self._moments[-1]
        frame = world.draw(scene)[0].cpu().numpy()
        shares = world.shares(scene)[0]
        owner = np.full(shares.shape[1:], 255, np.uint8)
        for factor, own in enumerate((shares > OWNS).cpu().numpy()):
            owner[own] = factor
        real = None if self._beside is None else self._beside.frame
        facts = self._facts(moment) | self._places(scene)
        text = json.dumps(facts, separators=(",", ":")).encode()
        parts = [struct.pack("<I", len(text)), text, frame.tobytes(), owner.tobytes()]
        return b"".join(parts + ([] if real is None else [np.ascontiguousarray(real).tobytes()]))

    def _places(self, scene: Scene) -> Json:
        """Which factors are there, and where."""
        try:
            found = self.stage.world.model.entities_of(scene._replace(context=scene.context[0]))
        except ValueError:  # one factor for the whole scene
            return {"presence": [True] * self.stage.world.factors, "boxes": [None] * self.stage.world.factors}
        boxes = [
            [round(float(side), 1) for side in box] if there else None
            for there, box in zip(found.presence[0], found.box[0], strict=True)
        ]
        return {"presence": found.presence[0].tolist(), "boxes": boxes}

    def _facts(self, moment: Moment) -> Json:
        labels, taken = self.stage.world.labels, moment.taken
        facts: Json = {
            "step": self.steps,
            "seed": self.seed,
            "running": self.running,
            "fps": self.fps,
            "controlled": self.controlled,
            "acting": moment.acting,
            "held": self.held,
            "undo": len(self._moments) - 1,
            "replaying": self._replay is not None,
            "recording": None if self.film is None else len(self.film.shots),
            "actions": moment.actions,
            "ended": taken is not None and bool(taken.ended_B[0]),
            "latent": [],
            "likelihood": {},
        }
        if taken is not None:
            facts["latent"] = [[round(v, 3) for v in row] for row in taken.latent_actions_BLA[0].tolist()]
            facts["likelihood"] = dict(zip(moment.acting, taken.log_prior_BC[0].exp().tolist(), strict=True))
        if labels is not None:
            reward, end = labels.judge(moment.now.factors_BKS)
            facts |= {"reward": float(reward), "end": float(end)}
        if self._beside is not None:
            facts["task"] = {"reward": self._beside.reward, "ended": self._beside.ended}
        return facts
