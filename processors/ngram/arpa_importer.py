"""Import of ARPA files, which contain probabilities and backoff weights but no counts."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from logitkit.errors import FileFormatError, ModelError
from logitkit.files import check_readable
from logitkit.processors.ngram.counting import Ids
from logitkit.processors.ngram.lexicon import Lexicon, WordKind, arrange
from logitkit.processors.ngram.smoothing import BackoffModel
from logitkit.processors.ngram.table import NgramTable, check_orders

MOST_LOG10 = 300.0  # 10 to a larger power is infinite


class _ArpaOrder(NamedTuple):
    """The section of one order of an ARPA file.

    Attributes:
        grams: token ids, ``[n-grams, order]``.
        log10: log10 probability and log10 backoff weight, ``[n-grams, 2]``.
    """

    grams: Ids
    log10: NDArray[np.float64]


def from_arpa(path: str | Path, tokenizer: Any, *, words: WordKind = "tokens") -> NgramTable:
    r"""Read an ARPA file whose words are tokens, as KenLM writes it for tokenized text; ``.gz`` is decompressed.

    Without counts, the rule ``lift`` compares the probability of a token with the probability that the token would have
    if it had not been seen after its context.

    Args:
        path: the file.
        tokenizer: a fast tokenizer of transformers.
        words: whether the file's words are tokens in the tokenizer's spelling, or decimal ids.

    Raises:
        FileFormatError: another format, a truncated file, or a number out of range, with the line.
        ModelError: a word that is not a token.
        ParameterError: orders out of range.

    Example:
        >>> import tempfile, torch
        >>> from logitkit.registry.laws import tiny_tokenizer
        >>> path = Path(tempfile.mkdtemp()) / "model.arpa"
        >>> _ = path.write_text("\\data\\\nngram 1=1\n\\1-grams:\n-1.0\ta\n\\end\\\n")
        >>> table = from_arpa(path, tiny_tokenizer())
        >>> a = tiny_tokenizer().convert_tokens_to_ids("a")
        >>> table.probability(torch.zeros(1, 0, dtype=torch.long), torch.tensor([a]))
        tensor([0.1000], dtype=torch.float64)
    """
    path, lexicon = Path(path), Lexicon(tokenizer, words, "from_arpa")
    try:
        check_readable(path)
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            sections = _parse(path, lines, lexicon)
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise FileFormatError(f"ARPA: {path} must be a file of whole UTF-8 text, got: {error}") from error
    check_orders(len(sections))
    return _table(sections, lexicon, path.name)


def _table(sections: list[_ArpaOrder], lexicon: Lexicon, name: str) -> NgramTable:
    """Make a table of the sections of an ARPA file; n-grams that only longer ones imply get backed-off values."""
    arranged = arrange([section.grams for section in sections], lexicon.base)
    levels = [level for level, _ in arranged]
    probability: list[Any] = []
    weight: list[Any] = [np.ones(1)]
    for (level, entries), section in zip(arranged, sections, strict=True):
        probability.append(np.full(len(level), np.nan))
        probability[-1][entries] = 10.0 ** section.log10[:, 0]
        weight.append(np.ones(len(level)))
        weight[-1][entries] = 10.0 ** section.log10[:, 1]
    unknown = np.flatnonzero(levels[0].keys == lexicon("<unk>"))
    floor = float(probability[0][unknown[0]]) if len(unknown) else 0.0
    model = BackoffModel(
        probability=[torch.from_numpy(values) for values in probability],
        weight=[torch.from_numpy(values) for values in weight[:-1]],
        unseen_weight=1.0,
        backs_off=True,
        floor=floor,
    )
    sources = [{"name": name}]
    table = NgramTable(levels, base=lexicon.base, sources=sources, backoff=model, **lexicon.vocabulary._asdict())
    # The tensors of the model share the memory of these arrays, so that the values written here reach the table.
    for order, values in enumerate(probability, 1):
        missing = np.isnan(values)
        lower = np.full(len(values), floor)
        if order > 1:
            lower = probability[order - 2][table.suffixes[order - 2].numpy()]
        values[missing] = (weight[order - 1][levels[order - 1].keys // lexicon.base] * lower)[missing]
    return table


def _parse(path: Path, lines: Iterable[str], lexicon: Lexicon) -> list[_ArpaOrder]:
    """Return the sections of an ARPA file.

    Raises:
        FileFormatError: a line that does not fit, or other numbers of n-grams than announced.
    """
    announced: dict[int, int] = {}
    grams: list[list[list[int]]] = []
    log10: list[list[tuple[float, float]]] = []
    section, number = "", 0
    for number, line in enumerate(lines, 1):
        text = line.strip()
        try:
            if text.startswith("\\"):
                section = text
                if section == "\\end\\":
                    break
                if section.endswith("-grams:"):
                    if int(section[1:-7]) != len(grams) + 1:
                        raise ValueError(f"order {len(grams) + 1} must come next")
                    grams.append([])
                    log10.append([])
            elif text and section == "\\data\\":
                order, _, count = text.removeprefix("ngram ").partition("=")
                announced[int(order)] = int(count)
            elif text and grams:
                gram, values = _parse_entry(text, len(grams), lexicon)
                grams[-1].append(gram)
                log10[-1].append(values)
        except ModelError:  # a ValueError too, but about the words rather than the format
            raise
        except ValueError as error:
            raise FileFormatError(
                f"ARPA: {path} must contain n-grams, got line {number}: {text[:60]!r} ({error})"
            ) from error
    _check_complete(path, {order: len(ids) for order, ids in enumerate(grams, 1)}, announced, section, number)
    return [
        _ArpaOrder(np.array(ids, dtype=np.int64).reshape(-1, order), np.array(values, dtype=np.float64).reshape(-1, 2))
        for order, (ids, values) in enumerate(zip(grams, log10, strict=True), 1)
    ]


def _check_complete(
    path: Path, counts: dict[int, int], announced: dict[int, int], last_section: str, number: int
) -> None:
    """Compare the numbers of n-grams of each order with the announced ones.

    Raises:
        FileFormatError: the numbers differ, or the file ends before its end mark.
    """
    if last_section != "\\end\\" or not counts or counts != announced:
        raise FileFormatError(
            f"ARPA: {path} must contain the n-grams that it announces ({announced}) and \\end\\, got {counts} "
            f"up to line {number}"
        )


def _parse_entry(text: str, order: int, lexicon: Lexicon) -> tuple[list[int], tuple[float, float]]:
    """Return the ids of an n-gram, and its log10 probability and log10 backoff weight.

    Raises:
        ValueError: the line does not contain an n-gram of this order, or a number is out of range.
    """
    probability, *fields = text.split()
    words, weight = fields[:order], fields[order:]
    if len(words) != order or len(weight) > 1:
        raise ValueError(f"expected a probability, {order} words and perhaps a weight")
    log10 = float(probability), float(weight[0]) if weight else 0.0
    if not (math.isfinite(log10[0]) and log10[0] <= 0):
        raise ValueError(f"expected a finite log10 probability of at most 0, not {probability}")
    if not (math.isfinite(log10[1]) and log10[1] <= MOST_LOG10):
        raise ValueError(f"expected a finite log10 weight of at most {MOST_LOG10}, not {weight[0]}")
    return [lexicon(word) for word in words], log10
