"""A chain: processors in order, as data. It holds no model, and can be written, hashed and shared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logitkit.errors import ChainError, FileFormatError
from logitkit.registry import expression
from logitkit.registry.discovery import default_registry
from logitkit.registry.registry import Registry
from logitkit.registry.spec import Spec

if TYPE_CHECKING:
    from logitkit.registry.call import Call

Steps = Sequence[Mapping[str, Any]]


class Chain:
    """Processors in order, each a name and its parameters, checked against what the plugins declare.

    Args:
        chain: text such as ``"uscd(rho=0.7) | top_p(0.9)"``, a list of ``{"name": ..., "params": {...}}``,
            or another chain. Empty means plain decoding.
        registry: where names are looked up; by default everything installed.

    Raises:
        ChainError: text that cannot be read, or an order that cannot mean what it says.
        UnknownNameError: an unknown processor or parameter, with the closest known one.
        ParameterError: a parameter outside its rule.
    """

    def __init__(self, chain: str | Steps | Chain = "", *, registry: Registry | None = None) -> None:
        self.registry = registry or default_registry()
        if isinstance(chain, Chain):
            steps: list[expression.Step] = list(chain.steps)
        elif isinstance(chain, str):
            steps = expression.read(chain, lambda name: list(self.registry.describe(name).model.model_fields))
        else:
            steps = _from_data(chain)
        self.steps: list[expression.Step] = [(name, self.registry.describe(name).check(given)) for name, given in steps]
        _check_order(self.specs)

    @classmethod
    def from_file(cls, path: str | Path, *, registry: Registry | None = None) -> Chain:
        """Read a chain from a ``.yaml``, ``.yml`` or ``.json`` file holding a list of steps or the text form.

        Raises:
            FileFormatError: another ending, or not YAML or JSON.
        """
        import yaml  # a file is rarely read, names are listed often

        path = Path(path)
        if path.suffix not in (".yaml", ".yml", ".json"):
            raise FileFormatError(f"chain file: name must end in .yaml, .yml or .json, got {str(path)!r}")
        try:
            text = path.read_text(encoding="utf-8")
            data = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        except (UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
            raise FileFormatError(f"chain file: {path} must be {path.suffix[1:]}, got: {error}") from error
        return cls([] if data is None else data, registry=registry)

    @property
    def specs(self) -> list[Spec]:
        """The spec of each processor, in order."""
        return [self.registry.describe(name) for name, _ in self.steps]

    def as_data(self) -> list[dict[str, Any]]:
        """The chain as a list of ``{name, params}``."""
        return [{"name": name, "params": dict(given)} for name, given in self.steps]

    def to_file(self, path: str | Path) -> None:
        """Write the chain to a ``.yaml``, ``.yml`` or ``.json`` file that `from_file` reads."""
        import yaml

        path = Path(path)
        if path.suffix not in (".yaml", ".yml", ".json"):
            raise FileFormatError(f"chain file: name must end in .yaml, .yml or .json, got {str(path)!r}")
        data = self.as_data()
        text = json.dumps(data, indent=2) if path.suffix == ".json" else yaml.safe_dump(data, sort_keys=False)
        path.write_text(text + ("\n" if path.suffix == ".json" else ""), encoding="utf-8")

    @property
    def hash(self) -> str:
        """Key of results: 16 hex digits of each processor's name, revision and parameters, defaults included.

        >>> Chain("cfg()").hash == Chain("cfg(scale=1.5)").hash
        True
        """
        full = [
            [name, spec.revision, spec.filled(parameters)]
            for spec, (name, parameters) in zip(self.specs, self.steps, strict=True)
        ]
        return hashlib.sha256(json.dumps(full, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def model_names(self) -> list[str]:
        """Names of models in the parameters; see `Spec.needs_models`.

        >>> Chain("dexperts(expert='tuned', antiexpert='plain') | top_p(0.9)").model_names
        ['tuned', 'plain']
        """
        return self._names(Spec.model_names)

    @property
    def table_names(self) -> list[str]:
        """Names of n-gram tables in the parameters; see `Spec.needs_tables`."""
        return self._names(Spec.table_names)

    @property
    def resource_names(self) -> list[str]:
        """Every name in the parameters that may stand for an object passed to `bind`."""
        return self._names(Spec.resource_names)

    def _names(self, read: Callable[[Spec, Mapping[str, Any]], list[str]]) -> list[str]:
        """Collect names over all steps, each once."""
        each = [read(spec, parameters) for spec, (_, parameters) in zip(self.specs, self.steps, strict=True)]
        return list(dict.fromkeys(name for names in each for name in names))

    def bind(
        self,
        model: Any,
        tokenizer: Any,
        prompts: Any,
        *,
        trace: bool = False,
        tokenizers: Mapping[str, Any] | None = None,
        **resources: Any,
    ) -> Call:
        """Bind the chain to one generate call.

        Args:
            model: the generating model.
            tokenizer: its tokenizer. Without a pad token its end token pads; padding is masked.
            prompts: text, a list of texts, chat messages, a list of chats, or encoded inputs.
            trace: record every step (gates, divergences, top tokens), not only counters.
            tokenizers: tokenizers of models in ``resources`` that cannot say where they came from.
            resources: objects that parameters name, such as ``large=other_model``.

        Raises:
            PromptError, ModelError, ParameterError, UnknownNameError: before any model runs.
        """
        from logitkit.registry.bind import bind

        return bind(self, model, tokenizer, prompts, trace=trace, tokenizers=tokenizers, resources=resources)

    def __len__(self) -> int:
        return len(self.steps)

    def __str__(self) -> str:
        return expression.write(self.steps)

    def __repr__(self) -> str:
        return f"Chain({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chain) and self.steps == other.steps

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> tuple[type[Chain], tuple[list[dict[str, Any]]]]:
        return Chain, (self.as_data(),)


def _from_data(data: Any) -> list[expression.Step]:
    """Read the list form.

    Raises:
        ChainError: not a list of ``{name, params}``; says which entry.
    """
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes, Mapping)):
        raise ChainError(f"chain: must be text or a list of {{name, params}}, got {data!r}")
    steps: list[expression.Step] = []
    for number, step in enumerate(data):
        if not expression.is_step(step):
            raise ChainError(f"chain: step {number} must be {{name: text, params: {{...}}}}, got {step!r}")
        params = step.get("params") or {}
        if not isinstance(params, Mapping):
            raise ChainError(f"chain: params of step {number} must be a mapping, got {params!r}")
        steps.append((step["name"], dict(params)))
    return steps


def _check_order(specs: Sequence[Spec]) -> None:
    """Refuse a processor that replaces the distribution behind one whose effect it would discard."""
    for number, spec in enumerate(specs):
        if spec.discards and number:
            lost = ", ".join(earlier.name for earlier in specs[:number])
            raise ChainError(
                f"chain: {spec.name} must stand before {lost}, since it replaces the distribution and would discard "
                f"their effect; write {spec.name}(...) | {' | '.join(s.name + '(...)' for s in specs[:number])}"
            )
