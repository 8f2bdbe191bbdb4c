"""Small transformers models with random weights, one of each kind that is loaded differently."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

# Nothing is fetched, and nothing counts.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import tqdm
import transformers

# Its thread would outlive the test that shows the first progress bar.
tqdm.tqdm.monitor_interval = 0
# Threads that wait for each other cost more than they compute on models of this size.
torch.set_num_threads(1)

_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
_DECODER: dict[str, Any] = {**_SIZES, "vocab_size": 96, "num_key_value_heads": 2, "max_position_embeddings": 64}

TOKENS = {"input_ids": torch.arange(20).reshape(2, 10)}


def _bert() -> Any:
    return transformers.BertModel(transformers.BertConfig(vocab_size=96, **_SIZES))


def _llama() -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(tie_word_embeddings=True, **_DECODER))


def _gpt2() -> Any:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=96, n_embd=64, n_layer=2, n_head=4))


def _mixtral() -> Any:
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(num_local_experts=4, num_experts_per_tok=2, **_DECODER)
    )


def _vit() -> Any:
    return transformers.ViTForImageClassification(transformers.ViTConfig(image_size=16, patch_size=4, **_SIZES))


MODELS: Mapping[str, Callable[[], Any]] = {
    "encoder": _bert,
    "decoder, tied": _llama,
    "older decoder, tied": _gpt2,
    "mixture of experts": _mixtral,
    "vision": _vit,
}


def made(kind: str) -> Any:
    """The model of that kind, with weights drawn at random, for inference."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sum(map(ord, kind)))
        return MODELS[kind]().eval()


def outputs(model: Any) -> list[torch.Tensor]:
    """All tensors that the model answers a fixed question with."""
    question = TOKENS
    if "ViT" in type(model).__name__:
        question = {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)}
    options = {} if "ViT" in type(model).__name__ or "Bert" in type(model).__name__ else {"use_cache": False}
    with torch.no_grad():
        answered = model(**question, **options, return_dict=True)
    return [value for value in answered.values() if isinstance(value, torch.Tensor)]
