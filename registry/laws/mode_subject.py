"""The subject of the tests of modes: a Spec's example on tiny models, beside its recomputation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from logitkit.errors import ParameterError
from logitkit.processors.byte_level.model import ByteModel
from logitkit.registry.chain import Chain
from logitkit.registry.laws.examples import example_of
from logitkit.registry.laws.recomputation import Recomputation
from logitkit.registry.laws.subjects import TEXTS
from logitkit.registry.laws.tiny_architectures import ARCHITECTURES, llama
from logitkit.registry.laws.tiny_models import foreign_tokenizer, tiny_tokenizer
from logitkit.registry.registry import Registry
from logitkit.registry.spec import Spec

PROMPTS = [TEXTS[0], f"a longer one: {TEXTS[1]}"]  # of unequal length, so that one is padded
LONG = " ".join([TEXTS[1]] * 12)


class ModeSubject:
    """A Spec's example on tiny models, beside its recomputation from scratch.

    A processor that rewrites prompts, or acts on tokens of several bytes alone, generates with the foreign model: with
    tokens of one byte each there would be no token to cut.

    Args:
        spec: the processor.
        registry: where its name is looked up.
        architecture: of the models, a name in `ARCHITECTURES`.

    Attributes:
        single, batch: recomputation for the first prompt, and for both.
        draft: an assistant model with the tokenizer of the generating model.
        strangers: an assistant model with another tokenizer, and that tokenizer.
    """

    def __init__(self, spec: Spec, registry: Registry, *, architecture: str = "llama") -> None:
        self.architecture = ARCHITECTURES[architecture]
        foreign = spec.rewrites_prompt or spec.merged_tokens
        tokenizer, other = foreign_tokenizer(), tiny_tokenizer()
        tokenizer, other = (tokenizer, other) if foreign else (other, tokenizer)

        def another(number: int) -> Any:
            return self.architecture.another(number, tokenizer)

        model = self.architecture.model(0, tokenizer)
        self.example = example_of(spec, registry, model=model, tokenizer=tokenizer, another=another)
        self.model, self.tokenizer = self.example.model, self.example.tokenizer
        self.depends_on_scale = "ignores_the_scale_of_a_row" in spec.laws
        self.draft, self.strangers = ARCHITECTURES["llama"].model(3, tokenizer), (llama(5, other), other)
        if isinstance(self.model, ByteModel):
            self.draft = ByteModel(self.draft, tokenizer)
        self.single, self.batch = self.recomputation(1), self.recomputation(2)

    def recomputation(self, count: int, model: Any = None, prompts: Sequence[str] = PROMPTS) -> Recomputation:
        """Return the recomputation for the first ``count`` prompts, with another generating model if given."""
        chain = self.example.chain
        return Recomputation(
            for_first_prompt(chain) if count == 1 else chain,
            model or self.model,
            self.tokenizer,
            [self.architecture.prefix + text for text in prompts[:count]],
            resources=self.example.resources,
            tokenizers=self.example.tokenizers,
            depends_on_scale=self.depends_on_scale,
            inputs=self.architecture.inputs(count),
        )


def for_first_prompt(chain: Chain) -> Chain:
    """Return a chain in which each list with one text for each prompt is replaced by its first text.

    A list of a parameter that takes no single text, such as a list of phrases, is left as it is.
    """

    def first(spec: Spec, key: str, value: Any) -> Any:
        if not isinstance(value, list) or len(value) != len(TEXTS) or not isinstance(value[0], str):
            return value
        try:
            return spec.check({key: value[0]})[key]
        except ParameterError as error:
            return value if error.parameter == key else value[0]

    steps = [
        {"name": name, "params": {key: first(spec, key, value) for key, value in parameters.items()}}
        for spec, (name, parameters) in zip(chain.specs, chain.steps, strict=True)
    ]
    return Chain(steps, registry=chain.registry)
