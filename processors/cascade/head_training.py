"""Train a small network on features: minibatches, early stopping on held-out rows, the best state kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from logitkit.errors import ParameterError

Loss = Callable[[Tensor, Tensor], Tensor]


class Standardised(nn.Module):
    """A network that shifts and scales its ``size`` features first."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mean, self.scale = nn.Buffer(torch.zeros(size)), nn.Buffer(torch.ones(size))

    def standardised(self, features: Tensor) -> Tensor:
        """The features as the layers see them."""
        return (features - self.mean) / self.scale


Network = TypeVar("Network", bound=Standardised)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How a training went: mean losses of every epoch, and which was best on the held-out rows."""

    training: list[float]
    held_out: list[float]
    best: int


def check_examples(owner: str, features: Tensor, targets: Tensor) -> None:
    """Refuse examples that nothing can be learned from, before anything is trained.

    Raises:
        ParameterError: none, another number of targets, NaN or infinite features or targets.
    """
    if not len(features) or len(features) != len(targets):
        raise ParameterError(
            owner, "examples", "at least one, each with a target", f"{len(features)} and {len(targets)} targets"
        )
    for name, values in (("features", features), ("targets", targets)):
        bad = ~torch.isfinite(values.reshape(len(values), -1)).all(-1)
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise ParameterError(owner, name, "finite numbers", f"NaN or infinity in row {row}", "leave such rows out")


def split(count: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Shuffle row numbers into those to train on and at least one (if there are two) held out."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held = min(max(1, round(count * share)), count - 1) if count > 1 else 0
    return order[held:], order[:held]


def begun(make: Callable[[], Network], rows: Tensor, seed: int) -> Network:
    """A new network with seeded weights, that standardises features like these rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
    network.mean.copy_(rows.mean(0))
    network.scale.copy_(rows.std(0, correction=0).clamp_min(1e-3))
    return network


def fit(
    network: nn.Module,
    features: Tensor,
    targets: Tensor,
    loss: Loss,
    *,
    train: Tensor,
    held_out: Tensor,
    epochs: int,
    patience: int,
    rate: float,
    decay: float,
    batch: int,
    seed: int,
    advance: Callable[[], None] = lambda: None,
) -> Fitted:
    """Train with AdamW until the held-out loss has not fallen for ``patience`` epochs; the best state stays.

    Args:
        network: ``[rows, features] -> [rows]``.
        features, targets: all rows, ``[rows, features]`` and ``[rows]``.
        loss: mean loss of outputs and targets.
        train, held_out: row numbers; without held-out rows the last state stays.
        epochs, patience, rate, decay, batch: the usual.
        seed: of the shuffling and of dropout.
        advance: called once an epoch.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    generator = torch.Generator().manual_seed(seed)
    history: tuple[list[float], list[float]] = ([], [])
    best, kept = 0, copy.deepcopy(network.state_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for epoch in range(epochs):
            network.train()
            total = 0.0
            for rows in train[torch.randperm(len(train), generator=generator)].split(batch):
                if len(rows) == 1 and len(train) > 1:
                    continue  # batch normalisation needs two
                optimiser.zero_grad()
                value = loss(network(features[rows]), targets[rows])
                value.backward()
                optimiser.step()
                total += float(value.detach()) * len(rows)
            history[0].append(total / len(train))
            network.eval()
            rows = held_out if len(held_out) else train
            with torch.no_grad():
                history[1].append(float(loss(network(features[rows]), targets[rows])))
            advance()
            if history[1][-1] <= history[1][best] or not len(held_out):
                best, kept = epoch, copy.deepcopy(network.state_dict())
            elif epoch - best >= patience:
                break
    network.load_state_dict(kept)
    network.eval()
    return Fitted(training=history[0], held_out=history[1], best=best)
