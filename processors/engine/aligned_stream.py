"""A stream of a model with another tokenizer, translated into the vocabulary of the generating model."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from logitkit.errors import ModelError, PromptError
from logitkit.processors.alignment.alignment import Alignment
from logitkit.processors.alignment.alignment_vocabulary import AlignmentVocabulary
from logitkit.processors.alignment.dispatch import align
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.byte_models import byte_helpers
from logitkit.processors.engine.chats import apply_template
from logitkit.processors.engine.streams import Stream, StreamLike, as_stream, stacked_positions
from logitkit.processors.tokens.token_agreement import TokenAgreement

StreamAlignment = Literal["exact", "mined", "gac", "embedding", "bytes"]


class AlignedStream:
    """Log-probabilities of another model for the tokens of the generating model; a `Stream`.

    Args:
        read: the stream in the vocabulary of the other model.
        alignment: from the vocabulary of the other model to that of the generating model.

    Example:
        >>> import torch
        >>> from logitkit.processors.alignment import align
        >>> from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
        >>> helper = AlignmentVocabulary.of(foreign_model(), foreign_tokenizer())
        >>> main = AlignmentVocabulary.of(tiny_model(), tiny_tokenizer())
        >>> stream = AlignedStream(lambda rows: torch.zeros(len(rows), 300), align("gac", helper, main))
        >>> stream(torch.tensor([[7]])).shape
        torch.Size([1, 272])
    """

    fusable = False

    def __init__(self, read: StreamLike, alignment: Alignment) -> None:
        self.read, self.alignment = as_stream(read), alignment

    def __call__(self, rows: Tensor) -> Tensor:
        """Return log-probabilities, fp32 ``[rows, main vocab]``; -inf where no token of the other model is aligned.

        A row sums to less than 1 where a token of the other model has no token of the generating model.
        """
        logits = self.read(rows)
        if self.alignment.targets.device != logits.device:
            self.alignment = self.alignment.to(logits.device)
        return self.alignment.translate(logits.float().softmax(-1)).log()

    def positions(self, rows: Tensor, count: int) -> Tensor:
        """Return the log-probabilities after each of the last ``count`` prefixes, ``[rows, count, main vocab]``."""
        return stacked_positions(self, rows, count)

    def where(self, wanted: Tensor, rows: Tensor) -> Tensor | None:
        """Return the log-probabilities of all rows if any row wants them, else None without a forward."""
        return self(rows) if bool(wanted.any()) else None


def aligned_reader(binding: Binding, owner: str, name: str, method: StreamAlignment) -> Stream:
    """Return the stream of a named model under the prompts of the call, in the vocabulary of the generating model.

    A model with the tokenizer of the generating model is read as it is. With ``bytes``, the generating model is a
    `ByteModel`, and a model over tokens becomes one.

    Args:
        binding: the call.
        owner: the processor, for errors.
        name: of the model.
        method: of the alignment.

    Raises:
        ModelError: a model without a tokenizer, or without a chat template for chats; with ``bytes``, a generating
            model over tokens.
        PromptError: a prompt without tokens under the other tokenizer.
    """
    if method == "bytes":
        ((_, byte_model),) = byte_helpers(binding, owner, [name])
        return binding.reader(binding.own_prompts(), byte_model, label=name)
    model = binding.model_named(name)
    try:
        tokenizer = binding.tokenizer_named(name)
    except ModelError:  # without a tokenizer, a vocabulary of the same width counts as the same
        tokenizer = None
    own = (binding.model, binding.tokenizer)
    if tokenizer is None or TokenAgreement.of(own, (model, tokenizer)).same_text:
        same = binding.model_with_same_vocabulary(name, owner)
        return binding.reader(binding.own_prompts(), same, label=name)
    reader = binding.foreign_reader(_own_prompts(binding, owner, name, tokenizer), model, tokenizer, label=name)
    helper, main = (AlignmentVocabulary.of(*pair) for pair in ((model, tokenizer), own))
    return AlignedStream(reader, align(method, helper, main, cache=binding.cache))


def _own_prompts(binding: Binding, owner: str, name: str, tokenizer: Any) -> list[list[int]]:
    """Return the prompts of the call as tokens of another tokenizer; chats are written in its own template."""
    prompts = binding.prompts
    if any(chat is not None for chat in prompts.messages):
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(f"{owner}: model {name!r} must have a chat template to read chat messages, got none")
        texts = [apply_template(tokenizer, chat or (), prompts.template) for chat in prompts.messages]
        return [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    texts = list(prompts.texts)
    if not prompts.adds_specials:  # encoded prompts hold the special tokens of the generating model
        texts = [str(binding.tokenizer.decode(row, skip_special_tokens=True)) for row in binding.own_prompts()]
    ids = [list(tokenizer(text)["input_ids"]) for text in texts]
    for number, row in enumerate(ids):
        if not row:
            raise PromptError(f"{owner}: prompt {number} must have tokens for model {name!r}, got none; give it text")
    return ids
