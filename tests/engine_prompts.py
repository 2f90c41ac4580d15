"""Prompts and chains on which engines that run a tiny model are compared with `generate`."""

PROMPTS = [
    "the text of a prompt, the text of a",
    "one two one two one",
    "a longer prompt that has no word twice",
    "abcabcab",
    "the end of the text of the end",
]
# Chains that need token ids and scores alone; TABLE stands for the path of an n-gram table.
TOKENS_ONLY_CHAINS = [
    "",
    "ngram_style(table='TABLE', weight=0.3)",
    "ngram_context(weight=0.3)",
    "repetition_penalty(1.3) | no_repeat_ngram(3)",
    "min_new_tokens(6) | suppress_tokens([28, 30])",
    "frequency_penalty(0.7) | dry()",
    "temperature(0.7) | top_k(5) | min_p(0.1)",
    "length_target(tokens=6)",
]
