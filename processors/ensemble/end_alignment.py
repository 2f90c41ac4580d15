"""Alignments whose end tokens are those at which the running `generate` ends a row."""

from __future__ import annotations

from logitkit.processors.alignment.alignment import Alignment
from logitkit.processors.alignment.alignment_vocabulary import AlignmentVocabulary
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.model_facts import id_tuple


class EndAlignment:
    """An alignment that sends a helper's end of text to the end token of the running `generate`.

    An alignment is built when a chain is bound, and `generate` may be told other end tokens later. Without any end
    token of `generate`, the end of the helper is aligned to the end token of the main tokenizer, which the main model
    writes at the end of a text too.

    Args:
        alignment: the alignment as built.
        helper, main: the vocabularies.
        settings: the settings of the call.

    >>> from logitkit.processors.alignment import align
    >>> from logitkit.processors.engine import read_prompts
    >>> from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
    >>> main = AlignmentVocabulary.of(tiny_model(), tiny_tokenizer())
    >>> helper = AlignmentVocabulary.of(foreign_model(), foreign_tokenizer())
    >>> settings = CallSettings(tiny_model(), read_prompts(tiny_tokenizer(), tiny_model(), "a prompt"))
    >>> ends = EndAlignment(align("gac", helper, main), helper, main, settings)
    >>> settings.tell({"eos_token_id": 256})
    >>> int(ends.current().targets[helper.end, 0])
    256
    """

    def __init__(
        self, alignment: Alignment, helper: AlignmentVocabulary, main: AlignmentVocabulary, settings: CallSettings
    ) -> None:
        self.alignment, self.helper, self.main, self.settings = alignment, helper, main, settings
        self._own_end = id_tuple(main.tokenizer.eos_token_id)
        self._current: tuple[tuple[int, ...], Alignment] | None = None

    def current(self) -> Alignment:
        """Return the alignment for the end tokens of the running `generate`; one object while they are the same."""
        ends = self.settings.text_ends(self._own_end) or self._own_end
        if self._current is None or self._current[0] != ends:
            self._current = ends, self.alignment.with_end_tokens(self.helper, self.main.ended_by(ends))
        return self._current[1]
