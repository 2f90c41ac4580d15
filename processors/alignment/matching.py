"""Alignments by token bytes: equal bytes, the least edit distance, or the first token of the main tokenizer."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch

from logitkit.processors.alignment.alignment import Alignment, Match
from logitkit.processors.alignment.alignment_vocabulary import AlignmentVocabulary
from logitkit.processors.alignment.nearest import is_whole, nearest_targets
from logitkit.processors.tokens.retokenization import Retokenizer
from logitkit.processors.tokens.vocabulary import fingerprint


class Pair(NamedTuple):
    """A helper token, the main token that it is aligned to, and the kind of match."""

    helper: int
    main: int
    match: Match


def exact(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> Alignment:
    """Return the alignment of tokens with equal bytes."""
    return _one_to_one("exact", helper, main, _equal_bytes(helper, main))


def gac(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> Alignment:
    """Return the alignment by equal bytes, else to the first token of the main tokenizer's encoding."""
    return _one_to_one("gac", helper, main, _first_tokens(helper, main))


def unite(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> Alignment:
    """Return the alignment of `gac`; its ``reverse`` is the alignment of `gac` from main tokens to helper tokens."""
    reverse = torch.full((main.size,), -1, dtype=torch.long)
    for pair in _first_tokens(main, helper):
        reverse[pair.helper] = pair.main  # in these pairs, ``helper`` is a main token and ``main`` a helper token
    reverse[list(main.end_marks)] = -1 if helper.end is None else helper.end
    return dataclasses.replace(gac(helper, main), method="unite", reverse=reverse)


def mined(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> Alignment:
    """Return the alignment by equal bytes, else to the main token at the least edit distance over bytes.

    `nearest_targets` decides between main tokens at the same distance. A helper token of whole characters is never
    aligned to a main token that holds a part of a character.
    """
    pairs, candidates = _equal_bytes(helper, main), main.text_tokens()
    whole = [token for token in candidates if is_whole(_bytes_of(main, token))]
    unmatched = _unmatched(helper, pairs)
    texts = [token for token in unmatched if is_whole(_bytes_of(helper, token))]
    parts = [token for token in unmatched if not is_whole(_bytes_of(helper, token))]
    for tokens, allowed in ((texts, whole), (parts, candidates)):
        if not tokens or not allowed:
            continue
        sources = [_bytes_of(helper, token) for token in tokens]
        targets = [_bytes_of(main, token) for token in allowed]
        nearest = nearest_targets(sources, targets)
        pairs += [Pair(token, allowed[place], Match.PARTIAL) for token, place in zip(tokens, nearest, strict=True)]
    return _one_to_one("mined", helper, main, pairs)


def _one_to_one(method: str, helper: AlignmentVocabulary, main: AlignmentVocabulary, pairs: list[Pair]) -> Alignment:
    """Return the alignment of these pairs and of the end tokens, each with weight 1."""
    targets = torch.zeros(helper.size, 1, dtype=torch.long)
    weights = torch.zeros(helper.size, 1)
    matches = torch.full((helper.size,), Match.SPECIAL, dtype=torch.uint8)
    matches[torch.tensor(helper.text_tokens(), dtype=torch.long)] = Match.NONE
    ends = [] if main.end is None else [Pair(end, main.end, Match.EXACT) for end in helper.end_marks]
    table = torch.tensor([*pairs, *ends], dtype=torch.long).reshape(-1, 3)
    targets[table[:, 0], 0], weights[table[:, 0], 0] = table[:, 1], 1.0
    matches[table[:, 0]] = table[:, 2].to(torch.uint8)
    return Alignment(
        method=method,
        helper_fingerprint=fingerprint(helper.tokenizer),
        main_fingerprint=fingerprint(main.tokenizer),
        targets=targets,
        weights=weights,
        main_size=main.size,
        matches=matches,
    )


def _bytes_of(side: AlignmentVocabulary, token: int) -> bytes:
    """Return the bytes of a text token."""
    return side.vocabulary.token_bytes[token] or b""


def _unmatched(helper: AlignmentVocabulary, pairs: list[Pair]) -> list[int]:
    """Return the text tokens of the helper that occur in no pair."""
    matched = {pair.helper for pair in pairs}
    return [token for token in helper.text_tokens() if token not in matched]


def _equal_bytes(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> list[Pair]:
    """Return the pairs of tokens with equal bytes.

    Where several main tokens have the same bytes, the token of the main tokenizer's encoding is taken, else the token
    with the lowest id.
    """
    ids_of = main.vocabulary.ids_of
    target_of = {token_bytes: ids[0] for token_bytes, ids in ids_of.items()}
    ambiguous = [token_bytes for token_bytes, ids in ids_of.items() if len(ids) > 1]
    for token_bytes, ids in zip(ambiguous, _encoded(main, ambiguous), strict=True):
        if ids and ids[0] in ids_of[token_bytes]:
            target_of[token_bytes] = ids[0]
    targets = [(token, target_of.get(_bytes_of(helper, token))) for token in helper.text_tokens()]
    marks = main.end_marks
    return [Pair(token, target, Match.EXACT) for token, target in targets if target is not None and target not in marks]


def _first_tokens(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> list[Pair]:
    """Return the pairs of tokens with equal bytes, and a pair for each other helper token.

    The main token of such a pair is the first token of the main tokenizer's encoding of the helper token's bytes. There
    is no pair if the helper token does not start with the bytes of this first token, for example an unknown token.
    """
    pairs = _equal_bytes(helper, main)
    unmatched, marks = _unmatched(helper, pairs), main.end_marks
    texts = [_bytes_of(helper, token) for token in unmatched]
    for token, text, ids in zip(unmatched, texts, _encoded(main, texts), strict=True):
        first_bytes = main.vocabulary.token_bytes[ids[0]] if ids and ids[0] not in marks else None
        if first_bytes and text.startswith(first_bytes):
            pairs.append(Pair(token, ids[0], Match.PARTIAL))
    return pairs


def _encoded(side: AlignmentVocabulary, texts: list[bytes]) -> list[list[int]]:
    """Return the token ids of texts in the middle of a document."""
    return Retokenizer(side.vocabulary, side.tokenizer, side.vocabulary).of_bytes(texts)
