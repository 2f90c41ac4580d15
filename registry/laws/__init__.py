"""Laws: properties that every processor must keep, with the runner that tests them and tiny models to test on.

>>> check_processor("cfg", laws=["treats_rows_alike"]).failures
[]
"""

from typing import TYPE_CHECKING, Any

from logitkit.registry.laws.comparison import Evidence
from logitkit.registry.laws.properties import LAWS
from logitkit.registry.laws.runner import LawResult, Report, check_processor, judge, parametrize_with_laws
from logitkit.registry.laws.tiny_models import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from logitkit.registry.laws.modes import MODES, ModeResult, check_modes

__all__ = [
    "LAWS",
    "MODES",
    "Evidence",
    "LawResult",
    "ModeResult",
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


def __getattr__(name: str) -> Any:
    """Import the modes on first use: they need the pipelines of transformers, which take a second to import."""
    if name in ("MODES", "ModeResult", "check_modes"):
        from logitkit.registry.laws import modes

        return getattr(modes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
