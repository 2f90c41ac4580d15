"""Byte-level probabilities of tokenized models: next-byte distributions, models over bytes, cut prompts."""

from logitkit.processors.byte_level.boundary import ByteBoundary
from logitkit.processors.byte_level.distribution import ByteDistribution
from logitkit.processors.byte_level.ensemble import ByteEnsemble
from logitkit.processors.byte_level.evidence import Evidence
from logitkit.processors.byte_level.fusion import fuse_distributions
from logitkit.processors.byte_level.model import ByteModel
from logitkit.processors.byte_level.output import ByteOutput
from logitkit.processors.byte_level.tokenizer import byte_tokenizer, rows_of, texts_of
from logitkit.processors.byte_level.tree import ByteTree

__all__ = [
    "ByteBoundary",
    "ByteDistribution",
    "ByteEnsemble",
    "ByteModel",
    "ByteOutput",
    "ByteTree",
    "Evidence",
    "byte_tokenizer",
    "fuse_distributions",
    "rows_of",
    "texts_of",
]
