"""A learned deferral rule for sequence-level cascades: predicts the gain in quality of the large model's output.

Source: post-hoc rule, arXiv:2404.10136, section 4. The features are fixed quantiles of the token log-probabilities,
the Chow scores (sum and average) and the length of an output, optionally with further features such as last hidden
states of the small model. A small network maps them to one number.

Departures: the length is a feature, so that the network can correct the length bias of the other features;
quantiles are interpolated linearly; the prediction is calibrated on held-out items.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from logitkit.errors import FileFormatError, ParameterError
from logitkit.processors.cascade.sequence_rules import sequence_score
from logitkit.processors.engine import head_training
from logitkit.processors.engine.head_files import build_network, load_head, save_head
from logitkit.processors.engine.head_training import Loss, Standardised, TrainingSettings

KIND = "post-hoc rule"
EMPTY_LOGP = -50.0  # nats; an output without tokens counts as one token of this log-probability
PostHocTarget = Literal["better", "gain"]


@dataclass(frozen=True, kw_only=True)
class PostHocRuleConfig:
    """Features, network and target of a post-hoc rule; the default network is the paper's.

    Attributes:
        quantiles: number of quantiles, evenly spaced from the least to the most likely token.
        extra_features: number of further features of an output.
        width, layers: size of the network.
        target: ``better`` predicts the probability that the large model's output is better, ``gain`` the difference
            of the qualities.

    >>> PostHocRuleConfig(quantiles=5).layers
    5
    """

    quantiles: int = 21
    extra_features: int = 0
    width: int = 32
    layers: int = 5
    target: PostHocTarget = "better"


def posthoc_features(logps: Tensor, mask: Tensor, config: PostHocRuleConfig, extra: Tensor | None = None) -> Tensor:
    """Return the features of outputs: quantiles, Chow-Sum, Chow-Average, logarithm of the length, further features.

    Args:
        logps, mask: as in `sequence_score`, ``[rows, tokens]``; an output without tokens counts as one token of
            log-probability -50.
        config: the number of quantiles and of further features.
        extra: further features, ``[rows, extra_features]``.

    Returns:
        fp32 ``[rows, quantiles + 3 + extra_features]``.

    Raises:
        ParameterError: ``extra`` has another number of features than the config.

    >>> posthoc_features(torch.tensor([[-1.0, -3.0]]), torch.tensor([[True, True]]), PostHocRuleConfig(quantiles=2))
    tensor([[-3.0000, -1.0000, -4.0000, -2.0000,  0.6931]])
    """
    empty = ~mask.any(-1)
    if bool(empty.any()):
        logps = nn.functional.pad(logps, (0, 1), value=EMPTY_LOGP)
        mask = torch.cat([mask, empty[:, None]], dim=1)
    levels = torch.linspace(0, 1, config.quantiles, dtype=logps.dtype).tolist()
    columns = [sequence_score(logps, mask, "quantile", alpha=min(1.0, level)) for level in levels]
    columns += [sequence_score(logps, mask, rule) for rule in ("sum", "average")]
    columns.append(mask.sum(-1).to(logps.dtype).log())
    features = torch.stack(columns, dim=-1)
    width = 0 if extra is None else extra.shape[-1]
    if width != config.extra_features:
        raise ParameterError(KIND, "extra", f"{config.extra_features} features a row", width)
    return (features if extra is None else torch.cat([features, extra.to(features)], dim=-1)).float()


class PostHocNetwork(Standardised):
    """Layers of linear, batch normalisation and ReLU from features to one number a row.

    Attributes:
        slope, offset: of the calibrated prediction ``slope * output + offset``.
    """

    def __init__(self, config: PostHocRuleConfig) -> None:
        sizes = [config.quantiles + 3 + config.extra_features] + [config.width] * config.layers
        super().__init__(sizes[0])
        parts: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            parts += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*parts, nn.Linear(sizes[-1], 1))
        self.slope, self.offset = nn.Buffer(torch.tensor(1.0)), nn.Buffer(torch.tensor(0.0))

    def forward(self, features: Tensor) -> Tensor:
        """Return the uncalibrated prediction, ``[rows]``."""
        output: Tensor = self.layers(self.standardised(features))[:, 0]
        return output


class PostHocRule:
    """A trained deferral rule; an instance is a ``rule`` of `SequenceCascade`.

    Args:
        network: the network.
        config: its sizes and target.
        report: the course of training.

    Attributes:
        default_settings: default settings of the training in `fit`.

    >>> logps, mask = -torch.arange(8.0)[:, None].expand(8, 3), torch.ones(8, 3).bool()
    >>> small, large = (torch.arange(8) < 4).float(), torch.ones(8)
    >>> settings = replace(PostHocRule.default_settings, epochs=2)
    >>> rule = PostHocRule.fit(logps, mask, small, large, config=PostHocRuleConfig(quantiles=2), settings=settings)
    >>> rule(logps, mask).shape
    torch.Size([8])
    """

    default_settings: ClassVar[TrainingSettings] = TrainingSettings(
        held_out=0.25, epochs=200, patience=25, weight_decay=1e-2, batch_size=64
    )

    def __init__(self, network: PostHocNetwork, config: PostHocRuleConfig, *, report: dict[str, Any]) -> None:
        self.network, self.config, self.report = network, config, report

    @torch.no_grad()
    def gain(self, logps: Tensor, mask: Tensor, extra: Tensor | None = None) -> Tensor:
        """Return the calibrated probability or gain, ``[rows]``; arguments as in `posthoc_features`."""
        output = self.network(posthoc_features(logps, mask, self.config, extra))
        calibrated: Tensor = self.network.slope * output + self.network.offset
        return calibrated.sigmoid() if self.config.target == "better" else calibrated

    def __call__(self, logps: Tensor, mask: Tensor, extra: Tensor | None = None) -> Tensor:
        """Return the deferral score of each output, ``[rows]``: lowest where the large model gains most."""
        return -self.gain(logps, mask, extra)

    # Over 40 lines: the docstring documents eight parameters.
    @classmethod
    def fit(
        cls,
        logps: Tensor,
        mask: Tensor,
        small: Tensor,
        large: Tensor,
        *,
        extra: Tensor | None = None,
        config: PostHocRuleConfig | None = None,
        settings: TrainingSettings | None = None,
        advance: Callable[[], None] = lambda: None,
    ) -> PostHocRule:
        """Train a rule on outputs of the small model and the qualities of both models' outputs.

        Target ``better`` is trained with cross-entropy on ``large > small``, target ``gain`` with the squared error
        on ``large - small``.

        Args:
            logps, mask, extra: as in `posthoc_features`, one row an item.
            small, large: quality of either model's output on each item, ``[items]``.
            config: sizes and target; its number of further features is taken from ``extra``.
            settings: of the training; default `default_settings`.
            advance: called after each epoch.

        Raises:
            ParameterError: no items, values that are not finite, or targets that are equal for all items.
        """
        config = replace(config or PostHocRuleConfig(), extra_features=0 if extra is None else extra.shape[-1])
        settings = settings or cls.default_settings
        gains = (large - small).float()
        targets = (gains > 0).float() if config.target == "better" else gains
        features = posthoc_features(logps, mask, config, extra) if len(logps) else torch.zeros(0, 1)
        head_training.check_examples("PostHocRule.fit", features, targets)
        if bool((targets == targets[0]).all()):
            raise ParameterError("PostHocRule.fit", "targets", "different between items", f"{targets[0]:g} everywhere")
        split = head_training.split_rows(len(features), settings)
        network = head_training.initialised(lambda: PostHocNetwork(config), features[split.train], settings.seed)
        binary = config.target == "better"
        loss = nn.functional.binary_cross_entropy_with_logits if binary else nn.functional.mse_loss
        history = head_training.train(network, features, targets, loss, split=split, settings=settings, advance=advance)
        _calibrate(network, features[split.held_out], targets[split.held_out], loss)
        report = {"epochs": len(history.training), "best_epoch": history.best}
        report |= {"items": len(features), "held_out": len(split.held_out)}
        return cls(network, config, report=report)

    def save(self, folder: str | Path) -> None:
        """Write ``head.safetensors`` and ``head.json`` into a folder."""
        save_head(folder, KIND, self.network, {"config": asdict(self.config), "report": self.report})

    @classmethod
    def load(cls, folder: str | Path) -> PostHocRule:
        """Read a rule from a folder; no code from the files runs.

        Raises:
            FileFormatError: the folder holds no post-hoc rule, or a damaged one.
        """
        state, metadata = load_head(folder, KIND)
        config, network = build_network(_network, metadata, state, KIND)
        if not isinstance(metadata.get("report"), dict):
            raise FileFormatError(f"{KIND}: {folder} must hold a report, got none; train it again")
        return cls(network, config, report=metadata["report"])


def _network(content: Mapping[str, Any]) -> tuple[PostHocRuleConfig, PostHocNetwork]:
    """Return the configuration and the untrained network of a file."""
    config = PostHocRuleConfig(**content)
    return config, PostHocNetwork(config)


@torch.enable_grad()
def _calibrate(network: PostHocNetwork, features: Tensor, targets: Tensor, loss: Loss) -> None:
    """Fit slope and offset on held-out rows (Platt scaling); a negative or infinite slope is discarded.

    Args:
        network: receives slope and offset.
        features, targets: the held-out rows. Nothing changes for fewer than two rows or equal targets.
        loss: the loss that the network was trained with.
    """
    if len(features) < 2 or bool((targets == targets[0]).all()):
        return
    with torch.no_grad():
        output = network(features)
    line = torch.tensor([1.0, 0.0], requires_grad=True)
    optimiser = torch.optim.LBFGS([line], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        # The penalty pulls towards the identity; without it separable data would give an infinite slope.
        value = loss(line[0] * output + line[1], targets) + 1e-3 * ((line[0] - 1) ** 2 + line[1] ** 2)
        value.backward()
        return value

    optimiser.step(closure)
    slope, offset = line.detach()
    if float(slope) > 0 and bool(torch.isfinite(line).all()):
        network.slope.copy_(slope)
        network.offset.copy_(offset)
