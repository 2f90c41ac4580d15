"""Training of small networks on features: mini-batches, early stopping on held-out rows, the best weights are kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from logitkit.errors import ParameterError

Loss = Callable[[Tensor, Tensor], Tensor]  # (outputs, targets), each [rows] -> mean loss


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of a training run with AdamW.

    Attributes:
        held_out: share of the examples for early stopping, 0 to 1.
        epochs: largest number of epochs.
        patience: epochs without a lower held-out loss after which training stops.
        learning_rate, weight_decay, batch_size: of the optimiser.
        seed: of the split, the initial weights, the shuffling and dropout.

    >>> TrainingSettings(epochs=5).patience
    10
    """

    held_out: float = 0.2
    epochs: int = 50
    patience: int = 10
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4
    batch_size: int = 1024
    seed: int = 0


class Standardised(nn.Module):
    """Base of networks that first shift and scale their features.

    Args:
        size: number of features.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mean, self.scale = nn.Buffer(torch.zeros(size)), nn.Buffer(torch.ones(size))

    def standardised(self, features: Tensor) -> Tensor:
        """Return ``(features - mean) / scale``, ``[rows, size]``."""
        return (features - self.mean) / self.scale


def residual_block(width: int) -> nn.Sequential:
    """Return a block whose output is added to its input, ``[..., width]``."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * width, width)
    )


Network = TypeVar("Network", bound=Standardised)


class Split(NamedTuple):
    """Row numbers to train on and row numbers held out, each ``[count]``."""

    train: Tensor
    held_out: Tensor


@dataclass(kw_only=True)
class TrainingHistory:
    """Mean losses of every epoch, and the number of the epoch whose weights were kept."""

    training: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    best: int = 0


def check_examples(owner: str, features: Tensor, targets: Tensor) -> None:
    """Check examples before training.

    Args:
        owner: name that begins error messages.
        features: ``[rows, features]``.
        targets: ``[rows]``.

    Raises:
        ParameterError: no examples, different numbers of features and targets, or values that are not finite.
    """
    if not len(features) or len(features) != len(targets):
        raise ParameterError(
            owner, "examples", "at least one, each with a target", f"{len(features)} with {len(targets)} targets"
        )
    for name, values in (("features", features), ("targets", targets)):
        bad = ~torch.isfinite(values.reshape(len(values), -1)).all(-1)
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise ParameterError(owner, name, "finite numbers", f"NaN or infinity in row {row}", "leave such rows out")


def split_rows(count: int, settings: TrainingSettings) -> Split:
    """Shuffle row numbers and hold out a share of them; of two or more rows at least one is held out."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(settings.seed))
    held = min(max(1, round(count * settings.held_out)), count - 1) if count > 1 else 0
    return Split(order[held:], order[:held])


def initialised(make: Callable[[], Network], features: Tensor, seed: int) -> Network:
    """Return a new network with seeded weights, which standardises features by the mean and scale of these rows.

    Args:
        make: constructs the network.
        features: the rows to train on, ``[rows, features]``.
        seed: of the initial weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
    network.mean.copy_(features.mean(0))
    network.scale.copy_(features.std(0, correction=0).clamp_min(1e-3))
    return network


def train(
    network: nn.Module,
    features: Tensor,
    targets: Tensor,
    loss: Loss,
    *,
    split: Split,
    settings: TrainingSettings,
    advance: Callable[[], None] = lambda: None,
) -> TrainingHistory:
    """Train until the held-out loss has not fallen for ``patience`` epochs; the best weights are kept.

    Args:
        network: ``[rows, features] -> [rows]``; its weights are changed.
        features, targets: all rows, ``[rows, features]`` and ``[rows]``.
        loss: mean loss of outputs and targets.
        split: rows to train on and to hold out. Without held-out rows the last weights are kept.
        settings: optimiser, epochs and seed.
        advance: called after each epoch.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    generator = torch.Generator().manual_seed(settings.seed)
    history, best_state = TrainingHistory(), copy.deepcopy(network.state_dict())
    evaluated = split.held_out if len(split.held_out) else split.train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        for epoch in range(settings.epochs):
            order = split.train[torch.randperm(len(split.train), generator=generator)]
            history.training.append(_run_epoch(network, features, targets, loss, optimiser, order, settings.batch_size))
            network.eval()
            with torch.no_grad():
                history.held_out.append(float(loss(network(features[evaluated]), targets[evaluated])))
            advance()
            if history.held_out[-1] <= history.held_out[history.best] or not len(split.held_out):
                history.best, best_state = epoch, copy.deepcopy(network.state_dict())
            elif epoch - history.best >= settings.patience:
                break
    network.load_state_dict(best_state)
    network.eval()
    return history


def _run_epoch(
    network: nn.Module,
    features: Tensor,
    targets: Tensor,
    loss: Loss,
    optimiser: torch.optim.Optimizer,
    order: Tensor,
    batch_size: int,
) -> float:
    """Train on every row once, in this order; return the mean loss."""
    network.train()
    total = 0.0
    for rows in order.split(batch_size):
        if len(rows) == 1 and len(order) > 1:
            continue  # batch normalisation needs two rows
        optimiser.zero_grad()
        value = loss(network(features[rows]), targets[rows])
        value.backward()
        optimiser.step()
        total += float(value.detach()) * len(rows)
    return total / len(order)
