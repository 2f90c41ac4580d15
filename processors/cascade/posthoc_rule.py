"""The learned deferral rule: an estimate of what the large model would gain on an output.

arXiv:2404.10136, section 4 (post-hoc rule): a small network over fixed quantiles of the token
log-probabilities, the Chow scores and the length, and on request last hidden states of the small model.
Departures: the length is given to the network, so that it can take the length bias out; quantiles are
interpolated linearly; the answer is calibrated on held-out items.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from logitkit.errors import ParameterError
from logitkit.processors.cascade import head_files as heads
from logitkit.processors.cascade import head_training
from logitkit.processors.cascade.rules import sequence_score

KIND = "post-hoc rule"
Target = Literal["better", "gain"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Of a post-hoc rule: how many quantiles and further features, and the network (the paper's: 5 x 32)."""

    quantiles: int = 21
    extra: int = 0
    width: int = 32
    layers: int = 5


def features(logps: Tensor, mask: Tensor, shape: Shape, extra: Tensor | None = None) -> Tensor:
    """What the rule looks at, ``[rows, quantiles + 3 + extra]``: quantiles, Chow-Sum, Chow-Average, log length.

    An output without tokens counts as one token of log-probability -50.

    Args:
        logps, mask: as in `sequence_score`, ``[rows, tokens]``.
        shape: how many quantiles, evenly spaced from the lowest to the highest token.
        extra: further features, such as last hidden states, ``[rows, extra]``.
    """
    empty = ~mask.any(-1)
    if bool(empty.any()):
        pad = nn.functional.pad
        logps, mask = pad(logps, (0, 1), value=-50.0), pad(mask, (0, 1), value=False)
        mask = torch.cat([mask[:, :-1], empty[:, None]], dim=1)
    levels = torch.linspace(0, 1, shape.quantiles, dtype=logps.dtype).tolist()
    columns = [sequence_score(logps, mask, "quantile", alpha=min(1.0, level)) for level in levels]
    columns += [sequence_score(logps, mask, rule) for rule in ("sum", "average")]
    columns.append(mask.sum(-1).to(logps.dtype).log())
    found = torch.stack(columns, dim=-1)
    given = 0 if extra is None else extra.shape[-1]
    if given != shape.extra:
        raise ParameterError(KIND, "extra", f"{shape.extra} features a row", given)
    return (found if extra is None else torch.cat([found, extra.to(found)], dim=-1)).float()


class Network(head_training.Standardised):
    """Layers of linear, batch normalisation, ReLU; one number a row."""

    def __init__(self, shape: Shape) -> None:
        sizes = [shape.quantiles + 3 + shape.extra] + [shape.width] * shape.layers
        super().__init__(sizes[0])
        parts: list[nn.Module] = []
        for enter, leave in itertools.pairwise(sizes):
            parts += [nn.Linear(enter, leave), nn.BatchNorm1d(leave), nn.ReLU()]
        self.layers = nn.Sequential(*parts, nn.Linear(sizes[-1], 1))
        self.slope, self.offset = nn.Buffer(torch.tensor(1.0)), nn.Buffer(torch.tensor(0.0))

    def forward(self, features: Tensor) -> Tensor:
        """The uncalibrated answer, ``[rows]``."""
        raw: Tensor = self.layers(self.standardised(features))[:, 0]
        return raw


class PostHocRule:
    """A trained rule.

    Attributes:
        target: ``better``: the probability that the large output is better; ``gain``: how much better.
        report: how training went.
    """

    def __init__(self, network: Network, shape: Shape, *, target: Target, report: dict[str, Any]) -> None:
        self.network, self.shape, self.target, self.report = network, shape, target, report

    @torch.no_grad()
    def gain(self, logps: Tensor, mask: Tensor, extra: Tensor | None = None) -> Tensor:
        """The calibrated probability or gain, ``[rows]``; arguments as in `features`."""
        raw = self.network(features(logps, mask, self.shape, extra))
        straight = self.network.slope * raw + self.network.offset
        answer: Tensor = straight.sigmoid() if self.target == "better" else straight
        return answer

    def __call__(self, logps: Tensor, mask: Tensor, extra: Tensor | None = None) -> Tensor:
        """The score of each output, lowest where deferring gains most, ``[rows]``."""
        return -self.gain(logps, mask, extra)

    @classmethod
    def fit(
        cls,
        logps: Tensor,
        mask: Tensor,
        small: Tensor,
        large: Tensor,
        *,
        extra: Tensor | None = None,
        target: Target = "better",
        shape: Shape | None = None,
        held_out: float = 0.25,
        epochs: int = 200,
        patience: int = 25,
        rate: float = 1e-3,
        decay: float = 1e-2,
        batch: int = 64,
        seed: int = 0,
        advance: Callable[[], None] = lambda: None,
    ) -> PostHocRule:
        """Train on outputs of the small model and the qualities of both models.

        Args:
            logps, mask, extra: as in `features`, one row an item.
            small, large: quality of either output, ``[items]``.
            target: what to predict: ``better`` whether large > small (cross-entropy), ``gain`` large - small
                (squared error).
            shape: sizes; ``extra`` is set to what is given.
            held_out: share for early stopping and calibration.
            epochs, patience, rate, decay, batch, seed, advance: of the training.

        Raises:
            ParameterError: no items, NaN, or nothing to learn: the large output is always or never better.
        """
        made = Shape(**{**asdict(shape or Shape()), "extra": 0 if extra is None else extra.shape[-1]})
        gains = (large - small).float()
        wanted = (gains > 0).float() if target == "better" else gains
        rows = features(logps, mask, made, extra) if len(logps) else torch.zeros(0, 1)
        head_training.check_examples("PostHocRule.fit", rows, wanted)
        if bool((wanted == wanted[0]).all()):
            raise ParameterError("PostHocRule.fit", "qualities", "of items that differ", f"{wanted[0]:g} everywhere")
        train, held = head_training.split(len(rows), held_out, seed)
        network = head_training.begun(lambda: Network(made), rows[train], seed)
        loss = nn.functional.binary_cross_entropy_with_logits if target == "better" else nn.functional.mse_loss
        told = head_training.fit(
            network,
            rows,
            wanted,
            loss,
            train=train,
            held_out=held,
            epochs=epochs,
            patience=patience,
            rate=rate,
            decay=decay,
            batch=batch,
            seed=seed,
            advance=advance,
        )
        _calibrate(network, rows[held], wanted[held], loss)
        report = {"epochs": len(told.training), "best_epoch": told.best, "items": len(rows), "held_out": len(held)}
        return cls(network, made, target=target, report=report)

    def save(self, folder: str | Path) -> None:
        """Write ``head.safetensors`` and ``head.json``."""
        facts = {"shape": asdict(self.shape), "target": self.target, "report": self.report}
        heads.save(folder, KIND, self.network, facts)

    @classmethod
    def load(cls, folder: str | Path) -> PostHocRule:
        """Read a rule; runs no code from the files.

        Raises:
            FileFormatError: not a post-hoc rule.
        """
        state, facts = heads.load(folder, KIND)
        shape = Shape(**facts["shape"])
        network = Network(shape)
        heads.into(network, state, KIND)
        return cls(network, shape, target=facts["target"], report=facts["report"])


@torch.enable_grad()
def _calibrate(network: Network, rows: Tensor, wanted: Tensor, loss: head_training.Loss) -> None:
    """Fit slope and offset of the answer on held-out rows (Platt scaling); a slope that turns it around is refused."""
    if len(rows) < 2 or bool((wanted == wanted[0]).all()):
        return
    with torch.no_grad():
        raw = network(rows)
    line = torch.tensor([1.0, 0.0], requires_grad=True)
    optimiser = torch.optim.LBFGS([line], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        # A weak pull towards the identity keeps separable data from infinite slopes.
        value = loss(line[0] * raw + line[1], wanted) + 1e-3 * ((line[0] - 1) ** 2 + line[1] ** 2)
        value.backward()
        return value

    optimiser.step(closure)
    slope, offset = line.detach()
    if float(slope) > 0 and bool(torch.isfinite(line).all()):
        network.slope.copy_(slope)
        network.offset.copy_(offset)
