"""What models think of given texts, without generating: log-probabilities of each token, and scores made of them.

- `token_statistics`: the log-probability of each token of a text, beside mean and deviation over the vocabulary.
- `membership_scores`: whether a text was among the training data of a model: `min_k`, `min_k_plus_plus`, `dc_pdd`.
- `read_membership_texts`: a file of texts, some of them known to be among the training data.
- `measure_drift`, `fit_drift`, `drift_plot`: how far a conversation drifts from its goal.
- `tokenizer_report`, `report_tables`, `tokenizer_page`: what one or two tokenizers do to texts.
- `compare`: where two models differ on given texts, token by token; `comparison_page`, `comparison_data`,
  `comparison_csv` and `write_labels` write the result.
- `token_differences`, `contrastive_estimate`, `entropy_quadrants`, `carriers`: the numbers of a comparison.
- `bits_per_byte`, `chunk_divergence`: models with any tokenizers on one text, exact over bytes, paired.
- `area_under_curve`: how well a score separates two groups, with an interval.
"""

from __future__ import annotations

from logitkit.diagnostics.bits_per_byte import BitsPerByte, ModelBits, bits_per_byte, chunk_divergence
from logitkit.diagnostics.comparison import compare
from logitkit.diagnostics.comparison_export import comparison_csv, comparison_data, write_labels
from logitkit.diagnostics.comparison_html import comparison_page
from logitkit.diagnostics.comparison_texts import ComparisonTexts, read_comparison_texts
from logitkit.diagnostics.drift import DriftFit, TurnDrift, fit_drift, measure_drift
from logitkit.diagnostics.drift_plot import drift_plot
from logitkit.diagnostics.membership import dc_pdd, membership_scores, min_k, min_k_plus_plus, token_counts
from logitkit.diagnostics.membership_texts import MembershipText, read_membership_texts
from logitkit.diagnostics.model_comparison import ComparedText, ModelComparison
from logitkit.diagnostics.per_token import TokenStatistics, token_statistics
from logitkit.diagnostics.quadrants import Quadrant, Quadrants, Share, carriers, entropy_quadrants
from logitkit.diagnostics.separation import AreaUnderCurve, area_under_curve
from logitkit.diagnostics.token_differences import TokenDifferences, contrastive_estimate, token_differences
from logitkit.diagnostics.tokenizer_page import tokenizer_page
from logitkit.diagnostics.tokenizer_report import TokenizerReport, tokenizer_report
from logitkit.diagnostics.tokenizer_tables import ReportTable, report_tables

__all__ = [
    "AreaUnderCurve",
    "BitsPerByte",
    "ComparedText",
    "ComparisonTexts",
    "DriftFit",
    "MembershipText",
    "ModelBits",
    "ModelComparison",
    "Quadrant",
    "Quadrants",
    "ReportTable",
    "Share",
    "TokenDifferences",
    "TokenStatistics",
    "TokenizerReport",
    "TurnDrift",
    "area_under_curve",
    "bits_per_byte",
    "carriers",
    "chunk_divergence",
    "compare",
    "comparison_csv",
    "comparison_data",
    "comparison_page",
    "contrastive_estimate",
    "dc_pdd",
    "drift_plot",
    "entropy_quadrants",
    "fit_drift",
    "measure_drift",
    "membership_scores",
    "min_k",
    "min_k_plus_plus",
    "read_comparison_texts",
    "read_membership_texts",
    "report_tables",
    "token_counts",
    "token_differences",
    "token_statistics",
    "tokenizer_page",
    "tokenizer_report",
    "write_labels",
]
