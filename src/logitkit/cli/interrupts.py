"""What a command says when Ctrl-C ends it: what it leaves behind, in one line, with exit status 130."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from logitkit.cli.rendering import print_line
from logitkit.files import cache_folder

STATUS = 130  # as of a process that SIGINT ended


@contextmanager
def continued_from(path: Path | None) -> Iterator[None]:
    """Say on Ctrl-C in the body that the same command continues; None: the command keeps nothing, and others say so.

    Args:
        path: the file or folder with the work that is done.
    """
    try:
        yield
    except KeyboardInterrupt:
        if path is None:
            raise
        print_line(f"interrupted; the same command continues from {path}", stderr=True)
        raise typer.Exit(STATUS) from None


def interrupted_text(command: str, written: Sequence[Path]) -> str:
    """Return the line of a command that cannot be continued.

    Args:
        command: name of the command.
        written: the files that the command has completed; those of the cache are left out.

    >>> interrupted_text("compare", [])
    'compare: interrupted; no file was written'
    >>> interrupted_text("compare", [Path("page.html")])
    'compare: interrupted; written before: page.html'
    """
    cache = cache_folder()
    kept = [str(path) for path in dict.fromkeys(written) if cache not in path.absolute().parents]
    return f"{command}: interrupted; " + (f"written before: {', '.join(kept)}" if kept else "no file was written")
