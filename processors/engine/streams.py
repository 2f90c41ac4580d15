"""Second streams: next-token logits of another model or another prompt for the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from torch import Tensor

from logitkit.params import Resource

NextLogits = Annotated[Callable[[Tensor], Tensor], Resource()]
