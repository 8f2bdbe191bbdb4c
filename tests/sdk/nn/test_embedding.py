"""Tables of rows: what is drawn, what starts as zeros, what is scaled down."""

import numpy as np
import pytest

from mapcell import Tensor, nn
from mapcell.nn.utils import no_init_parameters

IDS = Tensor(np.array([1, 0], np.int32))


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize(
    "make",
    [lambda: nn.Embedding(4, 3, padding_idx=1), lambda: nn.EmbeddingExt(4, 3, padding_idx=1)],
    ids=["Embedding", "EmbeddingExt"],
)
def test_the_padding_row_starts_as_zeros(make, lazy):
    """Also when the table is made only when it is first read."""
    if lazy:
        with no_init_parameters():
            layer = make()
    else:
        layer = make()
    table = next(layer.get_parameters()).asnumpy()
    assert table[1].tolist() == [0, 0, 0]
    assert np.count_nonzero(table) == 9


def test_a_given_table_is_not_changed_by_its_padding_row():
    """The layer works on its own copy."""
    table = Tensor(np.ones((4, 3), np.float32))
    layer = nn.Embedding(4, 3, embedding_table=table, padding_idx=0)
    assert layer(IDS).asnumpy().tolist() == [[1, 1, 1], [0, 0, 0]]
    assert table.asnumpy().min() == 1


@pytest.mark.parametrize(
    "layer",
    [
        nn.EmbeddingLookup(2, 2, Tensor(np.array([[3, 4], [0.3, 0.4]], np.float32)), max_norm=1.0),
        nn.EmbeddingExt(2, 2, max_norm=1.0, _weight=Tensor(np.array([[3, 4], [0.3, 0.4]], np.float32))),
    ],
    ids=["EmbeddingLookup", "EmbeddingExt"],
)
def test_max_norm_scales_long_rows_down(layer):
    """Short ones stay, and so does the table."""
    np.testing.assert_allclose(layer(IDS).asnumpy(), [[0.3, 0.4], [0.6, 0.8]], rtol=1e-6)
    assert next(layer.get_parameters()).asnumpy().max() == 4


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: nn.Embedding(4, 3)(Tensor([4])), RuntimeError),
        (lambda: nn.Embedding(4, 3)(Tensor([1.0])), TypeError),
        (lambda: nn.Embedding(4, 3, padding_idx=4), ValueError),
        (lambda: nn.Embedding(4, 3, padding_idx=1.0), TypeError),
        (lambda: nn.Embedding(0, 3), ValueError),
        (lambda: nn.EmbeddingLookup(4, 3, target="GPU"), ValueError),
    ],
)
def test_errors(call, error):
    """Ids outside the table, floating ids, arguments out of range."""
    with pytest.raises(error):
        call()
