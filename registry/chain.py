"""Chains: processors in order, as data. A chain holds no model; it can be written, hashed and shared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logitkit.infinite_numbers import as_text
from logitkit.registry import expression, gate_option
from logitkit.registry.chain_order import check_order
from logitkit.registry.discovery import default_registry
from logitkit.registry.named_resources import named_objects, takes_resources_of_any_name
from logitkit.registry.registry import Registry
from logitkit.registry.required_package import require_packages
from logitkit.registry.saved_chains import saved_file
from logitkit.registry.spec import Spec

if TYPE_CHECKING:
    from logitkit.registry.call import Call

Steps = Sequence[Mapping[str, Any]] | Mapping[str, Any]


class Chain:
    """Processors in order, each with its name and parameters, checked against the Specs of the plugins.

    Args:
        chain: text such as ``"uscd(rho=0.7) | top_p(0.9)"``, a list of ``{"name": ..., "params": {...}}``,
            a document ``{"version": "1.0", "steps": [...]}`` of such a list, or another chain. Empty: plain decoding.
        registry: where names are looked up; by default the registry of the other chain, else everything installed.

    Attributes:
        steps: (name, parameters) of each processor; defaults are left out.
        registry: where names were looked up.

    Raises:
        ChainError: text that cannot be read, or an order that discards the effect of a processor.
        UnknownNameError: an unknown processor or parameter; the error shows the closest known name.
        ParameterError: a parameter that breaks its rule.

    >>> chain = Chain("temperature(0.8) | top_p(0.9)")
    >>> chain.as_data()[0], Chain(chain.as_data()) == chain
    ({'name': 'temperature', 'params': {'temperature': 0.8}}, True)
    """

    def __init__(self, chain: str | Steps | Chain = "", *, registry: Registry | None = None) -> None:
        self.registry: Registry = registry or (chain.registry if isinstance(chain, Chain) else default_registry())
        if isinstance(chain, Chain):
            steps: list[expression.Step] = list(chain.steps)
        elif isinstance(chain, str):
            steps = expression.read(chain, lambda name: list(self.registry.describe(name).model.model_fields))
        else:
            steps = expression.from_data(chain)
        self.steps: list[expression.Step] = [
            (name, self.registry.describe(name).check(parameters)) for name, parameters in steps
        ]
        check_order(self.specs)

    @classmethod
    def from_file(cls, path: str | Path, *, registry: Registry | None = None) -> Chain:
        """Read a chain from a ``.yaml``, ``.yml`` or ``.json`` file.

        Args:
            path: a file that holds a document, a list of steps or the text form.
            registry: as for the class.

        Raises:
            FileFormatError: another ending, a file that cannot be read, or content that is not YAML or JSON.
            ChainError, UnknownNameError, ParameterError: as for the class.
        """
        from logitkit.registry.chain_files import read

        return cls(read(path), registry=registry)

    @property
    def specs(self) -> list[Spec]:
        """The Spec of each processor, in order."""
        return [self.registry.describe(name) for name, _ in self.steps]

    @property
    def searches(self) -> bool:
        """Whether the chain ends in a search or a selector.

        >>> Chain("top_p(0.9) | best_of(n=4)").searches, Chain("top_p(0.9)").searches
        (True, False)
        """
        return any(spec.kind != "processor" for spec in self.specs)

    def as_data(self) -> list[dict[str, Any]]:
        """Return the chain as ``{"name", "params"}``, and ``"gate"`` of a gated step; infinite numbers as texts."""
        split = [(name, *gate_option.split(parameters)) for name, parameters in self.steps]
        return [
            as_text({"name": name, "params": own} | ({} if gate is None else {gate_option.GATE: dict(gate)}))
            for name, own, gate in split
        ]

    def to_file(self, path: str | Path) -> None:
        """Write the chain as a document to a ``.yaml``, ``.yml`` or ``.json`` file that `from_file` reads.

        Raises:
            FileFormatError: another ending.
        """
        from logitkit.registry.chain_files import write

        write(path, self.as_data())

    def save(self, folder: str | Path, name: str = "default") -> Path:
        """Write the chain beside a model, into ``folder/chains/name.yaml``, from where `saved` reads it.

        Args:
            folder: the folder of a model, as ``save_pretrained`` wrote it.
            name: letters, digits, ``_`` and ``-``.

        Returns:
            The path of the file.

        Raises:
            ParameterError: another name.

        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> path = Chain("top_p(0.9)").save(folder, "careful")
        >>> Chain.saved(folder, "careful")
        Chain('top_p(top_p=0.9)')
        """
        path = Path(folder) / saved_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.to_file(path)
        return path

    @classmethod
    def saved(cls, model: str | Path, name: str = "default", *, registry: Registry | None = None) -> Chain:
        """Read a chain that `save` wrote beside a model.

        Args:
            model: the folder, known name or hub id of a model.
            name: as in `save`.
            registry: as for the class.

        Raises:
            FileFormatError: there is no such file; the error lists the saved chains.
            ChainError, UnknownNameError, ParameterError: as for the class.
        """
        from logitkit.registry.saved_chains import find

        return cls.from_file(find(str(model), saved_file(name)), registry=registry)

    def to(self, engine: str) -> dict[str, Any]:
        """Return the sampling fields with which another engine carries out this chain.

        The engine is ``llama.cpp``, ``vllm``, ``sglang`` or ``textgen`` (text-generation-webui, loader transformers);
        a step, an order or a parameter without an equal there is a `ChainError` or `ParameterError`.

        >>> Chain("top_k(40) | temperature(0.7)").to("llama.cpp")["samplers"]
        ['top_k', 'temperature']
        """
        from logitkit.registry.engines import write

        return write(engine, self.steps, self.registry.describe)

    @classmethod
    def from_engine(cls, engine: str, data: Mapping[str, Any], *, registry: Registry | None = None) -> Chain:
        """Return the chain that another engine carries out for the fields of a request; see `to`.

        >>> Chain.from_engine("llama.cpp", {"samplers": ["top_p"]})  # the engine's default is 0.95
        Chain('top_p(top_p=0.95)')
        """
        from logitkit.registry.engines import read

        return cls(read(engine, data, (registry or default_registry()).describe), registry=registry)

    @property
    def hash(self) -> str:
        """Key of results: 16 hex digits of each processor's name, revision and parameters, defaults included.

        >>> Chain("cfg()").hash == Chain("cfg(scale=1.5)").hash
        True
        """
        full = [
            [name, spec.revision, spec.hashed(parameters)]
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

    def require_packages(self) -> None:
        """Check that every package is installed that a step needs and only an extra installs; nothing is loaded.

        Raises:
            MissingPackageError: names the first that is not installed, and the extra that installs it.

        >>> Chain("grammar(regex='[0-9]+')").require_packages()
        """
        for spec, (_, parameters) in zip(self.specs, self.steps, strict=True):
            if spec.needs_packages:
                require_packages(spec.name, spec.plugin, spec.needs_packages, spec.filled(parameters))

    def _names(self, read: Callable[[Spec, Mapping[str, Any]], list[str]]) -> list[str]:
        """Collect names over all steps, each once."""
        each = [read(spec, parameters) for spec, (_, parameters) in zip(self.specs, self.steps, strict=True)]
        return list(dict.fromkeys(name for names in each for name in names))

    @takes_resources_of_any_name
    def bind(
        self,
        /,
        model: Any,
        tokenizer: Any,
        prompts: Any,
        *,
        trace: bool = False,
        tokenizers: Mapping[str, Any] | None = None,
        template: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> Call:
        """Bind the chain to the model, tokenizer and prompts of one generate call.

        Args:
            model: the generating model.
            tokenizer: its tokenizer. Without a padding token, its end token pads; padding is masked.
            prompts: a text, a list of texts, chat messages, a list of chats, or encoded inputs, with images and other
                inputs of the model if there are any.
            trace: record every step (gates, divergences, likeliest tokens), in addition to counters.
            tokenizers: tokenizers, by name, of models in ``resources`` that have no ``name_or_path``.
            template: arguments of the chat template for chats, such as ``{"tools": [...]}``, or
                ``{"continue_final_message": True}`` to continue a last message of the assistant. Refused where
                neither the prompts nor a parameter of the chain are chats.
            resources: objects that parameters of the chain name, as ``{"large": other_model}``.
            named: such objects as arguments, ``large=other_model``. Objects that the chain names ``trace``,
                ``tokenizers``, ``template`` or ``resources`` are passed in ``resources``.

        Returns:
            A `Call`.

        Raises:
            PromptError: prompts of another form, without tokens, or with inputs that the model does not take.
            ModeError: a second stream that cannot read the images or other inputs of the prompts.
            ModelError: a model that cannot generate, or with another vocabulary than a processor needs.
            ParameterError: a parameter that does not fit the prompts, or ``resources`` that are no mapping.
            MissingPackageError: a package that an extra installs is absent; see `require_packages`.
            UnknownNameError: a resource that is absent, or that no parameter names.

        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> call = Chain("contrastive(amateur='small')").bind(
        ...     tiny_model(), tiny_tokenizer(), "a prompt", small=tiny_model(1)
        ... )
        >>> call.inputs["input_ids"].shape
        torch.Size([1, 8])
        """
        from logitkit.registry.bind import bind

        given = {**named_objects("bind", "resources", resources), **named}
        options: dict[str, Any] = {"trace": trace, "tokenizers": tokenizers, "template": template}
        return bind(self, model, tokenizer, prompts, resources=given, **options)

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
