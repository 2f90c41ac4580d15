"""A prompt cut anywhere: condition exactly on the bytes behind the last sure token.

A prompt that ends inside a token forces its tokenization, and the model then never continues it with the token
that would have spanned the cut (tokenization bias: Phan et al., arXiv:2410.09303; Hayase et al.,
arXiv:2506.14123). So the prompt is trimmed to the last token that all covers of its bytes share, and the first
new tokens must spell the removed bytes again. Token r after a prefix t is weighted by

    p(r | t) * P(the rest of the removed bytes follows t r),

which is the conditional law of the model given those bytes. Token healing and hard masks leave the second
factor out. Once the removed bytes are spelled the processor is the identity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ModelError, ScoresError
from logitkit.params import Resource, checked, option
from logitkit.processors.byte_level.covers import CoverKind, Covers, Hypothesis, logsumexp
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.kv_tree import KVTree
from logitkit.processors.engine.prompts import Prompts, left_padded, pad_token
from logitkit.processors.model_facts import vocabulary_size
from logitkit.processors.tokens.vocabulary import Vocabulary

SENTINELS = (  # prefix, suffix, middle of the fill-in-the-middle formats that are known
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Cut:
    """One trimmed prompt.

    Attributes:
        tokens: what is left of it.
        begun: those of its tokens that canonical covers of the removed bytes go on from.
        removed: the bytes that its continuation must begin with.
    """

    tokens: list[int]
    begun: list[int]
    removed: bytes


@dataclass(frozen=True, eq=False, kw_only=True)
class Places:
    """Places inside the removed bytes at which a token may begin, for all prompts.

    Attributes:
        prompt: the prompt of each place, ``[places]``.
        path: the tokens from the trimmed prompt to it, padded with -1, ``[places, longest]``.
        length: how many they are, ``[places]``.
        tokens: the tokens that may come next, padded with a repetition, ``[places, most]``.
        after: log-probability in nats that the rest of the removed bytes follows each, ``[places, most]``.
    """

    prompt: Tensor
    path: Tensor
    length: Tensor
    tokens: Tensor
    after: Tensor

    def to(self, device: torch.device) -> Places:
        """The same on a device."""
        if self.prompt.device == device:
            return self
        return Places(**{field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)})


class ByteBoundary(LogitsProcessor):
    """Spell the bytes that were cut from the prompts, by the exact conditional law.

    Args:
        prompts: the trimmed prompts.
        cuts: what was cut from each.
        covers: which token sequences count.
        model: reads the places inside the removed bytes, once, when it is first asked.
    """

    @checked
    def __init__(
        self,
        *,
        prompts: Annotated[Prompts, Resource()],
        cuts: Annotated[Sequence[Cut], Resource()],
        covers: Annotated[Covers, Resource()],
        model: Annotated[Any, Resource()],
    ) -> None:
        self._prompts, self._cuts, self._covers, self._model = prompts, cuts, covers, model
        self._places: Places | None = None
        self.forwards = self.tokens = 0

    def __reduce__(self) -> Any:
        raise ModelError("byte_boundary: cannot be pickled, it holds a model; pickle the chain and bind it again")

    @classmethod
    def prepare(cls, binding: Binding, **_parameters: Any) -> Prompts | None:
        """Trim the prompts; chat prompts end where their template ends, so nothing is cut from them."""
        given = binding.prompts
        if given.in_encoder or given.messages[0] is not None:
            binding.trace.notices.append("byte_boundary: the prompts end at a boundary of their own; nothing is cut")
            return None
        vocabulary, covers = _vocabulary(binding), _covers(binding, "canonical")
        cuts = [trim(tokens, binding.tokenizer, vocabulary, covers) for tokens in binding.own_prompts()]
        for number, (_left, removed) in enumerate(cuts):
            binding.trace.notices.append(f"byte_boundary: prompt {number} gives back its last {len(removed)} bytes")
        ids, mask = left_padded([tokens for tokens, _ in cuts], pad_token(binding.tokenizer, binding.model))
        return dataclasses.replace(
            given,
            ids=ids.to(given.ids.device),
            mask=mask.to(given.mask.device),
            texts=tuple(
                text.encode().removesuffix(removed).decode(errors="ignore")
                for text, (_, removed) in zip(given.texts, cuts, strict=True)
            ),
            removed=tuple(removed for _, removed in cuts),
        )

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        covers: Annotated[CoverKind, option("token sequences that count: what the tokenizer writes, or every one")] = (
            "canonical"
        ),
    ) -> ByteBoundary:
        """Find out what was cut; the model reads nothing yet."""
        prompts, vocabulary = binding.prompts, _vocabulary(binding)
        removed = prompts.removed or (b"",) * len(prompts)
        cuts = [
            Cut(tokens=tokens, begun=_last_text(tokens, binding.tokenizer, vocabulary), removed=piece)
            for tokens, piece in zip(binding.own_prompts(), removed, strict=True)
        ]
        made = cls(prompts=prompts, cuts=cuts, covers=_covers(binding, covers), model=binding.model)
        binding.trace.readers["byte boundary"] = made
        return made

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores, of rows that still spell removed bytes conditional log-probabilities, ``[rows, vocab]``.

        Raises:
            ScoresError: a row that comes without any token that spells the removed bytes.
        """
        written = input_ids.shape[1] - self._prompts.width
        if self._places is None:
            self._places = self._read_places()
        if written > self._places.path.shape[1]:  # every row has spelled them
            return scores
        places = self._places = self._places.to(scores.device)
        which = self._prompts.rows(input_ids)[:, None]  # [rows, 1]
        here = (places.prompt == which) & (places.length == written)  # [rows, places]
        here &= (places.path[None, :, :written] == input_ids[:, None, self._prompts.width :]).all(-1)
        found, place = here.int().max(-1) if len(places.prompt) else (which[:, 0] < 0, which[:, 0])
        if not bool(found.any()):
            return scores
        tokens = places.tokens[place]  # [rows, most]
        weighted = scores.log_softmax(-1).gather(1, tokens) + places.after[place]
        spelled = torch.full_like(scores, -torch.inf).scatter(1, tokens, weighted.to(scores.dtype))
        found = found.bool()
        if bool((spelled.amax(-1)[found] == -torch.inf).any()):
            raise ScoresError(
                "byte_boundary: every row must keep a token that spells the bytes cut from its prompt, got none; "
                "put byte_boundary before what takes tokens away"
            )
        return torch.where(found[:, None], spelled.log_softmax(-1), scores)

    def _read_places(self) -> Places:
        """Read the places of all prompts."""
        found = [
            (number, path, after)
            for number, piece in enumerate(self._cuts)
            if piece.removed
            for path, after in self._places_of(piece)
        ]
        longest = max((len(path) for _, path, _ in found), default=0)
        most = max((len(after) for *_, after in found), default=0)
        paths = [[*path, *[-1] * (longest - len(path))] for _, path, _ in found]
        tokens = [[*after, *[next(iter(after))] * (most - len(after))] for *_, after in found]
        weights = [[after[token] for token in row] for (*_, after), row in zip(found, tokens, strict=True)]
        return Places(
            prompt=torch.tensor([number for number, *_ in found], dtype=torch.long),
            path=torch.tensor(paths, dtype=torch.long).reshape(len(found), longest),
            length=torch.tensor([len(path) for _, path, _ in found], dtype=torch.long),
            tokens=torch.tensor(tokens, dtype=torch.long).reshape(len(found), most),
            after=torch.tensor(weights, dtype=torch.float32).reshape(len(found), most),
        )

    def _places_of(self, piece: Cut) -> list[tuple[tuple[int, ...], dict[int, float]]]:
        """The places of one prompt, each with the tokens that may come next and what follows them, in nats."""
        nexts: dict[tuple[int, ...], list[Hypothesis]] = {}  # by path: the places and ends that one token leads to
        todo, inner = [Hypothesis(context=self._covers.context(piece.begun), start=0)], []
        while todo:
            head = todo.pop()
            inner.append(head)
            nexts[head.tokens] = self._covers.within(head, piece.removed)
            todo += [longer for longer in nexts[head.tokens] if longer.start < len(piece.removed)]
        inner.sort(key=lambda head: -head.start)  # what follows a place is known before the places that lead to it
        beyond = {head.tokens: self._covers.beyond(head, piece.removed).tolist() for head in inner}
        alive = {head.tokens for head in inner if beyond[head.tokens]}
        for head in inner:
            if any(end.start == len(piece.removed) or end.tokens in alive for end in nexts[head.tokens]):
                alive.add(head.tokens)
        inner = [head for head in inner if head.tokens in alive]
        logp = self._read(piece, [head.tokens for head in inner if head.tokens])
        follows: dict[tuple[int, ...], float] = {}
        found = []
        for head in inner:
            after = dict.fromkeys(beyond[head.tokens], 0.0)
            for longer in nexts[head.tokens]:
                if longer.start == len(piece.removed) or longer.tokens in alive:
                    after[longer.tokens[-1]] = follows.get(longer.tokens, 0.0)
            if head.tokens:
                weights = np.fromiter(after.values(), dtype=np.float64)
                follows[head.tokens] = logsumexp(logp[head.tokens][list(after)] + weights)
            found.append((head.tokens, after))
        return found

    def _read(self, piece: Cut, paths: list[tuple[int, ...]]) -> dict[tuple[int, ...], Any]:
        """Log-probabilities of the next token in nats after the trimmed prompt and each path, ``[vocab]`` each.

        Without paths nothing is read: what spans the cut spells all that was removed.
        """
        if not paths:
            return {}
        tree = KVTree(self._model)
        end = tree.read(tree.root, piece.tokens, given=True)
        nodes = tree.grow((end, path) for path in paths)
        self.forwards, self.tokens = self.forwards + tree.forwards, self.tokens + tree.fed
        return {path: node.logp for path, node in zip(paths, nodes, strict=True)}


def trim(tokens: Sequence[int], tokenizer: Any, vocabulary: Vocabulary, covers: Covers) -> tuple[list[int], bytes]:
    """Trim a prompt to the last token that all canonical covers of its text share; keep at least one token.

    In a fill-in-the-middle prompt that ends with the middle sentinel the cut is in the prefix: its last bytes move
    behind the sentinel, where the middle begins. The seam between middle and suffix cannot be conditioned on, since
    the suffix stands before the middle.

    Returns:
        The tokens that are left, and the bytes that were removed: none where no canonical cover goes on from there.
    """
    tokens = list(tokens)
    hole = _hole(tokens, tokenizer)
    stop = len(tokens) if hole is None else hole
    text = _last_text(tokens[:stop], tokenizer, vocabulary)
    first = stop - len(text)
    spelled = vocabulary.join(text)
    sure = len(vocabulary.join(covers.of_text(spelled)[0]))
    kept = max(number for number in range(len(text) + 1) if len(vocabulary.join(text[:number])) <= sure)
    kept = max(kept, 1 - first)  # the model must begin somewhere
    removed = spelled[len(vocabulary.join(text[:kept])) :]
    context = covers.context(text[:kept] if hole is None else [])
    if not removed or not covers.live(Hypothesis(context=context, start=0), removed):
        return tokens, b""
    return tokens[: first + kept] + tokens[stop:], removed


def _hole(tokens: Sequence[int], tokenizer: Any) -> int | None:
    """Where the prefix of a fill-in-the-middle prompt ends, if it is one that ends with the middle sentinel."""
    known = tokenizer.get_vocab()
    for names in SENTINELS:
        if all(name in known for name in names):
            prefix, suffix, middle = (known[name] for name in names)
            if tokens and tokens[-1] == middle and prefix in tokens and suffix in tokens:
                place = tokens.index(suffix)
                if tokens.index(prefix) < place:
                    return place
    return None


def _last_text(tokens: Sequence[int], tokenizer: Any, vocabulary: Vocabulary) -> list[int]:
    """The tokens behind the last special token or sentinel."""
    known = tokenizer.get_vocab()
    marks = vocabulary.special | {known[name] for names in SENTINELS for name in names if name in known}
    places = [place for place, token in enumerate(tokens) if token in marks]
    return list(tokens[places[-1] + 1 if places else 0 :])


def _vocabulary(binding: Binding) -> Vocabulary:
    """The vocabulary of the generating model, which must lose no bytes."""
    vocabulary = Vocabulary.of(binding.tokenizer, vocabulary_size(binding.model))
    if vocabulary.loss_reason:
        raise ModelError(
            f"byte_boundary: tokenizer must keep every byte of a text, but {vocabulary.loss_reason}; "
            "leave byte_boundary out"
        )
    return vocabulary


def _covers(binding: Binding, which: CoverKind) -> Covers:
    return Covers.of(binding.tokenizer, _vocabulary(binding), which)
