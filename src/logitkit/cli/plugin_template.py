"""A new plugin's distribution, written from a template: installable, tested, and yours to edit."""

from __future__ import annotations

import keyword
import re
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from logitkit.errors import NameTakenError, ParameterError
from logitkit.registry.registry import Registry

# Where each template goes; {package} is the import name.
FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    ".gitignore": "gitignore",
    "src/{package}/__init__.py": "specs.py",
    "src/{package}/processor.py": "processor.py",
    "tests/test_formula.py": "test_formula.py",
    "tests/test_laws.py": "test_laws.py",
}


def write_plugin(name: str, registry: Registry, folder: Path | None = None) -> tuple[Path, list[Path]]:
    """Write the distribution ``logitkit-NAME`` that offers one processor.

    Args:
        name: the processor's name, snake_case, such as ``quiet_words``.
        registry: whose names are taken.
        folder: where; by default a new folder named as the distribution. Must be absent or empty.

    Returns:
        The folder, and the files in it.

    Raises:
        ParameterError: a name that is not snake_case or is a word of Python; a folder in use.
        NameTakenError: an installed processor has the name.
    """
    _check_name(name, registry)
    distribution = f"logitkit-{name.replace('_', '-')}"
    package = f"logitkit_{name}"
    folder = Path(distribution) if folder is None else folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ParameterError("new-plugin", "--folder", "absent or empty", str(folder), "name another with --folder")
    words = {"name": name, "distribution": distribution, "package": package, "version": version("logitkit")}
    words["kind"] = "".join(part.capitalize() for part in name.split("_"))
    templates = Environment(  # noqa: S701 - Python and Markdown are no HTML
        loader=PackageLoader("logitkit", "templates"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    written = []
    for place, template in FILES.items():
        path = folder / place.format(package=package)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(templates.get_template(f"{template}.jinja").render(words), encoding="utf-8")
        except OSError as error:
            raise ParameterError("new-plugin", "--folder", "a place to write to", str(folder), str(error)) from error
        written.append(path)
    return folder, written


def _check_name(name: str, registry: Registry) -> None:
    """Refuse what cannot be a processor's name, before anything is written."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        better = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()).strip("_")
        usable = better[:1].isalpha() and not keyword.iskeyword(better)
        way_out = f"write {better}" if usable else "write a name such as quiet_words"
        raise ParameterError("new-plugin", "NAME", "snake_case and no word of Python", name, way_out)
    if name in registry.names():
        owner = registry.describe(name).plugin
        raise NameTakenError(f"new-plugin: NAME must be free, got {name!r}, which {owner} offers; choose another")
