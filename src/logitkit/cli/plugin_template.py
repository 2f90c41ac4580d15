"""Writes the distribution of a new plugin from the templates in ``templates/``."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

import logitkit
from logitkit.errors import NameTakenError, ParameterError
from logitkit.registry.registry import Registry
from logitkit.registry.template_texts import TEXTS

PROCESSOR_FILE = "src/{package}/processor.py"
# File of the distribution -> template; {package} is the import name.
FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    ".gitignore": "gitignore",
    "src/{package}/__init__.py": "specs.py",
    PROCESSOR_FILE: "processor.py",
    "tests/test_formula.py": "test_formula.py",
    "tests/test_laws.py": "test_laws.py",
}


@dataclass(frozen=True, kw_only=True)
class WrittenPlugin:
    """A plugin that was written.

    Attributes:
        folder: folder of the distribution.
        files: all files written.
        processor: the file that holds the formula and the processor class.
    """

    folder: Path
    files: tuple[Path, ...]
    processor: Path


def write_plugin(name: str, registry: Registry, folder: Path | None = None) -> WrittenPlugin:
    """Write the distribution ``logitkit-NAME``, which offers one processor.

    Args:
        name: the processor's name in snake_case, such as ``quiet_words``.
        registry: the registry whose names must not be used again.
        folder: an absent or empty folder; by default ``logitkit-NAME`` in the current folder.

    Raises:
        ParameterError: the name is not snake_case or is a Python keyword, or the folder is not empty or not writable.
        NameTakenError: an installed processor has the name.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> plugin = write_plugin("quiet_words", Registry([]), folder)
    >>> plugin.processor.relative_to(folder).as_posix()
    'src/logitkit_quiet_words/processor.py'
    """
    _check_name(name, registry)
    distribution = f"logitkit-{name.replace('_', '-')}"
    package = f"logitkit_{name}"
    folder = Path(distribution) if folder is None else folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        way_out = "choose another folder with --folder"
        raise ParameterError("new-plugin", "--folder", "an absent or empty folder", str(folder), way_out)
    words = {"name": name, "distribution": distribution, "package": package, "version": logitkit.__version__}
    words["class_name"] = "".join(part.capitalize() for part in name.split("_"))
    templates = Environment(  # noqa: S701 - the templates are Python, TOML and Markdown, which need no HTML escapes
        loader=PackageLoader("logitkit.cli", "templates"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    files = {place: folder / place.format(package=package) for place in FILES}
    for place, path in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = templates.get_template(f"{FILES[place]}.jinja").render(words, texts=TEXTS)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ParameterError("new-plugin", "--folder", "a writable folder", str(folder), str(error)) from error
    return WrittenPlugin(folder=folder, files=tuple(files.values()), processor=files[PROCESSOR_FILE])


def _check_name(name: str, registry: Registry) -> None:
    """Refuse a name that no processor can have, before anything is written."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        better = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()).strip("_")
        usable = better[:1].isalpha() and not keyword.iskeyword(better)
        way_out = f"write {better}" if usable else "write a name such as quiet_words"
        raise ParameterError("new-plugin", "NAME", "snake_case and not a Python keyword", name, way_out)
    if name in registry.names():
        owner = registry.describe(name).plugin
        raise NameTakenError(f"new-plugin: NAME must be free, got {name!r}, which {owner} offers; choose another name")
