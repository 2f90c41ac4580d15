"""N-gram style injection: continue a text in the style of two sentences, and cite names exactly from a document."""

from __future__ import annotations

from typing import Any

import logitkit
from logitkit.processors.ngram import NgramTable

STYLE = [
    "Verily, good sir, the knight errant rode forth upon his lean steed, and the squire rode after him.",
    "The knight rode forth at dawn, and the squire, good man that he was, rode after upon his ass.",
]
SOURCE = "Order 7731-KX left the harbour of Valparaiso on the brig Esmeralda."


def main(model: Any, tokenizer: Any) -> list[str]:
    """Return a continuation in the style of a table, and an answer in the wording of its source."""
    # The command for a file: logitkit train-ngram book.txt --tokenizer smollm2-135m -o table.safetensors
    table = NgramTable.train(STYLE, tokenizer)
    styled = logitkit.generate(
        model,
        tokenizer,
        "At dawn the knight",
        chain="ngram_style('style', 0.2)",
        resources={"style": table},
        max_new_tokens=24,
        do_sample=False,
    )
    chain = logitkit.chain([{"name": "ngram_context", "params": {"weight": 0.1, "context": SOURCE}}])
    prompt = f"{SOURCE}\nQuestion: On which ship did the order leave?\nAnswer:"
    cited = logitkit.generate(model, tokenizer, prompt, chain=chain, max_new_tokens=24, do_sample=False)
    return [*styled.texts, *cited.texts]


if __name__ == "__main__":
    from logitkit import models

    for text in main(*models.load("smollm2-135m")):
        print(text)
