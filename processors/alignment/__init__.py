"""Alignments: which tokens of one model's vocabulary correspond to which tokens of another's."""

from logitkit.processors.alignment.alignment import Alignment, Match
from logitkit.processors.alignment.alignment_vocabulary import AlignmentVocabulary
from logitkit.processors.alignment.dispatch import METHODS, align

__all__ = ["METHODS", "Alignment", "AlignmentVocabulary", "Match", "align"]
