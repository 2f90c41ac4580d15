"""Readers of arguments that several commands share: the prompt, the chain, the model, the settings of generate."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logitkit.errors import ParameterError
from logitkit.files import check_readable, read_bytes, read_text
from logitkit.params import is_valid_unicode
from logitkit.registry.chain import Chain

if TYPE_CHECKING:
    from logitkit.inspection.settings import GenerateSettings


COLDEST = 1e-30  # lowest temperature; logits divided by less are infinite in float32


def read_chain(chain: str) -> Chain:
    """Return the chain of ``--chain``, which is the text of a chain or the name of a YAML or JSON file.

    Raises:
        ParameterError: the file is missing or no regular file.
        MissingPackageError: a package that an extra installs is absent; nothing is loaded before.
    """
    if chain.endswith((".yaml", ".yml", ".json")):
        try:
            check_readable(chain)
        except OSError as error:
            rule = "the text of a chain or a file that can be read"
            raise ParameterError("chain", "--chain", rule, chain, error.strerror or "") from error
        read = Chain.from_file(chain)
    else:
        read = Chain(chain)
    read.require_packages()
    return read


def check_output(command: str, option: str, path: Path | None, *endings: str) -> None:
    """Refuse a file to write that cannot be one, before work is done for it. Its folder is created when it is written.

    Args:
        command, option: named in the error.
        path: the file; None: not asked for.
        endings: allowed endings, the usual one first; none: any.

    Raises:
        ParameterError: the name has another ending or is that of a folder, or a file is in the place of a folder.
    """
    if path is None:
        return
    if path.is_dir() or (endings and path.suffix not in endings):
        raise ParameterError(command, option, f"a file *{endings[0]}" if endings else "a file", str(path))
    check_folder(command, option, path.absolute().parent, str(path))


def check_folder(command: str, option: str, folder: Path, given: str = "") -> None:
    """Refuse a folder to write that a file is in the way of.

    Args:
        command, option: named in the error.
        folder: the folder, which may not exist yet.
        given: the value of the option, if this is another path.

    Raises:
        ParameterError: see above.
    """
    nearest = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not nearest.is_dir():
        raise ParameterError(command, option, "in or below a folder", given or str(folder), f"{nearest} is a file")


def utf8_text(command: str, parameter: str, file: Path, *, line_ends: bool = True) -> str:
    """Return the text of a file.

    Args:
        command, parameter: named in the error.
        file: the file.
        line_ends: whether line ends become line feeds; False: the text has the bytes of the file.

    Raises:
        ParameterError: the file is missing, no regular file, or not UTF-8.
    """
    try:
        return read_text(file) if line_ends else read_bytes(file).decode("utf-8")
    except OSError as error:
        rule = "a file that can be read"
        raise ParameterError(command, parameter, rule, str(file), error.strerror or "") from error
    except UnicodeDecodeError as error:
        why = f"{error.reason} at byte {error.start}"
        raise ParameterError(command, parameter, f"UTF-8 text ({why})", str(file), "convert the file") from error


def read_prompt(command: str, prompt: str | None, file: Path | None) -> str:
    """Return the prompt from its argument, from a file, or from standard input.

    Args:
        command: name of the command, for error messages.
        prompt: the argument, or None.
        file: the value of ``--file``, or None.

    Raises:
        ParameterError: the prompt is missing, empty, no UTF-8, or given both as argument and as file.
    """
    if prompt is not None and file is not None:
        raise ParameterError(command, "the prompt", "given once", str(file), "drop the argument or --file")
    if file is not None and not file.is_file():
        raise ParameterError(command, "--file", "a file that exists", str(file))
    if prompt is None and file is None and sys.stdin.isatty():
        way_out = f"write the prompt after {command}, use --file, or pipe the prompt to standard input"
        raise ParameterError(command, "the prompt", "given", None, way_out)
    text = prompt if prompt is not None else utf8_text(command, "--file", file) if file else _standard_input(command)
    if not text:
        raise ParameterError(command, "the prompt", "text", text)
    if not is_valid_unicode(text):
        raise ParameterError(command, "the prompt", "valid Unicode", text[:60], "remove the lone surrogates")
    return text


def _standard_input(command: str) -> str:
    """Return the text of standard input.

    Raises:
        ParameterError: the input is not UTF-8.
    """
    try:
        return sys.stdin.buffer.read().decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        why = f"{error.reason} at byte {error.start}"
        raise ParameterError(command, "standard input", f"UTF-8 text ({why})", "other bytes") from error


def load_model(command: str, name: str, *, device: str = "cpu", dtype: str = "float32") -> tuple[Any, Any]:
    """Return the model and the tokenizer of a name; torch is imported here and not earlier.

    Args:
        command: name of the command, for error messages.
        name: a known name, a folder, or a hub id.
        device, dtype: see `logitkit.models.placement.placement`.
    """
    from logitkit import models
    from logitkit.models.placement import placement

    loaded: tuple[Any, Any] = models.load(name, like=placement(command, device, dtype))
    return loaded


def generate_settings(
    *,
    max_new_tokens: int,
    do_sample: bool,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
) -> GenerateSettings:
    """Return the settings of ``model.generate``; a sampling parameter turns sampling on.

    >>> generate_settings(max_new_tokens=8, do_sample=False, temperature=0.7, top_k=None, top_p=None)
    {'temperature': 0.7, 'do_sample': True, 'max_new_tokens': 8}
    """
    coldest = f">= {COLDEST:g}"
    for name, value, fits, rule in (
        ("--temperature", temperature, COLDEST <= (temperature or 0) < math.inf, f"a finite number {coldest}"),
        ("--top-p", top_p, 0 < (top_p or 0) <= 1, "a finite number > 0 and <= 1"),
    ):
        if value is not None and not fits:
            raise ParameterError("generate", name, rule, value, f"leave {name} out to decode without it")
    if top_k is not None and top_k < 0:
        raise ParameterError("generate", "--top-k", "an integer >= 0", top_k)
    settings: GenerateSettings = {}
    if temperature is not None:
        settings["temperature"] = temperature
    if top_k is not None:
        settings["top_k"] = top_k
    if top_p is not None:
        settings["top_p"] = top_p
    settings["do_sample"] = do_sample or bool(settings)
    settings["max_new_tokens"] = max_new_tokens
    return settings
