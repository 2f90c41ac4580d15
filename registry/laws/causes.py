"""What usually causes the failure of a law, one sentence for each; reports show it below a failed law."""

from __future__ import annotations

_IN_PLACE = (
    "an operation in place, such as scores[...] = x, masked_fill_ or /=; use masked_fill, torch.where or scores.clone()"
)
_MEMORY = (
    "values kept in self between calls, such as a counter or the last row; compute them from input_ids in every call"
)
_MASK = "a sum, a mean or nan_to_num over scores of -inf; end with masked_fill(scores == -torch.inf, -torch.inf)"

CAUSES: dict[str, str] = {
    "leaves_its_input_alone": _IN_PLACE,
    "forgets": _MEMORY,
    "depends_only_on_the_prefix": f"{_MEMORY}, or key a cache by all tokens of the row",
    "treats_rows_alike": "a reduction over the whole batch, such as scores.max() without a dimension; use dim=-1",
    "ignores_left_padding": "columns counted from the left edge or padding read as text; take the mask into account",
    "ignores_the_scale_of_a_row": "a formula on probabilities that is given logits; begin with log_softmax(-1)",
    "keeps_masked_tokens_masked": _MASK,
    "leaves_a_choice": "a filter that may remove every token; keep the best possible token of each row",
    "is_identity_when_neutral": "arithmetic that rounds; return scores itself where is_neutral(value, neutral)",
    "survives_pickling_or_says_why": "a lambda, lock, file or generator in self; keep a function of a module, or its "
    "arguments",
    "two_argument_call": "a third parameter of __call__; write __call__(self, input_ids, scores)",
    "identity_equality": "an __eq__ by value, as dataclasses have; write @dataclass(eq=False)",
    "keeps_shape_dtype_device": "a result in another dtype, such as fp32; end with .to(scores.dtype)",
    "agrees_across_dtypes": "arithmetic in half precision; compute with scores.float() and end with .to(scores.dtype)",
    "holds_for_long_rows": "a buffer or window of fixed length, or what is kept in self; compute from all of input_ids",
    "holds_in_large_batches": "a reduction over the batch, or a buffer with room for fewer rows; use dim=-1",
    "keeps_sparse_masks": "a top-k larger than the number of possible tokens, or a sum over scores of -inf; end with "
    "masked_fill(scores == -torch.inf, -torch.inf)",
    "survives_extreme_scores": "exp of large scores, or finfo.min taken for a possible token; begin with "
    "log_probabilities(scores) of logitkit.processors.engine",
    "reads_its_arguments_only": f"{_IN_PLACE}, also where the write is undone",
    "returns_a_tensor_of_its_own": "a buffer that later calls write to; return a new tensor",
    "draws_from_the_prefix": "torch.rand or multinomial without a generator; seed a torch.Generator from the prefix",
    "ignores_the_layout": "view, strides or data_ptr of an argument; use reshape, and input_ids.long() as an index",
    "ignores_its_surroundings": "the clock, the thread or the gradient mode; compute from the arguments alone",
    "leaves_settings_alone": "a setting of torch that is switched and not switched back; leave the settings alone",
    "tells_rows_apart": "a cache with too small a key, such as the length or the last tokens; use all tokens, and keep "
    "no result that depends on the scores",
    "returns_what_may_be_written": "a cached tensor that is returned itself; return a clone",
}
