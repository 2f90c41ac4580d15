"""`PerProcess`: a value, such as a model, that each process loads for itself; and `value_of`, which returns it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")
_ABSENT: Any = object()


class PerProcess(Generic[Value]):
    """A value that is loaded when a process first needs it, and kept there. Pickling leaves the value out.

    A job that holds its models so is small when it is sent to a worker, and the worker loads them once.

    Args:
        load: returns the value; it can be pickled, such as ``functools.partial(models.load, name)``.

    Example:
        >>> import pickle
        >>> word = PerProcess(str)
        >>> word.value, pickle.loads(pickle.dumps(word)).value
        ('', '')
    """

    def __init__(self, load: Callable[[], Value]) -> None:
        self._load, self._value = load, _ABSENT

    @property
    def value(self) -> Value:
        """The value; loaded at the first access in this process."""
        if self._value is _ABSENT:
            self._value = self._load()
        return self._value  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        return PerProcess, (self._load,)


def value_of(value: Value | PerProcess[Value]) -> Value:
    """Return a value that may be one of each process.

    Example:
        >>> value_of(1), value_of(PerProcess(int))
        (1, 0)
    """
    return value.value if isinstance(value, PerProcess) else value
