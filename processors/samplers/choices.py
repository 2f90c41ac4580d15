"""`Choices`: the continuation is one of given texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np

from logitkit.errors import ModelError, ParameterError
from logitkit.params import Resource, checked, option
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.call_vocabulary import call_vocabulary
from logitkit.processors.engine.constraint_step import ConstraintStep, Mask
from logitkit.processors.engine.continuation_tokens import continuation_tokens
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.model_facts import end_tokens

Options = Annotated[list[str], option("texts, one of which is the whole continuation")]


@dataclass
class TokenTrie:
    """Token sequences with common beginnings.

    Attributes:
        following: the rest of the sequences by their next token.
        complete: whether a sequence ends here.

    Example:
        >>> trie = TokenTrie.of([[5, 6], [5]])
        >>> trie.following[5].complete, list(trie.following[5].following)
        (True, [6])
    """

    following: dict[int, TokenTrie] = field(default_factory=dict)
    complete: bool = False

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> TokenTrie:
        """Return the trie of token sequences."""
        trie = cls()
        for tokens in sequences:
            node = trie
            for token in tokens:
                node = node.following.setdefault(token, cls())
            node.complete = True
        return trie


class Choices(ConstraintStep[TokenTrie]):
    """Allow only tokens that continue the row to one of the options; after a complete option, only an end token.

    Each option is tokenized behind its prompt: as the tokens of prompt and option together where these begin with the
    tokens of the prompt, else as text of its own. The probabilities of the tokens are those of the chain before,
    renormalised at each token over the tokens that are left. This is not the probability of an option given that some
    option is chosen; `logitkit.score` computes the latter.

    Args:
        options: the options, one or more distinct texts, none empty.
        tokens: tokens of each option behind each prompt, by the number of the prompt.
        prompts: the prompts of the call.
        settings: the settings of the call.
        ends: end tokens where `generate` and the model state none.
        width: number of token ids of the vocabulary.

    Raises:
        ParameterError: no option, an empty option, or two equal options.

    Example:
        >>> import logitkit
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> logitkit.generate(tiny_model(), tiny_tokenizer(), "Is it? ", chain="choices(options=['yes', 'no'])",
        ...                   do_sample=False, max_new_tokens=5).texts[0] in ("yes", "no")
        True
    """

    owner: ClassVar[str] = "choices"
    dead_end: ClassVar[str] = "set an end token, model.generation_config.eos_token_id, with which an option can end"

    @checked
    def __init__(
        self,
        *,
        options: Options,
        tokens: Annotated[Mapping[int, Sequence[Sequence[int]]], Resource()],
        prompts: Annotated[Prompts, Resource()],
        settings: Annotated[CallSettings, Resource()],
        ends: Annotated[Sequence[int], Resource()] = (),
        width: Annotated[int, Resource()],
    ) -> None:
        _check_options(options)
        super().__init__(prompts, settings, width)
        self.options, self._ends, self._settings = tuple(options), tuple(ends), settings
        self._tries = {prompt: TokenTrie.of(sequences) for prompt, sequences in tokens.items()}

    @classmethod
    def bind(cls, binding: Binding, *, options: list[str]) -> Choices:
        """Return the processor with the tokens of each option behind each prompt.

        Raises:
            ParameterError: as for the class.
            ModelError: neither the model nor the tokenizer has an end token.
        """
        _check_options(options)
        vocabulary = call_vocabulary(binding)
        ends = end_tokens(binding.model, binding.tokenizer)
        if not ends:
            raise ModelError("choices: the model must have an end token; set model.generation_config.eos_token_id")
        prompts, tokenizer = binding.prompts, binding.tokenizer
        tokens = {
            number: [continuation_tokens(prompts, number, text, tokenizer, vocabulary) for text in options]
            for number in range(len(prompts))
        }
        own: dict[str, Any] = {"prompts": prompts, "settings": binding.settings, "width": len(vocabulary)}
        return cls(options=options, tokens=tokens, ends=ends[:1], **own)

    def initial(self, prompt: int) -> TokenTrie | None:
        """Return the trie of all options behind a prompt."""
        return self._tries[prompt]

    def advance(self, state: TokenTrie, token: int) -> TokenTrie | None:
        """Return the trie of the options that begin with one more token."""
        return state.following.get(token)

    def permitted(self, state: TokenTrie) -> Mask:
        """Return the next tokens of the options that are left, and the end tokens where one is complete."""
        mask = np.zeros(self._width, bool)
        ends = self._settings.text_ends(self._ends) if state.complete else ()
        mask[[token for token in (*state.following, *ends) if token < self._width]] = True
        return mask


def _check_options(options: Sequence[str]) -> None:
    """Refuse an empty list, an empty option, and equal options."""
    if not options or not all(options) or len(set(options)) < len(options):
        raise ParameterError("choices", "options", "one or more distinct texts, none empty", list(options))
