"""Sum of probabilities in log space, for NumPy arrays and lists."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def logsumexp(values: Sequence[float] | NDArray[np.floating]) -> float:
    """Return the logarithm of the sum of exponentials, computed in float64.

    Args:
        values: log-probabilities in nats; -inf stands for probability 0.

    Returns:
        The log of the summed probability; -inf where there are no values or all values are -inf.

    >>> import math
    >>> round(logsumexp([math.log(0.25), math.log(0.5), -math.inf]), 6) == round(math.log(0.75), 6)
    True
    >>> logsumexp([])
    -inf
    """
    values = np.asarray(values, dtype=np.float64)
    best = values.max(initial=-np.inf)
    return float(best + np.log(np.exp(values - best).sum())) if best > -np.inf else -math.inf
