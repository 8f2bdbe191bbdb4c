"""MiniLM against transformers and torch, and against a model that shares none of its code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mapcell import Tensor
from mapcell.attaching import attach
from mapcell.binding import bind
from mapcell.demo.assets import find_model
from mapcell.demo.minilm import RENAME, Config, MiniLM
from mapcell.demo.tokenize import tokenized
from mapcell.nn.utils import no_init_parameters
from support import bert

EXPECTED = Path(__file__).parents[2] / "data/minilm/expected.npz"


@pytest.fixture(scope="module")
def net() -> MiniLM:
    """The network with the real weights, mapped by this process."""
    model = find_model()
    with no_init_parameters():
        net = MiniLM(Config.read(model.config))
    # Strict: every Parameter has its tensor, and every tensor its Parameter.
    assert bind(net, attach(model.checkpoint, daemon="never"), rename=RENAME) == ([], [])
    return net


def test_same_as_torch(net: MiniLM) -> None:
    """Hidden states of real tokens and embeddings are within 1e-5 of what torch computed."""
    with np.load(EXPECTED) as expected:
        ids, mask = Tensor(expected["input_ids"]), Tensor(expected["attention_mask"])
        hidden = net.last_hidden_state(ids, mask).asnumpy()
        real = expected["attention_mask"].astype(bool)
        assert np.abs(hidden - expected["last_hidden_state"])[real].max() < 1e-5
        assert np.abs(net(ids, mask).asnumpy() - expected["embedding"]).max() < 1e-5


def test_other_sentences(net: MiniLM) -> None:
    """Sentences of all lengths, the empty one too, give what the plain float64 model gives, of length 1."""
    tokens = tokenized(["", "short", "many words " * 30, "Ünïcödé, 漢字"], find_model().tokenizer)
    got = net(Tensor(tokens.ids), Tensor(tokens.mask)).asnumpy()
    assert np.abs(got - bert.embeddings(load_file(find_model().checkpoint), tokens.ids, tokens.mask)).max() < 1e-5
    assert np.allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)


def test_padding_changes_nothing(net: MiniLM) -> None:
    """A sentence has one embedding, alone and in a batch with a longer one."""
    tokens = tokenized(["short", "a sentence with some more words in it"], find_model().tokenizer)
    alone = tokens.batch(0, 1)
    together = net(Tensor(tokens.ids), Tensor(tokens.mask)).asnumpy()
    assert np.abs(net(Tensor(alone.ids), Tensor(alone.mask)).asnumpy()[0] - together[0]).max() < 1e-6


def test_names_are_the_checkpoints(net: MiniLM) -> None:
    """But for what RENAME says, each Parameter is called what its tensor is called."""
    ours = {p.name for p in net.get_parameters()}
    theirs = set(load_file(find_model().checkpoint))
    assert {name.rpartition(".")[2] for name in ours - theirs} == {"gamma", "beta", "embedding_table"}
    assert len(ours) == len(theirs)
