"""Exact next-byte laws of a tokenized language model.

The probability that a text begins with bytes x is a sum over covers: token sequences whose last token reaches
the end of x or goes beyond it (Phan et al., arXiv:2410.09303, section 3; Vieira et al., arXiv:2412.03719).
Of the canonical ones nearly all share all but their last few tokens, so the sum is a small tree over one cache:

    P(x) = sum over heads h, with pending bytes x[start(h):] not empty, of P(h) * sum of p(r | h) over the
           allowed tokens r that begin with the pending bytes

where a head is a sequence that ends inside x and that some allowed token can carry to the end of x.
What a model gives to tokens that its tokenizer would never write there is lost: the leak. Probabilities of the
next bytes, of the end, and the leak sum to 1. Others renormalise byte by byte; then products of next-byte
probabilities are no longer P(x), so here that is left to the caller.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logitkit.errors import ModelError, ParameterError
from logitkit.processors.byte_level.covers import CoverKind, Covers, Hypothesis, logsumexp
from logitkit.processors.engine.kv_tree import KVTree, Node
from logitkit.processors.model_facts import end_tokens, vocabulary_size
from logitkit.processors.tokens.byte_trie import END
from logitkit.processors.tokens.vocabulary import Vocabulary

REMEMBERED = 128  # texts asked for before whose state is kept, where there is room
STEP = 4  # bytes that are pushed one by one; a text further on is read anew, sharing what is cached
TokenIds = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class State:
    """A text and its live covers.

    Attributes:
        spelled: its bytes, with the space that the tokenizer puts before every text.
        heads: sequences that were read.
        pruned: sequences that were not, since their share was below the tolerance; followed to bound the error.
        logp: log-probability in nats that a text begins with this one.
    """

    spelled: bytes
    heads: tuple[Hypothesis, ...]
    pruned: tuple[Hypothesis, ...]
    logp: float


@dataclass(frozen=True, eq=False)
class ByteDistribution:
    """The law of the next byte.

    Attributes:
        logp: log-probabilities in nats of the 256 bytes and, last, of the end; float64 ``[257]``. With the leak they
            sum to 1, up to what ``bound`` allows.
        leak: probability that the model gives to tokens that no canonical text goes on with, 0 to 1.
        bound: by how much the true log-probability of the text can exceed the computed one, in nats; 0 is exact.
    """

    logp: Tensor
    leak: float
    bound: float


class ByteTree:
    """Byte-level probabilities of a model, exact over its covers.

    Args:
        model: a causal language model.
        tokenizer: its fast tokenizer.
        covers: ``canonical`` sums over what the tokenizer can write; ``all`` over every tokenization, whose number
            grows fast with the text.
        tolerance: covers whose share of the text's mass is below it are not read; 0 is exact.
        bos: token that every text comes after; ``"tokenizer"``: its begin token, if it has one. With None the
            first token that all covers share is given, and counts nothing.
        lossy: take a tokenizer that loses bytes; the law is then one of what it writes.

    Attributes:
        tree: the tree of token sequences; counts forwards.

    Raises:
        ModelError: a tokenizer that loses bytes, another kind of model.
        ParameterError: tolerance outside ``[0, 1)``, unknown covers.
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
        self.model, self.tokenizer, self.tolerance = model, tokenizer, tolerance
        self.vocabulary = Vocabulary.of(tokenizer, vocabulary_size(model))
        if self.vocabulary.loss_reason and not lossy:
            raise ModelError(
                f"ByteTree: tokenizer must keep every byte of a text, but {self.vocabulary.loss_reason}; "
                "pass lossy=True to have the law of what it writes"
            )
        self.covers = Covers.of(tokenizer, self.vocabulary, covers)
        self.tree = KVTree(model)
        begin = tokenizer.bos_token_id if bos == "tokenizer" else bos
        self.prefix: TokenIds = () if begin is None else (int(begin),)
        self.end_tokens = sorted(end_tokens(model, tokenizer))
        self._states: OrderedDict[tuple[TokenIds, bytes], State] = OrderedDict()

    def logp(self, text: bytes) -> float:
        """Log-probability in nats that a text begins with these bytes; -inf where the model cannot write them."""
        return self.states([text])[0].logp

    def next_byte(self, text: bytes) -> Tensor:
        """Log-probabilities in nats of the next byte after a text and, at 256, of its end: float64 ``[257]``."""
        return self.distribution(text).logp

    def distribution(self, text: bytes, *, prefix: TokenIds | None = None) -> ByteDistribution:
        """The law of the next byte after a text; see `laws`."""
        return self.distributions([text], prefix=None if prefix is None else [prefix])[0]

    def distributions(
        self, texts: Sequence[bytes], *, prefix: Sequence[TokenIds] | None = None
    ) -> list[ByteDistribution]:
        """The laws of the next byte after several texts, read together.

        Args:
            texts: any bytes.
            prefix: for each text, the tokens it comes after, in place of the begin token (a chat template, say).

        Raises:
            ModelError: a text that is too long for the model, or one without a begin token whose covers share none.
        """
        return [self._distribution(state) for state in self.states(texts, prefix=prefix)]

    def states(self, texts: Sequence[bytes], *, prefix: Sequence[TokenIds] | None = None) -> list[State]:
        """The live covers of several texts; what several need is read once, in as few forwards as can be."""
        keys = [(self.prefix if prefix is None else prefix[place], text) for place, text in enumerate(texts)]
        try:
            for back in range(STEP - 1, -1, -1):  # bring all that are near to a remembered text there, step by step
                near = {
                    (before, text[: len(text) - back]) for before, text in keys if self._is_near(before, text, back)
                }
                self._push(sorted(near))
            self._open([key for key in dict.fromkeys(keys) if key not in self._states])
        except BaseException:
            self.release()  # what was interrupted matches no tokens
            raise
        found = [self._states[key] for key in keys]
        for key in keys:
            self._states.move_to_end(key)
        now = set(keys)
        older = [key for key in reversed(self._states) if key not in now]
        groups = [found, *([self._states[key]] for key in older[:REMEMBERED])]
        kept = self.tree.keep(_nodes(states) for states in groups)
        for key in older[kept - 1 :]:
            del self._states[key]
        return found

    def release(self) -> None:
        """Forget all texts; the next one is read from scratch."""
        self._states.clear()
        self.tree.release()

    def _is_near(self, prefix: TokenIds, text: bytes, back: int) -> bool:
        """Whether the text, ``back`` bytes before its end, is unknown and one byte beyond a remembered one."""
        end = len(text) - back
        return end > 0 and (prefix, text[:end]) not in self._states and (prefix, text[: end - 1]) in self._states

    def _push(self, keys: Sequence[tuple[TokenIds, bytes]]) -> None:
        """Move remembered texts on by one byte each, in one forward."""
        plans, lost = [], []
        for prefix, text in keys:
            state = self._states[prefix, text[:-1]]
            spelled = state.spelled + text[-1:]
            kept, ends = self.covers.step(state.heads, spelled, lenient=not state.pruned)
            if state.pruned and not kept and not ends:
                lost.append((prefix, text))  # it goes on from sequences that were not read
                continue
            total = logsumexp([self.covers.carried(head, spelled) for head in (*kept, *ends)])
            floor = total + math.log(self.tolerance) if self.tolerance else -math.inf
            if not kept:
                floor = min(floor, max(head.logp for head in ends)) if ends else floor
            worth = [head for head in ends if head.logp >= floor]
            faint = [
                Hypothesis(context=head.context, start=head.start, logp=head.logp) for head in ends if head.logp < floor
            ]
            followed, deeper = self.covers.step(state.pruned, spelled) if state.pruned else ([], [])
            plans.append((prefix, text, spelled, kept, worth, (*followed, *deeper, *faint), total))
        nodes = iter(
            self.tree.grow((head.node, head.tokens[-1:]) for plan in plans for head in plan[4] if head.node is not None)
        )
        for prefix, text, spelled, kept, worth, pruned, total in plans:
            grown = [_read(head, next(nodes)) for head in worth]
            self._states[prefix, text] = State(spelled, (*kept, *grown), pruned, total)
        self._open(lost)

    def _open(self, keys: Sequence[tuple[TokenIds, bytes]]) -> None:
        """Find the covers of texts without the model, then read them: what they share in chunks, the rest at once."""
        plans = []
        for prefix, text in keys:
            if self.covers.canonical is None and text:  # too many covers to find them all
                for end in range(len(text) + 1):
                    if (prefix, text[:end]) not in self._states:
                        self._push([(prefix, text[:end])]) if end else self._open([(prefix, b"")])
                continue
            spelled = self.vocabulary.prefix + text
            trunk, heads = self.covers.of_text(spelled)
            if not prefix and not trunk:
                raise ModelError(
                    f"ByteTree: a text of {len(text)} bytes must come after a token, but its covers share none and "
                    "there is no begin token; pass bos=, or a longer text"
                )
            begin, trunk = (prefix, trunk) if prefix else (tuple(trunk[:1]), trunk[1:])
            shared = self.tree.read(self.tree.read(self.tree.root, begin, given=True), trunk)
            plans.append((prefix, text, spelled, shared, heads))
        nodes = iter(self.tree.grow((shared, head.tokens) for *_, shared, heads in plans for head in heads))
        for prefix, text, spelled, _, heads in plans:
            read = [_read(head, next(nodes)) for head in heads]
            total = logsumexp([self.covers.carried(head, spelled) for head in read])
            self._states[prefix, text] = State(spelled, tuple(read), (), total)

    def _distribution(self, state: State) -> ByteDistribution:
        """The law after a text whose covers are known."""
        joint = np.full(257, -np.inf)
        for head in state.heads:
            joint = np.logaddexp(joint, self._continued(head, state.spelled))
        logp = joint - state.logp if state.logp > -math.inf else joint
        missed = logsumexp([hypothesis.logp for hypothesis in state.pruned])
        bound = float(np.logaddexp(0.0, missed - state.logp)) if missed > -math.inf else 0.0
        leak = max(0.0, 1.0 - float(np.exp(logp).sum()))
        return ByteDistribution(logp=torch.from_numpy(logp), leak=leak, bound=bound)

    def _continued(self, head: Hypothesis, spelled: bytes) -> NDArray[np.float64]:
        """Joint log-probabilities of a head with each next byte and with the end, ``[257]``."""
        joint = np.full(257, -np.inf)
        assert head.node is not None and head.node.logp is not None
        pending = spelled[head.start :]
        low, high = self.covers.trie.range(pending)
        ids = self.covers.trie.ids[low:high]
        logp = np.where(self.covers.rule.allowed(head.context, ids), head.node.logp[ids], -np.inf)
        best = logp.max(initial=-np.inf)
        if best > -np.inf:
            letters = self.covers.trie.next_byte(low, high, len(pending))
            sums = np.bincount(letters, weights=np.exp(logp - best, dtype=np.float64), minlength=257)
            with np.errstate(divide="ignore"):
                joint = np.log(sums) + best + head.logp
        joint[END] = -np.inf  # tokens that are just the pending bytes go on as heads of their own
        if not pending and self.end_tokens and self.covers.rule.may_end(head.context):
            joint[END] = head.logp + logsumexp(head.node.logp[self.end_tokens])
        return joint


def _nodes(states: Sequence[State]) -> list[Node]:
    """Where the heads of some texts are in the tree of the model."""
    return [head.node for state in states for head in state.heads if head.node is not None]


def _read(head: Hypothesis, node: Node) -> Hypothesis:
    """A head and its place in the tree of the model."""
    return Hypothesis(context=head.context, start=head.start, node=node, logp=node.total)
