"""The errors of logitkit.

Every error is a `LogitkitError` and a built-in exception, so callers may catch either. Its message names the owner,
the rule and the value, and ends with what to do: *owner: parameter must be rule, got value; way out*. The parts of a
message that programs may need are attributes.

>>> import logitkit
>>> try:
...     logitkit.chain("cfg(scale=-1.0)")
... except ValueError as error:
...     print(error)
cfg: scale must be a finite number >= 0, got -1.0
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like a name, or None. Case, hyphens and underscores do not count.

    >>> closest("Top-P", ["top_k", "top_p"]), closest("modified-kneser", ["mle", "modified-kneser-ney"])
    ('top_p', 'modified-kneser-ney')
    """
    spelled = {_plain(one): one for one in known}
    found = get_close_matches(_plain(name), spelled, n=1)
    return spelled[found[0]] if found else None


def _plain(name: str) -> str:
    """Return a name in lower case, with underscores for hyphens and spaces."""
    return name.casefold().replace("-", "_").replace(" ", "_")


class LogitkitError(Exception):
    """Base class of every error that logitkit raises on purpose."""


class ContinuationWarning(UserWarning):
    """Rows continue a bound prompt with tokens that the call did not write; they may be a longer prompt."""


class NoEffectWarning(UserWarning):
    """A step of a chain can change no score for the prompts to which it is bound, so it only costs time.

    ``warnings.simplefilter("ignore", NoEffectWarning)`` silences it. Benchmarks and laws never give it: a neutral value
    in a sweep, and a batch without examples, are meant there.

    >>> import logitkit, warnings
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     call = logitkit.chain("cfg(1.0)").bind(tiny_model(), tiny_tokenizer(), "a prompt")
    >>> print(caught[0].message)
    cfg changes nothing: scale 1.0 is its neutral value; give another value, or leave cfg out
    """


class ParameterError(LogitkitError, ValueError):
    """A parameter breaks its rule.

    Attributes:
        owner: the processor, task, function or command that has the parameter.
        parameter: its name.
        rule: what the value must be, in words.
        value: the value.
        way_out: what to do instead; may be empty.

    >>> raise ParameterError("cfg", "scale", "a finite number >= 0", -1.0)
    Traceback (most recent call last):
    logitkit.errors.ParameterError: cfg: scale must be a finite number >= 0, got -1.0
    """

    def __init__(self, owner: str, parameter: str, rule: str, value: object, way_out: str = "") -> None:
        self.owner, self.parameter, self.rule, self.value, self.way_out = owner, parameter, rule, value, way_out
        super().__init__(f"{owner}: {parameter} must be {rule}, got {value!r}" + (f"; {way_out}" if way_out else ""))

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.owner, self.parameter, self.rule, self.value, self.way_out)


class UnknownNameError(LogitkitError, LookupError):
    """No processor, task, parameter, resource or model has the name; the message shows the closest known name.

    Attributes:
        kind: what the name should be, such as ``processor``.
        name: the unknown name.
        known: the known names, sorted.
        way_out: what to do where no known name is close; may be empty.

    >>> raise UnknownNameError("processor", "ucsd", ["cfg", "uscd"])
    Traceback (most recent call last):
    logitkit.errors.UnknownNameError: no processor named 'ucsd'; did you mean 'uscd'?
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], way_out: str = "") -> None:
        self.kind, self.name, self.known, self.way_out = kind, name, sorted(known), way_out
        close = closest(name, self.known)
        hint = f"did you mean {close!r}?" if close else way_out or f"known: {', '.join(self.known) or 'none'}"
        super().__init__(f"no {kind} named {name!r}; {hint}")

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.kind, self.name, self.known, self.way_out)


class NameTakenError(LogitkitError, ValueError):
    """Two plugins offer the same name."""


class PluginError(LogitkitError, LookupError):
    """A plugin is broken: its module, its hooks, a Spec, or the class that a Spec names."""


class ChainError(LogitkitError, ValueError):
    """A chain cannot be read, or its order would discard the effect of a processor."""


class PromptError(LogitkitError, LookupError):
    """Prompts cannot be bound, or a row of tokens begins with none of the bound prompts."""


class ModelError(LogitkitError, ValueError):
    """A model or tokenizer lacks a capability that is needed, or does not match another one."""


class ModeError(LogitkitError, ValueError):
    """A setting or mode of generating under which the chain would be ignored or wrong."""


class ScoresError(LogitkitError, ValueError):
    """Scores from which no token can be chosen: NaN, +inf, or a row in which every token is impossible."""


class FileFormatError(LogitkitError, ValueError):
    """A file is absent, truncated, of another format or of another version."""


class MissingPackageError(LogitkitError, ImportError):
    """A package that belongs to an extra is not installed.

    Attributes:
        owner: what needs the package.
        package: the name of the package.
        extra: the extra that installs it.
        distribution: the distribution with this extra.

    >>> raise MissingPackageError("bench", "scipy", "bench")
    Traceback (most recent call last):
    logitkit.errors.MissingPackageError: bench: scipy must be installed, got no such package; run: pip install ...
    """

    def __init__(self, owner: str, package: str, extra: str, distribution: str = "logitkit") -> None:
        self.owner, self.package, self.extra, self.distribution = owner, package, extra, distribution
        way_out = f"run: pip install '{distribution}[{extra}]'"
        super().__init__(f"{owner}: {package} must be installed, got no such package; {way_out}")

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.owner, self.package, self.extra, self.distribution)


class DownloadError(LogitkitError, OSError):
    """A model or data set could not be downloaded."""


class DataError(LogitkitError, LookupError):
    """The data of a task cannot be found; the message lists the places searched and how to get the data."""


class RunError(LogitkitError, ValueError):
    """A run file has mistakes; the message lists all of them, each with its line.

    Attributes:
        name: the run file.
        mistakes: one text for each mistake.
    """

    def __init__(self, name: str, mistakes: Iterable[str]) -> None:
        self.name, self.mistakes = name, list(mistakes)
        count = f"{len(self.mistakes)} mistakes" if len(self.mistakes) > 1 else "one mistake"
        super().__init__(f"{name}: {count}; nothing was run\n" + "\n".join(f"  {line}" for line in self.mistakes))

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.name, self.mistakes)
