"""A GGUF file becomes a transformers checkpoint with its exact tokenizer.

Transformers dequantises the weights; the tokenizer it rebuilds from a GGUF file is inexact (SmolLM2's no longer
splits digits), so `write_tokenizer` puts the exact one in its place and `check_tokenizer` proves it.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

from logitkit.errors import FileFormatError
from logitkit.models.catalog import Known

DIGITS = "12345"
SHARED = {"clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast"}
# SmolLM2 was trained with each digit a token: split first, then bytes.
DIGITS_THEN_BYTES = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}


def convert(known: Known, gguf: Path, into: Path, tokenizer: bytes | None) -> None:
    """Write a checkpoint, dequantised to the model's dtype, with its exact tokenizer.

    Args:
        known: the model.
        gguf: its weights.
        into: an empty folder.
        tokenizer: the exact ``tokenizer.json``; None to repair the one in the GGUF file.

    Raises:
        FileFormatError: the file is no GGUF of a model that transformers can read, or its digits stay joined.
    """
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' advice on GGUF is not for our users
        try:
            _write_weights(known, gguf, into)
            write_tokenizer(known, gguf, into, tokenizer)
        except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
            raise FileFormatError(f"{known.name}: {gguf.name} cannot be converted: {error}") from error
    check_tokenizer(known.name, into)


def _write_weights(known: Known, gguf: Path, into: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.quantization_config import GgufConfig

    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=getattr(torch, known.dtype),
        quantization_config=GgufConfig(dequantize=True),
    )
    # Plain weights now, yet save_pretrained refuses as long as these marks of quantisation remain.
    model.hf_quantizer, model.is_quantized = None, False
    for mark in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, mark):
            delattr(model.config, mark)
    model.config.architectures = [type(model).__name__]
    model.config.name_or_path = known.hub
    model.generation_config.eos_token_id = known.eos_token_id
    model.save_pretrained(into)


def write_tokenizer(known: Known, gguf: Path, into: Path, tokenizer: bytes | None) -> None:
    """Write the exact tokenizer, and the chat template that the GGUF file carries."""
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(into)
    file = into / "tokenizer.json"
    if tokenizer is None:
        rebuilt = json.loads(file.read_text(encoding="utf-8"))
        rebuilt["pre_tokenizer"] = DIGITS_THEN_BYTES
        tokenizer = json.dumps(rebuilt, ensure_ascii=False).encode()
    file.write_bytes(tokenizer)
    (into / "tokenizer_config.json").write_text(json.dumps(SHARED | known.special, indent=1))


def check_tokenizer(name: str, folder: Path) -> None:
    """Refuse a checkpoint whose tokenizer joins digits.

    Raises:
        FileFormatError: says what ``12345`` became.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{name}: the tokenizer cannot be read: {error}") from error
    tokens = [tokenizer.decode([token]) for token in tokenizer.encode(DIGITS, add_special_tokens=False)]
    if tokens != list(DIGITS):
        raise FileFormatError(
            f"{name}: the tokenizer must split {DIGITS!r} into its 5 digits, got {tokens}; "
            "it is not installed: try another version of transformers"
        )
