"""Models by name: catalog, cache, sources, conversion, loading."""

from logitkit.models.loading import describe, load, load_tokenizer, names, path, pull, verify

__all__ = ["describe", "load", "load_tokenizer", "names", "path", "pull", "verify"]
