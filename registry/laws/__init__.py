"""Laws: what every processor must keep, for ours and for third parties."""

from logitkit.registry.laws.properties import LAWS, Report, Verdict, check_processor, judge, parametrize_with_laws

__all__ = ["LAWS", "Report", "Verdict", "check_processor", "judge", "parametrize_with_laws"]
