"""Two streams for the price of one: second prompts of the generating model ride in its own forward.

Decoding reads the weights once a step whatever the batch, so a doubled batch costs far less than two
forwards. `Fusion` doubles it: while `generate` runs, every forward over the cache that it was handed
takes the rows and, below them, their second prompts, left-padded together; `generate` sees its own rows
only, and each `Reader` is handed its logits. Sampling, streaming and stopping stay transformers' own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from logitkit.processors.prompts import Prompts
from logitkit.processors.reader import EncoderDecoderReader, Reader, text_config
from logitkit.processors.trace import Trace

# Settings of generate under which rows are reordered, rewound, or kept in a cache of another kind.
OBSTACLES: dict[str, Callable[[Any], bool]] = {
    "num_beams": lambda value: value > 1,
    "use_cache": lambda value: not value,
    "output_attentions": bool,
    "output_hidden_states": bool,
    "prompt_lookup_num_tokens": bool,
    "prefill_chunk_size": bool,
}
OBSTACLES |= dict.fromkeys(
    ("assistant_model", "cache_implementation", "past_key_values", "custom_generate"), lambda value: value is not None
)
TRIAL = 24  # steps after which a stream that is rarely asked is weighed ...
RARELY = 0.5  # ... if it was asked at fewer than this share of them
MARGIN = 0.1  # plain steps that reading along alone must save: opening its cache is not free
_COSTS: WeakKeyDictionary[Any, dict[tuple[int, int], float]] = WeakKeyDictionary()  # measured once a model


def obstacle(model: Any, readers: Sequence[Any], prompts: Prompts, setting: Callable[[str], Any]) -> str | None:
    """Say what keeps these readers out of the generating model's forward, or None.

    Args:
        model: the generating model.
        readers: the second streams that the chain asks.
        prompts: the prompts of the call.
        setting: the value that `generate` will use, by its name; None: not set.
    """
    if not readers:
        return "no stream reads along"
    if not all(isinstance(reader, Reader) and reader.model is model for reader in readers):
        return "a stream is another model's"
    if any(isinstance(reader, EncoderDecoderReader) for reader in readers):
        return "the prompt is read in an encoder"
    for name, hinders in OBSTACLES.items():
        if setting(name) is not None and hinders(setting(name)):
            return f"{name}={setting(name) if isinstance(setting(name), (int, str)) else '...'}"
    if any(DynamicCache(config=text_config(model)).is_linear):
        return "a recurrent state cannot be padded"
    width = max(reader.width for reader in readers)
    if width > 2 * prompts.width and width > prompts.width + 256:
        return f"a second prompt of {width} tokens beside {prompts.width} would be mostly padding"
    return None


class Fusion:
    """The second streams of one `generate` call, in one forward with its rows. A context manager.

    Args:
        model: the generating model.
        readers: the streams to carry; all of this model.
        trace: where the choice and its reason go.
        may_part: whether streams that are rarely asked may go back to reading along alone.

    Attributes:
        cache: must be handed to `generate` as ``past_key_values``; other forwards of the model are left alone.
    """

    def __init__(self, model: Any, readers: Sequence[Reader], *, trace: Trace, may_part: bool = True) -> None:
        self.model, self.streams, self.trace = model, tuple(dict.fromkeys(readers)), trace
        self.may_part = may_part
        self.cache = DynamicCache(config=text_config(model))
        self._seen: Tensor | None = None  # generate's own rows so far, [rows, length]
        self._mask = torch.empty(0)  # of all streams, [streams * rows, length]
        self._positions = torch.empty(0)  # of the last token of each row, [streams * rows, 1]
        self._steps, self._asked = 0, [0] * len(self.streams)

    def __enter__(self) -> Fusion:
        self.trace.fusion = f"fused: one forward carries {1 + len(self.streams)} rows for each one"
        self._hooks = [
            self.model.register_forward_pre_hook(self._widen, with_kwargs=True),
            self.model.register_forward_hook(self._share_out, with_kwargs=True),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        for reader in self.streams:
            reader.give(None)

    def _widen(self, _: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Put the second streams below the rows of a forward."""
        if kwargs.get("past_key_values") is not self.cache:
            return None
        ids: Tensor = kwargs["input_ids"]
        if self._seen is None:
            chunk, positions = self._open(ids, kwargs.get("attention_mask"))
        else:
            self._count()
            self._seen = torch.cat([self._seen, ids], dim=1)
            chunk = ids.repeat(1 + len(self.streams), 1)
            self._mask = torch.cat([self._mask, torch.ones_like(chunk)], dim=1)
            self._positions = self._positions + 1
            positions = self._positions
        widened = {"input_ids": chunk, "attention_mask": self._mask}
        if "position_ids" in kwargs or (self.streams and self.streams[0].takes_positions):
            widened["position_ids"] = positions
        return args, kwargs | widened

    def _open(self, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Stack the prompts of all streams: ids and positions, ``[streams * rows, width]``, padded on the left."""
        self._seen = ids
        stacked = [(ids, torch.ones_like(ids) if mask is None else mask)]
        stacked += [reader.own_rows(ids) for reader in self.streams]
        width = max(part.shape[1] for part, _ in stacked)
        padded = [[pad(tensor.to(ids.device), (width - tensor.shape[1], 0)) for tensor in stream] for stream in stacked]
        chunk, self._mask = (torch.cat(tensors) for tensors in zip(*padded, strict=True))
        positions = (self._mask.cumsum(-1) - 1).clamp_min(0)
        self._positions = positions[:, -1:]
        return chunk, positions

    def _share_out(self, _: Any, __: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """Hand each reader its logits, and `generate` its own rows."""
        if kwargs.get("past_key_values") is not self.cache or self._seen is None:
            return None
        rows = self._seen.shape[0]
        for place, reader in enumerate(self.streams, start=1):
            reader.give(self._seen, output.logits[place * rows : (place + 1) * rows, -1])
        output.logits = output.logits[:rows]
        return output

    def _count(self) -> None:
        """Count who was asked since the last forward; after the trial, part where that is cheaper."""
        self._steps += 1
        self._asked = [count + reader.taken for count, reader in zip(self._asked, self.streams, strict=True)]
        if self._steps != TRIAL or not self.streams or not self.may_part:
            return
        shares = [count / TRIAL for count in self._asked]
        if min(shares) >= RARELY:
            return
        rows = len(self._positions) // (1 + len(self.streams))
        fused, alone = fused_cost(self.model, rows, 1 + len(self.streams)), 1 + sum(shares)
        told = f"a fused step costs {fused:.2f} plain ones, asking alone {alone:.2f} (gate open at {sum(shares):.2f})"
        if fused <= alone + MARGIN:
            self.trace.fusion += f"; {told}"
            return
        self._part(rows)
        self.trace.fusion = f"lazy after {TRIAL} fused steps: {told}"

    def _part(self, rows: int) -> None:
        """Drop the second streams; from here each reads along alone, when it is asked."""
        for reader in self.streams:
            reader.give(None)
        self.streams = ()
        self.cache.batch_select_indices(torch.arange(rows, device=self._mask.device))
        self._mask, self._positions = self._mask[:rows], self._positions[:rows]


def fused_cost(model: Any, rows: int, streams: int) -> float:
    """How many plain one-token forwards a fused one costs; measured once for a model and a batch size."""
    known = _COSTS.setdefault(model, {})
    if (rows, streams) not in known:
        known[rows, streams] = _seconds(model, rows * streams) / _seconds(model, rows)
    return known[rows, streams]


@torch.no_grad()
def _seconds(model: Any, rows: int) -> float:
    """Seconds of one forward of one token a row, the better of two."""
    took = []
    for _ in range(2):
        begun = time.perf_counter()
        ids = torch.zeros((rows, 1), dtype=torch.long, device=model.device)
        float(model(input_ids=ids, use_cache=False).logits[0, -1, 0])  # waits for the device
        took.append(time.perf_counter() - begun)
    return min(took)
