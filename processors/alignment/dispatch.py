"""`align` builds the alignment of a method, or reads it from a cache of files.

Tokens are compared as the bytes that they stand for (`Vocabulary`), so space markers, byte tokens and byte fallback
need no special rules, and upper and lower case differ. End tokens are aligned to the end token. Other special tokens,
and ids that a tokenizer lacks, are aligned to nothing.

Methods:
- ``exact``: the main token of the same bytes. The probability of other helper tokens is lost.
- ``mined`` (MinED of FuseLLM, arXiv:2401.10491): where no main token has the same bytes, the main token at the least
  edit distance over bytes. `logitkit.processors.alignment.nearest` decides between equally near tokens. Departure:
  the paper takes the first of them.
- ``gac`` (arXiv:2406.12585): where no main token has the same bytes, the first token that the main tokenizer writes
  for them. Departure: the paper adds probabilities over the union of the two vocabularies. A processor can only
  choose main tokens, so a helper token outside the main vocabulary counts for the main token that it begins with.
- ``unite`` (arXiv:2410.03777): the map of ``gac`` in both directions, used over the union of the models' ``topk``
  most likely tokens; see `logitkit.processors.ensemble.member_probabilities`.
- ``embedding`` (EVA, arXiv:2404.09492): where no main token has the same bytes, the nearest main tokens in a common
  embedding space; see `logitkit.processors.alignment.embedding`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from logitkit.errors import FileFormatError, ModelError, UnknownNameError
from logitkit.files import is_file
from logitkit.processors.alignment import embedding, matching
from logitkit.processors.alignment.alignment import FORMAT, Alignment
from logitkit.processors.alignment.alignment_vocabulary import AlignmentVocabulary
from logitkit.processors.tokens.vocabulary import fingerprint

BUILDERS: dict[str, Callable[[AlignmentVocabulary, AlignmentVocabulary], Alignment]] = {
    "exact": matching.exact,
    "mined": matching.mined,
    "gac": matching.gac,
    "unite": matching.unite,
    "embedding": embedding.neighbours,
}
METHODS = tuple(BUILDERS)
REVISION = 4  # raised when a method builds other alignments than before, so that cached files are not used again
CACHED_PAIRS = 10**7  # for fewer pairs of tokens, building an alignment takes no longer than reading its file


def align(
    method: str,
    helper: AlignmentVocabulary,
    main: AlignmentVocabulary,
    *,
    cache: Path | None = None,
    cached_pairs: int = CACHED_PAIRS,
) -> Alignment:
    """Build the alignment from a helper's vocabulary to the main one, or read it from the cache.

    Args:
        method: one of `METHODS`.
        helper: vocabulary of the helper model.
        main: vocabulary of the main model.
        cache: folder of cached alignments; None caches nothing. A file is named after a hash of everything that the
            alignment depends on; a damaged file is
            replaced, and a folder that cannot be read or written is left out.
        cached_pairs: smallest product of the two sizes at which the cache is used.

    Raises:
        UnknownNameError: the method is not one of `METHODS`.
        ModelError: the method is ``embedding``, and a model has no input embeddings or the two vocabularies share
            fewer than two tokens.

    >>> from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
    >>> helper = AlignmentVocabulary.of(foreign_model(), foreign_tokenizer())
    >>> main = AlignmentVocabulary.of(tiny_model(), tiny_tokenizer())
    >>> align("exact", helper, main).coverage()
    {'exact': 257, 'partial': 0, 'none': 12, 'special': 31}
    """
    if method not in BUILDERS:
        raise UnknownNameError("alignment", method, METHODS)
    if cache is None or helper.size * main.size < cached_pairs:
        return BUILDERS[method](helper, main)
    path = cache / f"{method}-{_key(method, helper, main)}.safetensors"
    alignment = _read(path, helper, main)
    if alignment is None:
        alignment = BUILDERS[method](helper, main)
        # A cache that cannot be written costs time in the next call; this call has its answer.
        with contextlib.suppress(OSError, SafetensorError):
            alignment.save(path)
    return alignment


def _read(path: Path, helper: AlignmentVocabulary, main: AlignmentVocabulary) -> Alignment | None:
    """Return the alignment of a cached file; None where the file is absent, damaged, or of other vocabularies."""
    try:
        if not is_file(path):
            return None
        alignment = Alignment.load(path)
        alignment.check(helper, main, "align")
    except (FileFormatError, ModelError, OSError):
        return None
    return alignment


def _key(method: str, helper: AlignmentVocabulary, main: AlignmentVocabulary) -> str:
    """Return 16 hexadecimal digits of a hash of everything that an alignment depends on."""
    parts: list[object] = [FORMAT, REVISION, method]
    for side in (helper, main):
        parts += [fingerprint(side.tokenizer), side.size, side.end_tokens]
        if method == "embedding" and side.embeddings is not None:
            sample = side.embeddings[:: max(1, side.size // 256)].float().cpu().numpy()
            parts += [side.embeddings.shape[1], hashlib.sha256(sample.tobytes()).hexdigest()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
