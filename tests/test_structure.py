"""The structure of the house: no package cycles, families with labels and proofs, short files and functions."""

from __future__ import annotations

import ast
from pathlib import Path

import grimp
import pytest

from fresh import ROOT

PRODUCT = ("processors", "registry", "plugins", "adapters", "bench", "studies", "src/logitkit", "examples")
FAMILIES = ("contrast", "ngram", "byte_level", "ensemble", "cascade")
LONGEST_FILE, LONGEST_FUNCTION = 300, 40
# In these packages a module beside the subpackages is a unit of its own; elsewhere such modules belong to the package.
OPEN = ("logitkit", "logitkit.processors")


def files() -> list[Path]:
    """Python files of the product, the studies and the examples, each under its real path."""
    found = {path.resolve() for folder in PRODUCT for path in (ROOT / folder).rglob("*.py")}
    return sorted(path for path in found if path.is_relative_to(ROOT))


def length(function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return lines - ((first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0)


def unit(module: str, packages: set[str]) -> str:
    """The package that a module counts as in the graph of packages."""
    if module in packages:
        return module
    parent = module.rpartition(".")[0]
    return module if parent in OPEN else parent


def cycles(edges: dict[str, set[str]]) -> list[set[str]]:
    """The groups of units that import each other, by reachability in both directions."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in edges.get(waiting.pop(), set()) - seen:
                seen.add(target)
                waiting.append(target)
        return seen

    ahead = {node: reached(node) for node in edges}
    groups = [{other for other in edges if other in ahead[node] and node in ahead[other]} for node in edges]
    return [group for number, group in enumerate(groups) if len(group) > 1 and group not in groups[:number]]


def test_two_units_that_import_each_other_are_a_cycle() -> None:
    """The detector of cycles finds a planted cycle and leaves a chain alone."""
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]
    assert cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_packages_have_no_cycles() -> None:
    """No two packages import each other, directly or through others; imports inside functions count."""
    graph = grimp.build_graph("logitkit")
    packages = {name for name in graph.modules if graph.find_children(name)}
    edges: dict[str, set[str]] = {unit(name, packages): set() for name in graph.modules}
    for name in graph.modules:
        for target in graph.find_modules_directly_imported_by(name):
            if unit(name, packages) != unit(target, packages):
                edges[unit(name, packages)].add(unit(target, packages))
    assert cycles(edges) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_formulas_labels_and_proofs(family: str) -> None:
    """processors/X is labelled by plugins/X.py and proved in tests/processors/X."""
    assert (ROOT / "processors" / family / "__init__.py").is_file()
    label = (ROOT / "plugins" / f"{family}.py").read_text()
    assert f"logitkit.processors.{family}." in label
    assert list((ROOT / "tests" / "processors" / family).glob("test_*.py"))


def test_files_are_short() -> None:
    """A file has at most 300 lines, or says why it has more in a comment that begins ``# Over 300 lines:``."""
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in files()}
    long = {name: text.count("\n") for name, text in texts.items() if text.count("\n") > LONGEST_FILE}
    assert {name: lines for name, lines in long.items() if "# Over 300 lines:" not in texts[name]} == {}


def test_functions_are_short() -> None:
    """A function has at most 40 lines below its docstring, or says why in a comment ``# Over 40 lines:``."""
    long = {}
    for path in files():
        lines = path.read_text().split("\n")
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef) and length(node) > LONGEST_FUNCTION:
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                if "# Over 40 lines:" not in "\n".join(lines[max(0, first - 3) : node.end_lineno]):
                    long[f"{path.relative_to(ROOT)}:{node.name}"] = length(node)
    assert long == {}


def test_no_file_is_named_like_an_option() -> None:
    """Such a file is what a mistyped command wrote."""
    assert [path.name for path in ROOT.iterdir() if path.name.startswith("-")] == []
