"""Running code of plugins: its prints go to the standard error, and none of its exceptions ends the program."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from logitkit.errors import PluginError


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Run the body with the standard output sent to the standard error, and raise only subclasses of Exception.

    The output of a command, such as ``logitkit list --json``, thus holds nothing that a plugin prints. A
    KeyboardInterrupt is raised unchanged, because it is the user's.

    Raises:
        PluginError: instead of a SystemExit or any other exception that is no Exception.

    >>> with contained():
    ...     raise SystemExit(3)
    Traceback (most recent call last):
    logitkit.errors.PluginError: a plugin must not end the program when it is loaded, got SystemExit: 3; remove the exit
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (Exception, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise PluginError(
            f"a plugin must not end the program when it is loaded, got {words(error)}; remove the exit"
        ) from error
    except BaseException as error:
        raise PluginError(
            f"a plugin must raise subclasses of Exception alone, got {words(error)}; correct its exception"
        ) from error


def words(error: BaseException) -> str:
    """Return the type and the text of an exception, also where its text cannot be computed or encoded.

    >>> words(ValueError("no such file"))
    'ValueError: no such file'
    """
    return f"{type(error).__name__}: {text_of(error)}"


def text_of(error: BaseException) -> str:
    """Return the text of an exception, or that its ``__str__`` raises."""
    try:
        return printable(str(error))
    except Exception as second:
        return f"(its __str__ raises {type(second).__name__})"


def printable(text: str) -> str:
    r"""Return a text with lone surrogates and control characters escaped, except line breaks and tabs.

    >>> printable("a\x1b[2J\udc80")
    'a\\x1b[2J\\udc80'
    """
    visible = "".join(
        character if character in "\n\t" or ord(character) >= 32 else f"\\x{ord(character):02x}" for character in text
    )
    return visible.encode("utf-8", "backslashreplace").decode("utf-8")
