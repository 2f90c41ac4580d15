"""Converts a GGUF file to a transformers checkpoint with an exact tokenizer.

transformers dequantises the weights. The tokenizer that transformers rebuilds from a GGUF file is inexact: the one of
SmolLM2 no longer splits digits. `write_tokenizer` therefore writes the exact tokenizer, and `check_tokenizer` tests
the result.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

from logitkit.errors import FileFormatError
from logitkit.files import system_errors
from logitkit.models.catalog import KnownModel

DIGITS = "12345"
SHARED = {"clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast"}
# SmolLM2 was trained with one token per digit: digits are split before the byte-level pre-tokenizer runs.
DIGITS_THEN_BYTES = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}


def convert(model: KnownModel, gguf: Path, into: Path, tokenizer: bytes | None) -> None:
    """Write a checkpoint in the dtype of the model, with an exact tokenizer.

    Args:
        model: the model.
        gguf: the GGUF file with the weights.
        into: an empty folder.
        tokenizer: content of the exact ``tokenizer.json``; None repairs the tokenizer in the GGUF file.

    Raises:
        FileFormatError: transformers cannot read the GGUF file, or the tokenizer joins digits.
    """
    # transformers warns that dequantised weights need more memory, which the user of a known model cannot change.
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _write_weights(model, gguf, into)
            write_tokenizer(model, gguf, into, tokenizer)
        except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
            raise FileFormatError(f"{model.name}: {gguf.name} cannot be converted: {error}") from error
    check_tokenizer(model.name, into)


def _write_weights(model: KnownModel, gguf: Path, into: Path) -> None:
    """Write the dequantised weights, the config and the generation config."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.quantization_config import GgufConfig

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=getattr(torch, model.dtype),
        quantization_config=GgufConfig(dequantize=True),
    )
    # The weights are no longer quantised, but save_pretrained refuses while these attributes are set.
    loaded.hf_quantizer, loaded.is_quantized = None, False
    for attribute in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(loaded.config, attribute):
            delattr(loaded.config, attribute)
    loaded.config.architectures = [type(loaded).__name__]
    loaded.config.name_or_path = model.hub
    loaded.generation_config.eos_token_id = model.eos_token_id
    with system_errors(into):
        loaded.save_pretrained(into)


def write_tokenizer(model: KnownModel, gguf: Path, into: Path, tokenizer: bytes | None) -> None:
    """Write the exact tokenizer, and the chat template that the GGUF file contains."""
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(into)
    file = into / "tokenizer.json"
    if tokenizer is None:
        rebuilt = json.loads(file.read_text(encoding="utf-8"))
        rebuilt["pre_tokenizer"] = DIGITS_THEN_BYTES
        tokenizer = json.dumps(rebuilt, ensure_ascii=False).encode()
    file.write_bytes(tokenizer)
    (into / "tokenizer_config.json").write_text(json.dumps(SHARED | model.special, indent=1))


def check_tokenizer(name: str, folder: Path) -> None:
    """Check that the tokenizer of a checkpoint splits a number into its digits.

    Raises:
        FileFormatError: the tokenizer cannot be read, or joins digits.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{name}: the tokenizer cannot be read: {error}") from error
    tokens = [tokenizer.decode([token]) for token in tokenizer.encode(DIGITS, add_special_tokens=False)]
    if tokens != list(DIGITS):
        raise FileFormatError(
            f"{name}: the tokenizer must split {DIGITS!r} into its {len(DIGITS)} digits, got {tokens}; "
            "the model is not installed: try another version of transformers"
        )
