"""Laws: what every processor must keep, for ours and for third parties."""

from logitkit.registry.laws.properties import LAWS, LawResult, Report, check_processor, judge, parametrize_with_laws

__all__ = ["LAWS", "LawResult", "Report", "check_processor", "judge", "parametrize_with_laws"]
