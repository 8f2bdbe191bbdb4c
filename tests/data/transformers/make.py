"""Writes the files of this folder; needs transformers and torch: python make.py"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertConfig, BertModel

torch.manual_seed(0)
config = BertConfig(
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    vocab_size=30,
    max_position_embeddings=20,
)
BertModel(config).to(torch.bfloat16).save_pretrained(Path(__file__).parent, max_shard_size="1KB")
