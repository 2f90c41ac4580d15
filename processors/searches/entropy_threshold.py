"""The entropy from which on `AdaDec` looks ahead, fitted to reference texts by a logistic regression.

Source: SYSUSELab/AdaDec, ``prepare_adadec``: a regression of whether the likeliest token is that of the reference on
the entropy, balanced by dropping examples, and inverted at the probability of the best accuracy on held-out examples.
Files are JSON; loading runs no code.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import DataError, FileFormatError, ModelError
from logitkit.files import LONGEST_TEXT, parse_json, read_bytes, replace_file
from logitkit.processors.engine.weights_fingerprint import model_fingerprint

KIND, VERSION = "adadec threshold", 1
HELD_OUT = 0.2  # share of the examples on which the accuracy is measured
CUTS = torch.arange(1, 100, dtype=torch.float64) / 100  # probabilities at which examples may be divided


def logistic_fit(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return slope and intercept that minimise ``slope^2 / 2 + sum of the log losses`` of ``P(y = 1) = sigmoid``.

    Args:
        x: one number for each example, float64 ``[examples]``.
        y: 0 or 1, ``[examples]``.

    Example:
        >>> x, y = torch.tensor([0.0, 1.0, 2.0, 3.0]).double(), torch.tensor([1, 1, 0, 0])
        >>> slope, intercept = logistic_fit(x, y)
        >>> slope < 0, abs(intercept + 1.5 * slope) < 1e-9  # by symmetry the two sides meet at 1.5
        (True, True)
    """
    features = torch.stack([x.double(), torch.ones_like(x, dtype=torch.float64)], dim=1)  # [examples, 2]
    penalty = torch.tensor([1.0, 0.0], dtype=torch.float64)
    weights = torch.zeros(2, dtype=torch.float64)

    def loss(at: Tensor) -> Tensor:
        z = features @ at
        return (torch.nn.functional.softplus(z) - y * z).sum() + (penalty * at.square()).sum() / 2

    for _ in range(100):  # Newton's method; the loss is convex, and a step is halved until the loss falls
        p = (features @ weights).sigmoid()
        gradient = features.T @ (p - y) + penalty * weights
        curvature = (features * (p * (1 - p))[:, None]).T @ features + penalty.diag()
        step = torch.linalg.lstsq(curvature, gradient[:, None]).solution[:, 0]
        size = 1.0
        while size > 1e-9 and bool(loss(weights - size * step) > loss(weights)):
            size /= 2
        weights = weights - size * step
        if float(step.abs().max()) < 1e-12:
            break
    return float(weights[0]), float(weights[1])


@dataclass(frozen=True, kw_only=True)
class EntropyThreshold:
    """A fitted threshold, and how it was fitted.

    Attributes:
        nats: entropy from which on the likeliest token is more often wrong than the best division allows, at least 0.
        accuracy: share of the held-out tokens on the right side of the threshold, 0 to 1.
        above: share of all tokens with at least this entropy, 0 to 1.
        right: share of all tokens whose likeliest token is that of the reference, 0 to 1.
        tokens: number of tokens.
        model: fingerprint of the model.
        chain: the steps under which entropies were measured, as text.

    Example:
        >>> entropies = torch.tensor([0.1, 0.2, 0.3, 2.1, 2.2, 2.3] * 50)
        >>> fitted = EntropyThreshold.fit(entropies, entropies < 1, model="a1b2", seed=0)
        >>> 0.3 < fitted.nats < 2.1, fitted.accuracy, fitted.above
        (True, 1.0, 0.5)
    """

    nats: float
    accuracy: float
    above: float
    right: float
    tokens: int
    model: str
    chain: str = ""

    @classmethod
    def fit(cls, entropy: Tensor, right: Tensor, *, model: str, chain: str = "", seed: int = 0) -> EntropyThreshold:
        """Fit a threshold to tokens of reference texts.

        A fifth of the tokens, drawn at random, is held out. Of the others, as many right as wrong ones are kept, at
        random, for the regression. The held-out tokens are divided at each probability of 0.01, 0.02 ... 0.99 of being
        right; the entropy at the first one with the best accuracy is the threshold, or 0 where it is negative.

        Args:
            entropy: of the distribution in front of each token, nats, ``[tokens]``.
            right: whether its likeliest token is the token, bool ``[tokens]``.
            model: fingerprint of the model.
            chain: the steps under which the entropies were measured, as text.
            seed: of the split and of the balancing.

        Raises:
            DataError: too few tokens, tokens that are all right or all wrong, or tokens that are not more often wrong
                where the entropy is larger.
        """
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(entropy), generator=generator)
        x, y = entropy.double().cpu()[order], right.cpu()[order].long()
        held = math.ceil(HELD_OUT * len(x))
        kept = _balanced(y[held:], generator) + held
        if not held or not len(kept):
            raise DataError(
                f"train-adadec: the references must hold tokens that the model finds likeliest and tokens that it does "
                f"not, got {int(y.sum())} and {len(y) - int(y.sum())}; add references"
            )
        slope, intercept = logistic_fit(x[kept], y[kept])
        if slope >= 0:
            raise DataError(
                "train-adadec: the likeliest token must be wrong more often where the entropy is larger, got the "
                "opposite; add references"
            )
        p = (slope * x[:held] + intercept).sigmoid()
        accuracies = ((p >= CUTS[:, None]).long() == y[:held]).double().mean(-1)  # [cuts]
        cut = CUTS[int(accuracies.argmax())]
        nats = max(0.0, float((cut.logit() - intercept) / slope))
        shares = {"above": float((x >= nats).double().mean()), "right": float(y.double().mean())}
        return cls(nats=nats, accuracy=float(accuracies.max()), tokens=len(x), model=model, chain=chain, **shares)

    def check(self, owner: str, model: Any) -> None:
        """Refuse a threshold that was fitted for another model.

        Args:
            owner: name that begins the error message.
            model: the generating model.

        Raises:
            ModelError: as said.
        """
        present = model_fingerprint(model)
        if present != self.model:
            raise ModelError(
                f"{owner}: the threshold must have been fitted for this model, got one for another (fingerprint "
                f"{self.model}, here {present}); fit one with logitkit train-adadec, or give it in nats"
            )

    def save(self, path: str | Path) -> None:
        """Write the threshold as JSON."""
        with replace_file(path) as temporary:
            content = {"kind": KIND, "version": VERSION, **asdict(self)}
            temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> EntropyThreshold:
        """Read a threshold that `save` wrote.

        Raises:
            FileFormatError: the file is missing, holds no JSON, or anything but a threshold of this version.
        """
        must = f"adadec: threshold must be a number of nats, or a file that logitkit train-adadec wrote, got {path}"
        try:
            content = parse_json(read_bytes(Path(path).expanduser(), most=LONGEST_TEXT))
        except (OSError, ValueError) as error:
            raise FileFormatError(f"{must}: {type(error).__name__}: {error}") from error
        found = (content.pop("kind", None), content.pop("version", None)) if isinstance(content, dict) else (None, None)
        if found != (KIND, VERSION):
            raise FileFormatError(f"{must}: {found[0]} of version {found[1]}; fit it again")
        if not _is_fitted(content):
            raise FileFormatError(f"{must}: other entries than a threshold has; fit it again")
        return cls(**content)


def _balanced(y: Tensor, generator: torch.Generator) -> Tensor:
    """Return the numbers of as many examples with 1 as with 0, drawn at random; of none where one kind is absent."""
    kinds = [(y == value).nonzero().flatten() for value in (0, 1)]
    count = min(map(len, kinds))
    return torch.cat([each[torch.randperm(len(each), generator=generator)[:count]] for each in kinds])


def _is_fitted(content: dict[str, Any]) -> bool:
    """Return whether the entries of a file are those of a threshold."""
    numbers, texts = ("nats", "accuracy", "above", "right", "tokens"), ("model", "chain")
    return (
        content.keys() == {*numbers, *texts}
        and all(type(content[name]) in (int, float) and 0 <= content[name] < math.inf for name in numbers)
        and all(isinstance(content[name], str) for name in texts)
    )
