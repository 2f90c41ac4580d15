"""One prompt continued under two chains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from logitkit.inspection.measurement import Inspection, inspect
from logitkit.inspection.settings import GenerateSettings
from logitkit.registry.chain import Chain


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """Two inspections of one prompt; `compare` returns it.

    Attributes:
        first, second: the inspections.

    >>> from logitkit.inspection import inspect
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> plain, hot = (inspect(tiny_model(), tiny_tokenizer(), "Once", chain, max_new_tokens=4)
    ...               for chain in ("", "temperature(0.5)"))
    >>> comparison = Comparison(first=plain, second=hot)
    >>> comparison.shared, comparison.equal  # greedy decoding takes the same tokens at every temperature
    (4, True)
    """

    first: Inspection
    second: Inspection

    @property
    def sides(self) -> tuple[Inspection, Inspection]:
        """Both inspections."""
        return self.first, self.second

    @property
    def same_prompt(self) -> bool:
        """Whether both chains read the same tokens; a chain such as `byte_boundary` rewrites the prompt."""
        first, second = (side.completion.row[: -len(side.moves) or None] for side in self.sides)
        return first == second

    @property
    def shared(self) -> int:
        """Number of tokens with which both continuations begin; 0 after different prompts."""
        pairs = list(zip(self.first.moves, self.second.moves, strict=False)) if self.same_prompt else []
        differing = (number for number, (one, other) in enumerate(pairs) if one.token != other.token)
        return next(differing, len(pairs))

    @property
    def equal(self) -> bool:
        """Whether both chains read the same tokens and wrote the same tokens."""
        return self.same_prompt and self.shared == len(self.first.moves) == len(self.second.moves)


# Over 40 lines: the arguments are documented one by one.
def compare(
    model: Any,
    tokenizer: Any,
    prompt: str | list[dict[str, str]],
    chain: str | Chain = "",
    against: str | Chain = "",
    *,
    top: int = 8,
    seed: int = 0,
    label: str = "tokens",
    resources: Mapping[str, Any] | None = None,
    against_resources: Mapping[str, Any] | None = None,
    tokenizers: Mapping[str, Any] | None = None,
    **settings: Unpack[GenerateSettings],
) -> Comparison:
    """Continue one prompt under two chains, with the same settings and the same seed.

    Args:
        model, tokenizer: the generating model and its tokenizer.
        prompt: one text, or the messages of one chat.
        chain: the chain of the first side.
        against: the chain of the second side; empty is plain decoding.
        top, seed, label, settings: as in `inspect`.
        resources, against_resources: objects that the parameters of each chain name, as in `logitkit.generate`.
        tokenizers: as in `logitkit.generate`.

    Returns:
        Both inspections. `html_page` and `terminal_view` show them.

    Raises:
        LogitkitError: the errors of `inspect`, for either chain.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> comparison = compare(tiny_model(), tiny_tokenizer(), "Once", "temperature(0.5)", max_new_tokens=4)
    >>> [side.chain for side in comparison.sides]
    ['temperature(temperature=0.5)', 'plain decoding']
    """
    first, second = (
        inspect(
            model,
            tokenizer,
            prompt,
            each,
            top=top,
            seed=seed,
            label=label,
            resources=named,
            tokenizers=tokenizers,
            **settings,
        )
        for each, named in ((chain, resources), (against, against_resources))
    )
    return Comparison(first=first, second=second)
