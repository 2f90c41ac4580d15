"""What a tokenizer does to texts, beside another one: length, premium, entropies, coverage, losses, boundaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from logitkit.diagnostics.parallel_sentences import PARALLEL_SENTENCES
from logitkit.diagnostics.script_coverage import ScriptCoverage, script_coverage, together
from logitkit.diagnostics.token_boundaries import token_ends
from logitkit.diagnostics.token_entropies import TokenEntropies, token_entropies
from logitkit.diagnostics.tokenizer_pair import METHODS, TokenizerPair, tokenizer_pair
from logitkit.errors import ParameterError
from logitkit.params import is_valid_unicode
from logitkit.processors.tokens import Vocabulary

ALL = "all texts"


class TextMeasures(NamedTuple):
    """What a tokenizer makes of one text.

    Attributes:
        bytes: length of the text in UTF-8.
        tokens: its number of tokens, without special tokens around it.
        premium: tokens of this text for each token of the reference text, of which it is a translation; 1 for the
            reference, None for a text without one.
        lines: number of lines.
        lost: lines that come back changed when they are encoded and decoded.
        example: the first of these lines, before and after; empty texts where none is lost.
        entropies: entropies of its tokens.
        coverage: how its characters are written, by script.

    Example:
        >>> TextMeasures(12, 4, None, 1, 0, ("", ""), None, {}).bytes_per_token
        3.0
    """

    bytes: int
    tokens: int
    premium: float | None
    lines: int
    lost: int
    example: tuple[str, str]
    entropies: TokenEntropies | None
    coverage: Mapping[str, ScriptCoverage]

    @property
    def bytes_per_token(self) -> float:
        """Mean length of a token, in bytes of UTF-8."""
        return self.bytes / max(1, self.tokens)


class TokenizerMeasures(NamedTuple):
    """What a tokenizer makes of several texts.

    Attributes:
        vocabulary: number of tokens that stand for text.
        special: number of special tokens.
        loss: why the tokenizer cannot keep every text; an empty text where it can.
        loses: the few texts that it changes although it keeps all others.
        texts: measures of each text by name; the last is that of all texts together, if there are several.

    Example:
        >>> TokenizerMeasures(256, 3, "", (), {}).vocabulary
        256
    """

    vocabulary: int
    special: int
    loss: str
    loses: tuple[str, ...]
    texts: Mapping[str, TextMeasures]


class TokenizerReport(NamedTuple):
    """Measures of one or two tokenizers on the same texts.

    Attributes:
        tokenizers: the measures by name.
        reference: name of the text with which the premiums compare; None without translations.
        pair: how the two tokenizers fit together; None for one tokenizer.

    Example:
        >>> TokenizerReport({}, None, None).pair is None
        True
    """

    tokenizers: Mapping[str, TokenizerMeasures]
    reference: str | None
    pair: TokenizerPair | None


def tokenizer_report(
    tokenizers: Mapping[str, Any],
    texts: Mapping[str, str] | None = None,
    parallel: Mapping[str, Sequence[str]] | None = None,
    *,
    methods: Sequence[str] = METHODS,
) -> TokenizerReport:
    """Measure one or two tokenizers on texts.

    Args:
        tokenizers: fast tokenizers by name, one or two.
        texts: texts by name.
        parallel: translations of the same lines by name, the reference first. The premium of a translation is its
            number of tokens over that of the reference (token premiums, arXiv:2510.21909); each line is encoded alone.
            Without any text, six sentences in twelve languages.
        methods: methods of alignment that are tried on a pair: ``exact``, ``gac``, ``mined``.

    Raises:
        ParameterError: there are not one or two tokenizers; a text is empty; two texts have one name; translations
            differ in their number of lines.
        ModelError: a tokenizer is a slow one.

    Example:
        >>> from logitkit.registry.laws import tiny_tokenizer
        >>> report = tokenizer_report({"tiny": tiny_tokenizer()}, parallel={"en": ["a cat"], "de": ["eine Katze"]})
        >>> report.tokenizers["tiny"].texts["de"].premium  # ten bytes and five
        2.0
    """
    if len(tokenizers) not in (1, 2):
        raise ParameterError("tokenizer_report", "tokenizers", "one or two tokenizers", len(tokenizers))
    if not texts and not parallel:
        parallel = PARALLEL_SENTENCES
    segments = _segments(texts or {}, parallel or {})
    reference = next(iter(parallel), None) if parallel else None
    encodings = {name: _encoded(tokenizer, segments) for name, tokenizer in tokenizers.items()}
    measures = {
        name: _measures(tokenizer, segments, encodings[name], tuple(parallel or ()))
        for name, tokenizer in tokenizers.items()
    }
    pair = None
    if len(tokenizers) == 2:
        ends = [_ends(tokenizer, segments, encodings[name]) for name, tokenizer in tokenizers.items()]
        ids = [[token for text in each.values() for part, _ in text for token in part] for each in encodings.values()]
        pair = tokenizer_pair(list(tokenizers.values()), ids, ends, methods=methods)
    return TokenizerReport(measures, reference, pair)


Encoded = dict[str, list[tuple[list[int], list[tuple[int, int]]]]]  # ids and offsets of each part of each text


def _segments(texts: Mapping[str, str], parallel: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the parts of each text that are encoded alone: the text itself, or its lines where it is a translation.

    Raises:
        ParameterError: see `tokenizer_report`.
    """
    if both := texts.keys() & parallel.keys():
        raise ParameterError("tokenizer_report", "texts", "named unlike the translations", min(both), "rename one")
    segments = {name: [text] for name, text in texts.items()} | {name: list(lines) for name, lines in parallel.items()}
    if ALL in segments:
        raise ParameterError("tokenizer_report", "texts", f"named unlike {ALL!r}", ALL, "rename it")
    for name, parts in segments.items():
        if not any(part.strip() for part in parts):
            raise ParameterError("tokenizer_report", "texts", "texts with characters", f"none in {name}")
        if not all(map(is_valid_unicode, parts)):
            raise ParameterError("tokenizer_report", "texts", "valid Unicode", name, "remove the lone surrogates")
    lengths = {name: len(lines) for name, lines in parallel.items()}
    if len(set(lengths.values())) > 1:
        rule = "translations of the same lines, one a line"
        got = ", ".join(f"{name} with {length}" for name, length in lengths.items())
        raise ParameterError("tokenizer_report", "parallel", rule, got)
    return segments


def _encoded(tokenizer: Any, segments: Mapping[str, Sequence[str]]) -> Encoded:
    """Return the tokens of each part of each text, without special tokens around it."""
    Vocabulary.of(tokenizer)  # refuses a slow tokenizer by name
    encoded: Encoded = {}
    for name, parts in segments.items():
        found = tokenizer(list(parts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        encoded[name] = list(zip(found["input_ids"], found["offset_mapping"], strict=True))
    return encoded


def _ends(tokenizer: Any, segments: Mapping[str, Sequence[str]], encoded: Encoded) -> dict[str, list[list[int] | None]]:
    """Return the byte behind each token, for each part of each text."""
    return {
        name: [token_ends(tokenizer, ids, part) for part, (ids, _) in zip(parts, encoded[name], strict=True)]
        for name, parts in segments.items()
    }


def _measures(
    tokenizer: Any, segments: Mapping[str, Sequence[str]], encoded: Encoded, parallel: Sequence[str]
) -> TokenizerMeasures:
    """Return the measures of one tokenizer; the first of the translations is the reference."""
    vocabulary = Vocabulary.of(tokenizer)
    size = sum(token_bytes is not None and token_bytes != b"" for token_bytes in vocabulary.token_bytes)
    found: dict[str, TextMeasures] = {}
    for name, parts in segments.items():
        ids = [part for part, _ in encoded[name]]
        tokens = sum(map(len, ids))
        lines = [line for part in parts for line in part.splitlines(keepends=True)]
        changed = _changed(tokenizer, lines)
        compared = found[parallel[0]].tokens if name in parallel[1:] else tokens
        premium = tokens / max(1, compared) if name in parallel else None
        coverages = [script_coverage(tokenizer, part, *pair) for part, pair in zip(parts, encoded[name], strict=True)]
        found[name] = TextMeasures(
            bytes=sum(len(part.encode()) for part in parts),
            tokens=tokens,
            premium=premium,
            lines=len(lines),
            lost=len(changed),
            example=changed[0] if changed else ("", ""),
            entropies=token_entropies(ids, size) if tokens else None,
            coverage=together(coverages),
        )
    if len(found) > 1:
        found[ALL] = _all(found, [ids for text in encoded.values() for ids, _ in text], size)
    return TokenizerMeasures(size, len(vocabulary.special), vocabulary.loss_reason, vocabulary.loses, found)


def _all(texts: Mapping[str, TextMeasures], ids: Sequence[Sequence[int]], size: int) -> TextMeasures:
    """Return the measures of all texts together."""
    each = list(texts.values())
    return TextMeasures(
        bytes=sum(text.bytes for text in each),
        tokens=sum(text.tokens for text in each),
        premium=None,
        lines=sum(text.lines for text in each),
        lost=sum(text.lost for text in each),
        example=next((text.example for text in each if text.lost), ("", "")),
        entropies=token_entropies(ids, size) if any(ids) else None,
        coverage=together([text.coverage for text in each]),
    )


def _changed(tokenizer: Any, lines: Sequence[str]) -> list[tuple[str, str]]:
    """Return the lines that come back changed when they are encoded and decoded, before and after."""
    encoded = tokenizer(list(lines), add_special_tokens=False, verbose=False)["input_ids"] if lines else []
    decoded = (tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) for ids in encoded)
    return [(line, back) for line, back in zip(lines, decoded, strict=True) if line != back]
