"""The choice of whether a text behind the rows rides in the generating model's own forward, or has forwards of its own.

A riding text makes every forward read ``1 + n`` tokens a row, whether the text is needed or not; a separate forward
reads ``n`` tokens, at the steps that need it. Both leave the KV cache as it is, so the choice can change at any step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from logitkit.processors.engine.behind_rows import BehindRows
from logitkit.processors.engine.forward_plan import ForwardPlan
from logitkit.processors.engine.fusion_cost import forward_seconds
from logitkit.processors.engine.trace import FusionReport

FIRST_STEPS, TRIAL_STEPS = 4, 12  # the costs of the two forms are compared after the first 4 steps, then every 12
REMEMBERED = 0.75  # weight of the earlier steps in the share of steps that need the text, at each comparison
MIN_SAVING = 0.05  # least saving for which the form changes, in plain steps per step

Seconds = Callable[[Any, int, int, bool], float]  # of a forward; see `forward_seconds`


class RidingText:
    """Lets a text ride in the forwards of a plan where that is cheaper than its own forwards.

    Args:
        plan: its ``text`` is set.
        text: the stream of the text.
        always: whether the text rides at every step; else the two costs are compared from time to time.
        seconds: seconds of a forward of ``(model, rows, tokens, may_be_thin)``.
    """

    def __init__(
        self, plan: ForwardPlan, text: BehindRows, *, always: bool = False, seconds: Seconds | None = None
    ) -> None:
        self.plan, self.text, self.always, self.seconds = plan, text, always, seconds or forward_seconds
        self._steps, self._trial, self._counted = 0, FIRST_STEPS, (text.requests, text.requested_rows)
        self._recent = 0.0, 0.0, 0.0  # steps, requests and requested rows, with less weight the older they are

    def before_forward(self) -> FusionReport | None:
        """Count a step, and choose from time to time; return a report where the costs were compared."""
        self._steps += 1
        if self.always:
            self.plan.text = self.text.ids
            return self.report("each forward reads the text behind the rows too")
        if self._steps < self._trial:
            return None
        report = self._compare_costs(self._trial)
        self._steps, self._trial = 0, TRIAL_STEPS
        return report

    def report(self, reason: str, **costs: Any) -> FusionReport:
        """Return the report of the present form."""
        return FusionReport(state="lazy" if self.plan.text is None else "fused", reason=reason, **costs)

    def _compare_costs(self, steps: int) -> FusionReport:
        """Take the cheaper form for the coming steps; the present form stays where both cost nearly the same.

        Args:
            steps: number of steps since the last comparison.
        """
        plan, text, tokens = self.plan, self.text, self.text.ids.shape[1]
        new = steps, text.requests - self._counted[0], text.requested_rows - self._counted[1]
        self._counted = text.requests, text.requested_rows
        recent, requests, asked = (REMEMBERED * old + more for old, more in zip(self._recent, new, strict=True))
        self._recent = recent, requests, asked
        model, own, share = plan.model, len(plan.index), requests / recent
        rows = own * (1 + len(plan.streams))
        plain = self.seconds(model, own, 1, False)
        riding = self.seconds(model, rows, 1 + tokens, True) / plain
        separate = self.seconds(model, rows, 1, bool(plan.streams)) / plain
        if requests:  # a power of two of rows, so that few sizes are measured
            size = min(own, 1 << (round(asked / requests) - 1).bit_length())
            separate += share * self.seconds(model, size, tokens, True) / plain
        margin = MIN_SAVING if plan.text is None else -MIN_SAVING
        plan.text = self.text.ids if riding + margin < separate else None
        costs = f"a step with the text behind each row costs {riding:.2f} plain steps, separate forwards cost"
        return self.report(
            f"{costs} {separate:.2f} (logits requested at {share:.2f} of the recent steps)",
            fused_cost=riding,
            separate_cost=separate,
            request_rates=(share,),
        )
