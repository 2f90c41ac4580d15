"""Samplers that transformers lacks: truncations, temperatures, penalties, controllers, constraints and budgets.

Formulas over rows of scores: `xtc`, `top_n_sigma`, `p_less`, `top_a`, `tail_free`, `dynamic_temperature`,
`entropy_temperature`, `quadratic`; and `token_counts`, which the penalties use.
Logits processors: `XTC`, `TopNSigma`, `PLess`, `TopA`, `TailFree`, `DynamicTemperature`, `EntropyTemperature`,
`Quadratic`, `DRY`, `FrequencyPenalty`, `PresencePenalty`; `RowTokens` and `BreakerTable` are arguments of penalties.
Controllers: `Mirostat`, `AdaptiveP`. Constraints: `BanPhrases`, `Choices`, `Grammar`. Budgets: `ThinkingBudget`,
`LengthTarget`. Attributes of the text: `AttributeStep`; `AttributeHead` is a trained scorer of it, and
`attribute_examples` makes its training data from texts that `read_labelled_texts` reads.
"""

from __future__ import annotations

from logitkit.processors.samplers.attribute import AttributeStep
from logitkit.processors.samplers.attribute_head import (
    AttributeExamples,
    AttributeHead,
    AttributeHeadConfig,
    AttributeNetwork,
    ModelFingerprint,
)
from logitkit.processors.samplers.attribute_state_files import STATES
from logitkit.processors.samplers.attribute_texts import (
    CaptureSettings,
    LabelledText,
    attribute_examples,
    attribute_head_config,
    read_labelled_texts,
)
from logitkit.processors.samplers.ban_phrases import BanPhrases
from logitkit.processors.samplers.breakers import BreakerTable
from logitkit.processors.samplers.budgets import LengthTarget, ThinkingBudget
from logitkit.processors.samplers.choices import Choices
from logitkit.processors.samplers.controllers import AdaptiveP, Mirostat
from logitkit.processors.samplers.dry import DRY
from logitkit.processors.samplers.grammar import Grammar
from logitkit.processors.samplers.penalties import FrequencyPenalty, PresencePenalty, token_counts
from logitkit.processors.samplers.row_tokens import RowTokens
from logitkit.processors.samplers.temperature import dynamic_temperature, entropy_temperature, quadratic
from logitkit.processors.samplers.temperatures import DynamicTemperature, EntropyTemperature, Quadratic
from logitkit.processors.samplers.truncation import p_less, tail_free, top_a, top_n_sigma, xtc
from logitkit.processors.samplers.truncations import XTC, PLess, TailFree, TopA, TopNSigma

__all__ = [
    "DRY",
    "STATES",
    "XTC",
    "AdaptiveP",
    "AttributeExamples",
    "AttributeHead",
    "AttributeHeadConfig",
    "AttributeNetwork",
    "AttributeStep",
    "BanPhrases",
    "BreakerTable",
    "CaptureSettings",
    "Choices",
    "DynamicTemperature",
    "EntropyTemperature",
    "FrequencyPenalty",
    "Grammar",
    "LabelledText",
    "LengthTarget",
    "Mirostat",
    "ModelFingerprint",
    "PLess",
    "PresencePenalty",
    "Quadratic",
    "RowTokens",
    "TailFree",
    "ThinkingBudget",
    "TopA",
    "TopNSigma",
    "attribute_examples",
    "attribute_head_config",
    "dynamic_temperature",
    "entropy_temperature",
    "p_less",
    "quadratic",
    "read_labelled_texts",
    "tail_free",
    "token_counts",
    "top_a",
    "top_n_sigma",
    "xtc",
]
