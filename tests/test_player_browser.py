"""The player's page in a real browser: Debian's Chromium."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import suites
from PIL import Image

import flam_rl

suites.need("fastapi", "play")
suites.need("playwright", "dev")

from pages import Served, serve  # noqa: E402
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

from flam_rl.player.stage import Stage  # noqa: E402

pytestmark = pytest.mark.learning  # a browser takes as long

KEPT = os.environ.get("FLAM_RL_SCREENSHOTS")
"""Folder for screenshots, to be looked at."""
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = suites.program("chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pucks() -> Iterator[Served]:
    with serve(Stage(flam_rl.load_world("pucks"), "pucks")) as served:
        yield served


@pytest.fixture(scope="module")
def multigrid() -> Iterator[Served]:
    world = flam_rl.load_world("multigrid")
    with serve(Stage(world, "multigrid", lambda: gym.make("flam_rl/MultiGrid-v0", agents=4))) as served:
        yield served


def open_page(browser: Browser, served: Served, width: int = 1280, height: int = 900) -> Page:
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(60_000)
    page.goto(served.origin)
    expect(page.locator("#status")).to_contain_text("step")
    return page


def keep(page: Page, name: str) -> None:
    if KEPT:
        page.screenshot(path=Path(KEPT) / f"{name}.png", full_page=True)


def step_of(page: Page) -> int:
    found = re.search(r"step (\d+)", page.inner_text("#status"))
    assert found is not None
    return int(found[1])


def places(page: Page) -> dict[int, np.ndarray]:
    """Where each factor is, as the page tells those who do not see it."""
    said = page.get_attribute("#frame", "aria-label") or ""
    return {
        int(k): np.array([int(x), int(y)])
        for k, x, y in re.findall(r"factor (\d+).*? is at (-?\d+), (-?\d+)", said)
    }


def pause(page: Page) -> None:
    page.keyboard.press("Space")
    expect(page.locator("#status")).to_contain_text("paused")


def test_two_keys_move_two_entities_while_the_others_go_on(browser: Browser, pucks: Served) -> None:
    page = open_page(browser, pucks)
    pause(page)
    page.keyboard.press("2")  # in hand beside factor 1
    expect(page.locator("#factors li").nth(1).locator(".pad")).to_be_visible()
    before = places(page)
    page.keyboard.down("s")  # factor 1 down, factor 2 right
    page.keyboard.down("ArrowRight")
    expect(page.locator("#factors li").nth(1).locator(".pad .right")).to_have_class(re.compile("held"))
    first = step_of(page)
    page.keyboard.press("Space")
    page.wait_for_function(
        "() => Number(/step (\\d+)/.exec(document.querySelector('#status').textContent)[1]) >= 14"
    )
    expect(page.locator("#factors li").nth(0).locator(".who-by")).to_have_text("you")
    expect(page.locator("#factors li").nth(2).locator(".who-by")).to_have_text("the prior")
    keep(page, "two-keys")
    pause(page)
    after = places(page)
    moved = {k: after[k] - before[k] for k in before if k in after}
    walls = np.array([50, 50])
    assert step_of(page) > first
    assert moved[1][1] >= 2 or before[1][1] > walls[1] or after[1][1] > walls[1], moved
    assert moved[2][0] >= 2 or before[2][0] > walls[0] or after[2][0] > walls[0], moved
    assert any(np.abs(moved[k]).max() >= 1 for k in (3, 4)), moved
    page.keyboard.up("s")
    page.keyboard.up("ArrowRight")
    page.close()


def test_pause_step_undo_record_and_replay(browser: Browser, multigrid: Served) -> None:
    page = open_page(browser, multigrid)
    pause(page)
    paused = step_of(page)
    page.keyboard.press("r")
    expect(page.locator("#record")).to_have_attribute("aria-pressed", "true")
    page.keyboard.down("d")
    for more in (1, 2, 3):
        page.keyboard.press(".")
        expect(page.locator("#status")).to_contain_text(f"step {paused + more} ")
    page.keyboard.up("d")
    said = page.get_attribute("#frame", "aria-label")
    page.keyboard.press("Backspace")
    expect(page.locator("#status")).to_contain_text(f"step {paused + 2} ")
    page.keyboard.down("d")
    page.keyboard.press(".")
    expect(page.locator("#status")).to_contain_text(f"step {paused + 3} ")
    page.keyboard.up("d")
    assert page.get_attribute("#frame", "aria-label") == said  # the others did the same again
    page.keyboard.press("r")
    expect(page.locator("#film-text")).to_have_text("4 frames: ")
    page.wait_for_function("() => document.querySelector('#video').readyState >= 2")
    assert page.evaluate("() => document.querySelector('#video').videoWidth") == 512
    with page.expect_download() as download:
        page.click("#mp4")
    assert Path(download.value.path()).read_bytes()[4:8] == b"ftyp"
    link = page.get_attribute("#replay", "href")
    other = browser.new_page()
    other.goto(multigrid.origin + (link or ""))
    expect(other.locator("#status")).to_contain_text(f"step {paused + 3} · seed 0 · paused", timeout=60_000)
    assert other.get_attribute("#frame", "aria-label") == said
    other.close()
    page.reload()  # the same world is still there
    expect(page.locator("#status")).to_contain_text(f"step {paused + 3} ")
    page.keyboard.press("n")
    expect(page.locator("#status")).to_contain_text("seed 1")
    page.close()


def test_clicks_the_real_task_and_what_the_model_says(browser: Browser, multigrid: Served) -> None:
    page = open_page(browser, multigrid)
    pause(page)
    where = places(page)
    index = next(k for k in where if k != 4)
    box = page.locator("#overlay").bounding_box()
    assert box is not None
    x, y = where[index] / 64
    page.mouse.click(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
    toggle = page.locator("#factors li").nth(index - 1).locator(".who-button")
    expect(toggle).to_have_attribute("aria-pressed", "true")
    page.mouse.click(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
    expect(toggle).to_have_attribute("aria-pressed", "false")
    page.check("#task-on")
    expect(page.locator("#real")).to_be_visible()
    page.click("summary")
    page.keyboard.press(".")
    expect(page.locator("#numbers tbody tr")).to_have_count(4)
    expect(page.locator("#heads")).to_contain_text("chance of an end")
    expect(page.locator("#chart-text")).to_contain_text("factor 1 was there")
    keep(page, "research")
    page.close()


def test_a_dropped_picture_begins_a_world(browser: Browser, multigrid: Served) -> None:
    page = open_page(browser, multigrid)
    pause(page)
    world = multigrid.stage.world
    picture = io.BytesIO()
    Image.fromarray(world.draw(multigrid.stage.starts.select([9]))[0].numpy()).save(picture, "png")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": picture.getvalue()})
    expect(page.locator("#status")).to_contain_text("step 0 ")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(page.locator("#notice")).to_contain_text("no picture or film")
    page.close()


def test_by_keyboard_alone_and_with_names_for_all(browser: Browser, multigrid: Served) -> None:
    page = open_page(browser, multigrid)
    pause(page)
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id || document.activeElement.className"))
    assert {
        "run",
        "step",
        "undo",
        "anew",
        "record",
        "speed",
        "seed",
        "drawn",
        "link",
        "open",
        "who-button",
    } <= reached
    page.focus("#step")
    before = step_of(page)
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text(f"step {before + 1} ")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input:not([hidden]), select, canvas:not([aria-hidden])')]
        .filter(e => !e.hidden && !(e.textContent.trim() || e.labels?.length || e.getAttribute('aria-label'))).map(e => e.outerHTML)"""
    )
    assert not nameless
    page.close()


def test_it_fits_a_phone(browser: Browser, multigrid: Served) -> None:
    page = open_page(browser, multigrid, 390, 844)
    wide = "() => document.documentElement.scrollWidth <= window.innerWidth"
    assert page.evaluate(wide)
    page.click("summary")
    page.check("#task-on")
    expect(page.locator("#real")).to_be_visible()
    assert page.evaluate(wide)
    pad = page.locator("#factors li").nth(3).locator(".pad .left")
    box = pad.bounding_box()
    assert box is not None
    assert min(box["width"], box["height"]) >= 44
    pad.dispatch_event("pointerdown", {"pointerId": 1})
    expect(pad).to_have_class(re.compile("held"))
    keep(page, "phone")
    page.close()
