"""Reference for byte-level probabilities: every cover of a text is enumerated and read from scratch in float64."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import random
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from logitkit.processors.tokens import Vocabulary
from logitkit.processors.tokens.token_bytes import MARKER, byte_alphabet

CHARACTER_OF = {byte: char for char, byte in byte_alphabet().items()}


def random_tokenizer(seed: int, letters: bytes = b"ab ", merges: int = 8, split: bool = True) -> Any:
    """Return a byte-level BPE tokenizer over a few letters with random merges.

    Args:
        seed: of the merges.
        letters: the bytes of the alphabet.
        merges: greatest number of merges.
        split: whether the tokenizer has the GPT-2 pretokenizer.
    """
    generator = random.Random(seed)
    vocabulary = {CHARACTER_OF[letter]: number for number, letter in enumerate(letters)}
    pairs: list[tuple[str, str]] = []
    for _ in range(20 * merges):
        if len(pairs) == merges:
            break
        pair = generator.choice(list(vocabulary)), generator.choice(list(vocabulary))
        if "".join(pair) in vocabulary or len("".join(pair)) > 5 or (split and "Ġ" in "".join(pair)[1:]):
            continue
        pairs.append(pair)
        vocabulary["".join(pair)] = len(vocabulary)
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def random_unigram(seed: int, letters: str = "ab ", pieces: int = 8, prefix: bool = False) -> Any:
    """Return a unigram tokenizer over a few letters with random pieces and scores.

    Args:
        seed: of pieces and scores.
        letters: the characters of the alphabet.
        pieces: number of longer pieces.
        prefix: whether the tokenizer puts a space before every text.
    """
    generator = random.Random(seed)
    scores = {letter.replace(" ", MARKER): generator.uniform(-4, -2) for letter in letters}
    while len(scores) < len(letters) + pieces:
        piece = "".join(generator.choices(letters, k=generator.randint(2, 4))).replace(" ", MARKER)
        if MARKER not in piece[1:]:
            scores[piece] = generator.uniform(-6, -2)
    inner = Tokenizer(models.Unigram([("<unk>", 0.0), *scores.items()], unk_id=0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always" if prefix else "never")
    inner.decoder = decoders.Metaspace(prepend_scheme="always" if prefix else "never")
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def random_model(tokenizer: Any, seed: int = 0, **overrides: Any) -> Any:
    """Return a random two-layer Llama in float32 with eight more ids than the tokenizer has."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings: dict[str, Any] = {
            "vocab_size": len(tokenizer) + 8,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.5,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
        config = LlamaConfig(**settings | overrides)
        return LlamaForCausalLM(config).eval()


class Enumeration:
    """Enumerates the covers of a text under a tokenizer, with their probabilities under a model.

    Args:
        model: a language model; a copy of it in float64 is used.
        tokenizer: its tokenizer.
        canonical: whether covers are limited to sequences that begin the encoding of some text.
        ahead: characters of the continuations, of length 0 to 3, with which a sequence is tested.
    """

    def __init__(self, model: Any, tokenizer: Any, *, canonical: bool = True, ahead: str = "ab ") -> None:
        self.model, self.tokenizer, self.canonical = copy.deepcopy(model).double(), tokenizer, canonical
        self.vocabulary = Vocabulary.of(tokenizer, model.config.vocab_size)
        self.ahead = ["".join(y) for n in range(4) for y in itertools.product(ahead, repeat=n)]
        self.spelled = [number for number, text in enumerate(self.vocabulary.token_bytes) if text]
        self.next = functools.cache(self._next)
        self.live = functools.cache(self._live)

    @torch.no_grad()
    def _next(self, ids: tuple[int, ...]) -> torch.Tensor:
        """Return log-probabilities after the begin token and these ids, read from scratch."""
        rows = torch.tensor([[self.tokenizer.bos_token_id, *ids]])
        return self.model(rows, use_cache=False).logits[0, -1].log_softmax(-1)

    def _live(self, ids: tuple[int, ...]) -> bool:
        """Return whether the sequence begins the encoding of some text."""
        text = self.vocabulary.join(ids).decode()
        return not self.canonical or any(self._encode(text + y)[: len(ids)] == ids for y in self.ahead)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def covers(self, text: bytes) -> list[tuple[tuple[int, ...], float]]:
        """Return each cover and its log-probability in nats."""
        covers: list[tuple[tuple[int, ...], float]] = [] if text else [((), 0.0)]
        pending: list[tuple[tuple[int, ...], float]] = [((), 0.0)] if text else []
        while pending:
            ids, logp = pending.pop()
            begun = self.vocabulary.join(ids)
            for token in self.spelled:
                reached = begun + (self.vocabulary.token_bytes[token] or b"")
                longer = (*ids, token)
                if not (text.startswith(reached) or reached.startswith(text)) or not self.live(longer):
                    continue
                total = logp + float(self.next(ids)[token])
                (covers if len(reached) >= len(text) else pending).append((longer, total))
        return covers

    def logp(self, text: bytes) -> float:
        """Return log P(text) in nats."""
        return _logsumexp([logp for _, logp in self.covers(text)])

    def ended(self, text: bytes) -> float:
        """Return the log-probability in nats of the text and then its end."""
        exact = [
            (ids, logp)
            for ids, logp in self.covers(text)
            if self.vocabulary.join(ids) == text and (not self.canonical or self._encode(text.decode()) == ids)
        ]
        return _logsumexp([logp + float(self.next(ids)[self.tokenizer.eos_token_id]) for ids, logp in exact])

    def distribution(self, text: bytes, letters: bytes) -> dict[int, float]:
        """Return log P(letter | text) for each letter and, at 256, the end."""
        whole = self.logp(text)
        letters_logp = {letter: self.logp(text + bytes([letter])) - whole for letter in letters}
        return letters_logp | {256: self.ended(text) - whole}


def _logsumexp(values: list[float]) -> float:
    best = max(values, default=-math.inf)
    return best if best == -math.inf else best + math.log(sum(math.exp(value - best) for value in values))
