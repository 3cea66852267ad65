"""A tiny Qwen3-MoE model and its tokenizer, built locally, so that the CPU demo needs no download.

The tokenizer is a byte-level BPE trained on the demo's text (it covers all bytes and splits digits), with a chat
template in the Bailing style. `<think>` and `</think>` are single tokens but not "special" ones, so that decoding
keeps them. The model has random weights. The output is a plain Hugging Face folder whose content depends on the corpus
and the seed alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig

__all__ = ["CHAT_TEMPLATE", "build_model"]

END = "<|endoftext|>"
ROLES = ("<role>SYSTEM</role>", "<role>HUMAN</role>", "<role>ASSISTANT</role>")  # special tokens: decoding skips them
THINK = ("<think>", "</think>")  # single tokens, kept by decoding

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}{{- '<role>SYSTEM</role>' + message.content -}}"
    "{%- elif message.role == 'user' -%}{{- '<role>HUMAN</role>' + message.content -}}"
    "{%- elif message.role == 'assistant' -%}{{- '<role>ASSISTANT</role>' -}}"
    "{%- generation -%}{{- message.content + '<|endoftext|>' -}}{%- endgeneration -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<role>ASSISTANT</role>' -}}{%- endif -%}"
)


def build_model(
    out: Path,
    corpus: Iterable[str],
    seed: int,
    vocab_size: int = 512,
    layers: int = 4,
    hidden: int = 128,
    experts: int = 8,
    experts_per_token: int = 2,
    moe_intermediate: int = 128,
    tied: bool = False,
) -> None:
    """Train a tokenizer on `corpus`, initialise a model from `seed`, save both to `out` as one folder.

    tied: input and output embeddings are one, which makes copying a word easy to learn.
    """
    import torch
    from transformers import GenerationConfig, Qwen3MoeForCausalLM

    assert hidden % 32 == 0, f"hidden is not a multiple of 32: {hidden}"
    assert moe_intermediate % 32 == 0, f"moe_intermediate is not a multiple of 32: {moe_intermediate}"
    tokenizer = _tokenizer(corpus, vocab_size)
    config = _config(tokenizer, layers, hidden, experts, experts_per_token, moe_intermediate, tied)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3MoeForCausalLM(config).float()
    end = tokenizer.eos_token_id
    model.generation_config = GenerationConfig(
        eos_token_id=end, pad_token_id=end, do_sample=True, temperature=1.0, top_p=1.0, top_k=0
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    shutil.copymode(out / "config.json", out / "model.safetensors")  # safetensors keeps others from reading it


def _tokenizer(corpus: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab_size` entries: special tokens first, thinking last."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(THINK),
        special_tokens=[END, *ROLES],
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    bpe.train_from_iterator(corpus, trainer)
    bpe.add_tokens([AddedToken(token, special=False, normalized=False) for token in THINK])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def _config(
    tokenizer: PreTrainedTokenizerFast,
    layers: int,
    hidden: int,
    experts: int,
    experts_per_token: int,
    moe_intermediate: int,
    tied: bool,
) -> Qwen3MoeConfig:
    """The model's configuration: every layer is sparse, heads of 32, two query heads to a key-value head."""
    from transformers import Qwen3MoeConfig

    heads = hidden // 32
    return Qwen3MoeConfig(
        vocab_size=-(-len(tokenizer) // 32) * 32,
        hidden_size=hidden,
        num_hidden_layers=layers,
        head_dim=32,  # type: ignore[call-arg]
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        intermediate_size=2 * hidden,
        moe_intermediate_size=moe_intermediate,
        num_experts=experts,
        num_experts_per_tok=experts_per_token,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        max_position_embeddings=4096,
        tie_word_embeddings=tied,
        initializer_range=0.02,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        dtype="float32",
    )
