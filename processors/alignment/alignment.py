"""Maps between vocabularies: which tokens of one model mean what in another one's.

Tokens are compared as the bytes they stand for (`Vocabulary`), so space markers, byte tokens and byte
fallback need no rules, and case is kept. End tokens are aligned to the end token; other special tokens
and ids that a tokenizer lacks are aligned to nothing. A map has the sizes of the models' configs.

- ``exact``: the same bytes. What the other vocabulary lacks is lost.
- ``mined`` (MinED, FuseLLM, arXiv:2401.10491): else the token at the least edit distance over bytes; of several, the
  lowest id.
- ``gac`` (arXiv:2406.12585): else the first token that the main tokenizer writes for it. The published method adds
  over the union of the vocabularies; a processor can only choose main tokens, so a string that is no main
  token stands by the main token it begins with, and no mass is lost.
- ``unite`` (arXiv:2410.03777): ``gac`` both ways, over the union of the models' likeliest tokens; see
  `logitkit.processors.ensemble.processors`.
- ``embedding`` (EVA, arXiv:2404.09492): else the neighbours in embedding space; see `embedding`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from logitkit.errors import FileFormatError, ModelError, UnknownNameError
from logitkit.processors.model_facts import end_tokens
from logitkit.processors.tokens.retokenization import vocabulary_of
from logitkit.processors.tokens.vocabulary import Vocabulary, fingerprint

FORMAT = 1
SMALL = 10**7  # maps between vocabularies with fewer pairs of tokens are made anew: that takes no time
NONE, EXACT, PARTIAL, SPECIAL = range(4)  # what became of a token
METHODS = ("exact", "mined", "unite", "gac", "embedding")


@dataclass(frozen=True, eq=False, kw_only=True)
class AlignmentVocabulary:
    """One end of a map.

    Attributes:
        tokenizer: a fast tokenizer.
        vocabulary: its bytes, as many ids as the model has.
        ends: ids that end a text, the one to be aligned to first.
        embeddings: input embeddings, ``[size, width]``; needed by ``embedding`` only.
    """

    tokenizer: Any
    vocabulary: Vocabulary
    ends: tuple[int, ...]
    embeddings: Tensor | None = None

    @classmethod
    def of(cls, model: Any, tokenizer: Any) -> AlignmentVocabulary:
        """Read a model and its tokenizer."""
        vocabulary = vocabulary_of(model, tokenizer)
        ends = tuple(end for end in end_tokens(model, tokenizer) if end < len(vocabulary))
        table = model.get_input_embeddings()  # None: a model over bytes
        vectors = None if table is None else table.weight.detach()
        return cls(tokenizer=tokenizer, vocabulary=vocabulary, ends=ends, embeddings=vectors)

    @property
    def size(self) -> int:
        """How many ids the model has."""
        return len(self.vocabulary)

    def words(self) -> list[int]:
        """Ids that stand for bytes and end nothing."""
        return [number for number, spelled in enumerate(self.vocabulary.bytes) if spelled and number not in self.ends]


@dataclass(frozen=True, eq=False, kw_only=True)
class Alignment:
    """A sparse map ``[helper, main]``: each helper token has at most ``n`` main tokens with weights of sum <= 1.

    Attributes:
        method: how it was made.
        helper, main: fingerprints of the two tokenizers.
        targets: main ids, int64 ``[helper size, n]``; where the weight is 0, any.
        weights: fp32, same shape.
        size: how many ids the main model has.
        kinds: what became of each helper token, uint8 ``[helper size]``: `NONE`, `EXACT`, `PARTIAL`, `SPECIAL`.
        back: for ``unite``, the helper id that speaks for each main id, int64 ``[size]``; -1: none.
    """

    method: str
    helper: str
    main: str
    targets: Tensor
    weights: Tensor
    size: int
    kinds: Tensor
    back: Tensor | None = None

    def translate(self, p: Tensor, ids: Tensor | None = None) -> Tensor:
        """Carry probabilities over to the main vocabulary, ``[rows, size]``; what has no target is lost.

        Args:
            p: probabilities of helper tokens, ``[rows, helper size]``, or with ``ids`` those of the ids only.
            ids: helper ids, same shape as ``p``.
        """
        targets, weights = (self.targets, self.weights) if ids is None else (self.targets[ids], self.weights[ids])
        flat = (p[..., None] * weights).flatten(1)  # [rows, tokens * n]
        index = targets.flatten(-2).expand_as(flat)
        return torch.zeros(len(p), self.size, device=p.device).scatter_add_(1, index, flat)

    @property
    def matrix(self) -> Tensor:
        """The map as a sparse COO tensor ``[helper size, size]``."""
        row, place = self.weights.nonzero(as_tuple=True)
        index = torch.stack([row, self.targets[row, place]])
        shape = len(self.targets), self.size
        return torch.sparse_coo_tensor(index, self.weights[row, place], shape, check_invariants=True).coalesce()

    def coverage(self) -> dict[str, int]:
        """How many helper tokens are aligned exactly, partially, not at all, or excluded as special or absent."""
        names = {"exact": EXACT, "partial": PARTIAL, "none": NONE, "special": SPECIAL}
        return {name: int((self.kinds == kind).sum()) for name, kind in names.items()}

    def nbytes(self) -> int:
        """Bytes of memory."""
        parts = (self.targets, self.weights, self.kinds, *([] if self.back is None else [self.back]))
        return sum(part.nbytes for part in parts)

    def to(self, device: Any) -> Alignment:
        """Return it on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("targets", "weights", "kinds")}
        return dataclasses.replace(self, **moved, back=None if self.back is None else self.back.to(device))

    def check(self, helper: AlignmentVocabulary, main: AlignmentVocabulary, owner: str) -> None:
        """Refuse it for other vocabularies than its own.

        Raises:
            ModelError: says which side does not fit.
        """
        want = {
            "helper": (fingerprint(helper.tokenizer), helper.size),
            "main": (fingerprint(main.tokenizer), main.size),
        }
        have = {"helper": (self.helper, len(self.targets)), "main": (self.main, self.size)}
        for side, (name, size) in want.items():
            if have[side] != (name, size):
                raise ModelError(
                    f"{owner}: alignment must be for these vocabularies, its {side} side has tokenizer "
                    f"{have[side][0]} of {have[side][1]} ids, got {name} of {size}; build it anew for these models"
                )

    def save(self, path: Path) -> None:
        """Write it as safetensors, whole or not at all."""
        tensors = {"targets": self.targets.int(), "weights": self.weights, "kinds": self.kinds}
        tensors |= {} if self.back is None else {"back": self.back.int()}
        told = {"format": FORMAT, "method": self.method, "helper": self.helper, "main": self.main, "size": self.size}
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        try:
            whole = {key: value.cpu().contiguous() for key, value in tensors.items()}
            save_file(whole, name, metadata={"logitkit": json.dumps(told)})
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Alignment:
        """Read what `save` wrote; no code runs.

        Raises:
            FileFormatError: absent, cut short, another format or version, or ids out of range.
        """
        try:
            with safe_open(path, framework="pt") as file:
                told = json.loads((file.metadata() or {})["logitkit"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            if told.pop("format") != FORMAT:
                raise KeyError("format")
            back = tensors.get("back")
            made = cls(
                **told,
                targets=tensors["targets"].long(),
                weights=tensors["weights"],
                kinds=tensors["kinds"],
                back=None if back is None else back.long(),
            )
            made.validate()
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise FileFormatError(
                f"alignment: {path} must be a file of an alignment, format {FORMAT}, got {type(error).__name__}: "
                f"{error}; build it anew"
            ) from error
        return made

    def validate(self) -> None:
        """Refuse tensors that do not fit together.

        Raises:
            ValueError: says which.
        """
        count = len(self.targets)
        if self.targets.shape != self.weights.shape or self.targets.ndim != 2 or self.kinds.shape != (count,):
            raise ValueError("targets, weights and kinds have other shapes than each other")
        if count and not (int(self.targets.min()) >= 0 and int(self.targets.max()) < self.size):
            raise ValueError(f"a target is not one of {self.size} ids")
        if not bool((torch.isfinite(self.weights) & (self.weights >= 0)).all()):
            raise ValueError("a weight is negative or not finite")
        if self.back is not None and (
            self.back.shape != (self.size,) or int(self.back.min()) < -1 or int(self.back.max()) >= count
        ):
            raise ValueError("the way back does not fit")


def align(
    method: str, helper: AlignmentVocabulary, main: AlignmentVocabulary, *, cache: Path | None = None
) -> Alignment:
    """Build the map from a helper's vocabulary to the main one, or take it from the cache.

    Args:
        method: one of `METHODS`.
        helper, main: the two models' vocabularies.
        cache: a folder, in which files are keyed by method, both tokenizers, sizes and end tokens; a map between
            tiny vocabularies is not kept. None: nothing is.

    Raises:
        UnknownNameError: another method.
        ModelError: no embeddings where they are needed.
    """
    from logitkit.processors.alignment import embedding, matching

    builders: dict[str, Callable[[AlignmentVocabulary, AlignmentVocabulary], Alignment]] = {
        "exact": matching.exact,
        "mined": matching.mined,
        "gac": matching.gac,
        "unite": matching.unite,
        "embedding": embedding.neighbours,
    }
    if method not in builders:
        raise UnknownNameError("alignment", method, builders)
    kept = cache is not None and helper.size * main.size >= SMALL
    path = None if cache is None or not kept else cache / f"{method}-{_key(method, helper, main)}.safetensors"
    if path is not None and path.is_file():
        try:
            found = Alignment.load(path)
            found.check(helper, main, "align")
            return found
        except (FileFormatError, ModelError):  # a damaged cache is made anew
            pass
    made = builders[method](helper, main)
    if path is not None:
        made.save(path)
    return made


def _key(method: str, helper: AlignmentVocabulary, main: AlignmentVocabulary) -> str:
    """16 hex digits of everything a map depends on."""
    parts: list[object] = [FORMAT, method]
    for side in (helper, main):
        parts += [fingerprint(side.tokenizer), side.size, side.ends]
        if method == "embedding" and side.embeddings is not None:
            sample = side.embeddings[:: max(1, side.size // 256)].float().cpu().numpy()
            parts += [side.embeddings.shape[1], hashlib.sha256(sample.tobytes()).hexdigest()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def one_hot(
    method: str, helper: AlignmentVocabulary, main: AlignmentVocabulary, pairs: Sequence[tuple[int, int, int]]
) -> Alignment:
    """A map with at most one main token a helper token.

    Args:
        pairs: ``(helper id, main id, kind)``; end tokens are added.
    """
    targets = torch.zeros(helper.size, 1, dtype=torch.long)
    weights = torch.zeros(helper.size, 1)
    kinds = torch.full((helper.size,), SPECIAL, dtype=torch.uint8)
    kinds[torch.tensor(helper.words(), dtype=torch.long)] = NONE
    ended = [(end, main.ends[0], EXACT) for end in helper.ends if main.ends]
    table = torch.tensor([*pairs, *ended], dtype=torch.long).reshape(-1, 3)
    targets[table[:, 0], 0], weights[table[:, 0], 0] = table[:, 1], 1.0
    kinds[table[:, 0]] = table[:, 2].to(torch.uint8)
    return Alignment(
        method=method,
        helper=fingerprint(helper.tokenizer),
        main=fingerprint(main.tokenizer),
        targets=targets,
        weights=weights,
        size=main.size,
        kinds=kinds,
    )
