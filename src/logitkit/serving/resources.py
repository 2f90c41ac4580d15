"""What the chains of requests may name: models, tables and files that the operator of the server gave a name.

A chain can name models to load and files to read. Requests come from others, so a chain of a request may name only
what the server was started with; the names in the operator's own default chain count as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from logitkit.errors import ParameterError, UnknownNameError
from logitkit.processors.alignment.dispatch import METHODS
from logitkit.processors.cascade.router import TRAINING_FREE_SCORES
from logitkit.processors.ngram import NgramTable
from logitkit.processors.searches.best_of import MEASURES
from logitkit.processors.searches.mbr import UTILITIES
from logitkit.registry.chain import Chain
from logitkit.registry.parameter_texts import names_in
from logitkit.registry.spec import Spec

# Words that parameters of `Spec.needs_files` understand and that name no file, by processor and parameter.
WORDS: Mapping[tuple[str, str], frozenset[str]] = {
    ("ensemble", "align"): frozenset((*METHODS, "bytes")),
    ("core", "align"): frozenset((*METHODS, "bytes")),
    ("router", "head"): frozenset(TRAINING_FREE_SCORES),
    ("best_of", "by"): frozenset(MEASURES),
    ("mbr", "utility"): frozenset(UTILITIES),
}
# Keys of mappings in such parameters whose values name something; the texts at other keys are words of the text.
NAMING_KEYS: Mapping[tuple[str, str], frozenset[str]] = {("attribute", "scorer"): frozenset(("head", "model"))}
Loader = Callable[[str], tuple[Any, Any]]


class Resources:
    """Objects and files by the names under which chains may use them.

    Args:
        models: name to (model, tokenizer).
        tables: name to n-gram table.
        files: name to path, for trained heads, thresholds and alignments.

    Attributes:
        objects: models and tables, for `bind`.
        tokenizers: of the models.
        files: as given.

    >>> Resources().check(Chain("top_p(0.9)"))
    >>> Resources().check(Chain("contrastive(amateur='gpt2')"))
    Traceback (most recent call last):
    logitkit.errors.ParameterError: contrastive: amateur must be a name that this server was started with (none), got \
'gpt2'; the operator gives names: logitkit serve --other-model NAME=MODEL
    """

    def __init__(
        self,
        *,
        models: Mapping[str, tuple[Any, Any]] | None = None,
        tables: Mapping[str, NgramTable] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        models, tables, self.files = models or {}, tables or {}, dict(files or {})
        names = [*models, *tables, *self.files]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ParameterError("serve", "names", "different", twice[0])
        self.objects: dict[str, Any] = {**{name: model for name, (model, _) in models.items()}, **tables}
        self.tokenizers = {name: tokenizer for name, (_, tokenizer) in models.items()}
        self._tables = frozenset(tables)

    @classmethod
    def load(
        cls,
        load: Loader,
        *,
        models: Mapping[str, str] | None = None,
        tables: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        chain: Chain | None = None,
    ) -> Resources:
        """Load what was given a name, and what the operator's own chain names.

        Args:
            load: loads a model and its tokenizer.
            models: name to model; tables and files: name to path.
            chain: the default chain; its names stand for themselves.

        Raises:
            ParameterError: a file is absent.
            LogitkitError: a model or a table cannot be loaded.
        """
        models, tables, files = dict(models or {}), dict(tables or {}), dict(files or {})
        for spec, (_, parameters) in zip(chain.specs, chain.steps, strict=True) if chain else ():
            for own, given in ((models, spec.needs_models), (tables, spec.needs_tables)):
                known = {**models, **tables, **files}
                own |= {name: name for name in names_in(parameters, given) if name not in known}
            files |= {
                text: text for _, text in _file_names(spec, parameters) if text not in {**models, **tables, **files}
            }
        for name, path in files.items():
            if not Path(path).expanduser().exists() and (chain is None or name != path):
                raise ParameterError("serve", f"--file {name}", "a file or folder that exists", path)
        return cls(
            models={name: load(model) for name, model in models.items()},
            tables={name: NgramTable.load(path) for name, path in tables.items()},
            files=files,
        )

    def check(self, chain: Chain) -> None:
        """Refuse a chain of a request that names anything else; nothing is loaded, and no file is looked for.

        Raises:
            ParameterError: names the processor and the parameter.
        """
        models = [name for name in self.objects if name not in self._tables]
        for spec, (_, parameters) in zip(chain.specs, chain.steps, strict=True):
            for option, known, needed in (
                ("--other-model NAME=MODEL", models, spec.needs_models),
                ("--table NAME=FILE", list(self._tables), spec.needs_tables),
            ):
                for parameter in needed:
                    for name in names_in(parameters, (parameter,)):
                        _check(spec, parameter, name, known, option)
            for parameter, name in _file_names(spec, parameters):
                _check(spec, parameter, name, [*self.files, *self.objects], "--file NAME=PATH")

    def resolved(self, chain: Chain) -> Chain:
        """Return a chain in which the names of files are their paths.

        >>> files = Resources(files={"sure": "/data/threshold.json"})
        >>> files.resolved(Chain("adadec(threshold='sure')"))
        Chain("adadec(threshold='/data/threshold.json')")
        """
        if not self.files:
            return chain
        data = chain.as_data()
        for spec, step in zip(chain.specs, data, strict=True):
            for parameter in spec.needs_files:
                if parameter in step["params"]:
                    step["params"][parameter] = self._with_paths(step["params"][parameter])
        return Chain(data, registry=chain.registry)

    def _with_paths(self, value: Any) -> Any:
        """Return a value in which each text that names a file is its path."""
        if isinstance(value, str):
            return self.files.get(value, value)
        if isinstance(value, Mapping):
            return {key: self._with_paths(part) for key, part in value.items()}
        return [self._with_paths(part) for part in value] if isinstance(value, (list, tuple)) else value

    def refuse_to_load(self, name: str, *, like: Any = None) -> NoReturn:
        """Stand in for the function that loads models: a request loads none.

        Raises:
            UnknownNameError: always.
        """
        raise UnknownNameError("model of this server", name, self.objects)


def _file_names(spec: Spec, parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (parameter, text) for each text that may name a file or an object."""
    for parameter in spec.needs_files:
        value, key = parameters.get(parameter), (spec.name, parameter)
        if key in NAMING_KEYS and isinstance(value, Mapping):
            value = [part for name, part in value.items() if name in NAMING_KEYS[key]]
        for text in names_in({parameter: value}, (parameter,)):
            if text not in WORDS.get(key, ()):
                yield parameter, text


def _check(spec: Spec, parameter: str, name: str, known: list[str], option: str) -> None:
    """Refuse a name that the server was not started with.

    Raises:
        ParameterError: as said.
    """
    if name not in known:
        rule = f"a name that this server was started with ({', '.join(known) or 'none'})"
        way_out = f"the operator gives names: logitkit serve {option}"
        raise ParameterError(spec.name, parameter, rule, name, way_out)
