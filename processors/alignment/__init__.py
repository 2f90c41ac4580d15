"""Alignments: which tokens of one vocabulary correspond to which tokens of another."""

from logitkit.processors.alignment.alignment import Alignment, align

__all__ = ["Alignment", "align"]
