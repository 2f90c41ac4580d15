"""Reasons for which processors of other libraries break laws, from their source code.

Versions: transformers 5.23, logits-processor-zoo 0.2.1.
"""

from __future__ import annotations

from collections.abc import Mapping

PADDING = "counts left padding as text"
HIDDEN_PADDING = f"{PADDING}; `generate` hides padding from the penalty that it builds itself, and from no other step"
SIGN = "divides positive scores and multiplies negative ones; log-probabilities, as in beam search, are all negative"
BY_PLACE = "holds one prompt for each row by index, so another number or order of rows does not fit"
LENGTH = "counts the length of the row, with padding and prompt"
FIRST_CALL = "treats the rows of its first call as the prompt, so the result depends on when it is first called"
IN_PLACE = "writes to the given scores, so `output_logits` returns changed logits"
COUNTER = "keeps a counter for each row by index, and continues from the value of the last generation"
BATCH = "has `batch_size` counters; beams and several sequences have more rows"
CLIPS = "replaces -inf by the lowest finite number, which is its purpose"
WRITES = "writes to the given scores, so rows that share memory change together"
LOWEST = "gives masked tokens the lowest finite number"
GAP = "adds an infinite gap to a choice that is already masked, which gives NaN"
REWINDS = "treats a prefix that did not grow by one token as a new text"

REASONS: dict[str, Mapping[str, str]] = {
    "RepetitionPenaltyLogitsProcessor": {"ignores_left_padding": HIDDEN_PADDING, "ignores_the_scale_of_a_row": SIGN},
    "EncoderRepetitionPenaltyLogitsProcessor": {
        "treats_rows_alike": BY_PLACE,
        "ignores_left_padding": "counts padding of the encoder prompt as text",
        "ignores_the_scale_of_a_row": SIGN,
        "holds_for_long_rows": BY_PLACE,
        "holds_in_large_batches": BY_PLACE,
        "tells_rows_apart": BY_PLACE,
    },
    "NoRepeatNGramLogitsProcessor": {
        "ignores_left_padding": f"{PADDING}, also where `generate` builds it from `no_repeat_ngram_size`",
        "keeps_sparse_masks": "masks every token that would repeat, even where no other token is possible",
    },
    "EncoderNoRepeatNGramLogitsProcessor": {
        "treats_rows_alike": BY_PLACE,
        "ignores_left_padding": "counts padding of the encoder prompt as text",
        "holds_for_long_rows": BY_PLACE,
        "holds_in_large_batches": BY_PLACE,
        "keeps_sparse_masks": BY_PLACE,
        "tells_rows_apart": BY_PLACE,
    },
    "PrefixConstrainedLogitsProcessor": {
        "keeps_sparse_masks": "makes all tokens of its constraint possible where the scores leave none of them",
    },
    "MinLengthLogitsProcessor": {
        "ignores_left_padding": LENGTH,
        "keeps_sparse_masks": "masks the end token before the least length, even where no other token is possible",
    },
    "ForcedEOSTokenLogitsProcessor": {
        "ignores_left_padding": LENGTH,
        "keeps_sparse_masks": "gives the end token at the last position the score 0, even where it was masked",
    },
    "ExponentialDecayLengthPenalty": {
        "ignores_the_scale_of_a_row": "adds a share of the end token's score, which differs in log-probabilities",
    },
    "InfNanRemoveLogitsProcessor": {
        "keeps_masked_tokens_masked": CLIPS,
        "agrees_across_dtypes": CLIPS,
        "holds_for_long_rows": CLIPS,
        "keeps_sparse_masks": CLIPS,
        "survives_extreme_scores": CLIPS,
    },
    "UnbatchedClassifierFreeGuidanceLogitsProcessor": {
        "forgets": "continues the KV cache of its second stream from the last call, even for another text",
        "depends_only_on_the_prefix": "never crops or reorders the KV cache, so it is wrong under beams and rewinds",
        "treats_rows_alike": BY_PLACE,
        "keeps_shape_dtype_device": "combines scores with the fp32 logits of its model, so half precision becomes fp32",
        "holds_for_long_rows": f"{BY_PLACE}, and continues the KV cache of the last call",
        "holds_in_large_batches": BY_PLACE,
        "keeps_sparse_masks": BY_PLACE,
        "draws_from_the_prefix": "adds the last token to its second stream at each call, even if the row did not grow",
        "tells_rows_apart": "continues the KV cache of the last call for rows that differ from those of that call",
    },
    "SynthIDTextWatermarkLogitsProcessor": {
        "forgets": "keeps the last contexts of each row by index",
        "depends_only_on_the_prefix": "uses the contexts of the rows that had the same index before",
        "keeps_masked_tokens_masked": LOWEST,
        "agrees_across_dtypes": LOWEST,
        "holds_for_long_rows": f"{LOWEST}, and keeps the last contexts of each row by index",
        "keeps_sparse_masks": LOWEST,
        "survives_extreme_scores": LOWEST,
        "draws_from_the_prefix": "adds the last token to its context at each call, even if the row did not grow",
        "holds_in_large_batches": "keeps the last contexts of as many rows as its first call has",
        "tells_rows_apart": "uses the contexts of the rows that had the same index before",
    },
    "GenLengthLogitsProcessor": {
        "leaves_its_input_alone": IN_PLACE,
        "forgets": FIRST_CALL,
        "depends_only_on_the_prefix": REWINDS,
        "reads_its_arguments_only": WRITES,
    },
    "CiteFromPromptLogitsProcessor": {
        "leaves_its_input_alone": IN_PLACE,
        "forgets": FIRST_CALL,
        "depends_only_on_the_prefix": REWINDS,
        "ignores_left_padding": PADDING,
        "reads_its_arguments_only": WRITES,
    },
    "ForceLastPhraseLogitsProcessor": {
        "leaves_its_input_alone": IN_PLACE,
        "forgets": COUNTER,
        "treats_rows_alike": BATCH,
        "holds_in_large_batches": BATCH,
        "keeps_sparse_masks": BATCH,
    },
    "MultipleChoiceLogitsProcessor": {
        "leaves_its_input_alone": IN_PLACE,
        "leaves_a_choice": GAP,
        "holds_for_long_rows": GAP,
        "keeps_sparse_masks": GAP,
        "reads_its_arguments_only": WRITES,
    },
    "TriggerPhraseLogitsProcessor": {
        "leaves_its_input_alone": IN_PLACE,
        "forgets": COUNTER,
        "treats_rows_alike": BATCH,
        "holds_in_large_batches": BATCH,
        "keeps_sparse_masks": BATCH,
    },
    "PreventHallucinationLogitsProcessor": {
        "leaves_its_input_alone": IN_PLACE,
        "forgets": COUNTER,
        "depends_only_on_the_prefix": REWINDS,
        "treats_rows_alike": BATCH,
        "holds_in_large_batches": BATCH,
        "keeps_sparse_masks": BATCH,
    },
    "MaxTimeLogitsProcessor": {
        "leaves_its_input_alone": IN_PLACE,
        "forgets": "depends on the clock",
        "depends_only_on_the_prefix": "depends on a clock that restarts when a prefix did not grow by one token",
    },
}
