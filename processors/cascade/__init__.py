"""Cascades, routing and crossover: a small model generates, and a large one supplies the tokens that need it.

`rules` and `verification` are modules of pure functions; the classes call them.
"""

from logitkit.processors.cascade import rules, verification
from logitkit.processors.cascade.crossover import Crossover, CrossoverMeasure
from logitkit.processors.cascade.crossover_budget import budget_left, switches_within_budget
from logitkit.processors.cascade.deferral_curves import (
    DeferralArea,
    area_under_deferral_curve,
    deferral_curve,
    length_bias,
)
from logitkit.processors.cascade.judges import ContinuationPair, Judge, ModelJudge, SameAnswer, SameText
from logitkit.processors.cascade.label_files import (
    DIVERGENT,
    IDENTICAL,
    NEUTRAL,
    DivergenceLabels,
    LabelSettings,
    read_labels,
)
from logitkit.processors.cascade.labelling import label_divergence, router_examples, router_head_config
from logitkit.processors.cascade.model_fingerprint import ModelPair, PairFingerprint, check_pair
from logitkit.processors.cascade.posthoc_rule import PostHocRule, PostHocRuleConfig, posthoc_features
from logitkit.processors.cascade.router import Router
from logitkit.processors.cascade.router_head import (
    RouterHead,
    RouterHeadConfig,
    RouterNetwork,
    router_features,
    threshold_for_recall,
)
from logitkit.processors.cascade.rules import TOKEN_RULES, TokenRule
from logitkit.processors.cascade.sequence import SequenceCascade, SequenceCascadeResult
from logitkit.processors.cascade.sequence_rules import (
    SEQUENCE_RULES,
    SequenceRule,
    sequence_score,
    threshold_for_rate,
)
from logitkit.processors.cascade.speculative import SpeculativeCascade
from logitkit.processors.cascade.stages import Stage, StageOutputs, generate_outputs
from logitkit.processors.cascade.token import Cascade, DeferralRule
from logitkit.processors.cascade.uncertainty_scores import aleatoric_uncertainty, margin_uncertainty, uncertainty
from logitkit.processors.engine.head_training import TrainingSettings
from logitkit.processors.engine.weights_fingerprint import model_fingerprint

__all__ = [
    "DIVERGENT",
    "IDENTICAL",
    "NEUTRAL",
    "SEQUENCE_RULES",
    "TOKEN_RULES",
    "Cascade",
    "ContinuationPair",
    "Crossover",
    "CrossoverMeasure",
    "DeferralArea",
    "DeferralRule",
    "DivergenceLabels",
    "Judge",
    "LabelSettings",
    "ModelJudge",
    "ModelPair",
    "PairFingerprint",
    "PostHocRule",
    "PostHocRuleConfig",
    "Router",
    "RouterHead",
    "RouterHeadConfig",
    "RouterNetwork",
    "SameAnswer",
    "SameText",
    "SequenceCascade",
    "SequenceCascadeResult",
    "SequenceRule",
    "SpeculativeCascade",
    "Stage",
    "StageOutputs",
    "TokenRule",
    "TrainingSettings",
    "aleatoric_uncertainty",
    "area_under_deferral_curve",
    "budget_left",
    "check_pair",
    "deferral_curve",
    "generate_outputs",
    "label_divergence",
    "length_bias",
    "margin_uncertainty",
    "model_fingerprint",
    "posthoc_features",
    "read_labels",
    "router_examples",
    "router_features",
    "router_head_config",
    "rules",
    "sequence_score",
    "switches_within_budget",
    "threshold_for_rate",
    "threshold_for_recall",
    "uncertainty",
    "verification",
]
