"""Files of texts, some with a label: JSON lines, or lines of plain text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from logitkit.errors import FileFormatError
from logitkit.files import parse_json, read_text


class MembershipText(NamedTuple):
    """One text of a file.

    Attributes:
        text: the text.
        member: whether the model was trained on it; None: not known.

    Example:
        >>> MembershipText("a passage", member=True).member
        True
    """

    text: str
    member: bool | None


def read_membership_texts(path: Path, *, field: str = "text", label: str = "label") -> list[MembershipText]:
    """Return the texts of a file, ``*.jsonl`` with one object a line, or any other file with one text a line.

    Args:
        path: the file.
        field: field of an object that holds the text.
        label: field that holds the label: ``1`` or ``true`` for a member, ``0`` or ``false`` for another text.

    Raises:
        FileFormatError: there is no text, a line is not such an object, or only some of the lines have a label.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "texts.jsonl"
        >>> _ = file.write_text('{"text": "seen", "label": 1}')
        >>> read_membership_texts(file)
        [MembershipText(text='seen', member=True)]
    """
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise FileFormatError(f"membership: {path} must hold a text, got none")
    if path.suffix != ".jsonl":
        return [MembershipText(line, None) for line in lines]
    read = [_of_line(path, number, line, field, label) for number, line in enumerate(lines, start=1)]
    unknown = [number for number, text in enumerate(read, start=1) if text.member is None]
    if unknown and len(unknown) < len(read):
        raise FileFormatError(
            f"membership: every line of {path} or none must have {label!r}, got line {unknown[0]} without; see --label"
        )
    return read


def _of_line(path: Path, number: int, line: str, field: str, label: str) -> MembershipText:
    """Return the text of a line of JSON."""
    where = f"membership: line {number} of {path}"
    try:
        data: Any = parse_json(line)
    except ValueError as error:
        raise FileFormatError(f"{where} must be a JSON object, got {line[:60]} ({error})") from error
    if not isinstance(data, dict) or not isinstance(data.get(field), str):
        raise FileFormatError(f"{where} must be a JSON object with a text {field!r}, got {line[:60]}; see --field")
    member = data.get(label)
    if member not in (None, 0, 1):  # True and False are 1 and 0
        raise FileFormatError(f"{where} must have 0 or 1 as {label!r}, got {member!r}; see --label")
    return MembershipText(data[field], None if member is None else bool(member))
