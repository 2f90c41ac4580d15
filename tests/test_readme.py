"""The README tells the truth: its first example prints what it says, its table is the registry's, its links work."""

from __future__ import annotations

import contextlib
import io
import re
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest
from transformers import TemperatureLogitsWarper

import logitkit
from logitkit.errors import NoEffectWarning
from logitkit.registry import discover
from logitkit.registry.laws import foreign_model, foreign_tokenizer
from logitkit.registry.pages.readme_table import PURPOSES, SOURCE, filled, for_package_index

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGE = (ROOT / "README.package.md").read_text(encoding="utf-8")
FIRST, *OTHERS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.model
def test_the_first_example_prints_what_the_readme_shows() -> None:
    """On the real model; and what the chain writes is not what plain decoding writes."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)
        exec(FIRST, {})
    (shown,) = re.findall(r"prints\n\n```text\n(.*?)```", README, re.DOTALL)
    assert printed.getvalue() == shown
    plain, changed = shown.splitlines()
    assert plain != changed and len(FIRST.splitlines()) <= 10


@pytest.mark.model
def test_the_first_example_of_the_documentation_changes_the_answer() -> None:
    """docs/index.md, on the real model."""
    (block, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "index.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)
        exec(block, names)
    model, tokenizer, prompts, call = (names[name] for name in ("model", "tokenizer", "prompts", "call"))
    plain = logitkit.generate(model, tokenizer, prompts, max_new_tokens=16, do_sample=False).texts
    assert all(one != other for one, other in zip(call.texts(names["out"]), plain, strict=True))


def test_the_other_examples_run() -> None:
    """One after another, on a tiny model; none does nothing."""

    class MyProcessor(TemperatureLogitsWarper):
        def __init__(self) -> None:
            super().__init__(0.5)

    names = {
        "model": foreign_model(),
        "tokenizer": foreign_tokenizer(),
        "prompts": ["on th", "and th"],
        "MyProcessor": MyProcessor,
    }
    exec("import logitkit", names)
    assert len(OTHERS) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)
        for block in OTHERS:
            exec(block.replace("=64", "=4"), names)


def test_the_table_is_the_registrys() -> None:
    """Run ``python -m logitkit.registry.pages.readme_table README.md README.package.md`` when it is not."""
    assert filled(README) == README
    registry = discover(third_party="none")
    ours = [name for name in registry.names(kind=None) if registry.describe(name).family != "transformers"]
    assert sorted(PURPOSES) == ours


def test_the_package_index_gets_absolute_links() -> None:
    """The readme of the distribution is the README with the address of the repository before every other link."""
    assert PROJECT["readme"] == "README.package.md" and PROJECT["urls"]["Source"] == SOURCE
    assert for_package_index(README) == PACKAGE
    assert all(re.match(r"https?://|#", link) for link in re.findall(r"\]\(([^)]+)\)", PACKAGE))


def test_every_link_of_the_repository_leads_to_a_file() -> None:
    """And there is a picture."""
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith(("https://", "#"))]
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert re.search(r"!\[[^]]+\]\(docs/pictures/", README)


def test_the_install_commands_are_right() -> None:
    """The wheel has the version of the project, torch that of the constraints, and the extras exist."""
    for page in (README, (ROOT / "docs" / "install.md").read_text(encoding="utf-8")):
        assert f"logitkit-{PROJECT['version']}-py3-none-any.whl[models]" in page
        (torch,) = re.findall(r"pip install (torch==\S+) --index-url https://download.pytorch.org/whl/cpu", page)
        assert torch in (ROOT / "constraints.txt").read_text().splitlines()
    named = set(re.findall(r"`\[([a-z-]+)\]`", (ROOT / "docs" / "install.md").read_text()))
    assert named == set(PROJECT["optional-dependencies"])
