"""`BanPhrases`: no output contains a given phrase, however it is divided into tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np

from logitkit.errors import ModelError, ParameterError
from logitkit.params import Resource, checked, option
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.call_vocabulary import call_vocabulary
from logitkit.processors.engine.constraint_step import ConstraintStep, Mask
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.samplers.phrases import PhraseAutomaton, PhraseIndex, Place
from logitkit.processors.tokens.vocabulary import Vocabulary

Phrases = Annotated[list[str], option("texts that no output may contain")]
FoldCase = Annotated[bool, option("forbid the phrases in upper and lower case alike, by case folding of Unicode")]


class BanState(NamedTuple):
    """The text of a row, as far as later tokens depend on it.

    Attributes:
        place: state of the search for phrases.
        removed: bytes of the prompt that the row must still spell, since a step cut them from the prompt.
    """

    place: Place
    removed: bytes


class BanPhrases(ConstraintStep[BanState]):
    """Forbid each token whose bytes complete a banned phrase in the text of prompt and continuation.

    No output contains a phrase, whichever tokens spell it; an occurrence may begin in the prompt. The tokens that only
    begin a phrase keep their scores. The distribution is the one of the chain before, renormalised at each token over
    the tokens that are left; it is not the distribution given that the whole text is free of the phrases.
    Special tokens have no text, as in decoded outputs, where they are left out.

    Args:
        phrases: one or more texts, none empty.
        fold_case: compare case-folded characters: ``straße`` then bans ``STRASSE`` too.
        vocabulary: the tokens as bytes.
        prompts: the prompts of the call.
        settings: the settings of the call.

    Raises:
        ParameterError: no phrase, an empty one, or one that holds U+FFFD, which decoding writes for invalid bytes.

    Example:
        >>> import logitkit
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> call = logitkit.chain("ban_phrases(phrases=['cat'])").bind(tiny_model(), tiny_tokenizer(), "The ca")
        >>> scores = call.composite(call.prompts.ids, tiny_model()(call.prompts.ids).logits[:, -1])
        >>> tiny_tokenizer().convert_ids_to_tokens((scores[0, :256].isinf()).nonzero()[:, 0].tolist())
        ['t']
    """

    owner: ClassVar[str] = "ban_phrases"
    beyond: ClassVar[bool] = True
    dead_end: ClassVar[str] = "ban fewer phrases"

    @checked
    def __init__(
        self,
        *,
        phrases: Phrases,
        fold_case: FoldCase = False,
        vocabulary: Annotated[Vocabulary, Resource()],
        prompts: Annotated[Prompts, Resource()],
        settings: Annotated[CallSettings, Resource()],
    ) -> None:
        check_phrases("ban_phrases", phrases)
        super().__init__(prompts, settings, len(vocabulary))
        self.phrases, self.fold_case = tuple(phrases), fold_case
        self.prompts, self._vocabulary = prompts, vocabulary
        self._automaton = PhraseAutomaton(phrases, fold_case=fold_case)
        self._index = PhraseIndex(self._automaton, vocabulary)

    @classmethod
    def bind(cls, binding: Binding, *, phrases: list[str], fold_case: bool) -> BanPhrases:
        """Return the processor with the vocabulary and the prompts of the call.

        Raises:
            ParameterError: as for the class, and for a phrase that is the text of a special token.
            ModelError: the tokenizer removes spaces when it decodes, so the tokens do not spell the text.
        """
        vocabulary = call_vocabulary(binding)
        check_spelling("ban_phrases", binding.tokenizer, vocabulary, phrases)
        own: dict[str, Any] = {"vocabulary": vocabulary, "prompts": binding.prompts, "settings": binding.settings}
        return cls(phrases=phrases, fold_case=fold_case, **own)

    def initial(self, prompt: int) -> BanState:
        """Return the state after a prompt; a decoder's rows begin without one."""
        prompts = self.prompts
        text = b"" if prompts.in_encoder else self._vocabulary.join(prompts.tokens(prompt))
        place, _ = self._automaton.read(Place(), text)
        return BanState(place, prompts.removed[prompt] if prompts.removed else b"")

    def advance(self, state: BanState, token: int) -> BanState:
        """Return the state after one more token; ids without text change nothing."""
        text = (self._vocabulary.token_bytes[token] if token < self._width else None) or b""
        place, _ = self._automaton.read(state.place, text)
        return BanState(place, state.removed[len(text) :])

    def permitted(self, state: BanState) -> Mask | None:
        """Return which tokens complete no phrase, ``[width]``; None: none completes one."""
        if state.removed:
            completing = self._index.completing_behind(state.place, state.removed)
        else:
            completing = self._index.completing(state.place)
        if not completing:
            return None
        mask = np.ones(self._width, bool)
        mask[completing] = False
        return mask


def check_phrases(owner: str, phrases: Sequence[str]) -> None:
    """Refuse phrases that no text can be searched for.

    Args:
        owner: name of the step or the search, for the error.
        phrases: the phrases.

    Raises:
        ParameterError: no phrase, an empty one, or one that holds U+FFFD, which decoding writes for invalid bytes.
    """
    if not phrases or not all(phrases) or any("\ufffd" in phrase for phrase in phrases):
        raise ParameterError(owner, "phrases", "one or more texts without U+FFFD, none empty", phrases)


def check_spelling(owner: str, tokenizer: Any, vocabulary: Vocabulary, phrases: Sequence[str]) -> None:
    """Refuse phrases that are the text of a special token, and tokenizers that drop spaces when they decode.

    Args:
        owner: name of the step or the search, for the error.
        tokenizer: of the generating model.
        vocabulary: its tokens as bytes.
        phrases: the phrases.

    Raises:
        ParameterError, ModelError: as for `BanPhrases.bind`.
    """
    decoded = tokenizer.decode(tokenizer("it is .", add_special_tokens=False)["input_ids"])
    if vocabulary.style == "wordpiece" or decoded.endswith("is."):
        raise ModelError(
            f"{owner}: the tokenizer must decode tokens to the text that they spell, but it removes spaces before "
            f"punctuation; set tokenizer.clean_up_tokenization_spaces = False, or leave {owner} out"
        )
    for number in sorted(vocabulary.special):
        text = tokenizer.convert_ids_to_tokens(number)
        if text in phrases:
            way_out = f"forbid the token: suppress_tokens([{number}])"
            raise ParameterError(owner, "phrases", "texts without special tokens", text, way_out)
