"""The texts of a comparison: text itself, files of texts, and answers of a file of divergence labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from logitkit.errors import FileFormatError, ParameterError
from logitkit.files import is_file, parse_json, read_bytes
from logitkit.params import is_valid_unicode
from logitkit.processors.cascade import DivergenceLabels, read_labels
from logitkit.processors.cascade.label_files import KIND
from logitkit.processors.cascade.model_fingerprint import PairFingerprint

FILES = (
    ".txt",
    ".md",
    ".jsonl",
    ".json",
    ".csv",
    ".py",
)  # of arguments that name files, also where there is none


class ComparisonTexts(NamedTuple):
    """What `read_comparison_texts` read.

    Attributes:
        texts: texts, and answers of files of divergence labels.
        pairs: the models for which the answers were labelled.

    Example:
        >>> ComparisonTexts(["a text"], set()).texts
        ['a text']
    """

    texts: list[str | DivergenceLabels]
    pairs: set[PairFingerprint]


def read_comparison_texts(arguments: Sequence[str], *, field: str = "text") -> ComparisonTexts:
    """Return the texts that some arguments stand for.

    An argument that names a file stands for its texts, any other one for itself. Of ``*.jsonl`` each line is an object
    with a text, or the file is one of ``logitkit label-divergence`` and stands for its answers. Any other file is one
    text, without the line break at its end.

    Args:
        arguments: texts and files.
        field: field of an object that holds the text.

    Raises:
        FileFormatError: a file that is absent, or holds no text.
        ParameterError: an empty text, or one with lone surrogates.

    Example:
        >>> read_comparison_texts(["a text", "another one"]).texts
        ['a text', 'another one']
    """
    found = ComparisonTexts([], set())
    for argument in arguments:
        named = argument.endswith((*FILES, "/")) and not any(sign.isspace() for sign in argument)
        if named or is_file(argument):
            _add_file(found, Path(argument), field)
        else:
            found.texts.append(argument)
    for number, text in enumerate(found.texts, start=1):
        if isinstance(text, str) and not text.strip():
            raise ParameterError("compare", f"text {number}", "a text that is not empty", text)
        if isinstance(text, str) and not is_valid_unicode(text):
            raise ParameterError("compare", f"text {number}", "valid Unicode", text[:40], "remove the lone surrogates")
    return found


def _add_file(found: ComparisonTexts, path: Path, field: str) -> None:
    """Add the texts of a file.

    Raises:
        FileFormatError: the file is absent, is not UTF-8, or holds no text.
    """
    try:
        content = read_bytes(path).decode("utf-8")  # the line ends of the file, which are tokens
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"compare: {path} must be a file of UTF-8 text, got {error}") from error
    if not content.strip():
        raise FileFormatError(f"compare: {path} must hold a text, got none")
    lines = [line for line in content.splitlines() if line.strip()]
    if path.suffix != ".jsonl":
        found.texts.append(content.removesuffix("\n").removesuffix("\r"))
    elif f'"{KIND}"' in lines[0]:
        settings, labels = read_labels(path)
        answers = [each for each in labels if each.answer_ids]
        if not answers:
            raise FileFormatError(f"compare: {path} must hold a labelled answer, got none")
        found.texts.extend(answers)
        found.pairs.add(settings.pair)
    else:
        found.texts.extend(_of_line(path, number, line, field) for number, line in enumerate(lines, start=1))


def _of_line(path: Path, number: int, line: str, field: str) -> str:
    """Return the text of a line of JSON."""
    try:
        data = parse_json(line)
    except ValueError as error:
        raise FileFormatError(
            f"compare: line {number} of {path} must be a JSON object, got {line[:60]} ({error})"
        ) from error
    text = data.get(field) if isinstance(data, dict) else None
    if not isinstance(text, str):
        rule = f"must be a JSON object with a text {field!r}"
        raise FileFormatError(f"compare: line {number} of {path} {rule}, got {line[:60]}; see --field")
    return text
