"""A frame has the same tokens on every machine: codes are kept apart, and rounding decides nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import flam_rl
from flam_rl.core.layers import first_least, nearest_code
from flam_rl.core.world import World
from flam_rl.models.tiles.tokenizer import MARGIN, Tokenizer, TokenizerConfig, scale

HELD_OUT = 10_000


@pytest.fixture(scope="module")
def shipped() -> World:
    return flam_rl.load_world("multigrid")


@pytest.fixture(scope="module")
def frames(task: gym.Env) -> torch.Tensor:
    """Frames of MultiGrid that the shipped world was not trained on."""
    from flam_rl.envs.tasks.record import record_episodes

    episodes = [episode.frames for episode in record_episodes(task, HELD_OUT, seed=99)]
    return torch.as_tensor(np.concatenate(episodes)[:HELD_OUT])


@pytest.fixture(scope="module")
def tokens(shipped: World, frames: torch.Tensor) -> torch.Tensor:
    return torch.cat([shipped.model.encode(part) for part in frames.split(512)])


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.learning
@torch.inference_mode()
def test_tokens_do_not_depend_on_the_shape_of_the_batch(shipped: World, frames, tokens) -> None:
    assert torch.equal(shipped.model.encode(frames), tokens)
    assert torch.equal(torch.stack([shipped.model.encode(frame) for frame in frames]), tokens)


@pytest.mark.learning
@torch.inference_mode()
@pytest.mark.parametrize("count", [1, 2])
def test_tokens_do_not_depend_on_threads(shipped: World, frames, tokens, count: int, threads) -> None:
    torch.set_num_threads(count)
    assert torch.equal(shipped.model.encode(frames), tokens)


@pytest.mark.learning
@torch.inference_mode()
def test_tokens_do_not_depend_on_precision(shipped: World, frames, tokens) -> None:
    exact = flam_rl.load_world("multigrid").model.tokenizer.double()
    assert torch.equal(torch.cat([exact.encode(part) for part in frames.split(1000)]), tokens)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(flam_rl.load_world("multigrid").model.encode(frames), tokens)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.learning
@torch.inference_mode()
@pytest.mark.parametrize("mode", ["use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist"])
def test_tokens_do_not_depend_on_how_distances_are_computed(
    shipped: World, frames, tokens, mode: str
) -> None:
    tokenizer = shipped.model.tokenizer
    for part, expected in zip(frames.split(1000), tokens.split(1000), strict=True):
        latent = tokenizer.encoder(scale(tokenizer.patches(part)))
        distance = torch.cdist(latent.flatten(0, 1), tokenizer.codebook, compute_mode=mode)
        assert torch.equal(distance.argmin(-1).view(expected.shape), expected)


COMPILED = """
import sys, numpy as np, torch, flam_rl
encode = torch.compile(flam_rl.load_world("multigrid").model.encode)
with torch.inference_mode():
    parts = [encode(part) for part in torch.from_numpy(np.load(sys.argv[1])).split(2500)]
np.save(sys.argv[2], torch.cat(parts).numpy())
"""


@pytest.mark.learning
def test_tokens_do_not_depend_on_compilation(frames, tokens, tmp_path: Path) -> None:
    # In a process of its own: what checks shapes in tests cannot be compiled.
    given, found = tmp_path / "frames.npy", tmp_path / "tokens.npy"
    np.save(given, frames.numpy())
    subprocess.run([sys.executable, "-c", COMPILED, given, found], check=True, timeout=300)
    assert np.array_equal(np.load(found), tokens.numpy())


@pytest.mark.learning
@torch.inference_mode()
def test_noise_changes_no_token_and_hardly_a_factor(shipped: World, frames, tokens) -> None:
    tokenizer = shipped.model.tokenizer
    generator = torch.Generator().manual_seed(0)
    for part, expected in zip(frames.split(1000), tokens.split(1000), strict=True):
        latent = tokenizer.encoder(scale(tokenizer.patches(part)))
        noise = 1e-4 * latent.std() * torch.randn(latent.shape, generator=generator)
        distance = torch.cdist((latent + noise).flatten(0, 1), tokenizer.codebook)
        assert torch.equal(distance.argmin(-1).view(expected.shape), expected)
    clips = tokens[:9_984].unflatten(0, (-1, 16))
    at_once, one_by_one = (
        shipped.model.factorize(clips),
        torch.cat([shipped.model.factorize(clip[None]) for clip in clips]),
    )
    assert torch.allclose(at_once, one_by_one, atol=1e-4)


def test_no_code_of_the_shipped_world_is_near_another(shipped: World) -> None:
    shipped.model.tokenizer.check_separated()
    assert float(shipped.model.tokenizer.ambiguous) == 0


@pytest.fixture
def twins() -> Tokenizer:
    """A tokenizer of 2x2 patches whose codes 1 and 3 coincide but for rounding, and whose code 4 no patch has."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(patch=2, codebook_size=5, code_dim=4, hidden=8), (4, 4))
    with torch.no_grad():
        latent = tokenizer.encoder(scale(patches()))
        codes = torch.stack([latent[0], latent[1], latent[2], latent[1] + 1e-6, latent[2] + 1])
        tokenizer.quantizer._codebook.embed.copy_(codes[None])
    return tokenizer


def patches() -> torch.Tensor:
    return torch.tensor([[0] * 12, [255] * 12, [255, 0, 0] * 4], dtype=torch.uint8)


def test_codes_that_coincide_become_one_and_unused_ones_go(twins: Tokenizer) -> None:
    with pytest.raises(ValueError, match="codes 1 and 3 of the tokenizer are"):
        twins.check_separated()
    separated = twins.separated(patches(), torch.tensor([5, 3, 2]))
    separated.check_separated()
    assert separated.config.codebook_size == len(separated.codebook) == 3
    tokens = separated.distances(patches()).argmin(-1)
    assert sorted(tokens.tolist()) == [0, 1, 2]  # which of the twins is kept is all one
    assert torch.allclose(separated.codebook[tokens], twins.codebook[:3], atol=1e-5)
    assert float(separated.ambiguous) == 0
    assert not any(weight.requires_grad for weight in separated.parameters())


def test_patches_between_two_codes_are_counted(twins: Tokenizer) -> None:
    counts = torch.tensor([5, 3, 2])
    with torch.no_grad():
        latent = twins.encoder(scale(patches()))
        middle = int(latent[:, 0].argsort()[1])
        aside = torch.tensor([0.2, 0.0, 0.0, 0.0])
        far = torch.full((3, 4), 1e3) * torch.arange(1, 4)[:, None]
        codes = torch.cat([torch.stack([latent[middle] - aside, latent[middle] + aside]), far])
        twins.quantizer._codebook.embed.copy_(codes[None])
    found = twins.separated(patches(), counts)
    assert len(found.codebook) == 2
    assert float(found.ambiguous) == pytest.approx(counts[middle] / 10)


def test_an_unseparated_world_is_not_saved(shipped: World, tmp_path) -> None:
    world = flam_rl.load_world("multigrid")
    codes = world.model.tokenizer.quantizer._codebook.embed
    codes[0, 1] = codes[0, 0] + 0.1 * MARGIN
    with pytest.raises(ValueError, match="codes 0 and 1 of the tokenizer"):
        flam_rl.save_world(world, tmp_path / "world")
    assert not list(tmp_path.iterdir())


def test_of_equal_entries_the_first_is_taken() -> None:
    values = torch.tensor([[3.0, 1.0 + 1e-6, 1.0, 2.0], [1.0, 1.0, 0.0, 1e-6]])
    assert first_least(values).tolist() == [1, 2]
    codes = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1e-7, 0.0], [0.0, 5.0]])
    x = torch.tensor([[0.1, 0.0], [0.0, 4.0]])
    assert nearest_code(x, codes).tolist() == [1, 3]
    allowed = torch.tensor([[True, False, False, True], [True, True, True, False]])
    assert nearest_code(x, codes, allowed).tolist() == [0, 1]
