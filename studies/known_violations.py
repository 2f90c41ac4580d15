"""Why processors of others break laws, as read in their code: transformers 5.23, logits-processor-zoo 0.2.1."""

from __future__ import annotations

from collections.abc import Mapping

PADDING = "takes left padding for text; `generate` hides it where it builds the processor itself, not in your list"
SIGN = "divides what is positive and multiplies what is negative: log-probabilities (beam search) are all negative"
BY_PLACE = "holds one prompt a row, by place: another number of rows, or another order, does not fit"
LENGTH = "counts the row's length, padding and prompt included"
FIRST_CALL = "the first call's rows are taken for the prompt, so its answer depends on when it was first called"
IN_PLACE = "writes to the scores it is given, which `output_logits` then shows"
COUNTER = "keeps a counter a row, by place, and goes on from where the last call left it"
BATCH = "has as many counters as `batch_size` said; beams and several sequences have more rows"
REWINDS = "a prefix that does not grow by one token is taken for a new text"

REASONS: dict[str, Mapping[str, str]] = {
    "RepetitionPenaltyLogitsProcessor": {"ignores_left_padding": PADDING, "ignores_the_scale_of_a_row": SIGN},
    "EncoderRepetitionPenaltyLogitsProcessor": {
        "treats_rows_alike": BY_PLACE,
        "ignores_left_padding": "takes the encoder prompt's padding for text",
        "ignores_the_scale_of_a_row": SIGN,
    },
    "NoRepeatNGramLogitsProcessor": {"ignores_left_padding": PADDING},
    "EncoderNoRepeatNGramLogitsProcessor": {
        "treats_rows_alike": BY_PLACE,
        "ignores_left_padding": "takes the encoder prompt's padding for text",
    },
    "MinLengthLogitsProcessor": {"ignores_left_padding": LENGTH},
    "ForcedEOSTokenLogitsProcessor": {"ignores_left_padding": LENGTH},
    "ExponentialDecayLengthPenalty": {
        "ignores_the_scale_of_a_row": "adds a share of the end token's score, which is another in log-probabilities",
    },
    "InfNanRemoveLogitsProcessor": {
        "keeps_masked_tokens_masked": "makes -inf the lowest finite number: that is what it is for",
    },
    "UnbatchedClassifierFreeGuidanceLogitsProcessor": {
        "forgets": "its second stream's cache goes on from the last call, of whatever text that was",
        "depends_only_on_the_prefix": "the cache is never cropped or reordered: beams and rewinds read another text",
        "treats_rows_alike": BY_PLACE,
    },
    "SynthIDTextWatermarkLogitsProcessor": {
        "forgets": "keeps the last contexts of each row, by place",
        "depends_only_on_the_prefix": "the contexts it kept are those of the rows that were at that place before",
        "keeps_masked_tokens_masked": "its tournament gives masked tokens the lowest finite number",
    },
    "GenLengthLogitsProcessor": {
        "leaves_its_input_alone": IN_PLACE,
        "forgets": FIRST_CALL,
        "depends_only_on_the_prefix": REWINDS,
    },
    "CiteFromPromptLogitsProcessor": {
        "leaves_its_input_alone": IN_PLACE,
        "forgets": FIRST_CALL,
        "depends_only_on_the_prefix": REWINDS,
        "ignores_left_padding": PADDING.partition(";")[0],
    },
    "ForceLastPhraseLogitsProcessor": {
        "leaves_its_input_alone": IN_PLACE,
        "forgets": COUNTER,
        "treats_rows_alike": BATCH,
    },
    "MultipleChoiceLogitsProcessor": {
        "leaves_its_input_alone": IN_PLACE,
        "leaves_a_choice": "a choice that is masked already is lifted by an infinite gap, which makes NaN",
    },
    "TriggerPhraseLogitsProcessor": {
        "leaves_its_input_alone": IN_PLACE,
        "forgets": COUNTER,
        "treats_rows_alike": BATCH,
    },
    "PreventHallucinationLogitsProcessor": {
        "leaves_its_input_alone": IN_PLACE,
        "forgets": COUNTER,
        "depends_only_on_the_prefix": REWINDS,
        "treats_rows_alike": BATCH,
    },
    "MaxTimeLogitsProcessor": {
        "leaves_its_input_alone": IN_PLACE,
        "forgets": "answers by the clock",
        "depends_only_on_the_prefix": "answers by the clock, which starts anew when a prefix does not grow by one",
    },
}
