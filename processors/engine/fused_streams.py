"""Two streams for the price of one: second prompts of the generating model ride in its own forward.

Decoding reads the weights once a step whatever the batch, so a doubled batch costs far less than two
forwards. `FusedStreams` doubles it: while `generate` runs, every forward over the cache that it was handed
takes the rows and, below them, their second prompts, left-padded together; `generate` sees its own rows
only, and each `Reader` is handed its logits. Sampling, streaming and stopping stay transformers' own.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from logitkit.processors.engine.composite import Composite
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.streams import FusableStream, Stream
from logitkit.processors.engine.thin_matmul import ThinMatmul, pays
from logitkit.processors.engine.trace import FusionReport
from logitkit.processors.model_facts import text_config

# Settings of generate under which rows are reordered, rewound, or kept in a cache of another kind.
OBSTACLES: dict[str, Callable[[Any], bool]] = {
    "num_beams": lambda value: value > 1,
    "use_cache": lambda value: not value,
    "output_attentions": bool,
    "output_hidden_states": bool,
    "prompt_lookup_num_tokens": bool,
    "prefill_chunk_size": bool,
    "assistant_early_exit": bool,
    "token_healing": bool,
}
OBSTACLES |= dict.fromkeys(
    ("assistant_model", "cache_implementation", "past_key_values", "custom_generate"), lambda value: value is not None
)
TRIAL = 24  # every so many steps a stream that is rarely asked is weighed ...
RARELY = 0.5  # ... if it was asked at fewer than this share of them
MARGIN = 0.1  # plain steps that reading along alone must save: opening its cache is not free
_COSTS: WeakKeyDictionary[Any, dict[tuple[int, bool], float]] = WeakKeyDictionary()  # seconds of a forward by its rows


def fusable_streams(model: Any, streams: Sequence[Stream]) -> list[FusableStream]:
    """Return the streams whose logits a forward of this model can compute beside its own rows."""
    fusable = [cast(FusableStream, stream) for stream in streams if stream.fusable]
    return [stream for stream in fusable if stream.model is model]


def obstacle(model: Any, streams: Sequence[Stream], prompts: Prompts, setting: Callable[[str], Any]) -> str | None:
    """Return the reason why no second stream can be computed in the generating model's forward, or None.

    Args:
        model: the generating model.
        streams: the second streams that the chain declares; at least one.
        prompts: the prompts of the call.
        setting: the value that `generate` will use, by its name; None: not set.
    """
    readers = fusable_streams(model, streams)
    if not readers:
        return "the prompt is read in an encoder" if prompts.in_encoder else "the streams are other models'"
    for name, hinders in OBSTACLES.items():
        if setting(name) is not None and hinders(setting(name)):
            return f"{name}={setting(name) if isinstance(setting(name), (int, str)) else '...'}"
    if getattr(model, "_compiled_call_impl", None) is not None:
        return "the model's forward is compiled as it stands"
    if "cache_position" in inspect.signature(model.forward).parameters:
        return "the model's forward numbers its positions by itself"
    if any(DynamicCache(config=text_config(model)).is_linear):
        return "a recurrent state cannot be padded"
    width = max(reader.width for reader in readers)
    if width > 2 * prompts.width and width > prompts.width + 256:
        return f"a second prompt of {width} tokens beside {prompts.width} would be mostly padding"
    return None


class FusedStreams:
    """The second streams of one `generate` call, in one forward with its rows. A context manager.

    Args:
        composite: the chain; its readers are offered their logits before each of its steps.
        model: the generating model.
        readers: the streams to carry; all of this model.
        may_part: whether streams that are rarely asked may go back to reading along alone.
        cost: how many plain forwards one of so many times the rows costs, of (model, rows, times).

    Attributes:
        cache: must be handed to `generate` as ``past_key_values``; other forwards of the model are left alone.
    """

    def __init__(
        self,
        composite: Composite,
        model: Any,
        readers: Sequence[FusableStream],
        *,
        may_part: bool = True,
        cost: Callable[[Any, int, int], float] | None = None,
    ) -> None:
        self.composite, self.model, self.streams = composite, model, tuple(dict.fromkeys(readers))
        self.trace, self.may_part, self.cost = composite.trace, may_part, cost or fused_cost
        self.cache = DynamicCache(config=text_config(model))
        self._takes_positions = readers[0].takes_positions
        self._seen: Tensor | None = None  # generate's own rows so far, [rows, length]
        self._index = self._mask = self._positions = torch.empty(0)  # set with the first forward
        self._answers: tuple[Tensor, ...] = ()  # of the last forward, [rows, vocab] a stream
        self._products = ExitStack()  # holds while a fused forward runs
        self._steps, self._asked = 0, [torch.tensor(0)] * len(self.streams)

    def __enter__(self) -> FusedStreams:
        # The first forward of the model replaces this report.
        self.trace.fusion = FusionReport(state="lazy", reason="generate called no forward of this model")
        self.composite.prefetcher = self
        self._hooks = [
            self.model.register_forward_pre_hook(self._widen, with_kwargs=True),
            self.model.register_forward_hook(self._share_out, with_kwargs=True, always_call=True),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._products.close()
        self.invalidate()
        self.composite.prefetcher = None

    def prefetch(self, rows: Tensor) -> Tensor | None:
        """Store the last forward's logits in the streams; see `Prefetcher.prefetch`."""
        if self._seen is None or not self.streams or rows.shape != self._seen.shape:
            return None
        for stream, logits in zip(self.streams, self._answers, strict=True):
            stream.set_prefetched(rows, logits)
        self.composite.prompts.prompt_index_memo.put(self._index, rows)
        return (rows == self._seen).all()

    def invalidate(self) -> None:
        """Drop the stored logits."""
        for stream in self.streams:
            stream.clear_prefetched()
        self.composite.prompts.prompt_index_memo.clear()

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
            positions = self._positions = self._positions + 1
        # A mask without padding says nothing, and the model would read it at every step to find that out.
        widened: dict[str, Any] = {"input_ids": chunk, "attention_mask": self._mask if self._padded else None}
        if self._takes_positions:
            widened["position_ids"] = positions
        if self.streams and chunk.shape[1] == 1 and pays(self.model, len(chunk)):
            self._products.enter_context(ThinMatmul())
        return args, kwargs | widened

    def _open(self, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Stack the prompts of all streams: ids and positions, ``[streams * rows, width]``, padded on the left."""
        width = 1 + len(self.streams)
        self.trace.fusion = FusionReport(
            state="fused", reason=f"each forward computes {width} rows for each row of generate", rows_per_row=width
        )
        self._seen, self._index = ids, self.composite.prompts.rows(ids)
        stacked = [(ids, torch.ones_like(ids) if mask is None else mask)]
        stacked += [reader.own_rows(self._index) for reader in self.streams]
        width = max(part.shape[1] for part, _ in stacked)
        padded = [[pad(tensor.to(ids.device), (width - tensor.shape[1], 0)) for tensor in stream] for stream in stacked]
        chunk, self._mask = (torch.cat(tensors) for tensors in zip(*padded, strict=True))
        self._padded = not bool(self._mask.all())
        positions = (self._mask.cumsum(-1) - 1).clamp_min(0)
        self._positions = positions[:, -1:]
        return chunk, positions

    def _share_out(self, _: Any, __: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """Keep the readers' logits for them, and leave `generate` its own rows."""
        if kwargs.get("past_key_values") is not self.cache or self._seen is None:
            return None
        self._products.close()
        if output is None:  # the forward failed
            return None
        own, *others = output.logits.split(len(self._seen))
        # Copied, or the logits of a whole prompt would live as long as these.
        self._answers = tuple(logits[:, -1].to(torch.float32, copy=True) for logits in others)
        output.logits = own
        return output

    def _count(self) -> None:
        """Count who was asked since the last forward; now and then, part where that is cheaper."""
        if not self.may_part or not self.streams:
            return
        self._steps += 1
        pairs = zip(self._asked, self.streams, strict=True)
        self._asked = [count + stream.prefetch_used for count, stream in pairs]
        if self._steps % TRIAL:
            return
        shares = [float(count) / TRIAL for count in self._asked]
        self._asked = [torch.tensor(0)] * len(self.streams)
        if min(shares) < RARELY:
            self._weigh(shares)

    def _weigh(self, shares: Sequence[float]) -> None:
        """Part, or say why not."""
        streams = 1 + len(self.streams)
        rows = len(self._mask) // streams
        fused = self.cost(self.model, rows, streams)
        # Asked at one step in four, a reader catches up by four tokens: one forward, as wide as four rows of one.
        alone = 1 + sum(share * self.cost(self.model, rows, round(1 / share)) for share in shares if share)
        stays = fused <= alone + MARGIN
        rates = " and ".join(f"{share:.2f}" for share in shares)
        costs = f"a fused step costs {fused:.2f} plain steps, separate forwards cost {alone:.2f}"
        self.trace.fusion = FusionReport(
            state="fused" if stays else "lazy",
            reason=f"{costs} (logits requested at {rates} of {self._steps} fused steps)",
            rows_per_row=streams if stays else 1,
            fused_steps=None if stays else self._steps,
            fused_cost=fused,
            separate_cost=alone,
            request_rates=tuple(shares),
        )
        if stays:
            return
        self.invalidate()
        self.streams = ()
        self.cache.batch_select_indices(torch.arange(rows, device=self._mask.device))
        self._mask, self._positions = self._mask[:rows], self._positions[:rows]


def fused_cost(model: Any, rows: int, times: int) -> float:
    """How many forwards of one token a row one of ``times`` the rows costs; measured once a model and batch size.

    The larger one is run as a fused forward is.
    """
    known = _COSTS.setdefault(model, {})
    for size, thin in ((rows, False), (rows * times, times > 1 and pays(model, rows * times))):
        if (size, thin) not in known:
            known[size, thin] = _seconds(model, size, thin)
    return known[rows * times, times > 1 and pays(model, rows * times)] / known[rows, False]


@torch.no_grad()
def _seconds(model: Any, rows: int, thin: bool) -> float:
    """Seconds of one forward of one token a row, the best of three."""
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        ids = torch.zeros((rows, 1), dtype=torch.long, device=model.device)
        with ThinMatmul() if thin else nullcontext():
            float(model(input_ids=ids, use_cache=False).logits[0, -1, 0])  # waits for the device
        took.append(time.perf_counter() - begun)
    return min(took)
