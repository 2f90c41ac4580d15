"""What the tests of a process share: the tiny models and tokenizers, each made once, and settings of the process."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Any

FUNCTIONS = ("tiny_tokenizer", "foreign_tokenizer", "tiny_model", "foreign_model", "encoder_decoder_model")
# Variables that packages set when they are imported or first used.
SET_BY_PACKAGES = {"PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR", "TOKENIZERS_PARALLELISM", "KMP_INIT_AT_FORK"}


def state() -> dict[str, tuple[Any, ...]]:
    """Return what tests must leave as it is, of each shared object that was made so far, and of the process."""
    module = sys.modules.get("logitkit.registry.laws.tiny_models")
    found = _of_the_process()
    for name in FUNCTIONS if module is not None else ():
        for cache in gc.get_referents(getattr(module, name)):  # the results that functools.cache keeps
            for made in cache.values() if isinstance(cache, dict) else ():
                if hasattr(made, "generation_config"):
                    found[f"{name} {id(made)}"] = _of_model(made)
                elif hasattr(made, "backend_tokenizer"):
                    found[f"{name} {id(made)}"] = _of_tokenizer(made)
    return found


def _of_the_process() -> dict[str, tuple[Any, ...]]:
    """Return settings that later tests would notice; those of a package only once it is imported."""
    variables = {name: value for name, value in os.environ.items() if name not in SET_BY_PACKAGES}
    found: dict[str, tuple[Any, ...]] = {f"the variable {name}": (value,) for name, value in variables.items()}
    found["the folder"] = (Path.cwd(),)
    if torch := sys.modules.get("torch"):
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.are_deterministic_algorithms_enabled()
        found["torch's settings"] = (torch.get_default_dtype(), torch.get_num_threads(), *modes)
    if logging := sys.modules.get("transformers.utils.logging"):
        found["transformers' verbosity"] = (logging.get_verbosity(),)
    return found


def _of_model(model: Any) -> tuple[Any, ...]:
    """Return the settings of a model."""
    config = model.config
    return (
        str(sorted(vars(model.generation_config).items())),
        getattr(config, "num_hidden_layers", None),
        model.training,
        model.dtype,
    )


def _of_tokenizer(tokenizer: Any) -> tuple[Any, ...]:
    """Return the tokens of a tokenizer and how it pads and truncates."""
    inner = tokenizer.backend_tokenizer
    sides = tokenizer.padding_side, tokenizer.truncation_side, str(inner.truncation)
    return len(tokenizer), str(tokenizer.special_tokens_map), tokenizer.chat_template, *sides
