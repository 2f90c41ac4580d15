"""A search and a selector as the ``custom_generate`` callable of one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteriaList

from logitkit.errors import ModeError
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.dead_ends import DeadEnds
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.search_report import SearchReport
from logitkit.processors.engine.trace import Trace
from logitkit.processors.searches.prepared import by_prompt, one_row_per_prompt, refuse_settings
from logitkit.processors.searches.resampling import resampled
from logitkit.processors.searches.run import Found, SearchRun
from logitkit.processors.searches.search import Sampling, Search
from logitkit.processors.searches.selector import SAMPLES, Candidates, Selector


class BoundSearch:
    """Runs a search, then a selector, and returns the sequences as `generate` does.

    Args:
        search: finds sequences.
        selector: orders them; None: there is none, and the sequences follow their weights.
        prompts, settings, tokenizer, trace: of the call; None: the search runs without a chain.

    Attributes:
        returned: number of sequences of each prompt to return; None: ``num_return_sequences`` of `generate`.
        seeds: one seed for each prompt; None: they follow the global random generator, as in `generate`.
        streamer: receives the prompts and, when the search has ended, the new tokens; None: nothing does.
        log_weights: normalised log-weights of the returned sequences, float64 ``[prompts, returned]``; None before.

    Example:
        >>> from logitkit.processors.searches import Sampling
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> ids, search = tiny_tokenizer()("ab", return_tensors="pt").input_ids, BoundSearch(Sampling())
        >>> settings = {"do_sample": True, "max_new_tokens": 3, "pad_token_id": 0}
        >>> tiny_model().generate(ids, custom_generate=search, **settings).shape, search.log_weights.tolist()
        (torch.Size([1, 5]), [[0.0]])
    """

    def __init__(
        self,
        search: Search,
        selector: Selector | None = None,
        *,
        prompts: Prompts | None = None,
        settings: CallSettings | None = None,
        tokenizer: Any = None,
        trace: Trace | None = None,
    ) -> None:
        self.search, self.selector = search, selector
        self.prompts, self.settings, self.tokenizer, self.trace = prompts, settings, tokenizer, trace
        self.returned: int | None = None
        self.seeds: Sequence[int] | None = None
        self.streamer: Any = None
        self.log_weights: Tensor | None = None
        self._dead_ends = DeadEnds() if prompts is None else prompts.dead_ends

    @property
    def name(self) -> str:
        """Name of the search; of the selector where the chain has no search of its own."""
        return self.search.name if self.selector is None or type(self.search) is not Sampling else self.selector.name

    @property
    def fuses(self) -> bool:
        """Whether forwards of the search may hold the rows of second streams besides."""
        return self.search.fuses

    @torch.no_grad()
    def __call__(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        generation_config: Any = None,
        **model_kwargs: Any,
    ) -> Tensor:
        """Generate; arguments and errors as in `Search.__call__`."""
        self.log_weights = None
        refuse_settings(self.name, generation_config, model_kwargs, getattr(model, "generation_config", None))
        self._refuse_prompts_without_tokens(input_ids)
        copies = int(generation_config.num_return_sequences or 1)
        ids, inputs = one_row_per_prompt(input_ids, model_kwargs, copies)
        returned = self.returned or copies
        run = SearchRun(
            model=model,
            ids=ids,
            inputs=inputs,
            processors=by_prompt(logits_processor, ids, in_encoder=model.config.is_encoder_decoder),
            stopping_criteria=StoppingCriteriaList() if stopping_criteria is None else stopping_criteria,
            generation_config=generation_config,
            wanted=self.wanted(returned, bool(generation_config.do_sample)),
            seeds=self._seeds(len(ids)).to(ids.device),
            tokenizer=self.tokenizer,
            settings=self.settings,
            measures_certainty=self.selector is not None and self.selector.needs_certainty,
            checks=None if self.prompts is None else self.prompts.deferred_checks,
            streams={} if self.trace is None else self.trace.readers,
            name=self.name,
            dead_ends=self._dead_ends if self.search.drops else None,
        )
        self.search.check(run)
        chosen = self._chosen(run, found := self._found(run), returned)
        self._report(run, found)
        self.log_weights = chosen.weights_of(run.prompts).cpu()
        if self.streamer is not None:
            self.streamer.put(chosen.ids[:, run.start :].cpu())
            self.streamer.end()
        return chosen.ids

    def _refuse_prompts_without_tokens(self, input_ids: Tensor) -> None:
        """Refuse prompts that are embeddings alone.

        Raises:
            ModeError: names the way out.
        """
        if not input_ids.shape[1]:
            raise ModeError(
                f"{self.name}: prompts must hold tokens, got inputs_embeds alone; pass their input_ids besides"
            )

    def _found(self, run: SearchRun) -> Found:
        """Run the search; the streamer gets the prompts before it, and the peak memory of a GPU counts from here."""
        if self.streamer is not None:
            self.streamer.put(run.ids.cpu())
        if run.ids.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(run.ids.device)
        with self._dead_ends.dropped(self.search.drops):
            return self.search.search(run)

    def wanted(self, returned: int, sampling: bool) -> int:
        """Return how many sequences of each prompt the search is to find.

        Args:
            returned: sequences of each prompt to return.
            sampling: whether `generate` was told to sample.

        Raises:
            ModeError: more sequences than the search finds or the selector chooses from, or several equal ones.
        """
        if self.selector is None:
            owner, number, chosen_from = self.search.name, "num_return_sequences", returned
        else:
            owner, number = self.selector.name, "n"
            alone, most = self.search.sequences(1), max(SAMPLES, returned)
            chosen_from = self.selector.n or (alone if alone > 1 else min(most, self.search.sequences(most)))
            if chosen_from < returned:
                raise ModeError(
                    f"{owner}: num_return_sequences must be at most n, the {chosen_from} sequences to choose from, "
                    f"got {returned}; raise n"
                )
        found = self.search.sequences(chosen_from)
        if found < chosen_from:
            way_out = "raise its number of particles or beams, or ask for fewer" if found > 1 else f"leave {number} out"
            raise ModeError(
                f"{self.search.name}: {number} must be at most {found}, the sequences that the search finds for each "
                f"prompt, got {chosen_from}; {way_out}"
            )
        if self.search.alike and chosen_from > 1 and not (sampling and self.search.draws):
            way_out = "pass do_sample=True, or write" if self.search.draws else "write"
            raise ModeError(
                f"{owner}: {number} must be 1 where {self.search.name} draws no token, since the sequences of a prompt "
                f"would all be equal, got {chosen_from}; {way_out} {number}=1"
            )
        return chosen_from

    def _seeds(self, prompts: int) -> Tensor:
        """Return one seed for each prompt, int64 ``[prompts]``."""
        if self.seeds is not None:
            return torch.tensor([int(seed) for seed in self.seeds])
        first = int(torch.randint(2**62, ()))
        return torch.tensor([first + number for number in range(prompts)])

    def _chosen(self, run: SearchRun, found: Found, returned: int) -> Found:
        """Return the sequences to return: the best ones of the selector, or a sample that follows the weights."""
        count = len(found.ids) // run.prompts
        if self.selector is None:
            return found if count == returned else resampled(found, run, returned)
        if count != run.wanted:
            found, count = resampled(found, run, run.wanted), run.wanted
        kept: list[int] = []
        for number in range(run.prompts):
            order = self.selector(self._candidates(run, found, number, count))
            kept += [number * count + place for place in order[:returned]]
        return found.kept(torch.tensor(kept, device=found.ids.device), None)

    def _candidates(self, run: SearchRun, found: Found, number: int, count: int) -> Candidates:
        """Return the sequences of one prompt."""
        rows = slice(number * count, (number + 1) * count)
        tails = found.ids[rows, run.start :].tolist()
        tokens = [self._without_padding(run, tail) for tail in tails]
        texts = [] if run.tokenizer is None else run.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return Candidates(
            prompt="" if self.prompts is None else self.prompts.texts[number],
            texts=texts or [" ".join(map(str, each)) for each in tokens],
            tokens=tokens,
            logp=found.logp[rows].cpu(),
            weights=found.weights_of(run.prompts)[number].exp().cpu(),
            certainty=None if found.certainty is None else found.certainty[rows].cpu(),
            sampled=found.sampled,
        )

    def _without_padding(self, run: SearchRun, tail: list[int]) -> list[int]:
        """Return new tokens up to the end token."""
        if self.settings is not None:
            return self.settings.without_padding(tail)
        end = next((place + 1 for place, token in enumerate(tail) if token in run.end_tokens), len(tail))
        return tail[:end]

    def _report(self, run: SearchRun, found: Found) -> None:
        """Put cost and diagnostics into the trace."""
        if self.trace is None:
            return
        device = run.ids.device
        self.trace.search = SearchReport(
            search=self.search.name,
            selector=None if self.selector is None else self.selector.name,
            forwards=run.cost.forwards,
            tokens=run.cost.tokens,
            peak_rows=run.cost.peak_rows,
            peak_cache_bytes=run.cost.peak_cache_bytes,
            peak_device_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            sequences=len(found.ids) // run.prompts,
            log_z=() if found.log_z is None else tuple(found.log_z.tolist()),
            notes=dict(run.cost.notes),
        )
