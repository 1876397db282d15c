"""What README and the site tell people to type: Python runs, commands exist, figures are those of their results."""

from __future__ import annotations

import importlib
import io
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from contextlib import redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from sybil import Example
from sybil.document import Document
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

import flam_rl
from flam_rl import cli
from flam_rl.types import Json

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
REPORTS = sorted(RESULTS.rglob("*.md"))  # written by commands, which have tests of their own
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").rglob("*.md")) - set(REPORTS))]
LANGUAGES = {
    "python",  # run here
    *('python exec="on"', 'bash exec="on"'),  # run when the site is built
    "sh",  # commands, which are looked up
    *("text", "toml", "csv", ' { .python title="my_task.py" }'),
}
BUDGETS = {
    "num_envs=256": "num_envs=4",
    "num_envs=128": "num_envs=4",
    "n_steps=32": "n_steps=16",
    ".learn(300_000)": ".learn(32)",
    "n_eval_episodes=20": "n_eval_episodes=1",
}
"""What pages say, and how it is run here."""
SLOW = {"README.md", *(f"docs/how-to/{name}.md" for name in ("acting", "adapters", "gpu"))}
"""Pages whose Python takes seconds, and below those that name many scripts, each a process."""
LOGS = {"docs/performance.md", "docs/results.md"}
OTHERS = {"tensorboard", "hf"}
"""Programs of others that pages name."""


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def short(example: Example) -> None:
    """Run a block of Python with a tiny budget."""
    source = example.parsed.text
    for said, run in BUDGETS.items():
        source = source.replace(said, run)
    example.parsed = type(example.parsed)(source, example.parsed.offset, example.parsed.line_offset)
    PythonEvaluator()(example)


def blocks(path: Path, language: str) -> Document:
    evaluator = short if language == "python" else None
    return Document.parse(str(path), CodeBlockParser(language, evaluator))


def of_pages(slow: set[str], pages: list[Path]) -> list[Any]:
    """Parameters of tests of each page."""
    return [
        pytest.param(path, marks=pytest.mark.learning if named(path) in slow else (), id=named(path))
        for path in pages
    ]


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_every_block_is_of_a_language_that_is_tested(path: Path) -> None:
    infos = RawFencedCodeBlockLexer(re.compile(r"(?P<info>[^\n]*)\n"))(Document.parse(str(path)))
    for region in infos:
        info = re.sub(r'(exec="on").*', r"\1", region.lexemes["info"])
        assert info in LANGUAGES


@pytest.mark.parametrize("path", of_pages(SLOW, [path for path in PAGES if list(blocks(path, "python"))]))
def test_python_of_a_page_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for example in blocks(path, "python"):
        example.evaluate()
    plt.close("all")


def test_budgets_are_of_what_pages_say() -> None:
    said = "".join(path.read_text() for path in PAGES)
    assert [budget for budget in BUDGETS if budget not in said] == []


def commands() -> list[tuple[str, str]]:
    """Each page with each command of its blocks, comments left out."""
    lines = []
    for path in PAGES:
        for example in blocks(path, "sh"):
            text = example.parsed.text.replace("\\\n", " ")
            lines += [(named(path), line) for line in text.splitlines() if shlex.split(line, comments=True)]
    return lines


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_of_blocks_can_be_parsed(page: str, line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    if program == "flam-rl":
        module = importlib.import_module(f"flam_rl.commands.{words[0]}")
        config = cli._parse({words[0]: getattr(module, f"{words[0].capitalize()}Config")}, words)
        assert type(config).__name__ == f"{words[0].capitalize()}Config"
    elif program == "python":
        check_flags(line)
    elif program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.M)
    elif program == "pip":
        check_extras(words)
    else:
        assert program in OTHERS
        assert shutil.which(program) or (Path(sys.executable).parent / program).exists() or program == "hf"


def check_extras(words: list[str]) -> None:
    assert words[0] == "install"
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for word in words[1:]:
        found = re.fullmatch(r"flam_rl\[([\w,]+)\]", word)
        assert found
        assert set(found[1].split(",")) <= set(setup["options.extras_require"])


@cache
def help_of(*command: str) -> str:
    """What a command, or a script, prints on `--help`."""
    if command[0] == "flam-rl":
        printed = io.StringIO()
        with redirect_stdout(printed), suppress(SystemExit):
            cli.run([command[1], "--help"])
        return printed.getvalue()
    done = subprocess.run([sys.executable, ROOT / command[1], "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_flags(line: str) -> None:
    words = shlex.split(line, comments=True)
    flags = {word.split("=")[0] for word in words[2:] if word.startswith("--")} - {"--debug", "--help"}
    printed = help_of(*words[:2])
    assert [flag for flag in sorted(flags) if not re.search(rf"{re.escape(flag)}\b", printed)] == []


@pytest.mark.learning
@pytest.mark.parametrize("path", of_pages(LOGS, PAGES))
def test_commands_in_sentences_have_the_options_that_are_named(path: Path) -> None:
    for found in re.finditer(r"(?<!`)`((?:flam-rl [a-z]|python scripts/)[^`]+)`(?!`)", path.read_text()):
        check_flags(found[1])


def test_readme_is_read_in_two_minutes() -> None:
    """At 240 words a minute, tables among them; code and addresses are skimmed."""
    text = re.sub(r"(?s:```.*?```)|<!--.*?-->|\]\(\S+\)", "", (ROOT / "README.md").read_text())
    assert len(re.findall(r"\w[\w.'-]*", text)) < 480


def each(figures: Json, digits: int, *keys: str) -> str:
    return " / ".join(f"{figures[key]:.{digits}f}" for key in keys)


def with_interval(score: Json) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(score["success_rate"], *score["ci95"])


def rows_of(path: Path) -> list[list[str]]:
    """Cells of all rows of a page's tables, without what makes them bold."""
    lines = path.read_text().replace("**", "").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_figures_of_readme_are_those_of_its_results() -> None:
    multigrid, pucks, demo = map(read, ("evaluate/seed1.json", "evaluate/pucks.json", "demo/seed0.json"))
    columns = []
    for found, told in ((multigrid, multigrid["dci"]), (pucks, pucks["disentanglement"])):
        tracking, moved = found["tracking"], found["intervention"]
        columns.append(
            [
                f"{each(found['psnr'], 1, '1', '5', '15')} dB",
                f"{each(found['psnr']['floors']['last_frame'], 1, '1', '5', '15')} dB",
                each(tracking, 2, "hota", "idf1"),
                each(tracking["floors"]["random_identities"], 2, "hota", "idf1"),
                each(told, 2, "disentanglement", "informativeness"),
                each(moved, 2, "on_entity"),
                each(moved["floors"]["chance"], 2, "on_entity"),
            ]
        )
    rows = rows_of(ROOT / "README.md")
    assert [row[1] for row in rows[2:9]] == columns[0]
    assert [row[2] for row in rows[2:9]] == columns[1]
    policies = [demo["policies"][name] for name in ("imagination", "random", "bc")]
    assert [row[1] for row in rows[9:]] == [with_interval(score) for score in policies]
    agents = read("pucks-agents/results.json")
    policies = [agents["policies"][name] for name in ("imagination", "random", "BC on the labels")]
    assert [row[2] for row in rows[9:]] == [with_interval(score) for score in policies]
    assert {found["made_by"]["commit"][:7] for found in (multigrid, pucks, demo, agents)} == {"a2234b0"}
    assert "`a2234b0`" in (ROOT / "README.md").read_text()


def test_figures_of_what_it_reaches_are_those_of_its_results() -> None:
    rows = [row[1:] for row in rows_of(ROOT / "docs" / "figures.md")]
    found = read("evaluate/seed1.json")
    of_multigrid = [
        f"{each(found['psnr'], 1, '1', '5', '15')} dB",
        each(found["dci"], 3, "disentanglement", "informativeness"),
        each(found["imagination_validity"], 3, "1", "10", "40"),
        each(found["transfer"], 2, "same_heading"),
        each(found["reward_rate"], 3, "imagined", "real"),
    ]
    assert [row[0] for row in rows[2:7]] == of_multigrid
    demos = [read(f"demo/seed{seed}.json") for seed in range(3)]
    names = ("random", "bc", "latent_bc", "imagination", "expert")
    assert rows[9:14] == [[with_interval(demo["policies"][name]) for demo in demos] for name in names]
    assert rows[14] == [f"{demo['wall_s']:.0f}" for demo in demos]

    found, tiles = read("evaluate/pucks.json"), read("tiles-on-pucks/results.json")
    copied, foreground, on_tiles = (
        found["psnr"]["floors"]["last_frame"],
        found["foreground"],
        tiles["foreground"],
    )
    horizons = ("1", "5", "15")
    assert tiles["psnr"]["floors"]["last_frame"] == copied  # the same episodes
    of_pucks = [
        [
            f"{each(found['psnr'], 1, *horizons)} dB",
            *(each(of, 1, *horizons) for of in (copied, tiles["psnr"])),
        ],
        [
            " / ".join(f"{foreground[h]['foreground_psnr']:.1f}" for h in horizons) + " dB",
            " / ".join(f"{foreground[h]['floors']['last_frame']['foreground_psnr']:.1f}" for h in horizons),
            " / ".join(f"{on_tiles[h]['foreground_psnr']:.1f}" for h in horizons),
        ],
        [each(found["tracking"], 2, "hota", "idf1"), "", each(tiles["tracking"], 2, "hota", "idf1")],
        [each(found["disentanglement"], 2, "disentanglement", "informativeness"), "", "0"],
        [each(found["intervention"], 2, "on_entity"), "", ""],
    ]
    assert rows[17:] == of_pucks


def test_figures_of_planning_are_those_of_its_results() -> None:
    found = read("planning/multigrid/results.json")
    said = (ROOT / "docs" / "tutorials" / "planning.md").read_text()
    for name in ("cem", "random"):
        assert with_interval(found["policies"][name]) in said
    assert f"`{found['made_by']['commit'][:7]}`" in said


def read(name: str) -> Json:
    return json.loads((RESULTS / name).read_text())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does: what its pages run must run, and a warning is an error."""
    out = tmp_path_factory.mktemp("built") / "site"
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.learning
@pytest.mark.timeout(1800)  # three to four minutes of one core that others may use too
def test_the_site_is_built_without_a_warning_and_asks_nothing_of_the_network(site: Path) -> None:
    """Links to elsewhere are for people to click; what a browser fetches by itself comes from the site."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        for tag in re.findall(r"<(?:script|link|img|iframe|video|source)\b[^>]*>", page.read_text()):
            assert not re.search(r'(?:src|href)="?(?:https?:)?//', tag), f"{page}: {tag}"


@pytest.mark.learning
def test_every_public_name_is_in_the_reference(site: Path) -> None:
    from mkdocstrings import Inventory

    with (site / "objects.inv").open("rb") as file:
        known = set(Inventory.parse_sphinx(file))
    missing = []
    for module in pkgutil.walk_packages(flam_rl.__path__, "flam_rl."):
        if any(part.startswith("_") for part in module.name.split(".")) or module.name.split(".")[1] in (
            *("cli", "commands", "worlds"),  # on the page of the command line
        ):
            continue
        loaded = importlib.import_module(module.name)
        missing += [
            f"{module.name}.{name}"
            for name, value in vars(loaded).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.name
            if isinstance(value, type) or hasattr(value, "__code__")
            if f"{module.name}.{name}" not in known
        ]
    assert missing == []
