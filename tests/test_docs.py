"""The docs hold together: links, results, commands and options that they name are there, and sentences are short."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

from pipeline import ColorPipeline, cli

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
MOST_WORDS = 25
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def sentences(text: str) -> list[str]:
    """Of paragraphs and list items; tables and headings are left out, and code in a sentence is one word."""
    lines = ["" if line.startswith(("|", "#")) else line for line in text.splitlines()]
    text = re.sub(r"^\s*(?:[-*]|\d+\.) ", "\n\n", "\n".join(lines), flags=re.MULTILINE)
    text = re.sub(r"`[^`]+`", "code", LINK.sub(r"\1", text)).replace("*", "")
    blocks = (" ".join(block.split()) for block in re.split(r"\n\s*\n", text))
    return [one for block in blocks for one in re.split(r"(?<=[.!?])[\")]*\s+", block) if one]


@pages
def test_relative_links_resolve(page):
    for _, target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(place), f"{target}: no such heading"


@pages
def test_scripts_and_configs_that_are_named_exist(page):
    text = page.read_text()
    written = re.findall(r"^Write `(.*?)`", text, re.M)  # by the reader, as the page says
    named = re.findall(r"\b(?:train_scripts|benchmarks|configs|docs)/[\w./-]+\.(?:py|toml|yaml|json|jsonl)\b", text)
    assert [name for name in named if name not in written and not (ROOT / name).is_file()] == []


@pages
def test_sentences_are_short(page):
    long = [one for one in sentences(prose(page)) if len(re.findall(r"\S*\w\S*", one)) > MOST_WORDS]
    assert long == []


@pytest.mark.parametrize("folder", ["results", "logs"])
def test_every_stored_result_stands_in_a_page(folder):
    everything = "".join(page.read_text() for page in PAGES)
    stored = [path.name for path in (ROOT / "docs" / folder).rglob("*") if path.is_file()]
    assert stored and [name for name in stored if name not in everything] == []


def test_the_reference_of_the_command_has_every_option(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "500")
    assert cli.main(["colorize", "--help"]) == 0
    options = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) - {"--help"}
    table = re.findall(r"^\| .*? \|", (ROOT / "docs/use/command-line.md").read_text(), re.MULTILINE)
    assert set(re.findall(r"--[a-z][a-z-]*", "".join(table))) - {"--version"} == options


def test_the_page_of_videos_has_every_option(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "500")
    assert cli.main(["video", "--help"]) == 0
    options = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) - {"--help"}
    table = re.findall(r"^\| .*? \|", (ROOT / "docs/use/video.md").read_text(), re.MULTILINE)
    assert set(re.findall(r"--[a-z][a-z-]*", "".join(table))) == options


def test_the_reference_of_the_call_has_every_argument():
    arguments = sorted(inspect.signature(ColorPipeline.__call__).parameters.keys() - {"self", "unknown"})
    section = (ROOT / "docs/use/python.md").read_text().split("\n## ")[1]
    table = section.split("\nWhat the weights")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == arguments


def test_the_tables_of_results_are_those_of_the_stored_files(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import tables

    texts = [page.read_text() for page in tables.PAGES]
    assert set(re.findall(r"<!-- table (\w+) -->", "".join(texts))) == set(tables.TABLES)
    assert [tables.renewed(text) for text in texts] == texts, "python docs/tables.py"


def test_a_stored_evaluation_of_image_to_image_becomes_a_table(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import tables

    monkeypatch.setattr(tables, "DOCS", tmp_path)
    (tmp_path / "results").mkdir()
    assert tables.image_to_image().startswith("No figures are stored yet")
    record = {
        "task": "inpaint", "condition": {"hole": "20-30"}, "sampler": {"a": "ddim", "b": "ddim"},
        "steps": {"a": 20, "b": 20}, "corrector": {"a": {"steps": 0, "snr": 0.16}, "b": {"steps": 2, "snr": 0.04}},
        "dtype": "bfloat16", "seed": 3, "commit": "0123456789", "date": "2027-01-01",
        "photos": {"name": "photos64/validation"}, "real": {"count": 900},
        "pictures": {"crop": "center square", "resize": "area", "side": 64},
        "rows": [{"name": "originals", "photos": 1000, "fid": 3.14159, "squeezenet_kid": 1.0,
                  "squeezenet_kid_95": [-2.0, 4.0], "psnr": None, "score_splits": 1, "seconds_per_draw": 2.0}],
    }  # fmt: skip
    (tmp_path / "results/image_to_image_a.json").write_text(json.dumps(record))
    assert tables.image_to_image() == (
        "**inpaint, hole 20-30, ddim, 20 steps, 2 corrector steps of r = 0.04, no corrector, bfloat16.** "
        "photos64/validation, center square, area, 64x64, seed 3; Fréchet distances to the "
        "next 900 photographs.\n\n| system | photos | fid | squeezenet_kid | psnr |\n| --- | --- | --- | --- | --- |\n"
        "| originals | 1000 | 3.14 | 1.00 [-2, 4] | - |\n\n"
        "Stored: [image_to_image_a.json](../results/image_to_image_a.json), commit `0123456`."
    )
