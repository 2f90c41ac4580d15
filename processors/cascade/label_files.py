"""Files of divergence labels: JSON lines, first the settings of the run, then one line for each prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from logitkit.errors import FileFormatError
from logitkit.files import parse_json, read_bytes, read_text, replace_file
from logitkit.processors.cascade.model_fingerprint import PairFingerprint

KIND, VERSION = "divergence labels", 1
IDENTICAL, NEUTRAL, DIVERGENT = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class DivergenceLabels:
    """The labels of one prompt.

    Attributes:
        prompt: number of the prompt.
        prompt_ids: its token ids.
        answer_ids: token ids of the large model's answer.
        small_ids: the token that the small model finds most likely in the place of each answer token.
        labels: 0 identical, 1 neutral or 2 divergent, for each answer token.

    >>> labels = DivergenceLabels(prompt=0, prompt_ids=[5], answer_ids=[6, 7], small_ids=[6, 8], labels=[0, 2])
    >>> labels.labels.count(DIVERGENT)
    1
    """

    prompt: int
    prompt_ids: list[int]
    answer_ids: list[int]
    small_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Settings of a labelling run, stored in the first line of its file.

    Attributes:
        judge: name of the judge.
        tokens: largest number of tokens of an answer.
        pair: fingerprints of the models.

    >>> LabelSettings(judge="answer", tokens=8, pair=PairFingerprint("a", "b", "c")).pair.large
    'b'
    """

    judge: str
    tokens: int
    pair: PairFingerprint


def read_labels(path: str | Path) -> tuple[LabelSettings, list[DivergenceLabels]]:
    """Read a file of labels.

    Returns:
        The settings of the run and the labels of each prompt.

    Raises:
        FileFormatError: the file is missing, or holds something else.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.jsonl"
    >>> settings = LabelSettings(judge="answer", tokens=8, pair=PairFingerprint("a", "b", "c"))
    >>> resume_labels(path, settings)
    []
    >>> read_labels(path)[0] == settings
    True
    """
    try:
        first, *lines = read_text(path, most=None).splitlines() or [""]
        header = parse_json(first)
        labels = [_checked(DivergenceLabels(**parse_json(line))) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise FileFormatError(f"{KIND}: {path} must be a file of labels, got {error}") from error
    if not isinstance(header, dict) or (header.get("kind"), header.get("version")) != (KIND, VERSION):
        raise FileFormatError(f"{KIND}: {path} must start with the settings of its run; label again")
    try:
        settings = LabelSettings(judge=header["judge"], tokens=header["tokens"], pair=PairFingerprint(**header["pair"]))
        if not isinstance(settings.judge, str) or type(settings.tokens) is not int:
            raise TypeError(f"judge {settings.judge!r:.40} and tokens {settings.tokens!r:.40}")
        if not all(isinstance(part, str) for part in settings.pair):
            raise TypeError("fingerprints that are not texts")
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"{KIND}: {path} must start with the settings of its run, got {error}") from error
    return settings, labels


def _checked(labels: DivergenceLabels) -> DivergenceLabels:
    """Return labels whose ids are whole numbers, and which have a label for each token of the answer.

    Raises:
        ValueError: they are not.
    """
    lists = [labels.prompt_ids, labels.answer_ids, labels.small_ids, labels.labels]
    if not all(isinstance(ids, list) and all(type(token) is int and token >= 0 for token in ids) for ids in lists):
        raise ValueError("ids or labels that are not lists of whole numbers >= 0")
    if not len(labels.answer_ids) == len(labels.small_ids) == len(labels.labels):
        raise ValueError("another number of labels than of tokens")
    if type(labels.prompt) is not int or not set(labels.labels) <= {IDENTICAL, NEUTRAL, DIVERGENT}:
        raise ValueError("an unknown label, or a prompt without number")
    return labels


def resume_labels(path: Path, settings: LabelSettings) -> list[DivergenceLabels]:
    """Return the labels that a file holds already, or start the file; an incomplete last line is removed.

    Raises:
        FileFormatError: the file was written with other settings, or by something else.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise FileFormatError(f"{KIND}: {path} must be a file of labels, got {error}") from error
    complete = content[: content.rfind(b"\n") + 1]
    if not complete:
        complete = (json.dumps(_header(settings)) + "\n").encode()
        begin = complete[: complete.index(b",")]
        if content.strip(b"\0") and not (content.startswith(begin) or begin.startswith(content)):
            raise FileFormatError(
                f"{KIND}: {path} must be a file of labels or absent, got another file; write elsewhere"
            )
    if complete != content:
        with replace_file(path) as temporary:
            temporary.write_bytes(complete)
    stored, labels = read_labels(path)
    for name in ("judge", "pair", "tokens"):
        if getattr(stored, name) != getattr(settings, name):
            raise FileFormatError(
                f"label_divergence: {path} must have been made with the same {name} to be resumed, "
                f"got {getattr(stored, name)}; write another file"
            )
    return labels


def append_labels(path: Path, labels: DivergenceLabels) -> None:
    """Append the labels of one prompt to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(labels)) + "\n")


def write_labels(path: Path, settings: LabelSettings, labels: Sequence[DivergenceLabels]) -> None:
    """Write a whole file of labels; one that exists is replaced.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.jsonl"
    >>> settings = LabelSettings(judge="answer", tokens=8, pair=PairFingerprint("a", "b", "c"))
    >>> write_labels(path, settings, [])
    >>> read_labels(path) == (settings, [])
    True
    """
    lines = [_header(settings), *map(asdict, labels)]
    with replace_file(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _header(settings: LabelSettings) -> dict[str, Any]:
    """Return the first line of a file."""
    return {"kind": KIND, "version": VERSION, **asdict(settings), "pair": settings.pair._asdict()}
