"""Chains under vLLM's V2 model runner: requests live in slots, and rows of scores in any order.

The interface, as of vLLM 0.32 and 0.33 (vllm/v1/worker/gpu/sample/logits_processor/interface.py): ``add_request(slot,
params)`` tells the arguments of a request that enters a slot, which another request may have left. Before each step
``apply_staged_writes()`` is called, and then ``apply(logits, ctx)`` once for all rows. Under speculative decoding a
request has one row for each draft token; committed tokens are on the device, in ``req_states.all_token_ids``, and those
of the drafts in ``ctx.input_ids`` alone. A chain is a function of the tokens of a row, so drafts need nothing else.

This module imports nothing of vLLM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from logitkit.processors.engine.composite import Composite
from logitkit.registry.chain import Chain


class SlotChains:
    """The chains of the requests in the slots of a V2 model runner.

    Args:
        req_states: tokens and lengths of all slots, on the device: ``all_token_ids.gpu`` [slots, length] and
            ``prompt_len.np`` [slots].
        chain_of: returns the chain of a request from its sampling parameters, or None.
        bound: returns a chain bound to the token ids of a prompt.
    """

    def __init__(
        self, req_states: Any, chain_of: Callable[[Any], Chain | None], bound: Callable[[Chain, list[int]], Composite]
    ) -> None:
        self._states, self._chain_of, self._bound = req_states, chain_of, bound
        self._chains: dict[int, Chain] = {}
        self._composites: dict[int, Composite] = {}

    def add_request(self, slot: int, params: Any) -> bool:
        """Forget what was in a slot; return whether the request that enters it has a chain."""
        self._composites.pop(slot, None)
        self._chains.pop(slot, None)
        chain = self._chain_of(params)
        if chain is not None:
            self._chains[slot] = chain
        return chain is not None

    def apply(self, logits: Tensor, ctx: Any) -> Tensor:
        """Return scores [rows, vocabulary] with the chain of each row's request applied; the device is read once.

        Args:
            logits: float32 [rows, vocabulary]; changed in place.
            ctx: the layout of the step: ``expanded_idx_mapping``, ``expanded_local_pos``, ``pos`` and ``input_ids``,
                each [rows].
        """
        if not self._chains or self._chains.keys().isdisjoint(ctx.idx_mapping_np.tolist()):
            return logits
        layout = torch.stack([ctx.expanded_idx_mapping.long(), ctx.expanded_local_pos.long(), ctx.pos.long()])
        for row, (slot, drafts, place) in enumerate(layout.T.tolist()):
            if slot in self._chains:
                committed = self._states.all_token_ids.gpu[slot, : place + 1 - drafts]
                drafted = ctx.input_ids[row - drafts + 1 : row + 1]
                tokens = torch.cat([committed.long(), drafted.long()])
                logits[row] = self._composite(slot)(tokens[None], logits[row][None])[0].to(logits.dtype)
        return logits

    def _composite(self, slot: int) -> Composite:
        """Return the chain of a slot, bound to its prompt, which is on the device before the first step."""
        if slot not in self._composites:
            length = int(self._states.prompt_len.np[slot])
            prompt = self._states.all_token_ids.gpu[slot, :length].tolist()
            self._composites[slot] = self._bound(self._chains[slot], prompt)
        return self._composites[slot]
