"""Exact next-byte distributions of a tokenized language model.

The probability that a text begins with bytes x is a sum over the covers of x: token sequences whose bytes begin with
x and whose last token reaches the end of x or goes beyond it (Phan et al., arXiv:2410.09303, section 3; Vieira et
al., arXiv:2412.03719). Nearly all canonical covers share all but their last few tokens, so the sum is a small tree
over one KV cache:

    P(x) = sum over hypotheses h with pending bytes x[start(h):], not empty, of P(h) * sum of p(r | h) over the
           allowed tokens r whose bytes begin with the pending bytes

A hypothesis is a token sequence that ends inside x and that some allowed token can carry to the end of x.

The model also gives probability to tokens that its tokenizer never writes at that place. This mass is the leak: the
probabilities of the next bytes, of the end, and the leak sum to 1.
Departure: the released code renormalises the distribution at each byte, and products of that are not P(x). `ByteTree`
does not. A copy of a tree has read no text.
"""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from logitkit.errors import ModelError, ParameterError
from logitkit.files import cache_folder
from logitkit.processors.byte_level.covers import CoverKind, Covers
from logitkit.processors.byte_level.distribution import ByteDistribution, CoverState, distribution_after, nodes_of
from logitkit.processors.byte_level.extension import Extension, Key, TokenIds
from logitkit.processors.byte_level.logsumexp import logsumexp
from logitkit.processors.byte_level.reading_ahead import MOST_NODES, likely_token
from logitkit.processors.byte_level.tokenizer import check_bytes
from logitkit.processors.engine.kv_tree import KVTree
from logitkit.processors.engine.tree_node import Node
from logitkit.processors.model_facts import end_tokens, vocabulary_size
from logitkit.processors.tokens.tokenizer_tables import FOLDER, TokenizerTables
from logitkit.processors.tokens.vocabulary import Vocabulary

STATES_KEPT = 128  # states of earlier texts that are kept while the KV cache has room
MAX_PUSHED_BYTES = 4  # a text that is longer by at most this is extended byte by byte; any other is read anew


class ByteTree:
    """Byte-level probabilities of a language model, exact over the covers of a text.

    Args:
        model: a causal language model whose layers are all attention layers.
        tokenizer: its fast tokenizer.
        covers: ``canonical`` sums over the sequences that the tokenizer writes; ``all`` sums over every tokenization,
            whose number grows exponentially with the text.
        tolerance: covers with a share of the text's probability below this are not read, ``[0, 1)``; 0 is exact.
        bos: id of the token that precedes every text; ``"tokenizer"``: the tokenizer's begin token, if it has one.
            With None, the first token that all covers share is taken as known and has probability 1.
        lossy: accept a tokenizer that loses bytes; the distribution is then over the texts that it writes.

    Attributes:
        conditioning: tokens that precede every text by default; they have probability 1.
        kv_tree: the token sequences that the model has read.

    Raises:
        ModelError: a tokenizer that does not keep every byte, an encoder-decoder or recurrent model.
        ParameterError: a tolerance outside ``[0, 1)``, unknown covers.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> tree = ByteTree(tiny_model(), tiny_tokenizer())
    >>> total = tree.logp(b"a") + float(tree.next_byte(b"a")[ord("b")])  # the chain rule
    >>> abs(total - tree.logp(b"ab")) < 1e-4
    True
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        covers: CoverKind = "canonical",
        tolerance: float = 0.0,
        bos: int | Literal["tokenizer"] | None = "tokenizer",
        lossy: bool = False,
    ) -> None:
        if not 0 <= tolerance < 1:
            raise ParameterError("ByteTree", "tolerance", "a share >= 0 and < 1", tolerance)
        if covers not in ("canonical", "all"):
            raise ParameterError("ByteTree", "covers", "'canonical' or 'all'", covers)
        self.model, self.tokenizer, self.tolerance, self._kind = model, tokenizer, tolerance, covers
        size = vocabulary_size(model)
        tables = TokenizerTables(tokenizer, size, cache_folder() / FOLDER)
        self.vocabulary = Vocabulary.of(tokenizer, size, tables=tables)
        if self.vocabulary.loss_reason and not lossy:
            raise ModelError(
                f"ByteTree: tokenizer must keep every byte of a text, but {self.vocabulary.loss_reason}; "
                "pass lossy=True for the distribution over the texts that it writes"
            )
        self.covers = Covers.of(tokenizer, self.vocabulary, covers, tables=tables)
        self.kv_tree = KVTree(model)
        begin = tokenizer.bos_token_id if bos == "tokenizer" else bos
        self.conditioning: TokenIds = () if begin is None else (int(begin),)
        self.end_tokens = sorted(end_tokens(model, tokenizer))
        self._states: OrderedDict[Key, CoverState] = OrderedDict()

    def __reduce__(self) -> Any:
        """Return how a copy is made: from the parts of the tree, without what it has read and without its rules."""
        bos = self.conditioning[0] if self.conditioning else None
        settings = {"covers": self._kind, "tolerance": self.tolerance, "bos": bos, "lossy": True}
        return _copied, (self.model, self.tokenizer, settings, self.conditioning)

    @property
    def forwards(self) -> int:
        """Forward passes of the model so far."""
        return self.kv_tree.forwards

    @property
    def cached_texts(self) -> int:
        """Number of texts whose hypotheses are kept."""
        return len(self._states)

    def logp(self, text: bytes) -> float:
        """Return the log-probability in nats that a text begins with these bytes; -inf where no text does.

        Raises:
            ParameterError: the text is no bytes.
        """
        state = self._states_after([Key(self.conditioning, text)])[0]
        return state.logp if state.written else -math.inf

    def next_byte(self, text: bytes) -> Tensor:
        """Return log-probabilities in nats of the next byte and, at index 256, of the end; float64 ``[257]``."""
        return self.distribution(text).logp

    def distribution(self, text: bytes, *, conditioning: TokenIds | None = None) -> ByteDistribution:
        """Return the distribution of the next byte after a text; see `distributions`."""
        return self.distributions([text], conditionings=None if conditioning is None else [conditioning])[0]

    def distributions(
        self, texts: Sequence[bytes], *, conditionings: Sequence[TokenIds] | None = None
    ) -> list[ByteDistribution]:
        """Return the distributions of the next byte after several texts, read in as few forwards as possible.

        Args:
            texts: any bytes.
            conditionings: for each text the tokens that precede it and have probability 1, such as a chat template;
                None: ``self.conditioning``.

        Raises:
            ModelError: a text longer than the context of the model; a text without a begin token whose covers
                share no token.
            ParameterError: a text is no bytes; another number of conditionings than of texts.
        """
        if conditionings is not None and len(conditionings) != len(texts):
            raise ParameterError("ByteTree", "conditionings", "one for each text", len(conditionings))
        before = [self.conditioning] * len(texts) if conditionings is None else conditionings
        states = self._states_after([Key(*pair) for pair in zip(before, texts, strict=True)])
        return [distribution_after(state, self.covers, self.end_tokens) for state in states]

    def release(self) -> None:
        """Drop the KV cache and the states of all texts."""
        self._states.clear()
        self.kv_tree.release()

    def _states_after(self, keys: Sequence[Key]) -> list[CoverState]:
        """Return the states of several texts; token sequences that several texts need are read once."""
        check_bytes("ByteTree", [key.text for key in keys])
        try:
            for remaining in range(MAX_PUSHED_BYTES - 1, -1, -1):
                shorter = {key.beginning(len(key.text) - remaining) for key in keys if len(key.text) > remaining}
                self._push(sorted(key for key in shorter if self._is_one_byte_further(key)))
            self._open([key for key in dict.fromkeys(keys) if key not in self._states])
        except BaseException:
            self.release()  # an interrupted forward leaves nodes without probabilities
            raise
        states = [self._states[key] for key in keys]
        self._forget_old(keys)
        return states

    def _forget_old(self, keys: Sequence[Key]) -> None:
        """Keep the states of ``keys`` and, while the KV cache has room, those used last."""
        for key in keys:
            self._states.move_to_end(key)
        current = set(keys)
        older = [key for key in reversed(self._states) if key not in current]
        kept = 1 + STATES_KEPT
        if not self.kv_tree.has_room:  # else the KV cache has room for all, and looking for it costs time
            groups = [[self._states[key] for key in keys], *([self._states[key]] for key in older[:STATES_KEPT])]
            kept = self.kv_tree.keep(nodes_of(states) for states in groups)
        for key in older[kept - 1 :]:
            del self._states[key]

    def _is_one_byte_further(self, key: Key) -> bool:
        """Return whether the state of a text is unknown and the state of the text without its last byte is known."""
        return bool(key.text) and key not in self._states and key.beginning(-1) in self._states

    def _push(self, keys: Sequence[Key], *, exact: bool = False) -> None:
        """Extend texts with known states by one byte each, in one forward; ``exact``: prune nothing."""
        extensions, lost = [], []
        for key in keys:
            extension = self._extended(key, 0.0 if exact else self.tolerance)
            if extension is None:
                lost.append(key)
            else:
                extensions.append(extension)
        nodes = iter(self.kv_tree.grow(self._wanted(extensions)))
        for key, text, continued, unread, pruned, logp in extensions:
            read = [hypothesis.read_at(next(nodes)) for hypothesis in unread]
            self._states[key] = CoverState(text, (*continued, *read), pruned, logp)
        if self.covers.encode is None:
            for key in lost:
                self._follow(key, exact=True)
        else:
            self._open(lost)

    def _wanted(self, extensions: Sequence[Extension]) -> list[tuple[Node, TokenIds]]:
        """Return the tokens to read: those of the unread hypotheses, then likely ones, which share their forward."""
        wanted = [
            (each.node, each.tokens[-1:])
            for extension in extensions
            for each in extension.unread
            if each.node is not None
        ]
        missing = sum(tokens[0] not in node.children for node, tokens in wanted)
        if not 0 < missing < MOST_NODES:
            return wanted
        likely = [likely_token(each.continued, each.text, each.logp, self.covers) for each in extensions if each.unread]
        ahead = [each for each in likely if each is not None and self.kv_tree.can_grow(each.node, each.token)]
        ahead = sorted(ahead, key=lambda each: -each.logp)[: MOST_NODES - missing]
        return wanted + [(each.node, (each.token,)) for each in ahead]

    def _extended(self, key: Key, tolerance: float) -> Extension | None:
        """Return a text's hypotheses after its last byte; None where only pruned hypotheses continue there."""
        state = self._states[key.beginning(-1)]
        text = state.text + key.text[-1:]
        continued, completed = self.covers.advance(state.hypotheses, text, lenient=not state.pruned)
        if state.pruned and not continued and not completed:
            return None
        logp = logsumexp([self.covers.log_mass(hypothesis, text) for hypothesis in (*continued, *completed)])
        floor = logp + math.log(tolerance) if tolerance else -math.inf
        if completed and not continued:
            floor = min(floor, max(hypothesis.logp for hypothesis in completed))
        unread = [hypothesis for hypothesis in completed if hypothesis.logp >= floor]
        below = [dataclasses.replace(each, tokens=(), node=None) for each in completed if each.logp < floor]
        followed = self.covers.advance(state.pruned, text) if state.pruned else ([], [])
        return Extension(key, text, continued, unread, (*followed[0], *followed[1], *below), logp)

    def _open(self, keys: Sequence[Key]) -> None:
        """Find the hypotheses of texts without the model, then read them: shared tokens in chunks, the others at once.

        Raises:
            ModelError: a text without a begin token whose covers share no token.
        """
        opened = []
        for key in keys:
            text = self.vocabulary.prefix + key.text
            if self.covers.encode is None and key.text:
                self._follow(key)
                continue
            shared, hypotheses = self.covers.of_text(text)
            if not key.conditioning and not shared:
                raise ModelError(
                    f"ByteTree: a text of {len(key.text)} bytes must come after a token, but its covers share none and "
                    "there is no begin token; pass bos=, or a longer text"
                )
            begin, shared = (key.conditioning, shared) if key.conditioning else (tuple(shared[:1]), shared[1:])
            node = self.kv_tree.read(self.kv_tree.read(self.kv_tree.root, begin, conditioning=True), shared)
            opened.append((key, text, node, hypotheses))
        nodes = iter(
            self.kv_tree.grow((node, hypothesis.tokens) for *_, node, hypotheses in opened for hypothesis in hypotheses)
        )
        for key, text, _, hypotheses in opened:
            read = [hypothesis.read_at(next(nodes)) for hypothesis in hypotheses]
            logp = logsumexp([self.covers.log_mass(hypothesis, text) for hypothesis in read])
            self._states[key] = CoverState(text, tuple(read), (), logp)

    def _follow(self, key: Key, *, exact: bool = False) -> None:
        """Follow a text from its first byte: covers of kind ``all`` are too many to list at its end.

        Args:
            key: the tokens before the text, and the text.
            exact: prune nothing, and replace the states of the shorter texts. Needed where only pruned hypotheses
                reach the end of the text.
        """
        if key.beginning(0) not in self._states:
            self._open([key.beginning(0)])
        for end in range(1, len(key.text) + 1):
            if exact or key.beginning(end) not in self._states:
                self._push([key.beginning(end)], exact=exact)


def _copied(model: Any, tokenizer: Any, settings: Mapping[str, Any], conditioning: TokenIds) -> ByteTree:
    """Return a tree that has read nothing."""
    tree = ByteTree(model, tokenizer, **settings)
    tree.conditioning = conditioning
    return tree
