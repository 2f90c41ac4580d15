"""Every error of logitkit, on one screen.

Each is a `LogitkitError` and the built-in that fits, carries its parts as attributes, and reads
*owner: what must hold, what was found; way out*.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class LogitkitError(Exception):
    """Anything logitkit refuses."""


class ParameterError(LogitkitError, ValueError):
    """A parameter outside its rule: ``owner: parameter must be rule, got value; way out``."""

    def __init__(self, owner: str, parameter: str, rule: str, value: object, way_out: str = "") -> None:
        self.owner, self.parameter, self.rule, self.value, self.way_out = (
            owner,
            parameter,
            rule,
            value,
            way_out,
        )
        super().__init__(f"{owner}: {parameter} must be {rule}, got {value!r}" + (f"; {way_out}" if way_out else ""))

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.owner, self.parameter, self.rule, self.value, self.way_out)


class UnknownNameError(LogitkitError, LookupError):
    """A name nobody offers; says which known name is closest."""

    def __init__(self, kind: str, name: str, known: Iterable[str], way_out: str = "") -> None:
        self.kind, self.name, self.known, self.way_out = kind, name, sorted(known), way_out
        close = get_close_matches(name, self.known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else way_out or f"known: {', '.join(self.known) or 'none'}"
        super().__init__(f"no {kind} named {name!r}; {hint}")

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.kind, self.name, self.known, self.way_out)


class NameTakenError(LogitkitError, ValueError):
    """Two plugins offer one name."""


class PluginError(LogitkitError, LookupError):
    """A plugin that cannot be used: broken at import, by its hooks, or by its target."""


class ChainError(LogitkitError, ValueError):
    """A chain that cannot be read, or whose order cannot mean what it says."""


class PromptError(LogitkitError, LookupError):
    """Prompts that cannot be bound, or a row of tokens that starts with no bound prompt."""


class ModelError(LogitkitError, ValueError):
    """A model or tokenizer that cannot do what is asked of it."""


class ModeError(LogitkitError, ValueError):
    """A way of generating in which a chain would be wrong, so it is refused."""


class ScoresError(LogitkitError, ValueError):
    """Scores that leave no choice: NaN, infinite, or a row in which every token is impossible."""


class FileFormatError(LogitkitError, ValueError):
    """A file that is not what it should be: truncated, foreign, or of another version."""


class DownloadError(LogitkitError, OSError):
    """A model or data set that could not be had from where it lives."""


class DataError(LogitkitError, LookupError):
    """Data of a task that cannot be found; says where it was looked for and how to get it."""


class RunError(LogitkitError, ValueError):
    """A run file with mistakes, all of them at once, each with its line."""

    def __init__(self, name: str, mistakes: Iterable[str]) -> None:
        self.name, self.mistakes = name, list(mistakes)
        count = f"{len(self.mistakes)} mistakes" if len(self.mistakes) > 1 else "one mistake"
        super().__init__(f"{name}: {count}; nothing was run\n" + "\n".join(f"  {line}" for line in self.mistakes))

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.name, self.mistakes)
