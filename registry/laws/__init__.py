"""Laws: properties that every processor must keep, with the runner that tests them and tiny models to test on."""

from logitkit.registry.laws.modes import check_modes
from logitkit.registry.laws.properties import LAWS, LawResult, Report, check_processor, judge, parametrize_with_laws
from logitkit.registry.laws.tiny_models import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer

__all__ = [
    "LAWS",
    "LawResult",
    "Report",
    "check_modes",
    "check_processor",
    "foreign_model",
    "foreign_tokenizer",
    "judge",
    "parametrize_with_laws",
    "tiny_model",
    "tiny_tokenizer",
]
