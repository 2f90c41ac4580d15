"""The documentation: every processor has its place, every example runs, and facts come from the Specs."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import re
import shlex
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

import logitkit
import servers
from logitkit import models
from logitkit.errors import NoEffectWarning, UnknownNameError
from logitkit.registry import discover
from logitkit.registry.laws import LAWS, foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
from logitkit.registry.pages import man_page as manual

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def tiny(name: str, *, like: Any = None) -> tuple[Any, Any]:
    """A tiny model in the place of a real one: models of one family share a tokenizer, others have their own.

    Copies, since pipelines and readers of a page set attributes of both.
    """
    own = (tiny_model("135m" not in name), tiny_tokenizer())
    model, tokenizer = copy.deepcopy(own if "smollm2" in name.lower() else (foreign_model(), foreign_tokenizer()))
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    return model, tokenizer


def script(name: str) -> types.ModuleType:
    """Return a script of docs/ as a module, as it is when it is run."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def build() -> types.ModuleType:
    """The script docs/build.py as a module."""
    pytest.importorskip("latex2mathml", reason="formulas need the extra [docs]")
    return script("build")


@pytest.mark.parametrize("page", [page for page in PAGES if PYTHON.search((DOCS / page).read_text())])
def test_the_examples_of_a_page_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one namespace, as a reader would paste them; on tiny models."""
    # On this page tokens are merged and split; those of the tiny tokenizer are single bytes.
    merged = page == "processors/canonical.md"
    monkeypatch.setattr(models, "load", (lambda name: tiny("merged tokens")) if merged else tiny)
    monkeypatch.setattr(models, "load_tokenizer", lambda name: tiny(name)[1])
    here = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", here)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)  # no example does nothing
        warnings.filterwarnings("ignore", "byte_boundary")  # the tokens of the tiny tokenizer are single bytes
        text = (DOCS / page).read_text()
        with contextlib.ExitStack() as stack:
            if page == "serve.md":  # its commands start a server at this address
                engine = servers.tiny_engine(name="smollm2-135m")
                text = text.replace("http://127.0.0.1:8000", stack.enter_context(servers.running(engine)))
            for block in PYTHON.findall(text):
                exec(compile(block, page, "exec"), vars(here))


def test_the_first_request_of_the_server_page() -> None:
    """The curl command, as a shell cuts it, with the address of a running server."""
    (line,) = re.findall(r"^(curl .*)$", (DOCS / "serve.md").read_text(), re.MULTILINE)
    _, url, _, header, _, body = shlex.split(line)
    with servers.running(servers.tiny_engine(name="smollm2-135m")) as address:
        url = url.replace("http://127.0.0.1:8000", address)
        reply = httpx.post(url, content=body, headers=dict([header.split(": ")]))
    assert reply.status_code == 200 and reply.json()["choices"][0]["text"]


def test_every_processor_has_its_place() -> None:
    """Once, under its own heading; transformers' own stand on one page."""
    text = "\n".join((DOCS / page).read_text() for page in PAGES)
    registry = discover(third_party="none")
    ours = [name for name in registry.names(kind=None) if registry.describe(name).family != "transformers"]
    assert sorted(re.findall(r"<!-- spec: (\w+) -->", text)) == ours
    assert all(text.count(f"\n## {name}\n") == 1 for name in ours)
    assert text.count("<!-- family: transformers -->") == 1


def test_every_page_of_a_processor_has_an_example_for_each() -> None:
    """Each section shows its processor at work, not only its facts."""
    for page in sorted((DOCS / "processors").glob("*.md")):
        for section in page.read_text().split("\n## ")[1:]:
            name = section.split("\n")[0]
            if f"<!-- spec: {name} -->" in section:
                assert any(name in block for block in PYTHON.findall(section)), f"{page.name}: {name} has no example"


def test_every_processor_has_its_formula_as_mathematics() -> None:
    """In its own section, on a line of its own or in a table of the variants."""
    for page in sorted((DOCS / "processors").glob("*.md")):
        for section in page.read_text().split("\n## ")[1:]:
            name = section.split("\n")[0]
            if f"<!-- spec: {name} -->" in section:
                assert re.search(r"^(\$\$.+\$\$|\|.*\$.+\$ .*\|)$", section, re.MULTILINE), f"{page.name}: {name}"


@pytest.mark.parametrize("page", [page for page in PAGES if "$" in PYTHON.sub("", (DOCS / page).read_text())])
def test_formulas_are_written_as_mathml(page: str, build: types.ModuleType) -> None:
    """No dollar sign and no command of LaTeX is left in what readers see; text that is no formula keeps its signs."""
    prose = "".join(build.CODE.split(build.filled((DOCS / page).read_text()))[::2])
    assert prose.count("<math") == prose.count("</math>")
    assert "$" not in prose and not re.search(r"\\[a-zA-Z]+", prose), re.findall(r".{20}\\[a-zA-Z]+", prose)


def test_a_mark_stands_for_what_the_spec_says() -> None:
    """Formula, rule, default, neutral value, cost, source with its link."""
    page = manual.filled("before <!-- spec: uscd --> behind")
    spec = logitkit.describe("uscd")
    assert page.startswith("before ") and page.endswith(" behind")
    assert "| `rho` | a finite number >= 0 | 0.7 | 0 | contrast strength |" in page
    for said in (spec.formula, spec.cost, spec.failure, "[arXiv:2409.05923](https://arxiv.org/abs/2409.05923)"):
        assert said in page
    assert all(f"`{name}`" in page for name in spec.model.model_fields)
    laws = manual.filled("<!-- laws -->")
    assert laws.count("\n") == len(LAWS) - 1 and "- **forgets**: A processor that was used before" in laws
    assert "## top_p\n" in manual.filled("<!-- family: transformers -->")


def test_a_mark_that_names_nothing_is_refused() -> None:
    """A renamed processor is found by the build."""
    with pytest.raises(UnknownNameError):
        manual.filled("<!-- spec: usdc -->")


def test_every_page_is_in_the_navigation() -> None:
    """And the navigation names no page that does not exist."""
    text = (ROOT / "mkdocs.yml").read_text()
    named = set(re.findall(r": ([\w/.]+\.md)$", text, re.MULTILINE))
    results = {f"measurements/{path.name}" for path in (ROOT / "studies" / "results").glob("*.md")} | {
        "measurements/report.md"
    }
    surface = (DOCS / "reference" / "surface.txt").read_text().splitlines()
    packages = {line.rpartition(".")[0] for line in surface if line.startswith("logitkit")}
    reference = {f"reference/{name}.md" for name in packages | {"logitkit.errors", "logitkit.params"}}
    tutorials = {f"tutorials/{path.stem}.md" for path in (DOCS / "tutorials").glob("*.ipynb")}
    pages = set(PAGES) - {"laws_of_others.md"}  # docs/build.py puts this page into laws.md
    assert named == pages | tutorials | results | reference
    assert yaml.safe_load(text)["site_name"] == "logitkit"
