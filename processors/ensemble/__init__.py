"""Ensembles of models with different tokenizers: mean, CoRE and DeePEn, and the alignments of their vocabularies."""

from logitkit.processors.alignment import METHODS, Alignment, AlignmentVocabulary, Match, align
from logitkit.processors.ensemble.consistency import PRESETS, Consensus, Preset, Variant, consensus, core
from logitkit.processors.ensemble.deepen import Deepen, RepresentedHelper
from logitkit.processors.ensemble.fusion import fuse
from logitkit.processors.ensemble.helper_models import HelperModel, find_helper_models
from logitkit.processors.ensemble.member_probabilities import Member, member_probabilities
from logitkit.processors.ensemble.processors import Core, Ensemble
from logitkit.processors.ensemble.representation import Representation, shared_tokens
from logitkit.processors.ensemble.spelling_guard import SpellingGuard

__all__ = [
    "METHODS",
    "PRESETS",
    "Alignment",
    "AlignmentVocabulary",
    "Consensus",
    "Core",
    "Deepen",
    "Ensemble",
    "HelperModel",
    "Match",
    "Member",
    "Preset",
    "Representation",
    "RepresentedHelper",
    "SpellingGuard",
    "Variant",
    "align",
    "consensus",
    "core",
    "find_helper_models",
    "fuse",
    "member_probabilities",
    "shared_tokens",
]
