"""Bits per byte of models with any tokenizers on one text, paired block by block.

Two quantities are told apart. *Tokens*: minus log2 of the probability that a model gives to its own encoding of the
text. *Exact*: minus log2 of the probability that the text begins with these bytes, summed over all ways in which the
tokenizer may write them (`logitkit.processors.byte_level.ByteTree`, arXiv:2410.09303). The second does not depend on
where the tokens end, so models with other tokenizers are compared fairly; it is at most the first.

Where the tokens of two models end at the same byte, the probability that each gives to the chunk in between can be
compared, though each is conditioned on tokens of its own (approximate likelihood matching, arXiv:2503.20083).
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from logitkit.diagnostics.per_token import POSITIONS
from logitkit.diagnostics.text_windows import Window, blocks_of, text_windows
from logitkit.errors import ModelError, ParameterError, UnknownNameError
from logitkit.params import is_valid_unicode
from logitkit.processors.byte_level import ByteTree
from logitkit.processors.model_facts import context_length
from logitkit.processors.tokens import fingerprint

WINDOW = 2048  # bytes that are read at once, where the context of every model holds as many tokens
LEAST = 16  # bytes of the smallest window


class ModelBits(NamedTuple):
    """What one model makes of a text.

    Attributes:
        tokens: number of tokens that are scored.
        chunks: bits of the model's own tokens for each chunk.
        blocks: the same for each block.
        exact: bits of the bytes for each block, over all ways of writing them; None where they were not wanted.

    Example:
        >>> ModelBits(2, [1.0, 2.0], [3.0], None).blocks
        [3.0]
    """

    tokens: int
    chunks: list[float]
    blocks: list[float]
    exact: list[float] | None


class BitsPerByte(NamedTuple):
    """Bits of several models on one text, paired.

    Attributes:
        windows: number of windows in which the text was read.
        window: most bytes of a window.
        chunks: bytes of each chunk, between places at which tokens of all models end.
        blocks: bytes of each block of chunks.
        models: what each model makes of the text, by name.

    Example:
        >>> found = BitsPerByte(1, 64, [4], [4], {"a": ModelBits(1, [8.0], [8.0], None)})
        >>> found.of("a")
        2.0
    """

    windows: int
    window: int
    chunks: list[int]
    blocks: list[int]
    models: Mapping[str, ModelBits]

    def of(self, name: str, *, exact: bool = False) -> float:
        """Return the bits per byte of a model, of its own tokens or exact over bytes."""
        return sum(self._bits(name, exact=exact)) / sum(self.blocks)

    def differences(self, name: str, baseline: str, *, exact: bool = False) -> list[float]:
        """Return by how many bits each block costs more under a model than under the baseline."""
        pairs = zip(self._bits(name, exact=exact), self._bits(baseline, exact=exact), strict=True)
        return [own - other for own, other in pairs]

    def _bits(self, name: str, *, exact: bool) -> list[float]:
        """Return the bits of each block.

        Raises:
            UnknownNameError: no such model.
            ParameterError: the exact bits were not computed.
        """
        if name not in self.models:
            raise UnknownNameError("model", name, self.models)
        found = self.models[name]
        if not exact:
            return found.blocks
        if found.exact is None:
            raise ParameterError("BitsPerByte", "exact", "False where only tokens were scored", exact)
        return found.exact


# Over 40 lines: checks of the arguments, then one loop over windows and models.
def bits_per_byte(
    models: Mapping[str, tuple[Any, Any]],
    text: str,
    *,
    exact: bool = True,
    block: int = 256,
    window: int | None = None,
    context: int | None = None,
    start: Callable[[int], None] | None = None,
    advance: Callable[[], None] | None = None,
) -> BitsPerByte:
    """Return the bits per byte of models on one text, over the same bytes and the same blocks.

    Every window begins with the begin token of the tokenizer, or its end token where it has none. The bytes of a
    window behind its context are conditioned on the context. A space that a tokenizer puts before a text counts.

    Args:
        models: causal models with their fast tokenizers, by name. Models of one tokenizer share its encodings.
        text: the text.
        exact: also score the bytes over all ways of writing them.
        block: least bytes of a block, > 0; the unit that is resampled for intervals.
        window: most bytes that are read at once; None: 2048, or as many as the shortest context of the models holds
            tokens for sure.
        context: least bytes of a later window that are read and not scored; None: a quarter of the window.
        start: called once with the number of calls of ``advance``.
        advance: called once for each window and model.

    Raises:
        ParameterError: no model, an empty text, a block or window out of range.
        ModelError: a tokenizer that loses bytes of the text or has neither begin nor end token; an encoder-decoder
            model; a window with more tokens than the context of a model; a model that `ByteTree` cannot read.

    Example:
        >>> from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
        >>> pair = {"a": (tiny_model(), tiny_tokenizer()), "b": (foreign_model(), foreign_tokenizer())}
        >>> found = bits_per_byte(pair, "the other the")
        >>> sum(found.blocks), round(found.of("b", exact=True), 3)
        (13, 3.604)
    """
    if not isinstance(models, Mapping) or not models or not all(isinstance(one, tuple) for one in models.values()):
        rule = "a mapping of one name or more to (model, tokenizer)"
        raise ParameterError("bits_per_byte", "models", rule, models if isinstance(models, dict) else type(models))
    if not isinstance(text, str) or not text or not is_valid_unicode(text):
        shown = text[:40] if isinstance(text, str) else text
        raise ParameterError("bits_per_byte", "text", "a text of valid Unicode with a character", shown)
    for parameter, size_given, least in (("block", block, 1), ("window", window, LEAST)):
        if size_given is not None and (type(size_given) is not int or size_given < least):
            raise ParameterError("bits_per_byte", parameter, f"a whole number of bytes >= {least}", size_given)
    begins = {name: _begin_token(name, *pair) for name, pair in models.items()}
    limits = [limit - 8 for model, _ in models.values() if (limit := context_length(model)) is not None]
    size = min([WINDOW, *limits]) if window is None else window
    if size < LEAST:
        raise ParameterError("bits_per_byte", "window", f"a number of bytes >= {LEAST}", size)
    first: dict[str, str] = {}  # name of the first model with each tokenizer
    own = {name: first.setdefault(fingerprint(tokenizer), name) for name, (_, tokenizer) in models.items()}
    tokenizers = {name: models[name][1] for name in first.values()}
    windows = text_windows(text, tokenizers, size=size, context=max(1, size // 4) if context is None else context)
    counts = [blocks_of(each.lengths, block) for each in windows]
    if start is not None:
        start(len(windows) * len(models))
    found = {}
    for name, (model, _) in models.items():
        tokenizer = tokenizers[own[name]]
        tree = _tree(model, tokenizer, begins[name]) if exact else None
        chunks, sums, tokens = list[float](), list[float](), 0
        for each, blocks in zip(windows, counts, strict=True):
            scored = _chunk_bits(name, model, begins[name], each, own[name])
            chunks += scored
            ends = each.encodings[own[name]].ends
            tokens += sum(end <= each.end and (end > each.start or not each.start) for end in ends)
            if tree is not None:
                sums += _exact_bits(tree, text.encode(), each, blocks)
            if advance is not None:
                advance()
        found[name] = ModelBits(tokens, chunks, _grouped(chunks, counts), sums if exact else None)
    lengths = [length for each in windows for length in each.lengths]
    return BitsPerByte(len(windows), size, lengths, [round(each) for each in _grouped(lengths, counts)], found)


def chunk_divergence(first: Sequence[float], second: Sequence[float]) -> float:
    """Return how far two models are apart on the chunks of a text, in bits a chunk.

    For each chunk the divergence KL of the first from the second over two outcomes, the chunk and anything else:
    the objective of approximate likelihood matching (arXiv:2503.20083, section 3) at temperature 1. Departure: no
    chunk is left out for the tokenization bias of its end.

    Args:
        first: bits of each chunk under the first model, >= 0; see `ModelBits`.
        second: the same under the second model.

    Example:
        >>> round(chunk_divergence([1.0], [2.0]), 4)  # 1/2 log2(1/2 / 1/4) + 1/2 log2(1/2 / 3/4)
        0.2075
    """
    total = 0.0
    for own, other in zip(first, second, strict=True):
        p, q = 2.0**-own, 2.0**-other
        total += p * (other - own) if p > 0 else 0.0
        total += (1 - p) * (math.log2(1 - p) - _log2_of_rest(q)) if p < 1 else 0.0
    return total / max(1, len(first))


def _log2_of_rest(q: float) -> float:
    """Return log2 of one minus a probability, -inf for 1."""
    return math.log2(1 - q) if q < 1 else -math.inf


def _begin_token(name: str, model: Any, tokenizer: Any) -> int:
    """Return the token that precedes every window.

    Raises:
        ModelError: there is none, or the model has an encoder.
    """
    if model.config.is_encoder_decoder:
        raise ModelError(f"bits_per_byte: {name} must be decoder-only, got an encoder; choose a causal model")
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    if begin is None:
        raise ModelError(f"bits_per_byte: {name}: tokenizer must have a begin or an end token, got none; set bos_token")
    return int(begin)


def _tree(model: Any, tokenizer: Any, begin: int) -> ByteTree:
    """Return the byte-level model.

    Raises:
        ModelError: `ByteTree` cannot read the model.
    """
    try:
        return ByteTree(model, tokenizer, bos=begin)
    except ModelError as error:
        raise ModelError(f"{error}; bits_per_byte(exact=False) scores the model's own tokens alone") from error


@torch.no_grad()
def _chunk_bits(name: str, model: Any, begin: int, window: Window, tokenizer: str) -> list[float]:
    """Return the bits of the model's own tokens for each chunk of a window, read in one forward.

    Raises:
        ModelError: the window has more tokens than the context of the model.
    """
    ids, ends = window.encodings[tokenizer]
    last = ends.index(window.end) + 1
    limit = context_length(model)
    if limit is not None and last > limit:
        where = f"{last} tokens in bytes {window.begin} to {window.end}"
        raise ModelError(
            f"bits_per_byte: window must fit the context of {name}, {limit} tokens, got {where}; make it smaller"
        )
    read = torch.tensor([[begin, *ids[: last - 1]]], device=model.device)
    layout = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    logits = model(input_ids=read, **layout).logits[0]
    targets = torch.tensor(ids[:last], device=logits.device)
    logp = torch.cat(
        [
            rows.double().log_softmax(-1).gather(-1, wanted[:, None])[:, 0]
            for rows, wanted in zip(logits.split(POSITIONS), targets.split(POSITIONS), strict=True)
        ]
    ).tolist()
    sums = [0.0] * len(window.lengths)
    chunk = 0
    for end, nats in zip(ends, logp, strict=False):
        if end <= window.start and window.start:
            continue
        while end > window.chunks[chunk + 1]:
            chunk += 1
        sums[chunk] -= nats / math.log(2)
    return sums


def _exact_bits(tree: ByteTree, data: bytes, window: Window, blocks: Sequence[int]) -> list[float]:
    """Return the bits of the bytes of each block of a window, given its context."""
    ends = [window.chunks[number] for number in itertools.accumulate(blocks)]
    before = tree.logp(data[window.begin : window.start]) if window.start else 0.0
    bits = []
    for end in ends:
        logp = tree.logp(data[window.begin : end])
        bits.append((before - logp) / math.log(2) if math.isfinite(before) else math.inf)
        before = logp
    tree.release()
    return bits


def _grouped(values: Sequence[float], counts: Sequence[Sequence[int]]) -> list[float]:
    """Return the sums of values in groups of the given sizes."""
    rest = iter(values)
    return [sum(itertools.islice(rest, count)) for window in counts for count in window]
