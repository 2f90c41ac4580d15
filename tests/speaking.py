"""A tiny checkpoint that speaks in words, with a chat template: what streams looks like text."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = """The keeper of the old lighthouse wrote a letter every evening and read it aloud to the gulls, who had heard
all of his stories before. One night a ship answered with three short flashes. He counted them twice, put down the pen,
and climbed the stairs to see whether the lamp would tell him something that he did not know about the harbour."""
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def save_speaking_checkpoint(folder: Path) -> str:
    """Write the checkpoint; greedy decoding continues with words of `TEXT`."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator([TEXT] * 4, trainers.BpeTrainer(vocab_size=420, initial_alphabet=letters))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(3)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            initializer_range=0.8,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    words = [i for i in range(len(tokenizer)) if len(tokenizer.convert_ids_to_tokens(i)) > 4]
    words = [i for i in words if tokenizer.convert_ids_to_tokens(i).startswith("\u0120")]
    silent = [i for i in range(len(tokenizer)) if i not in words]
    model.generation_config.suppress_tokens = silent
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
