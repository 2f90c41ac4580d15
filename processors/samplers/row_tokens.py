"""Which tokens of a row count as its text: neither padding nor the begin token, and the prompt where it is wanted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.prompts import Prompts

__all__ = ["RowTokens"]


class RowTokens:
    """The tokens of rows that penalties count.

    Args:
        prompts: the prompts of the call; None: a row has no prompt and no padding.
        settings: the settings of the call, which know the prompt of a decoder; None: there is no decoder's prompt.
        prompt: whether the tokens of the prompt count. An encoder's prompt never does, since rows do not hold it.
        begin_tokens: ids that never count.

    Example:
        >>> prompts = Prompts(ids=torch.tensor([[0, 5], [6, 7]]), mask=torch.tensor([[0, 1], [1, 1]]),
        ...                   texts=("", ""), messages=(None, None), adds_specials=False)
        >>> rows = torch.tensor([[0, 5, 9], [6, 7, 9]])
        >>> RowTokens(prompts=prompts, prompt=True, begin_tokens=[6])(rows)
        tensor([[False,  True,  True],
                [False,  True,  True]])
    """

    def __init__(
        self,
        *,
        prompts: Prompts | None = None,
        settings: CallSettings | None = None,
        prompt: bool = False,
        begin_tokens: Sequence[int] = (),
    ) -> None:
        self.prompts, self.settings, self.prompt, self.begin_tokens = prompts, settings, prompt, tuple(begin_tokens)

    @classmethod
    def of(cls, binding: Binding, *, prompt: bool) -> RowTokens:
        """Return the rule for the prompts of a binding; the begin tokens are those of tokenizer and decoder."""
        begin = [binding.tokenizer.bos_token_id]
        if binding.prompts.in_encoder:
            begin.append(binding.model.config.decoder_start_token_id)
        known = [int(token) for token in begin if token is not None]
        return cls(prompts=binding.prompts, settings=binding.settings, prompt=prompt, begin_tokens=known)

    @property
    def _start(self) -> int:
        """Number of tokens of a row before its first new token."""
        if self.settings is not None:
            return self.settings.start
        return 0 if self.prompts is None else self.prompts.width

    def __call__(self, input_ids: Tensor) -> Tensor:
        """Return whether each token counts, bool ``[rows, length]``.

        Args:
            input_ids: ``[rows, length]``.
        """
        counted = torch.ones_like(input_ids, dtype=torch.bool)
        for token in self.begin_tokens:
            counted &= input_ids != token
        if self.prompts is None:
            return counted
        if not self.prompt:
            counted[:, : self._start] = False
            return counted
        mask = self.prompts.mask if self.prompts.padded else None
        if self.prompts.in_encoder:
            mask = None if self.settings is None else self.settings.decoder_mask
        if mask is not None:
            real = mask.to(input_ids.device)[self.prompts.rows(input_ids)].bool()  # [rows, width]
            counted[:, : real.shape[1]] &= real[:, : input_ids.shape[1]]
        return counted

    def newest(self, input_ids: Tensor, *, otherwise: int) -> Tensor:
        """Return the last token of each row, or another number where it does not count, ``[rows, 1]``."""
        token = input_ids[:, -1:]
        if self.prompts is not None and input_ids.shape[1] <= self._start:
            return token.masked_fill(~self(input_ids)[:, -1:], otherwise)
        for begin in self.begin_tokens:
            token = token.masked_fill(token == begin, otherwise)
        return token
