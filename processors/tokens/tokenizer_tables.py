"""Tables computed from a tokenizer, kept in a file so that the next process does not compute them again.

The rules of a vocabulary of 150,000 tokens take seconds to build and a fraction of a second to read. A file holds
arrays and JSON, and nothing in the file is executed. Its name is a hash of everything that the tables depend on: the
description of the tokenizer, the number of ids, the code that computes the tables, and the versions of the libraries
whose Unicode tables and encodings the code uses.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import regex
import tokenizers
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from logitkit.files import is_file, parse_json, read_bytes, replace_file
from logitkit.processors.tokens.tokenizer_description import description

FOLDER = "vocabularies"  # name of the folder of files below the cache folder
FORMAT = 1  # version of the layout of a file
FEWEST_IDS = 4096  # smallest vocabulary with a file; for fewer ids, computing takes no longer than reading
VALUES, CHECKSUM = "values", "checksum"  # names of the JSON values and of the checksum in a file
_HEAVY = ("vocab", "merges")  # parts of a description's model that have one entry a token


class TokenizerTables:
    """Arrays and JSON values computed from a tokenizer, each computed once and kept in a file.

    An object refers to its tokenizer and is for the time of building only.

    Args:
        tokenizer: a fast tokenizer of transformers.
        size: number of ids of the vocabulary.
        folder: folder of the files; None: nothing is read or written.

    >>> import tempfile
    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> folder = Path(tempfile.mkdtemp())
    >>> tables = TokenizerTables(tiny_tokenizer(), 5000, folder)
    >>> tables.array("squares", lambda: np.arange(3) ** 2).tolist()
    [0, 1, 4]
    >>> tables.save()
    >>> TokenizerTables(tiny_tokenizer(), 5000, folder).array("squares", lambda: 1 / 0).tolist()  # from the file
    [0, 1, 4]
    """

    def __init__(self, tokenizer: Any, size: int, folder: Path | None = None) -> None:
        self._tokenizer, self._size = tokenizer, size
        self._folder = folder if size >= FEWEST_IDS and hasattr(tokenizer, "backend_tokenizer") else None
        self._arrays: dict[str, NDArray[Any]] = {}
        self._values: dict[str, Any] = {}
        self._is_read, self._has_new = False, False

    @property
    def is_kept(self) -> bool:
        """Whether the tables are kept in a file."""
        return self._folder is not None

    @functools.cached_property
    def whole(self) -> dict[str, Any]:
        """The description of the tokenizer; parsing a large one takes up to a second."""
        return description(self._tokenizer)

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """The description without the lists of tokens and merges of its model."""
        return self.value("settings", lambda: _settings(self.whole))  # type: ignore[no-any-return]

    @property
    def backend(self) -> Any:
        """The tokenizer as the library ``tokenizers`` has it."""
        return self._tokenizer.backend_tokenizer

    def array(self, name: str, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return an array; ``compute`` is called where no file has it. The array is not writable."""
        self._read()
        if name not in self._arrays:
            array = np.ascontiguousarray(compute())
            array.flags.writeable = False
            self._arrays[name], self._has_new = array, True
        return self._arrays[name]

    def value(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return a value that JSON can hold; ``compute`` is called where no file has it."""
        self._read()
        if name not in self._values:
            self._values[name], self._has_new = compute(), True
        return self._values[name]

    def save(self) -> None:
        """Write what was computed to the file; it appears complete or not at all.

        A folder that cannot be written costs time in the next process; this one has its tables.
        """
        if self._folder is None or not self._has_new:
            return
        arrays = {**self._arrays, VALUES: np.frombuffer(json.dumps(self._values).encode(), dtype=np.uint8)}
        arrays[CHECKSUM] = np.array([_checksum(arrays)], dtype=np.uint32)
        with contextlib.suppress(OSError, SafetensorError), replace_file(self._path) as temporary:
            temporary.write_bytes(save(arrays, {"logitkit": f"tokenizer tables, format {FORMAT}"}))
        self._has_new = False

    @functools.cached_property
    def _path(self) -> Path:
        """Path of the file."""
        assert self._folder is not None
        return self._folder / f"{self._key()}.safetensors"

    def _key(self) -> str:
        """Return 32 hexadecimal digits of a hash of everything that the tables depend on."""
        text = self.backend.to_str()
        # The text begins with the version, truncation and padding, which change no token of a text itself.
        text = text[max(0, text.find('"added_tokens":')) :]
        roles = self._tokenizer.unk_token, self._tokenizer.bos_token  # read beside the description
        versions = tokenizers.__version__, regex.__version__, unicodedata.unidata_version, np.__version__
        parts = [FORMAT, self._size, _code_digest(), versions, roles, hashlib.sha256(text.encode()).hexdigest()]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def _read(self) -> None:
        """Read the file, once; a file that is damaged or of another origin is reported and replaced by `save`."""
        if self._is_read or self._folder is None:
            return
        self._is_read = True
        if not is_file(self._path):
            return
        try:
            arrays = load(read_bytes(self._path))
            if int(arrays.pop(CHECKSUM)[0]) != _checksum(arrays):
                raise ValueError("its checksum differs")
            values = parse_json(arrays.pop(VALUES).tobytes())
        except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
            warnings.warn(
                f"logitkit: {self._path} must hold the tables of a tokenizer, got {type(error).__name__}: {error}; "
                "they are computed again and the file is replaced",
                stacklevel=2,
            )
            return
        for array in arrays.values():
            array.flags.writeable = False
        self._arrays, self._values = arrays, values


def _settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description without the lists of tokens and merges of its model."""
    model = {name: part for name, part in data["model"].items() if name not in _HEAVY}
    return {**data, "model": model}


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> int:
    """Return a checksum of the names, types, shapes and contents of arrays."""
    checksum = 0
    for name in sorted(arrays):
        array = arrays[name]
        checksum = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), checksum)
        checksum = zlib.crc32(array.tobytes(), checksum)
    return checksum


@functools.cache
def _code_digest() -> str:
    """Return a hash of the code that computes tables, so that no version reads the tables of another one."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
