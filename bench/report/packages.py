"""Functions of scipy and statsmodels that the report needs; both come with the extra ``[bench]``."""

from __future__ import annotations

from logitkit.errors import MissingPackageError

try:
    from scipy import optimize, stats
    from statsmodels.stats.proportion import proportion_confint
except ModuleNotFoundError as error:
    raise MissingPackageError("bench", (error.name or "scipy").partition(".")[0], "bench") from error

__all__ = ["optimize", "proportion_confint", "stats"]
