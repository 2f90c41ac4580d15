"""Running code of plugins: its prints go to the standard error, and none of its exceptions ends the program."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from logitkit.errors import PluginError


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Run the body with the standard output sent to the standard error, and raise only subclasses of Exception.

    The output of a command, such as ``logitkit list --json``, thus holds nothing that a plugin prints. A
    KeyboardInterrupt is raised unchanged, because it is the user's. The default dtype and the gradient
    mode of torch, and the current folder, are set back where the body changed them.

    Raises:
        PluginError: instead of a SystemExit or any other exception that is no Exception, and where a setting changed.

    >>> with contained():
    ...     raise SystemExit(3)
    Traceback (most recent call last):
    logitkit.errors.PluginError: a plugin must not end the program when it is loaded, got SystemExit: 3; remove the exit
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), _kept_settings():
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


@contextlib.contextmanager
def _kept_settings() -> Iterator[None]:
    """Set back what the body changed, without importing torch.

    Raises:
        PluginError: a setting was changed, and the body raised nothing.
    """
    before, folder = _settings_of_torch(), Path.cwd()
    changed: list[str] = []
    try:
        yield
    finally:
        if Path.cwd() != folder:
            changed.append(f"the current folder alone when it is loaded, got {Path.cwd()}")
            os.chdir(folder)
        for name, value in _settings_of_torch().items():
            if value != before[name]:
                changed.append(f"the {name} of torch alone when it is loaded, got {value}")
                _set_back(name, before[name])
    if changed:
        raise PluginError(f"a plugin must leave {changed[0]}; set it where it is needed")


def _set_back(name: str, value: Any) -> None:
    """Set a setting of torch, as `_settings_of_torch` returns it."""
    torch: Any = sys.modules["torch"]
    if name == "default dtype":
        torch.set_default_dtype(getattr(torch, value))
    else:
        torch.set_grad_enabled(value)


def _settings_of_torch() -> dict[str, Any]:
    """Return settings of torch by name; those with which it is imported where it is not imported yet."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "is_grad_enabled"):
        return {"default dtype": "float32", "gradient mode": True}
    return {
        "default dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "gradient mode": torch.is_grad_enabled(),
    }


@contextlib.contextmanager
def announced(what: str, patience: float) -> Iterator[None]:
    """Say on the standard error which plugin is being loaded, if the body takes longer than ``patience`` seconds.

    Python cannot end the code of a plugin that never returns; the user can, with Ctrl-C.
    """

    def announce() -> None:
        line = f"logitkit: still loading {what} after {patience:g} s; press Ctrl-C, then run `logitkit doctor`\n"
        with contextlib.suppress(Exception):
            sys.stderr.write(line)
            sys.stderr.flush()

    timer = threading.Timer(patience, announce)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


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
