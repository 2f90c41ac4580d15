"""`Goose`: drafts as a tree that is deep where the text repeats and wide elsewhere, verified in one forward.

Source: arXiv:2604.02047 (GOOSE). Changes: the steps of a chain apply to every token, tokens may be sampled, and the
confidence of a match counts the tokens that agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from logitkit.errors import ModeError
from logitkit.params import checked, whole
from logitkit.processors.engine.draft_tree import DraftTree
from logitkit.processors.engine.tree_check import check_tree
from logitkit.processors.engine.tree_node import Node
from logitkit.processors.searches.certainty import self_certainty
from logitkit.processors.searches.draft_shape import DraftShape
from logitkit.processors.searches.draft_sources import ContextMatcher, TransitionTable
from logitkit.processors.searches.random_numbers import draw, uniform
from logitkit.processors.searches.run import Found, SearchRun
from logitkit.processors.searches.search import Search
from logitkit.processors.transformers_api import CACHE

KNOWN_INPUTS = {"attention_mask", "position_ids", "cache_position", "use_cache", "logits_to_keep", CACHE}

Budget = Annotated[int, whole("tokens that one forward reads; up to two thirds more where the text repeats", ge=1)]


class Goose(Search):
    """Decode as without the search, with several tokens from one forward (GOOSE, arXiv:2604.02047).

    Drafts come from earlier occurrences of the end of the text and from the predictions of earlier forwards. One
    forward reads all drafts as a tree. The next token is chosen under the whole chain, greedily or at random; while it
    is a draft, the forward has its next distribution too. The chain never sees a rejected draft, so the tokens are
    those of plain decoding under any chain: drafts decide the time alone.
    Prompts, and several sequences of one prompt, are decoded one after another.

    Args:
        budget: number of tokens that one forward reads; up to two thirds more where the text repeats.

    Example:
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> ids = tiny_tokenizer()("abababab", return_tensors="pt").input_ids
        >>> plain = tiny_model().generate(ids, do_sample=False, max_new_tokens=12)
        >>> goose = tiny_model().generate(ids, do_sample=False, max_new_tokens=12, custom_generate=Goose(budget=20))
        >>> bool((goose == plain).all())
        True
    """

    name: ClassVar[str] = "goose"
    samples: ClassVar[bool] = False
    alike: ClassVar[bool] = True

    @checked
    def __init__(self, *, budget: Budget = 60) -> None:
        self.budget = budget

    def check(self, run: SearchRun) -> None:
        """Refuse models that read no trees, and prompts that hold more than tokens.

        Raises:
            ModelError: an encoder-decoder, a recurrent model, or one that reads trees wrongly.
            ModeError: inputs besides tokens.
        """
        check_tree(run.model, DraftTree)
        further = sorted(name for name, value in run.inputs.items() if value is not None and name not in KNOWN_INPUTS)
        if further:
            raise ModeError(
                f"goose: prompts must hold tokens alone, got {further[0]}; leave it out, or leave goose out"
            )

    def search(self, run: SearchRun) -> Found:
        """Decode every sequence of every prompt; see the class."""
        rows: list[Tensor] = []
        logp: list[float] = []
        certainty: list[float] = []
        forwards = drafts = accepted = 0
        for prompt in range(run.prompts):
            for copy in range(run.wanted):
                decoder = _Decoder(run, self.budget, prompt, copy)
                rows.append(decoder.decode())
                logp.append(decoder.logp)
                certainty.append(decoder.certainty / max(1, len(rows[-1]) - run.start))
                forwards, drafts = forwards + decoder.forwards, drafts + decoder.drafts
                accepted += decoder.accepted
        new = sum(len(row) - run.start for row in rows)
        run.cost.notes |= {"new tokens a forward": new / forwards, "drafts": drafts, "accepted drafts": accepted}
        ids = torch.full((len(rows), max(map(len, rows))), run.padding, device=run.ids.device)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
        values = torch.tensor([logp, certainty], dtype=torch.float64, device=ids.device)
        return Found(ids=ids, logp=values[0], certainty=values[1] if run.measures_certainty else None)


class _Decoder:
    """Decodes one sequence of one prompt.

    Args:
        run: the run of the search.
        budget: tokens that one forward reads.
        prompt, copy: numbers of the prompt and of its sequence.

    Attributes:
        forwards: forwards of trees.
        drafts, accepted: drafted tokens, and those among them that were chosen.
        logp: log-probability of the new tokens under the chain, nats.
        certainty: sum of the self-certainty of the new tokens, nats; 0 where the run does not measure it.
    """

    def __init__(self, run: SearchRun, budget: int, prompt: int, copy: int) -> None:
        self.run, self.prompt, self.copy = run, prompt, copy
        self.ids = run.ids[prompt : prompt + 1]
        self.tree, self.shape = DraftTree(run.model), DraftShape(budget)
        self.matcher, self.table = ContextMatcher(), TransitionTable()
        self.forwards = self.drafts = self.accepted = 0
        self.logp = self.certainty = 0.0

    def decode(self) -> Tensor:
        """Return the tokens of the row, prompt included, ``[length]``."""
        mask = self.run.inputs.get("attention_mask")
        row = self.ids[0] if mask is None else self.ids[0][mask[self.prompt].bool()]
        tokens: list[int] = row.tolist()
        self.matcher.extend(tokens)
        self.tree.start(tokens, self._read)
        last, going = tokens[-1], True
        while going:
            last, going = self._pass(last)
        return self.ids[0]

    def _pass(self, last: int) -> tuple[int, bool]:
        """Read the last token and drafts behind it, and choose tokens as far as the drafts reach.

        Returns:
            The last token that was chosen, which no forward has read, and whether the row goes on.
        """
        root = self.tree.draft(self.tree.end, last)
        spine, branches = self.shape.drafts(root, self.matcher, self.table, self.tree.draft, self._deepest())
        nodes = [root, *spine, *branches]
        logits = self.tree.feed(nodes)
        self._read(nodes, logits)
        self.forwards, self.drafts = self.forwards + 1, self.drafts + len(nodes) - 1
        place = {id(node): number for number, node in enumerate(nodes)}
        path = [root]
        while True:
            token, going = self._choose(logits[place[id(path[-1])]][None])
            if not going or token not in path[-1].children:
                break
            path.append(path[-1].children[token])
        self.accepted += len(path) - 1
        self.shape.note(sum(one is other for one, other in zip(path[1:], spine, strict=False)), len(spine))
        self.tree.keep_path(path)
        return token, going

    def _deepest(self) -> int:
        """Return how many drafts may stand behind one another: the last token of a row is never read."""
        left = self.run.start + self.run.max_new_tokens - self.ids.shape[1] - 1
        room = self.tree.room()
        return max(0, left if room is None else min(left, room - 1))

    def _choose(self, logits: Tensor) -> tuple[int, bool]:
        """Choose the next token under the chain and append it; return it, and whether the row goes on.

        Args:
            logits: of the model after the row, fp32 ``[1, vocab]``.
        """
        step = self.ids.shape[1] - self.run.start
        law = self._law(logits)
        if self.run.sampling:
            token = draw(law, uniform(self.run.seeds[self.prompt : self.prompt + 1], self.copy, step))
        else:
            token = law.argmax(-1)
        self.logp += float(law[0, token])
        if self.run.measures_certainty:
            self.certainty += float(self_certainty(logits))
        self.ids = torch.cat([self.ids, token[:, None].to(self.ids.device)], dim=1)
        chosen = int(token)
        self.matcher.extend([chosen])
        return chosen, not bool(self.run.stopping_criteria(self.ids, None).all())

    def _law(self, logits: Tensor) -> Tensor:
        """Return the law of the next token, ``[1, vocab]``.

        Processors of `generate` may know the padding of each row of the batch by its place, so the row stands at its
        place among copies of itself.
        """
        copies = int(self.run.generation_config.num_return_sequences or 1)
        rows, place = self.run.prompts * copies, self.prompt * copies + self.copy % copies
        return self.run.law(self.ids.expand(rows, -1), logits.expand(rows, -1))[place : place + 1]

    def _read(self, nodes: Sequence[Node], logits: Tensor) -> None:
        """Note what a forward has read and predicted."""
        self.run.count(1, len(nodes), self.tree)
        contexts = [(-1 if node.parent is None else node.parent.token, node.token) for node in nodes]
        self.table.add(contexts, logits)
