"""An alignment: a sparse map from the tokens of a helper model to the tokens of the main model, and its file."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from logitkit.errors import FileFormatError, ModelError
from logitkit.files import check_readable, parse_json, replace_file, save_tensors
from logitkit.processors.alignment.alignment_vocabulary import AlignmentVocabulary
from logitkit.processors.tokens.vocabulary import fingerprint

FORMAT = 2  # version of the file format


class Match(IntEnum):
    """How a helper token is aligned.

    Attributes:
        NONE: a text token that has no main token.
        EXACT: a text token with a main token of the same bytes, or an end token with the main end token.
        PARTIAL: a text token with main tokens of other bytes.
        SPECIAL: a special token or an absent id, which has no main token.

    >>> Match(1).name
    'EXACT'
    """

    NONE = 0
    EXACT = 1
    PARTIAL = 2
    SPECIAL = 3


@dataclass(frozen=True, eq=False, kw_only=True)
class Alignment:
    """A sparse map from helper tokens to main tokens, with at most ``n`` main tokens for each helper token.

    Attributes:
        method: name of the method that built the map.
        helper_fingerprint: fingerprint of the helper's tokenizer.
        main_fingerprint: fingerprint of the main tokenizer.
        targets: main ids, int64 ``[helper size, n]``; meaningless where the weight is 0.
        weights: shares of the helper token's probability, fp32 ``[helper size, n]``, each ``>= 0``; a row sums to
            at most 1.
        main_size: number of main ids.
        matches: a `Match` for each helper token, uint8 ``[helper size]``.
        reverse: for the method ``unite``, the helper id whose logit is used for each main id, int64 ``[main size]``;
            -1 for a main id without such a helper id. None for other methods.

    >>> import torch
    >>> from logitkit.processors.alignment import AlignmentVocabulary, align
    >>> from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
    >>> helper = AlignmentVocabulary.of(foreign_model(), foreign_tokenizer())
    >>> main = AlignmentVocabulary.of(tiny_model(), tiny_tokenizer())
    >>> alignment = align("gac", helper, main)
    >>> alignment.coverage()
    {'exact': 257, 'partial': 12, 'none': 0, 'special': 31}
    >>> the, t = helper.vocabulary.ids_of[b"the"][0], main.vocabulary.ids_of[b"t"][0]
    >>> alignment.translate(torch.eye(helper.size)[[the]])[0, t]
    tensor(1.)
    """

    method: str
    helper_fingerprint: str
    main_fingerprint: str
    targets: Tensor
    weights: Tensor
    main_size: int
    matches: Tensor
    reverse: Tensor | None = None

    def translate(self, p: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return probabilities of main tokens, given those of helper tokens.

        Args:
            p: probabilities of all helper tokens, ``[rows, helper size]``, or with ``ids`` of these only.
            ids: helper ids, same shape as ``p``.

        Returns:
            fp32 ``[rows, main size]``. A row sums to less than ``p`` where a helper token has no main token.
        """
        targets, weights = (self.targets, self.weights) if ids is None else (self.targets[ids], self.weights[ids])
        flat = (p[..., None] * weights).flatten(1)  # [rows, tokens * n]
        index = targets.flatten(-2).expand_as(flat)
        return torch.zeros(len(p), self.main_size, device=p.device).scatter_add_(1, index, flat)

    @property
    def matrix(self) -> Tensor:
        """The map as a sparse COO tensor, fp32 ``[helper size, main size]``."""
        row, place = self.weights.nonzero(as_tuple=True)
        index = torch.stack([row, self.targets[row, place]])
        shape = len(self.targets), self.main_size
        return torch.sparse_coo_tensor(index, self.weights[row, place], shape, check_invariants=True).coalesce()

    def coverage(self) -> dict[str, int]:
        """Return the number of helper tokens of each kind of `Match`, by its name in lower case."""
        kinds = (Match.EXACT, Match.PARTIAL, Match.NONE, Match.SPECIAL)
        return {kind.name.lower(): int((self.matches == kind).sum()) for kind in kinds}

    def nbytes(self) -> int:
        """Return the memory that the tensors take, in bytes."""
        return sum(tensor.nbytes for tensor in self._tensors().values())

    def to(self, device: Any) -> Alignment:
        """Return the alignment with its tensors on a device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self._tensors().items()}
        return dataclasses.replace(self, **moved)

    def with_end_tokens(self, helper: AlignmentVocabulary, main: AlignmentVocabulary) -> Alignment:
        """Return the alignment with the end tokens of the helper aligned to those of ``main``.

        `generate` may be told other end tokens than those with which an alignment was built.

        Args:
            helper: the helper's vocabulary.
            main: the main vocabulary, with the end tokens that count.
        """
        targets, weights, matches = self.targets.clone(), self.weights.clone(), self.matches.clone()
        marks = list(helper.end_marks)
        weights[marks] = 0.0
        if main.end is not None:
            targets[marks, 0], weights[marks, 0] = main.end, 1.0
        matches[marks] = Match.SPECIAL if main.end is None else Match.EXACT
        reverse = self.reverse
        if reverse is not None and helper.end is not None:
            vocabulary = main.vocabulary
            no_text = [not text or token in vocabulary.added for token, text in enumerate(vocabulary.token_bytes)]
            ended = (reverse == helper.end) & torch.tensor(no_text, device=reverse.device)
            reverse = reverse.masked_fill(ended, -1)
            reverse[list(main.end_marks)] = helper.end
        return dataclasses.replace(self, targets=targets, weights=weights, matches=matches, reverse=reverse)

    def check(self, helper: AlignmentVocabulary, main: AlignmentVocabulary, owner: str) -> None:
        """Raise unless the alignment was built for these two vocabularies.

        Args:
            helper: vocabulary of the helper model.
            main: vocabulary of the main model.
            owner: the processor that the error names.

        Raises:
            ModelError: the tokenizer or the size of a vocabulary differs; the message names the vocabulary.
        """
        built_for = {
            "helper": (self.helper_fingerprint, len(self.targets)),
            "main": (self.main_fingerprint, self.main_size),
        }
        for side, vocabulary in (("helper", helper), ("main", main)):
            wanted, actual = built_for[side], (fingerprint(vocabulary.tokenizer), vocabulary.size)
            if wanted != actual:
                raise ModelError(
                    f"{owner}: alignment must be for these vocabularies, but its {side} vocabulary is "
                    f"tokenizer {wanted[0]} with {wanted[1]} ids, got tokenizer {actual[0]} with {actual[1]} ids; "
                    "build it again for these models"
                )

    def save(self, path: str | Path) -> None:
        """Write the alignment as a safetensors file; the file appears complete or not at all.

        Args:
            path: the file; a missing folder is created.
        """
        facts = {
            name: getattr(self, name) for name in ("method", "helper_fingerprint", "main_fingerprint", "main_size")
        }
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self._tensors().items()}
        tensors |= {name: tensors[name].int() for name in ("targets", "reverse") if name in tensors}
        with replace_file(path) as temporary:
            save_tensors(tensors, temporary, {"logitkit": json.dumps({"format": FORMAT, **facts})})

    @classmethod
    def load(cls, path: str | Path) -> Alignment:
        """Read a file that `save` wrote, without executing code from the file.

        Raises:
            FileFormatError: the file is absent, truncated, of another format or version, or has ids out of range.
        """
        try:
            check_readable(path)
            with safe_open(path, framework="pt") as file:
                facts = parse_json((file.metadata() or {})["logitkit"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
            version = facts.pop("format")
            if version != FORMAT:
                raise ValueError(f"format {version}")
            tensors |= {name: tensors[name].long() for name in ("targets", "reverse") if name in tensors}
            alignment = cls(**facts, **tensors)
            alignment.validate()
        except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise FileFormatError(
                f"alignment: {path} must be an alignment file of format {FORMAT}, got {type(error).__name__}: "
                f"{error}; build it again"
            ) from error
        return alignment

    def validate(self) -> None:
        """Raise unless the tensors fit together.

        Raises:
            ValueError: shapes differ, an id is out of range, or a weight is negative or not finite.
        """
        count = len(self.targets)
        if self.targets.shape != self.weights.shape or self.targets.ndim != 2 or self.matches.shape != (count,):
            raise ValueError("targets, weights and matches differ in shape")
        if count and not (int(self.targets.min()) >= 0 and int(self.targets.max()) < self.main_size):
            raise ValueError(f"a target is not one of {self.main_size} ids")
        if not bool((torch.isfinite(self.weights) & (self.weights >= 0)).all()):
            raise ValueError("a weight is negative or not finite")
        if self.reverse is not None and (
            self.reverse.shape != (self.main_size,) or int(self.reverse.min()) < -1 or int(self.reverse.max()) >= count
        ):
            raise ValueError(f"reverse must hold one of {count} helper ids, or -1, for each main id")

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors by field name, without ``reverse`` where it is None."""
        tensors = {"targets": self.targets, "weights": self.weights, "matches": self.matches}
        return tensors if self.reverse is None else tensors | {"reverse": self.reverse}
