"""The tokens of a text behind a prompt."""

from __future__ import annotations

from typing import Any

from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.tokens.retokenization import Retokenizer
from logitkit.processors.tokens.vocabulary import Vocabulary


def continuation_tokens(
    prompts: Prompts, number: int, text: str, tokenizer: Any, vocabulary: Vocabulary, *, whole: str | None = None
) -> list[int]:
    """Return the token ids of a text behind a prompt.

    Prompt and text are tokenized together if the result begins with the tokens of the prompt. Otherwise, and behind the
    prompt of an encoder, the text is tokenized separately. The bytes that a step removed from the end of the prompt
    come first.

    Args:
        prompts: the prompts of the call.
        number: number of the prompt.
        text: not empty.
        tokenizer: the tokenizer of the generating model.
        vocabulary: its vocabulary.
        whole: the prompt as text, with the removed bytes; None: the text of the prompt and the removed bytes, if these
            are whole characters.

    Example:
        >>> from logitkit.processors.engine import read_prompts
        >>> from logitkit.processors.tokens import vocabulary_of
        >>> from logitkit.registry.laws import foreign_model, foreign_tokenizer
        >>> model, tokenizer = foreign_model(), foreign_tokenizer()
        >>> prompts = read_prompts(tokenizer, model, "on")
        >>> tokens = continuation_tokens(prompts, 0, " the", tokenizer, vocabulary_of(model, tokenizer))
        >>> tokenizer.convert_ids_to_tokens(tokens)
        ['Ġthe']
    """
    removed = prompts.removed[number] if prompts.removed else b""
    if whole is None and removed.decode(errors="ignore").encode() == removed:
        whole = prompts.texts[number] + removed.decode()
    if whole is not None and not prompts.in_encoder:
        own, tokens = prompts.tokens(number), prompts.encode(tokenizer, whole + text)
        if tokens[: len(own)] == own and len(tokens) > len(own):
            return tokens[len(own) :]
    return list(Retokenizer(vocabulary, tokenizer, vocabulary).of_bytes([removed + text.encode()])[0])
