"""A world folder: what is saved is what is loaded, and broken ones say how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import flam_rl
from flam_rl.core.card import card_of
from flam_rl.core.sources import SHIPPED


@pytest.fixture
def folder(world, tmp_path: Path) -> Path:
    flam_rl.save_world(world, tmp_path / "world")
    return tmp_path / "world"


def test_save_and_load_is_the_identity(world, folder: Path) -> None:
    loaded = flam_rl.load_world(folder)
    before, after = world.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(world.stored_starts["starts"], loaded.stored_starts["starts"])
    assert loaded.info == world.info
    scene = world.start(4, torch.Generator().manual_seed(0))
    assert torch.equal(scene.factors, loaded.start(4, torch.Generator().manual_seed(0)).factors)
    assert torch.equal(world.draw(scene), loaded.draw(scene))


def test_video_and_labels_are_kept_apart(world, folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "model.safetensors",
        "labels.safetensors",
        "starts.safetensors",
        "config.json",
        "README.md",
    }
    world.labels = None
    flam_rl.save_world(world, folder)
    assert not (folder / "labels.safetensors").exists()
    assert flam_rl.load_world(folder).labels is None


def test_a_run_folder_stands_for_its_world(world, tmp_path: Path) -> None:
    flam_rl.save_world(world, tmp_path / "run" / "world")
    assert flam_rl.load_world(tmp_path / "run").info == world.info


def test_saving_leaves_no_scratch_and_spares_other_folders(world, folder: Path, tmp_path: Path) -> None:
    flam_rl.save_world(world, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["world"]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("...")
    with pytest.raises(FileExistsError, match="is not a world"):
        flam_rl.save_world(world, tmp_path / "home")


@pytest.mark.parametrize("name", ["model.safetensors", "labels.safetensors", "starts.safetensors"])
def test_a_truncated_or_missing_file_is_named(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"{name}: truncated or not safetensors"):
        flam_rl.load_world(folder)
    path.unlink()
    with pytest.raises(ValueError, match=f"{name}: missing"):
        flam_rl.load_world(folder)


def change(folder: Path, edit) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_another_version_is_named(folder: Path) -> None:
    change(folder, lambda config: config.update(version=99))
    with pytest.raises(ValueError, match=r"config\.json: version 99, this flam_rl reads 4"):
        flam_rl.load_world(folder)


def test_a_config_that_does_not_fit_is_named(folder: Path) -> None:
    change(folder, lambda config: config["settings"]["flam"]["dynamics"].update(latent_action_dim=5))
    with pytest.raises(ValueError, match=r"model\.safetensors: does not fit config\.json"):
        flam_rl.load_world(folder)
    change(folder, lambda config: config["settings"]["flam"].update(flavour="mint"))
    with pytest.raises(ValueError, match=r"config\.json: .*flavour"):
        flam_rl.load_world(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json"):
        flam_rl.load_world(folder)


def test_shipped_worlds_are_small() -> None:
    sizes = [path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()]
    assert len(sizes) > 2 * 4
    assert sum(sizes) < 25e6


@pytest.mark.parametrize("name", flam_rl.shipped_worlds())
def test_cards_of_shipped_worlds_are_what_saving_writes(name: str) -> None:
    world = flam_rl.load_world(name)
    assert (SHIPPED / name / "README.md").read_text() == card_of(world)
    assert world.info.license == "mit"
    assert world.info.origin is not None
    assert world.info.origin.commit
    assert world.info.origin.figures
