"""`Grammar`: the continuation follows a grammar, by the masks of llguidance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np

from logitkit.errors import MissingPackageError, ModelError, ParameterError
from logitkit.params import Resource, checked, option
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.call_vocabulary import call_vocabulary
from logitkit.processors.engine.constraint_step import ConstraintStep, Mask
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.model_facts import end_tokens
from logitkit.processors.tokens.vocabulary import Vocabulary

JsonSchema = Annotated[dict[str, Any] | str | None, option("a JSON Schema, as a dict or as JSON text")]
Regex = Annotated[str | None, option("a regular expression that the whole continuation matches")]
Lark = Annotated[str | None, option("a context-free grammar in the Lark notation of llguidance; it begins at start")]

# Without this option llguidance permits only the tokenizer's own tokens for text that the grammar leaves no choice in.
EVERY_SPELLING = '\n%llguidance {"no_forcing": true}\n'


def source_of(json_schema: dict[str, Any] | str | None, regex: str | None, lark: str | None) -> str:
    r"""Return a grammar in the Lark notation of llguidance.

    Args:
        json_schema, regex, lark: as for `Grammar`.

    Raises:
        ParameterError: not exactly one is given, or a schema that is no JSON object.
        MissingPackageError: llguidance is not installed.

    Example:
        >>> source_of(None, "a/b", None)
        'start: /a\\/b/\n%llguidance {"no_forcing": true}\n'
    """
    given = {"json_schema": json_schema, "regex": regex, "lark": lark}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        got = ", ".join(named) or "none"
        raise ParameterError("grammar", "json_schema | regex | lark", "given, exactly one of the three", got)
    if lark is not None:
        return lark + EVERY_SPELLING
    if regex is not None:
        data = json.loads(_matcher_class().grammar_from_regex(regex))
        return str(data["grammars"][0]["lark_grammar"]) + EVERY_SPELLING
    try:
        schema = json.loads(json_schema) if isinstance(json_schema, str) else json_schema
        if not isinstance(schema, dict):
            raise ValueError("no JSON object")
        return f"start: %json {json.dumps(schema)}{EVERY_SPELLING}"
    except (TypeError, ValueError) as error:
        way_out = f"{type(error).__name__}: {error}"
        raise ParameterError("grammar", "json_schema", "a JSON object", json_schema, way_out) from error


def _matcher_class() -> Any:
    """Return the class LLMatcher of llguidance.

    Raises:
        MissingPackageError: llguidance is not installed.
    """
    try:
        from llguidance import LLMatcher
    except ImportError as error:
        raise MissingPackageError("grammar", "llguidance", "grammar") from error
    return LLMatcher


class TokenTexts:
    """The tokens of a vocabulary in the form that llguidance reads.

    Attributes:
        tokens: bytes of each token; special tokens and absent ids have their names.
        special_token_ids: ids that stand for no text.
        eos_token_id: id that llguidance permits at the end of a text.
        bos_token_id: None; no token is put before a text.
    """

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, names: tuple[str | None, ...], end: int) -> None:
        pairs = zip(vocabulary.token_bytes, names, strict=True)
        self.tokens = [data or (name or f"<absent {number}>").encode() for number, (data, name) in enumerate(pairs)]
        self.special_token_ids = [number for number, data in enumerate(vocabulary.token_bytes) if not data]
        self.eos_token_id, self._ids = end, vocabulary.ids_of

    def __call__(self, text: bytes) -> list[int]:
        """Return one token for each byte of a text; llguidance asks in errors alone."""
        return [self._ids[bytes([byte])][0] for byte in text if bytes([byte]) in self._ids]


@lru_cache(maxsize=4)
def _tokenizer(vocabulary: Vocabulary, names: tuple[str | None, ...], end: int) -> Any:
    """Return the tokenizer of llguidance, which takes up to two seconds to build for 150,000 tokens."""
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(TokenTexts(vocabulary, names, end)), n_vocab=len(vocabulary))


class Grammar(ConstraintStep[Any]):
    """Allow only tokens with which the continuation can still become a text of the grammar (llguidance).

    Exactly one of ``json_schema``, ``regex`` and ``lark`` is given. An end token is allowed where the text is complete.
    Every token whose bytes fit is allowed, also where the tokenizer would divide the text differently. The state of
    the grammar is a function of the row, so beams, rejected drafts and reused calls are right.

    Args:
        json_schema: a JSON Schema, as a dict or as JSON text.
        regex: a regular expression in the syntax of Rust.
        lark: a grammar in the Lark notation of llguidance.
        vocabulary: the tokens as bytes.
        names: the text of each token id that has one, which Lark grammars use for special tokens.
        prompts: the prompts of the call.
        settings: the settings of the call.
        ends: end tokens where `generate` and the model state none.

    Raises:
        ParameterError: not exactly one grammar, or one that llguidance cannot read.
        MissingPackageError: llguidance is not installed; the extra ``grammar`` installs it.

    Example:
        >>> import logitkit
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> logitkit.generate(tiny_model(), tiny_tokenizer(), "Count: ", chain="grammar(regex='[0-9]{3}')",
        ...                   do_sample=False, max_new_tokens=5).texts[0].isdigit()
        True
    """

    owner: ClassVar[str] = "grammar"
    dead_end: ClassVar[str] = "the vocabulary has no tokens for the text that the grammar requires"

    @checked
    def __init__(
        self,
        *,
        json_schema: JsonSchema = None,
        regex: Regex = None,
        lark: Lark = None,
        vocabulary: Annotated[Vocabulary, Resource()],
        names: Annotated[tuple[str | None, ...], Resource()],
        prompts: Annotated[Prompts, Resource()],
        settings: Annotated[CallSettings, Resource()],
        ends: Annotated[Sequence[int], Resource()],
    ) -> None:
        super().__init__(prompts, settings, len(vocabulary))
        self.source = source_of(json_schema, regex, lark)
        self._vocabulary, self._names, self._settings, self._ends = vocabulary, names, settings, tuple(ends)
        problem = self._first.get_error()
        if problem:
            name, value = next(
                (name, value)
                for name, value in (("json_schema", json_schema), ("regex", regex), ("lark", lark))
                if value is not None
            )
            raise ParameterError("grammar", name, "a grammar that llguidance reads", value, problem)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_first"}

    @cached_property
    def _first(self) -> Any:
        """The matcher before the first token; a matcher is never changed, only copied."""
        tokenizer = _tokenizer(self._vocabulary, self._names, self._ends[0])
        return _matcher_class()(tokenizer, self.source, log_level=0)

    @classmethod
    def bind(
        cls, binding: Binding, *, json_schema: dict[str, Any] | str | None, regex: str | None, lark: str | None
    ) -> Grammar:
        """Return the processor with the vocabulary and the prompts of the call.

        Raises:
            ParameterError, MissingPackageError: as for the class.
            ModelError: no end token, or a step cut bytes from the prompts, which the grammar would have to spell.
        """
        _matcher_class()
        ends = end_tokens(binding.model, binding.tokenizer)
        if not ends:
            raise ModelError("grammar: the model must have an end token; set model.generation_config.eos_token_id")
        if any(binding.prompts.removed):
            raise ModelError(
                "grammar: prompts must be whole, but byte_boundary cut bytes from them; leave byte_boundary out"
            )
        vocabulary = call_vocabulary(binding)
        names: list[str | None] = [None] * len(vocabulary)
        for name, number in binding.tokenizer.get_vocab().items():
            if number < len(names):
                names[number] = name
        own: dict[str, Any] = {"vocabulary": vocabulary, "names": tuple(names), "ends": ends[:1]}
        own |= {"prompts": binding.prompts, "settings": binding.settings}
        return cls(json_schema=json_schema, regex=regex, lark=lark, **own)

    def initial(self, prompt: int) -> Any:
        """Return the matcher before the first token, which is the same for all prompts."""
        return self._first

    def advance(self, state: Any, token: int) -> Any | None:
        """Return a matcher that has read one more token; None: the token does not fit."""
        if token >= self._width or state.validate_tokens([token]) != 1:
            return None
        matcher = state.deep_copy()
        if not matcher.consume_token(token):
            raise ModelError(f"grammar: llguidance must read every text of its grammar, got: {matcher.get_error()}")
        return matcher

    def permitted(self, state: Any) -> Mask:
        """Return the tokens that fit, and the end tokens where the text is complete, ``[width]``."""
        bits = np.frombuffer(state.compute_bitmask(), dtype=np.uint8)
        if state.is_error():
            raise ModelError(f"grammar: llguidance must know the tokens that fit, got: {state.get_error()}")
        mask = np.unpackbits(bits, count=self._width, bitorder="little").astype(bool)
        ends = [token for token in self._settings.text_ends(self._ends) if token < self._width]
        mask[[token for token in self._ends if token not in ends and token < self._width]] = False
        mask[ends] |= state.is_accepting()  # a Lark grammar may also name an end token
        return mask
