"""Distributions of the next byte after a text that is cut inside a token, by several ways of prompting."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from logitkit.processors.byte_level import ByteTree
from logitkit.processors.byte_level.covers import Covers
from logitkit.processors.byte_level.hypotheses import Hypothesis
from logitkit.processors.byte_level.logsumexp import logsumexp
from logitkit.processors.byte_level.successor_rule import EveryToken
from logitkit.processors.engine import KVTree

BYTES = 257  # 256 byte values and the end of the text
NEGLIGIBLE = 1e-4  # probability below which the hard mask does not follow a hypothesis
ByteProbabilities = NDArray[np.float64]  # [257], sums to one


class CutPromptMethods:
    """The ways of prompting one model with a text that is cut at any byte.

    Args:
        model, tokenizer: the generating model and its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.tree = ByteTree(model, tokenizer)
        # transformers' token healing fails without a begin token, so the end token replaces a missing one.
        self.healing_tokenizer = copy.deepcopy(tokenizer)
        self.healing_tokenizer.bos_token = tokenizer.bos_token or tokenizer.eos_token
        self.every_token = Covers(EveryToken(self.tree.vocabulary), self.tree.covers.trie)

    def evaluate(self, text: str, after: str) -> dict[str, Any]:
        """Return for each method whether the next byte is right, and its log-loss in bits.

        Args:
            text: the text before the cut.
            after: the text after the cut, long enough for the token that is cut.
        """
        byte = after.encode()[0]
        self.tree.release()  # the previous cut was in another text
        boundary, boundary_byte = self.at_token_boundary(text, after)
        distributions = {
            "plain prompt": (self.plain(self.tokenizer(text)["input_ids"]), byte),
            "hard mask": (self.hard_mask(text.encode()), byte),
            "byte_boundary": (self.byte_boundary(text.encode()), byte),
            "cut at a token boundary, plain": (boundary, boundary_byte),
        }
        hits: dict[str, bool | None] = {
            method: int(probabilities.argmax()) == wanted for method, (probabilities, wanted) in distributions.items()
        }
        losses = {
            method: float(-np.log2(max(probabilities[wanted], 1e-12)))
            for method, (probabilities, wanted) in distributions.items()
        }
        hits["transformers token_healing"] = self.token_healing(text, after[0])
        return {"hits": hits, "losses": losses}

    @torch.no_grad()
    def plain(self, ids: list[int]) -> ByteProbabilities:
        """Return the distribution of the first byte of the next token."""
        return self._first_bytes(self.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1).numpy())

    def _first_bytes(self, logp: Any) -> ByteProbabilities:
        """Return the distribution of the first byte of a token with these log-probabilities, ``[vocab]``."""
        trie = self.every_token.trie
        first = trie.next_byte(0, len(trie.ids), 0)
        probabilities = np.bincount(first, weights=np.exp(logp[trie.ids], dtype=np.float64), minlength=BYTES)
        probabilities[BYTES - 1] = np.exp(logsumexp(logp[self.tree.end_tokens]))
        return probabilities / float(probabilities.sum())

    def byte_boundary(self, text: bytes) -> ByteProbabilities:
        """Return the exact distribution given all bytes of the text."""
        probabilities: ByteProbabilities = self.tree.distribution(text, conditioning=()).logp.exp().numpy()
        return probabilities / float(probabilities.sum())

    def hard_mask(self, text: bytes) -> ByteProbabilities:
        """Return the distribution under a hard mask after the same trimmed prompt.

        At each step the mask allows the tokens that agree with the removed bytes, and renormalises.
        """
        trunk, _ = self.tree.covers.of_text(text)
        trunk = trunk or self.tokenizer(text.decode())["input_ids"][:1]
        removed = text[len(self.tree.vocabulary.join(trunk)) :]
        tree, probabilities = KVTree(self.model), np.zeros(BYTES)
        start = tree.read(tree.root, trunk, conditioning=True)
        open_: list[tuple[Hypothesis, Any, float]] = [(Hypothesis(context=(), start=0), start, 1.0)]
        while open_:
            hypotheses, open_ = open_, []
            for hypothesis, node, mass in hypotheses:
                if hypothesis.start == len(removed):
                    probabilities += mass * self._first_bytes(node.logp)
                    continue
                beyond = self.every_token.tokens_beyond(hypothesis, removed)
                within = self.every_token.extensions_within(hypothesis, removed)
                ids = np.concatenate([beyond, [extended.tokens[-1] for extended in within]]).astype(np.int64)
                allowed = np.exp(node.logp[ids] - logsumexp(node.logp[ids])) * mass
                probabilities += self._bytes_beyond(removed[hypothesis.start :], allowed[: len(beyond)])
                kept = [(h, m) for h, m in zip(within, allowed[len(beyond) :], strict=True) if m > NEGLIGIBLE]
                nodes = tree.grow((node, extended.tokens[-1:]) for extended, _ in kept)
                open_ += [
                    (Hypothesis(context=(), start=extended.start), child, m)
                    for (extended, m), child in zip(kept, nodes, strict=True)
                ]
        return probabilities / float(probabilities.sum())

    def _bytes_beyond(self, pending: bytes, probabilities: Any) -> Any:
        """Return the probability of each next byte, given those of the tokens that reach beyond ``pending``."""
        trie = self.every_token.trie
        low, _ = trie.range(pending)
        low += len(trie.exact(pending))
        following = trie.next_byte(low, low + len(probabilities), len(pending))
        return np.bincount(following, weights=probabilities, minlength=BYTES)

    def token_healing(self, text: str, truth: str) -> bool | None:
        """Return whether transformers' token healing writes the true character; None if it raises an error.

        Token healing strips white space around the prompt, so the stripped text is compared.
        """
        inputs = self.tokenizer(text, return_tensors="pt")
        settings = {"token_healing": True, "tokenizer": self.healing_tokenizer, "do_sample": False, "max_new_tokens": 4}
        try:
            written = self.tokenizer.decode(self.model.generate(**inputs, **settings)[0], skip_special_tokens=True)
        except (KeyError, RuntimeError):  # transformers 5.23: a last token without extensions, or a shortened prompt
            return None
        stripped = text.strip()
        expected = text[text.rindex(stripped) + len(stripped) :] + truth if stripped else text + truth
        return bool(written.lstrip()[len(stripped) :].startswith(expected))

    def at_token_boundary(self, text: str, after: str) -> tuple[ByteProbabilities, int]:
        """Return the plain distribution at the last token boundary up to the cut, and the byte that follows there.

        The boundaries are those of the whole text.
        """
        ids = self.tokenizer(text + after)["input_ids"]
        while len(self.tree.vocabulary.join(ids)) > len(text.encode()):
            ids = ids[:-1]
        return self.plain(ids), (text + after).encode()[len(self.tree.vocabulary.join(ids))]
