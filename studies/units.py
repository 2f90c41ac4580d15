"""The units of a study on an engine: one after the other in this process, or on the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

from logitkit.execution import carry_out, engine_named
from logitkit.models.placement import placement
from logitkit.progress import progress_bar

Unit = TypeVar("Unit")
Result = TypeVar("Result")


def run_units(
    job: Callable[[Unit], Result],
    units: Sequence[Unit],
    keep: Callable[[Unit, Result], None],
    *,
    engine: str,
    title: str,
) -> None:
    """Run a job on the units that a results file lacks, under a progress bar.

    Args:
        job: returns the result of a unit, which depends on the unit alone. It can be pickled, and holds its models as
            `logitkit.execution.PerProcess`.
        units: the units.
        keep: stores the result of a unit; called as soon as the unit is complete, in any order.
        engine: name of the engine, ``local`` or ``ray``.
        title: of the progress bar.

    Examples:
        >>> found = {}
        >>> run_units(len, ["a", "bcd"], found.__setitem__, engine="local", title="texts")
        >>> found
        {'a': 1, 'bcd': 3}
    """
    chosen = engine_named(engine, "studies")
    with progress_bar(title, total=len(units)) as bar:

        def stored(unit: Unit, result: Result) -> None:
            keep(unit, result)
            bar.advance()

        carry_out(job, units, stored, engine=chosen)


def placed(owner: str, device: str, dtype: str, engine: str) -> Any:
    """Return a dtype and a device for the argument ``like`` of `logitkit.models.load`, before a model is loaded.

    The device of another engine than ``local`` is one of the workers, who have devices of their own.

    Args:
        owner: name of the study, for errors.
        device: a device of torch.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        engine: name of the engine.

    Raises:
        ParameterError: torch does not have the device on this machine, or the dtype is unknown.
    """
    if engine == "local":
        return placement(owner, device, dtype)
    return SimpleNamespace(dtype=placement(owner, "cpu", dtype).dtype, device=device)
