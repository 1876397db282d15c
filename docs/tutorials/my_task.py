"""Two balls in a box: the caller pushes the red one to the left or to the right, the blue one does what it likes."""

import gymnasium as gym
import numpy as np

SIZE, RADIUS, GOAL = 64, 6, 48
COLOURS = np.array([(230, 60, 60), (60, 120, 240)], float)


class Balls(gym.Env):
    """The red ball is to stay on the line. It observes its place and speed; the frame is only rendered."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-100, 100, (2,), np.float32)
    action_space = gym.spaces.Discrete(3)  # left, nothing, right

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.pixels = np.mgrid[:SIZE, :SIZE] + 0.5
        y, x = self.pixels
        self.floor = (90 + 25 * np.sin(x / 8) + 20 * np.cos(y / 6))[..., None] * (0.9, 1.0, 0.8)
        self.floor[:, GOAL] = 230

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(RADIUS, SIZE - RADIUS, 2)
        self.v, self.steps = np.zeros(2), 0
        return self.observe(), {}

    def step(self, action):
        pushes = np.array([action - 1, self.np_random.integers(-1, 2)])
        self.v = 0.85 * self.v + 0.5 * pushes
        bumped = (self.x + self.v).clip(RADIUS, SIZE - RADIUS)
        self.v, self.x = np.where(bumped == self.x + self.v, self.v, 0), bumped
        self.steps += 1
        return self.observe(), -abs(self.x[0] - GOAL) / SIZE, False, self.steps >= 50, {}

    def render(self):
        frame = self.floor
        for x, y, colour in zip(self.x, (20, 44), COLOURS, strict=True):
            away = np.hypot(self.pixels[0] - y, self.pixels[1] - x)
            frame = frame + np.clip(RADIUS + 0.5 - away, 0, 1)[..., None] * (colour - frame)
        return frame.round().astype(np.uint8)

    def observe(self):
        return np.float32([self.x[0], self.v[0]])


gym.register("Balls-v0", entry_point=Balls)
