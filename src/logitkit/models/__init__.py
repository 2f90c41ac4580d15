"""Models by name: downloaded once, kept in a cache, loaded for decoding.

    model, tokenizer = models.load("smollm2-135m")

Importing this package imports neither torch nor transformers.
"""

from logitkit.files import cache_folder
from logitkit.models.catalog import KnownModel
from logitkit.models.installation import ModelDescription, describe, names, path, pull, verify
from logitkit.models.loading import load, load_tokenizer

__all__ = [
    "KnownModel",
    "ModelDescription",
    "cache_folder",
    "describe",
    "load",
    "load_tokenizer",
    "names",
    "path",
    "pull",
    "verify",
]
