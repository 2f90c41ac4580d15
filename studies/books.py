"""Reads the books of the data folder."""

from __future__ import annotations

from pathlib import Path


def book_text(path: Path) -> str:
    r"""Return the text of a book, with ``\n`` as line end.

    The file is in UTF-8, or in Windows-1252, as some files of Project Gutenberg are.

    Examples:
        >>> import tempfile
        >>> book = Path(tempfile.mkdtemp()) / "book.txt"
        >>> size = book.write_bytes(b"It\x92s late.\r\n")
        >>> book_text(book)
        'It’s late.\n'
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252")
    return text.replace("\r\n", "\n")
