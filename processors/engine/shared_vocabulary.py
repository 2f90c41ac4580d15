"""Models of one tokenizer with vocabularies of different widths, or with added tokens that only one of them has.

`logitkit.processors.tokens.TokenAgreement` decides which ids two models share. Here that decision is carried out: the
second model gives no probability to an id that is not shared, and the scores of the generating model lose it before
the first step of a chain. No row then continues after a token that the second model cannot read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import PromptError
from logitkit.processors.model_facts import vocabulary_size
from logitkit.processors.tokens.token_agreement import TokenAgreement

NAMED = 3  # tokens that a notice names


class SharedVocabulary(LogitsProcessor):
    """Makes the ids impossible that some model of a call does not share with the generating model.

    `restrict` is called while a chain is bound. Without a restriction the scores themselves are returned.

    Attributes:
        shared: bool, ``[ids]``; None: every id is shared. An id beyond the last entry is not shared.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> from logitkit.registry.laws.tiny_models import wide_model
    >>> vocabulary = SharedVocabulary()
    >>> same = tiny_tokenizer()
    >>> vocabulary.restrict(TokenAgreement.of((wide_model(280), same), (tiny_model(), same)).shared)
    >>> scores = vocabulary(torch.tensor([[0]]), torch.zeros(1, 280))
    >>> scores.shape, int((scores == -torch.inf).sum())
    (torch.Size([1, 280]), 8)
    """

    def __init__(self) -> None:
        self.shared: Tensor | None = None

    def restrict(self, shared: Tensor) -> None:
        """Make the ids impossible that are not shared.

        Args:
            shared: bool, ``[ids]``, as in `TokenAgreement`.
        """
        if not bool(shared.all()):
            self.shared = shared if self.shared is None else _both(self.shared, shared)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with ``-inf`` for ids that are not shared, ``[rows, vocab]``."""
        if self.shared is None:
            return scores
        if self.shared.device != scores.device:
            self.shared = self.shared.to(scores.device)
        return with_shared_ids(scores, self.shared)


class SharedIdsModel:
    """A model that gives no probability to ids that it does not share with another model, and can read all of them.

    An id that is not shared stands in a row only behind the end of a finished text, as padding, or behind a token that
    has no probability. What the model answers there has no effect, so it reads another id in its place.

    Args:
        model: a model of transformers.
        shared: bool, ``[ids]``, as in `TokenAgreement`.

    >>> from logitkit.registry.laws import tiny_model
    >>> model = SharedIdsModel(tiny_model(), torch.arange(280) < 270)
    >>> int((model(input_ids=torch.tensor([[65, 279]])).logits[0, -1] == -torch.inf).sum())
    2
    """

    def __init__(self, model: Any, shared: Tensor) -> None:
        self.checked_as = model  # what the cache of the model can do is checked once for both
        self.shared = shared.to(model.device)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "checked_as":  # copying looks for optional methods of an empty object
            raise AttributeError(name)
        return getattr(self.checked_as, name)

    def __call__(self, **inputs: Any) -> Any:
        """Run the model; ``logits`` of the output are ``[rows, tokens, vocab]``, -inf for ids that are not shared."""
        return self._narrowed(self.checked_as, inputs)

    def get_compiled_call(self, compile_config: Any) -> Callable[..., Any]:
        """Return the compiled forward of the model, which reads and answers as this model does."""
        compiled = self.checked_as.get_compiled_call(compile_config)
        return lambda **inputs: self._narrowed(compiled, inputs)

    def _narrowed(self, forward: Callable[..., Any], inputs: dict[str, Any]) -> Any:
        """Run a forward of the model on ids that the model has; see `__call__`."""
        last = vocabulary_size(self.checked_as) - 1
        for name in ("input_ids", "decoder_input_ids"):
            if inputs.get(name) is not None:
                inputs[name] = inputs[name].clamp_max(last)
        output = forward(**inputs)
        output["logits"] = with_shared_ids(output.logits, self.shared)
        return output


def check_prompts(prompts: Sequence[Sequence[int]], agreement: TokenAgreement, owner: str) -> None:
    """Refuse prompts that the second model cannot read.

    Args:
        prompts: token ids of the generating model, without padding.
        agreement: of the generating model and the second one.
        owner: method and second model, for the error.

    Raises:
        PromptError: a prompt holds a token that is not shared.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> same = TokenAgreement.of((tiny_model(), tiny_tokenizer()), (tiny_model(1), tiny_tokenizer()))
    >>> check_prompts([[65, 66]], same, "cascade: model 'large'")
    """
    shared = agreement.shared.tolist()
    for number, ids in enumerate(prompts):
        for token in ids:
            if token >= len(shared) or not shared[token]:
                raise PromptError(
                    f"{owner} must know every token of the prompts, got {agreement.lacking.get(token, token)!r} in "
                    f"prompt {number}, which it lacks; leave the token out of the prompt"
                )


def lacking_tokens(agreement: TokenAgreement, ends: Collection[int]) -> str:
    """Return in words which tokens of the generating model the second model lacks, for a notice.

    Args:
        agreement: of the generating model and the second one.
        ends: end tokens of the generating model.

    >>> lacking = {259: "<tool>"}
    >>> shared = torch.arange(260) < 259
    >>> lacking_tokens(TokenAgreement(shared=shared, conflict=None, lacking=lacking, same_text=True), [257])
    "lacks tokens of the generating model, which are impossible: '<tool>' (259)"
    """
    named = [f"{text!r} ({token})" for token, text in agreement.lacking.items()]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    endless = "; texts end at the length limit only" if ends and not set(ends) - set(agreement.lacking) else ""
    return f"lacks tokens of the generating model, which are impossible: {', '.join(named[:NAMED])}{more}{endless}"


def with_shared_ids(scores: Tensor, shared: Tensor) -> Tensor:
    """Return scores with ``-inf`` for ids that are not shared, ``[..., vocab]``.

    Args:
        scores: logits or log-probabilities, ``[..., vocab]``; not written to.
        shared: bool, ``[ids]``; an id beyond the last entry is not shared.

    >>> with_shared_ids(torch.zeros(1, 3), torch.tensor([True, False]))
    tensor([[0., -inf, -inf]])
    """
    return scores.masked_fill(~_padded(shared, scores.shape[-1])[: scores.shape[-1]], -torch.inf)


def _both(first: Tensor, second: Tensor) -> Tensor:
    """Return which ids two masks share, bool, ``[ids]`` of the longer one."""
    width = max(len(first), len(second))
    return _padded(first, width) & _padded(second.to(first.device), width)


def _padded(shared: Tensor, width: int) -> Tensor:
    """Return a mask of at least this many ids; further ids are not shared."""
    return torch.nn.functional.pad(shared, (0, max(0, width - len(shared))), value=False)
