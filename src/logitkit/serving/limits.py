"""What a server accepts and how long it waits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from logitkit.errors import ParameterError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a server. A text is one answer: a request for three prompts with ``n=2`` asks for six texts.

    Attributes:
        max_batch: texts that are generated together, at least 1.
        max_queue: texts that may wait, at least 1; a request that does not fit is refused with status 429.
        max_tokens: new tokens of a text, at least 1; also the default in chats, where the context has room.
        timeout: seconds from the arrival of a request to its end, > 0; then status 504. Infinite: no limit.
        max_bytes: bytes of the body of a request.

    Raises:
        ParameterError: a value outside its range.

    >>> Limits(max_batch=4).max_queue
    256
    """

    max_batch: int = 16
    max_queue: int = 256
    max_tokens: int = 4096
    timeout: float = 300.0
    max_bytes: int = 2**23

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_queue", "max_tokens", "max_bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ParameterError("serve", name, "a whole number >= 1", value)
        if not isinstance(self.timeout, (int, float)) or math.isnan(self.timeout) or self.timeout <= 0:
            raise ParameterError("serve", "timeout", "a number of seconds > 0", self.timeout)
