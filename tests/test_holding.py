"""Factors held on a path while the prior moves the others, and the command that films it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from analytic import CODES, SIDE, PointsTask, pixels_of, points_world

import flam_rl
from flam_rl.cli import run
from flam_rl.core.holding import HeldPath, hold, seen
from flam_rl.core.world import World


@pytest.fixture
def world() -> World:
    return points_world()


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    """Frames of the task under random actions."""
    task = PointsTask(max_steps=40)
    rng = np.random.default_rng(0)
    frames = [task.reset(seed=0)[0]]
    for _ in range(20):
        frames.append(task.step(rng.integers(5))[0])
    return np.stack(frames)


def test_held_factors_keep_to_their_path_and_the_others_go_their_own_ways(
    world: World, film: np.ndarray
) -> None:
    scene = seen(world, film)
    paths = {factor: HeldPath.from_factors(world, scene.factors, factor) for factor in (0, 2)}
    start = world.starts().select(slice(200))
    rollout = hold(world, paths, start, 20, torch.Generator().manual_seed(0))
    assert rollout.factors_BTKS.shape == (200, 21, 3, 2)
    for factor in (0, 2):
        assert torch.equal(
            rollout.factors_BTKS[:, :, factor], scene.factors[None, :, factor].expand(200, -1, -1)
        )
    assert torch.equal(rollout.factors_BTKS[:, 0, 1], start.factors[:, 1])
    free = pixels_of(rollout.factors_BTKS[:, :, 1])
    inside = ((free > 0) & (free < SIDE - 1)).all(-1)[:, :-1]
    step = free.diff(dim=1)[inside].numpy()
    assert np.allclose([(step == code).all(1).mean() for code in CODES], 0.2, atol=0.03)
    taken = pixels_of(scene.factors[:, 0]).diff(dim=0)
    assert torch.allclose(rollout.latent_actions_BTLA[:, :, 0], taken.float(), atol=1e-6)


def test_a_path_of_latent_actions_is_taken_from_wherever_the_factor_is(world: World) -> None:
    right = torch.tensor([[1.2, 0.1]]).expand(5, 2)
    start = world.starts().select(slice(50))
    rollout = hold(world, {1: HeldPath(right)}, start, 4)
    column = pixels_of(rollout.factors_BTKS[:, :, 1, 0])
    expected = (column[:, :1] + torch.arange(5)).clamp(max=SIDE - 1)
    assert torch.equal(column, expected)
    assert rollout.rewards_BT.shape == (50, 4)


def test_nothing_held_is_free_imagination(world: World) -> None:
    start = world.starts().select(slice(20))
    one = hold(world, {}, start, 10, torch.Generator().manual_seed(3))
    other = world.imagine(lambda seen: seen, start, 10, (), torch.Generator().manual_seed(3))
    assert torch.equal(one.factors_BTKS, other.factors_BTKS)


def test_bad_paths_say_what_is_allowed(world: World, film: np.ndarray) -> None:
    scene, start = seen(world, film), world.starts().select(slice(1))
    path = HeldPath.from_factors(world, scene.factors, 0)
    with pytest.raises(ValueError, match="factor 3 is held, but is not there; allowed are 0 to 2"):
        hold(world, {3: path}, start, 5)
    with pytest.raises(ValueError, match="factor 7 is held, but is not there"):
        HeldPath.from_factors(world, scene.factors, 7)
    with pytest.raises(ValueError, match="path of factor 0 has 20 steps; allowed are 21 or more"):
        hold(world, {0: path}, start, 21)
    with pytest.raises(ValueError, match="latent actions of 3 numbers; allowed is 2"):
        hold(world, {1: HeldPath(torch.zeros(9, 3))}, start, 5)
    with pytest.raises(ValueError, match="a path of 1 frame has no step"):
        HeldPath.from_factors(world, scene.factors[:1], 0)
    with pytest.raises(
        ValueError, match=r"this world sees frames uint8 \(T, 16, 16, 3\); given uint8 \(21, 8"
    ):
        seen(world, film[:, :8])


def test_imagine_writes_a_film_that_can_be_held_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    av = pytest.importorskip("av")
    monkeypatch.setattr("flam_rl.commands.imagine.load_world", lambda name: world)
    first, second = tmp_path / "first", tmp_path / "second"
    run(["imagine", "--steps", "12", "--out", str(first)])
    run(
        [
            "imagine",
            "--steps",
            "12",
            "--hold",
            f"2={first / 'imagined.npz'}",
            "--seed",
            "1",
            "--out",
            str(second),
        ]
    )
    with np.load(first / "imagined.npz") as one, np.load(second / "imagined.npz") as two:
        assert one["frames"].shape == (13, SIDE, SIDE, 3)
        assert one["latent_actions"].shape == (12, 3, 2)
        assert one["rewards"].shape == (12,)
        assert np.array_equal(one["frames"][0], two["frames"][0])
        same = (one["frames"] == two["frames"]).all((0, 1, 2))  # colour k is point k
    assert same.tolist() == [False, False, True]
    with av.open(str(second / "film.mp4")) as container:
        assert len(list(container.decode(video=0))) == 13
    assert (second / "results.json").exists()


@pytest.mark.learning
def test_a_puck_is_held_where_a_film_shows_it(tmp_path: Path) -> None:
    world = flam_rl.load_world("pucks")
    generator = torch.Generator().manual_seed(0)
    free = hold(world, {}, world.start(1, generator), 12, generator)
    context = free.context_BX.expand(13, -1)
    scene = seen(world, world.draw(type(world.starts())(free.factors_BTKS[0], context)).numpy())
    start = type(scene)(scene.factors[:1], scene.context[None])
    held = hold(world, {2: HeldPath.from_factors(world, scene.factors, 2)}, start, 12, generator)
    centres = [world.model.centres(each.factors_BTKS[0]) for each in (free, held)]
    apart = (centres[0] - centres[1]).norm(dim=-1).amax(0)
    assert apart[2] < 1  # pixels
    assert apart.max() > 3


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--steps", "0"], "steps is 0; allowed is 1 to"),
        (["--hold", "2"], "--hold 2: allowed is K=path.npz"),
        (["--hold", "9=missing.npz"], "factor 9 is held, but is not there; allowed are 0 to 2"),
        (["--hold", "1=other.npz"], r"other.npz holds \['x'\]; allowed are 'frames' or 'latent_actions'"),
        (["--hold", "1=text.npz"], "text.npz: not an npz file of arrays"),
        (
            ["--hold", "1=wide.npz"],
            r"latent_actions are float64 \(9, 5\); allowed are finite floats \(T, 2\)",
        ),
        (["--hold", "1=short.npz"], "path of factor 1 has 3 steps; allowed are 5 or more"),
        (["--hold", "1=small.npz"], r"this world sees frames uint8 \(T, 16, 16, 3\); given uint8"),
    ],
)
def test_imagine_refuses_what_it_cannot_hold(
    arguments: list[str],
    error: str,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flam_rl.commands.imagine.load_world", lambda name: world)
    monkeypatch.chdir(tmp_path)
    np.savez("other.npz", x=np.zeros(3))
    Path("text.npz").write_text("text")
    np.savez("wide.npz", latent_actions=np.zeros((9, 5)))
    np.savez("short.npz", latent_actions=np.zeros((3, 2)))
    np.savez("small.npz", frames=np.zeros((9, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=error):
        run(["imagine", "--steps", "5", *arguments, "--out", "out"])
    assert not Path("out").exists()
