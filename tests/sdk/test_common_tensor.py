"""Tensor: construction, rules of arithmetic, indexing, conversion, text."""

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

import mapcell as ms
from mapcell import Tensor
from mapcell.common.initializer import One
from mapcell.common.tensor import unwrap, wrap

BF16 = ml_dtypes.bfloat16
X = np.arange(12, dtype=np.float32).reshape(3, 4)

CONSTRUCTED = [
    (1, "Int64", ()),
    (1.5, "Float32", ()),
    (True, "Bool", ()),
    (1j, "Complex128", ()),
    ([1, 2], "Int64", (2,)),
    ((1.0, 2.0), "Float32", (2,)),
    ([1, 2.5], "Float32", (2,)),
    ([True, False], "Bool", (2,)),
    ([], "Float32", (0,)),
    ([[1, 2], [3, 4]], "Int64", (2, 2)),
    (np.float64(1), "Float64", ()),
    (np.int32(1), "Int32", ()),
    (np.zeros((2, 0)), "Float64", (2, 0)),
    (np.zeros(2, ">f4"), "Float32", (2,)),
    (np.zeros(2, BF16), "BFloat16", (2,)),
    ([Tensor([1, 2]), Tensor([3, 4])], "Int64", (2, 2)),
    (Tensor([1.0]), "Float32", (1,)),
]


@pytest.mark.parametrize(("data", "dtype", "shape"), CONSTRUCTED, ids=lambda v: repr(v)[:30])
def test_dtype_and_shape_of_what_is_given(data, dtype, shape):
    """Python numbers have fixed dtypes, arrays keep theirs."""
    tensor = Tensor(data)
    assert (str(tensor.dtype), tensor.shape) == (dtype, shape)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (None, TypeError),
        ("zeros", TypeError),
        ({"a": 1}, TypeError),
        (object(), TypeError),
        (["a"], TypeError),
        ([1, [2, 3]], ValueError),
    ],
    ids=lambda value: type(value).__name__ if type(value) is object else repr(value),
)
def test_what_is_no_tensor_is_refused(data, error):
    """Anything but numbers is a TypeError, a ragged list a ValueError."""
    with pytest.raises(error):
        Tensor(data)


def test_the_constructor_copies_and_from_numpy_shares():
    """Only from_numpy, wrap and the like show later changes of the array."""
    array = np.zeros(2, np.float32)
    copied, shared, wrapped = Tensor(array), Tensor.from_numpy(array), wrap(array)
    array[0] = 5
    assert (copied.tolist(), shared.tolist(), wrapped.tolist()) == ([0, 0], [5, 0], [5, 0])
    assert unwrap(wrapped) is array
    with pytest.raises(TypeError):
        Tensor.from_numpy([1])


def test_a_shape_without_data():
    """Sizes that are not known print as -1, and there is nothing to compute with."""
    tensor = Tensor(shape=[3, None], dtype=ms.float32)
    assert repr(tensor) == "Tensor(shape=[3, -1], dtype=Float32, value=\n)"
    with pytest.raises(RuntimeError, match="no data"):
        tensor.asnumpy()
    assert pickle.loads(pickle.dumps(tensor)).shape == (3, -1)
    assert copy.deepcopy(tensor).shape == (3, -1)


def test_init_and_input_data_exclude_each_other():
    """A Tensor has data, or a shape, a dtype and perhaps an initializer."""
    assert Tensor(shape=2, dtype=ms.int32, init=One()).init_data().tolist() == [1, 1]
    for arguments in ({"shape": 2}, {"dtype": ms.int32}, {"input_data": 1, "init": One()}, {}):
        with pytest.raises(TypeError):
            Tensor(**arguments)


RESULTS = [
    ("i64 / i64", "Float32"),
    ("i64 + f32", "Float32"),
    ("i32 + f16", "Float16"),
    ("bf16 + f16", "Float32"),
    ("f16 + f32", "Float32"),
    ("f32 + f64", "Float64"),
    ("u8 + i8", "Int16"),
    ("b + i32", "Int32"),
    ("f16 + 2.0", "Float16"),
    ("bf16 * 2", "BFloat16"),
    ("i32 + 1.5", "Float32"),
    ("b + 1", "Int64"),
    ("b + 1.5", "Float32"),
    ("i32 + True", "Int32"),
    ("f32 + 1j", "Complex64"),
    ("f64 + 1j", "Complex128"),
    ("c64 + f64", "Complex128"),
    ("i32 // 2", "Int32"),
    ("i32 % 2", "Int32"),
    ("2 ** i32", "Int32"),
    ("i32 > 1.5", "Bool"),
    ("i32 == f32", "Bool"),
    ("b & b", "Bool"),
    ("i32 << 1", "Int32"),
    ("~i32", "Int32"),
    ("-f16", "Float16"),
    ("abs(i32)", "Int32"),
    ("i32.sum()", "Int64"),
    ("b.sum()", "Int64"),
    ("u64.sum()", "UInt64"),
    ("f16.sum()", "Float16"),
    ("i32.mean()", "Int32"),
    ("bf16.mean()", "BFloat16"),
    ("i32.var()", "Float32"),
    ("i32.std()", "Float32"),
    ("i32.prod()", "Int64"),
    ("i32.max()", "Int32"),
    ("f32.argmax()", "Int64"),
    ("f32.argsort()", "Int32"),
    ("i32.exp()", "Float32"),
    ("f16.exp()", "Float16"),
    ("bf16.sqrt()", "BFloat16"),
    ("f16.erf()", "Float16"),
    ("i32.floor()", "Int32"),
    ("f32.isnan()", "Bool"),
    ("f32.logical_not()", "Bool"),
    ("i32.cumsum(0)", "Int32"),
    ("f32.nonzero()", "Int64"),
    ("f32.half()", "Float16"),
    ("f32.int()", "Int32"),
    ("f32.long()", "Int64"),
    ("f32.bool()", "Bool"),
    ("f32.bfloat16()", "BFloat16"),
    ("i32.float()", "Float32"),
    ("i32.double()", "Float64"),
]


@pytest.mark.parametrize(("expression", "dtype"), RESULTS, ids=[r[0] for r in RESULTS])
def test_dtype_of_results(expression, dtype):
    """The promotion rules of MindSpore 2.10."""
    kinds = {
        "b": bool, "u8": np.uint8, "u64": np.uint64, "i8": np.int8, "i32": np.int32, "i64": np.int64,
        "f16": np.float16, "bf16": BF16, "f32": np.float32, "f64": np.float64, "c64": np.complex64,
    }  # fmt: skip
    names = {name: Tensor(np.array([1, 1, 0], kind)) for name, kind in kinds.items()}
    assert str(eval(expression, {"abs": abs}, names).dtype) == dtype


VALUES = [
    ("Tensor([7, -7]) // 2", [3, -4]),
    ("Tensor([7, -7]) % 3", [1, 2]),
    ("Tensor([2, 1, -1]) ** -1", [0, 1, -1]),
    ("2 - Tensor([1.0, 3.0])", [1.0, -1.0]),
    ("2 / Tensor([1, 4])", [2.0, 0.5]),
    ("7 // Tensor([2, -2])", [3, -4]),
    ("7 % Tensor([4, -4])", [3, -1]),
    ("2 ** Tensor([1, 3])", [2, 8]),
    ("Tensor([1, 2]) == [1, 3]", [True, False]),
    ("Tensor([1, 2]) != Tensor(2)", [True, False]),
    ("Tensor([1, 2]) + np.array([1.0, 2.0], np.float32)", [2.0, 4.0]),
    ("Tensor([1, 2]) @ Tensor([3, 4])", 11),
    ("Tensor([True, False]) | Tensor([False, False])", [True, False]),
    ("Tensor([5]) ^ 1", [4]),
    ("Tensor([1.0, 2.0]).mean(keep_dims=True)", [1.5]),
    ("Tensor([1, 2]).mean()", 1),
    ("Tensor([-1, -2]).mean()", -1),
    ("x.sum(1)", [6, 22, 38]),
    ("x.sum(axis=(0, 1))", 66),
    ("x.sum(dim=1, keepdim=True)", [[6], [22], [38]]),
    ("x.var(0, 1)", [16, 16, 16, 16]),
    ("x.max(axis=1)", [3, 7, 11]),
    ("x.min(0)[1]", [0, 0, 0, 0]),
    ("x.max(-1)[1]", [3, 3, 3]),
    ("x.max(axis=1, return_indices=True)[1]", [3, 3, 3]),
    ("x.max(axis=1, initial=5)", [5, 7, 11]),
    ("x.argmax()", 11),
    ("x.argmin(axis=1)", [0, 0, 0]),
    ("x.ptp()", 11),
    ("x.all(1)", [False, True, True]),
    ("x.any()", True),
    ("x.transpose(0, 1).shape", (4, 3)),
    ("Tensor(np.zeros((2, 3, 4))).transpose(0, 2, 1).shape", (2, 4, 3)),
    ("Tensor(np.zeros((2, 3, 4))).transpose((2, 0, 1)).shape", (4, 2, 3)),
    ("Tensor(np.zeros((2, 3, 4))).transpose().shape", (4, 3, 2)),
    ("Tensor(np.zeros((2, 3, 4))).T.shape", (4, 3, 2)),
    ("x.reshape(2, -1).shape", (2, 6)),
    ("x.view((6, 2)).shape", (6, 2)),
    ("x.reshape(Tensor([6, 2])).shape", (6, 2)),
    ("x.flatten()[-1]", 11),
    ("x.flatten(order='F')[1]", 4),
    ("Tensor(np.zeros((2, 3, 4))).flatten(start_dim=1).shape", (2, 12)),
    ("x.squeeze().shape", (3, 4)),
    ("Tensor(np.zeros((1, 3, 1))).squeeze(0).shape", (3, 1)),
    ("x.expand_dims(-1).shape", (3, 4, 1)),
    ("x.broadcast_to((2, -1, -1)).shape", (2, 3, 4)),
    ("x.tile((2, 1)).shape", (6, 4)),
    ("Tensor([1, 2]).repeat(2)", [1, 1, 2, 2]),
    ("x.split(3, 1)[1].shape", (3, 1)),
    ("x.split([1, 2], 0)[1]", [[4, 5, 6, 7], [8, 9, 10, 11]]),
    ("len(x.chunk(3, 1))", 2),
    ("x.unbind(1)[0]", [0, 4, 8]),
    ("Tensor([1, 2, 3]).flip(0)", [3, 2, 1]),
    ("Tensor([1, 2, 3]).roll(1)", [3, 1, 2]),
    ("Tensor([[1, 2], [3, 4]]).tril()", [[1, 0], [3, 4]]),
    ("Tensor([[1, 2], [3, 4]]).triu(1)", [[0, 2], [0, 0]]),
    ("x[1, 2]", 6),
    ("x[-1]", [8, 9, 10, 11]),
    ("x[..., 0]", [0, 4, 8]),
    ("x[:, None].shape", (3, 1, 4)),
    ("x[::-1, 0]", [8, 4, 0]),
    ("x[[0, 2], 1]", [1, 9]),
    ("x[Tensor([0, 2])].shape", (2, 4)),
    ("x[Tensor(1)]", [4, 5, 6, 7]),
    ("x[x > 9]", [10, 11]),
    ("x[Tensor(0):Tensor(1), 0]", [0]),
    ("x.gather(Tensor([1]), 0)", [[4, 5, 6, 7]]),
    ("x.gather(1, Tensor([[0], [1], [2]]))", [[0], [5], [10]]),
    ("x.gather_nd(Tensor([[0, 1], [2, 3]]))", [1, 11]),
    ("x.index_select(1, Tensor([3]))", [[3], [7], [11]]),
    ("x.take(Tensor([1, 99]))", [1, 11]),
    ("x.masked_fill(x > 1, 0.5)[0]", [0, 1, 0.5, 0.5]),
    ("x.masked_select(x > 9)", [10, 11]),
    ("x.where(x > 9, -1.0)[2]", [-1, -1, 10, 11]),
    ("Tensor([3, 1, 2]).sort()[0]", [1, 2, 3]),
    ("Tensor([3, 1, 2]).argsort(descending=True)", [0, 2, 1]),
    ("Tensor([1, 1, 0]).argsort(descending=True)", [0, 1, 2]),
    ("Tensor([3, 1, 2]).topk(2)[1]", [0, 2]),
    ("Tensor([3, 1, 2]).topk(2, largest=False)[0]", [1, 2]),
    ("Tensor([1.0, -2.0]).clamp(min=0)", [1, 0]),
    ("Tensor([1.4, 2.5]).round()", [1, 2]),
    ("Tensor([7.0]).div(2, rounding_mode='floor')", [3]),
    ("Tensor([-7]).div(2, rounding_mode='trunc')", [-3]),
    ("Tensor([1, 2, 3]).cumsum(0)", [1, 3, 6]),
    ("Tensor([3.0, 4.0]).norm()", 5),
    ("Tensor([1, 2]).fill(7)", [7, 7]),
    ("x.narrow(1, 1, 2)[0]", [1, 2]),
    ("x.diagonal()", [0, 5, 10]),
    ("Tensor([1j, 2]).imag()", [1, 0]),
    ("Tensor([[1j, 2]]).adjoint()", [[-1j], [2]]),
    ("Tensor([1.0]).allclose(Tensor([1.0 + 1e-7]))", True),
    ("Tensor([1.0, 2.0]).softmax(0).sum()", 1.0),
    ("Tensor([1, 2]).outer(Tensor([1, 2]))", [[1, 2], [2, 4]]),
    ("str(Tensor([1.0]).short().dtype), str(Tensor([1.0]).byte().dtype)", ("Int16", "UInt8")),
    ("float(Tensor([2.5]))", 2.5),
    ("int(Tensor(3))", 3),
    ("[10, 20, 30][Tensor(1)]", 20),
    ("bool(Tensor([0]))", False),
    ("len(x)", 3),
    ("[int(row.sum()) for row in x]", [6, 22, 38]),
    ("4 in Tensor([4, 5])", True),
    ("x.item(5)", 5.0),
    ("x.strides", (16, 4)),
    ("(x.size, x.ndim, x.itemsize, x.nbytes, x.numel(), x.dim())", (12, 2, 4, 48, 12, 2)),
    ("x.is_contiguous(), x.T.is_contiguous(), x.T.contiguous().is_contiguous()", (True, False, True)),
    ("f'{Tensor(2.5):.2f}'", "2.50"),
    ("Tensor([1]) == 'a'", False),
    ("Tensor([1]) == None", False),
    ("Tensor([1]) != 'a'", True),
    ("np.ones(2) + Tensor([1.0, 2.0])", [2, 3]),
    ("type(np.ones(2) + Tensor([1.0, 2.0])).__name__", "ndarray"),
    ("np.asarray(x).dtype.name", "float32"),
    ("np.asarray(x, dtype=np.int8).dtype.name", "int8"),
    ("Tensor([1.0, 2.0]).type()", "Float32"),
]


@pytest.mark.parametrize(("expression", "expected"), VALUES, ids=[v[0] for v in VALUES])
def test_values(expression, expected):
    """Operators, indexing and methods."""
    got = eval(expression, {"Tensor": Tensor, "np": np, "x": Tensor(X)})
    assert (got.tolist() if isinstance(got, Tensor | np.ndarray) else got) == expected


ERRORS = [
    ("Tensor([1, 2]) @ Tensor([1.0, 2.0])", TypeError),
    ("Tensor([1, 2]) + 'a'", TypeError),
    ("Tensor([1, 2])[5]", IndexError),
    ("Tensor([1.0])[Tensor([0.0])]", IndexError),
    ("bool(Tensor([1, 2]))", ValueError),
    ("float(Tensor([1, 2]))", ValueError),
    ("len(Tensor(1))", TypeError),
    ("list(Tensor(1))", TypeError),
    ("[1][Tensor(0.0)]", TypeError),
    ("Tensor([1, 2]).reshape(3)", ValueError),
    ("Tensor([1, 2]).squeeze(0)", ValueError),
    ("Tensor([1, 2]).split(0)", ValueError),
    ("Tensor([1, 2]).split([1])", ValueError),
    ("Tensor([1.0]) & 1", TypeError),
    ("~Tensor([1.0])", TypeError),
    ("Tensor([1]).div(1, rounding_mode='up')", ValueError),
    ("Tensor([1]).clamp()", ValueError),
    ("Tensor([1]).astype('float33')", TypeError),
    ("Tensor([1]).astype(str)", TypeError),
    ("Tensor([1]).sum(axis='a')", TypeError),
    ("Tensor([1]).sum(nothing=1)", TypeError),
    ("Tensor([1]).masked_fill(Tensor([1]), 0)", TypeError),
    ("Tensor([1]).topk(2)", ValueError),
    ("Tensor([1]).init_data()", TypeError),
    ("Tensor([1]).assign_value(Tensor([1, 2]))", ValueError),
    ("Tensor([1]).detach()", AttributeError),
]


@pytest.mark.parametrize(("expression", "error"), ERRORS, ids=[e[0] for e in ERRORS])
def test_errors(expression, error):
    """What MindSpore refuses is refused, with the same kind of error."""
    with pytest.raises(error):
        eval(expression, {"Tensor": Tensor})


def test_low_precision_is_rounded_once():
    """Float16 and BFloat16 sums and products are computed in Float32."""
    many = np.full(4096, 0.1, np.float16)
    exact = many.astype(np.float64).sum()
    assert abs(float(Tensor(many).sum()) - exact) <= np.spacing(np.float16(exact))
    a = np.linspace(0, 1, 64, dtype=np.float32).astype(BF16)
    product = unwrap(Tensor(a.reshape(8, 8)) @ Tensor(a.reshape(8, 8)))
    wide = a.reshape(8, 8).astype(np.float32) @ a.reshape(8, 8).astype(np.float32)
    assert product.dtype == BF16
    assert np.array_equal(product, wide.astype(BF16))


def test_nothing_warns_of_overflow_or_nan():
    """Float16 overflow, division by zero and logarithms of zero give inf and NaN without a warning."""
    big = Tensor(np.array([60000], np.float16))
    assert float(big + 60000.0) == np.inf
    assert float(Tensor([1.0]) / 0) == np.inf
    assert np.isnan(float(Tensor([-1.0]).log()))
    assert Tensor(np.array([2.0**70])).astype(ms.float32).tolist() == [2.0**70]


def test_writing_in_place():
    """Values are cast to the Tensor's dtype."""
    tensor = Tensor(X)
    tensor[0, 0] = 5
    tensor[1] = Tensor([1, 2, 3, 4])
    tensor[2, [0, 1]] = [7.5, 8.5]
    tensor[tensor > 100] = 0
    assert tensor.tolist() == [[5, 1, 2, 3], [1, 2, 3, 4], [7.5, 8.5, 10, 11]]
    whole = Tensor([1, 2])
    whole[0] = 7.9
    assert whole.tolist() == [7, 2]
    assert whole.assign_value(Tensor([4.0, 5.0])).tolist() == [4, 5]


def test_a_broadcast_tensor_becomes_its_own_when_written_to():
    """Repeated elements have to become different ones; the original stays."""
    base = Tensor([1.0])
    wide = base.broadcast_to((3,))
    wide[0] = 9
    assert (wide.tolist(), base.tolist()) == ([9, 1, 1], [1])


def test_read_only_memory_says_what_to_do():
    """Writing to shared elements names the two ways out."""
    array = np.zeros(2)
    array.flags.writeable = False
    with pytest.raises(ValueError, match=r'set_data.*mode="c"'):
        Tensor.from_numpy(array)[0] = 1


def test_copies_are_independent():
    """copy, clone, deepcopy and pickle have their own elements."""
    tensor = Tensor([1.0, 2.0])
    copies = [tensor.copy(), tensor.clone(), copy.copy(tensor), copy.deepcopy(tensor)]
    copies.append(pickle.loads(pickle.dumps(tensor)))
    tensor[0] = 9
    assert [c.tolist() for c in copies] == [[1, 2]] * 5
    assert tensor.value().tolist() == [9, 2]


def test_hash_is_identity():
    """Tensors can be keys although == is elementwise."""
    a, b = Tensor([1]), Tensor([1])
    assert len({a, b, a}) == 2


def test_set_dtype_converts_in_place():
    """It returns the dtype."""
    tensor = Tensor([1.7, 2.2])
    assert tensor.set_dtype(ms.int32) is ms.int32
    assert (tensor.tolist(), str(tensor.dtype)) == ([1, 2], "Int32")


def test_dlpack_both_ways():
    """NumPy takes a Tensor without a copy, and a Tensor takes an array without one."""
    tensor = Tensor([1.0, 2.0])
    array = np.from_dlpack(tensor)
    assert np.shares_memory(array, unwrap(tensor))
    source = np.arange(3.0)
    assert np.shares_memory(unwrap(ms.from_dlpack(source)), source)


def test_every_operator_that_is_a_method_exists():
    """The table names operators that there are."""
    from mapcell import ops
    from mapcell.common.tensor_ops import METHODS

    assert [name for name in METHODS if not callable(getattr(ops, name, None))] == []
    assert [name for name in METHODS if not callable(getattr(Tensor, name, None))] == []


@pytest.mark.parametrize("dtype", [ms.float32, "float32", np.float32, np.dtype("float32")], ids=str)
def test_astype_takes_names_and_numpy_types(dtype):
    """A dtype may be given as MindSpore takes it: as an object, by name, or as NumPy's."""
    assert Tensor([1]).astype(dtype).dtype is ms.float32
