"""`bind_module`: what fits, what does not, and that a bound module is like any other."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import mapcell
from mapcell.torch import bind_module, load_file, no_init_parameters
from mapcell_formats.errors import BindError


class Frequencies(nn.Module):
    """A table that no checkpoint holds, computed from what the constructor notes."""

    def __init__(self, size: int, base: float = 10000.0, device: str | None = None) -> None:
        super().__init__()
        self.size, self.base = size, base
        table = base ** (-torch.arange(0, size, 2, device=device) / size)
        self.register_buffer("table", table, persistent=False)


class Forgetful(Frequencies):
    """The same, but one argument is not what was noted: it cannot be built again from that."""

    def __init__(self, size: int, base: float = 10.0) -> None:
        super().__init__(size, base)
        self.base = 2 * base


class Net(nn.Module):
    """Ties, buffers of both kinds, a frozen parameter, and layers that note their parameters elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, 8)
        self.frequencies = Frequencies(8)
        self.rnn = nn.LSTM(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.scale = nn.Parameter(torch.rand(8), requires_grad=False)
        self.head = nn.Linear(8, 32, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embedding(x) * self.frequencies.table.repeat(2)
        h, _ = self.rnn(h)
        h = self.norm(h) * self.scale
        return self.head(h + self.attention(h, h, h)[0])


X = torch.arange(12) % 7
BUILDERS: dict[str, Callable[[], object]] = {
    "meta": lambda: torch.device("meta"),
    "no_init": no_init_parameters,
    "real": nullcontext,
}


def built(how: str, kind: type[nn.Module] = Net) -> nn.Module:
    """A module as `how` builds it, for inference."""
    with BUILDERS[how]():  # type: ignore[attr-defined]
        return kind().eval()


@pytest.fixture
def net() -> nn.Module:
    """The network with elements of its own."""
    return built("real")


@pytest.fixture
def path(net: nn.Module, tmp_path: Path) -> Path:
    """Its checkpoint, which holds tied parameters once."""
    safetensors.torch.save_model(net, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("how", BUILDERS)
@pytest.mark.parametrize("assign", [True, False])
def test_the_same_results(net: nn.Module, path: Path, how: str, assign: bool) -> None:
    """However it was built, a bound network gives the same outputs, bit for bit."""
    module = built(how)
    if how != "real" and not assign:
        with pytest.raises(BindError, match="bind with assign=True"):
            bind_module(module, path, assign=False)
        return
    assert bind_module(module, path, assign=assign) == ([], [])
    assert torch.equal(module(X), net(X))
    assert module.head.weight is module.embedding.weight
    assert not module.scale.requires_grad
    assert module.head.weight.requires_grad
    assert list(module.state_dict()) == list(net.state_dict())
    assert not any(t.is_meta for t in [*module.parameters(), *module.buffers()])


@pytest.mark.parametrize("form", ["path", "Weights", "tensors", "arrays", "readonly"])
def test_where_weights_come_from(net: nn.Module, path: Path, form: str) -> None:
    """A path, attached weights, and dicts of tensors or arrays are bound alike, and lie where they lay."""
    given = {
        "path": lambda: str(path),
        "Weights": lambda: mapcell.attach(path, mode="c"),
        "tensors": lambda: load_file(path),
        "arrays": lambda: dict(mapcell.attach(path, mode="c")),
        "readonly": lambda: load_file(path, readonly=True),
    }[form]()
    module = built("no_init")
    assert bind_module(module, given) == ([], [])
    assert torch.equal(module(X), net(X))
    if form == "tensors":
        assert module.rnn.weight_ih_l0.data_ptr() == given["rnn.weight_ih_l0"].data_ptr()


def test_readonly_weights_are_refused(path: Path) -> None:
    """What would end the process when it is written to is bound only if somebody said so."""
    module = built("no_init")
    with pytest.raises(BindError, match='mode="c"'):
        bind_module(module, mapcell.attach(path))
    assert all(p.is_meta for p in module.parameters())


BAD: dict[str, tuple[dict[str, torch.Tensor | None], str]] = {
    "missing": ({"scale": None}, "1 missing: 'scale'"),
    "missing buffer": ({"norm.running_mean": None}, "1 missing: 'norm.running_mean'"),
    "near name": ({"scale": None, "scales": torch.ones(8)}, "'scale'; did you mean 'scales'"),
    "unexpected": ({"more": torch.ones(2)}, "1 unexpected: 'more'"),
    "not in a state dict": ({"frequencies.table": torch.ones(4)}, "1 unexpected: 'frequencies.table'"),
    "shape": ({"scale": torch.ones(9)}, r"'scale' has the shape \(9,\) in the checkpoint, but \(8,\) in the module"),
    "dtype": ({"scale": torch.ones(8).half()}, "'scale' is float16 in the checkpoint, but float32 in the module"),
    "advice": ({"scale": torch.ones(8).half()}, "attach with dtype="),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit(path: Path, case: str) -> None:
    """It is said what does not fit, with near names, and nothing is changed."""
    changes, message = BAD[case]
    weights = {k: v for k, v in (load_file(path) | changes).items() if v is not None}
    module = built("meta")
    with pytest.raises(BindError, match=message):
        bind_module(module, weights)
    assert all(t.is_meta for t in [*module.parameters(), *module.buffers()])


def test_everything_at_once(path: Path) -> None:
    """One error names all that is wrong."""
    changes = {"scale": torch.ones(9), "more": torch.ones(1), "norm.bias": torch.ones(8).half()}
    weights = {k: v for k, v in (load_file(path) | changes).items() if k != "norm.weight"}
    with pytest.raises(BindError) as caught:
        bind_module(built("no_init"), weights)
    assert all(f"'{name}'" in str(caught.value) for name in ("scale", "more", "norm.bias", "norm.weight"))


def test_not_strict(net: nn.Module, path: Path) -> None:
    """Dtypes are converted, names are told, and what is missing stays as it is."""
    weights = {k: v.bfloat16() if v.is_floating_point() else v for k, v in load_file(path).items()}
    weights["more"] = weights.pop("scale")
    module = built("no_init")
    assert bind_module(module, weights, strict=False) == (["scale"], ["more"])
    assert module.scale.is_meta
    assert module.norm.weight.dtype == torch.float32
    assert torch.equal(module.rnn.bias_hh_l0, net.rnn.bias_hh_l0.bfloat16().float())
    with pytest.raises(BindError, match="is int64 in the checkpoint"):
        bind_module(module, {"scale": torch.ones(8, dtype=torch.int64)}, strict=False)


@pytest.mark.parametrize(
    ("prefix", "rename"),
    [
        ("model.", None),
        ("", lambda name: name.removeprefix("model.")),
        ("", [(r"^model\.", "")]),
        ("model.", {"scale": "scale"}),
    ],
)
def test_names(net: nn.Module, path: Path, prefix: str, rename: object) -> None:
    """`prefix` and `rename` lead from the checkpoint's names to the module's."""
    weights = {f"model.{k}": v for k, v in load_file(path).items()}
    module = built("no_init")
    assert bind_module(module, weights, prefix=prefix, rename=rename) == ([], [])
    assert torch.equal(module(X), net(X))


def test_one_name_twice(path: Path) -> None:
    """Two tensors for one parameter are refused, unless the names are tied."""
    weights = load_file(path)
    with pytest.raises(BindError, match="'again' and 'scale' both mean 'scale'"):
        bind_module(built("no_init"), {"again": weights["scale"], **weights}, rename={"again": "scale"})
    module, tied = built("no_init"), {"embedding.weight": weights.get("embedding.weight", weights.get("head.weight"))}
    bind_module(module, weights | tied | {"head.weight": tied["embedding.weight"]})
    assert module.head.weight is module.embedding.weight


def test_lost_buffers() -> None:
    """A buffer that cannot be made again is named, with what to do; built otherwise the module is whole."""
    with pytest.raises(BindError, match=r"'table'.*no_init_parameters"):
        bind_module(built("meta", lambda: Forgetful(8)), {})  # type: ignore[arg-type]
    whole = built("no_init", lambda: Forgetful(8))  # type: ignore[arg-type]
    assert bind_module(whole, {}) == ([], [])
    assert torch.equal(whole.table, Forgetful(8).table)


def test_buffers_are_filled_as_transformers_does() -> None:
    """A model that knows how to fill a buffer is asked; one that leaves elements out is not believed."""

    class Part(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.register_buffer("positions", torch.arange(size), persistent=False)

    class Model(nn.Module):
        def __init__(self, whole: bool = True) -> None:
            super().__init__()
            self.part, self.whole = Part(5), whole

        def _init_weights(self, module: nn.Module) -> None:
            if isinstance(module, Part):
                stop = 5 if self.whole else 4
                module.positions[:stop] = torch.arange(stop)

    model = built("meta", Model)
    bind_module(model, {})
    assert model.part.positions.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(BindError, match=r"'part\.positions'"):
        bind_module(built("meta", lambda: Model(False)), {})  # type: ignore[arg-type]


def test_training_stays_private(net: nn.Module, path: Path) -> None:
    """A step of an optimizer changes the module that took it, and neither the file nor another module."""
    before = path.read_bytes()
    one, other = built("no_init"), built("no_init")
    bind_module(one, path)
    bind_module(other, path)
    optimizer = torch.optim.Adam([p for p in one.parameters() if p.requires_grad], 0.1)
    one.train()(X).square().sum().backward()
    optimizer.step()
    assert not torch.equal(one.eval()(X), net(X))
    assert torch.equal(other(X), net(X))
    assert path.read_bytes() == before


@pytest.mark.parametrize("how", ["deepcopy", "torch.save", "state_dict", "to"])
def test_like_any_module(net: nn.Module, path: Path, how: str) -> None:
    """Copies, files, state dicts and casts of a bound module are what they would be of one with its own memory."""
    module = built("meta")
    bind_module(module, path)
    if how == "to":
        assert torch.equal(module.to(torch.float64)(X), net.to(torch.float64)(X))
        return
    if how == "deepcopy":
        other = copy.deepcopy(module)
    elif how == "state_dict":
        other = built("real")
        other.load_state_dict(module.state_dict())
    else:
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    with torch.no_grad():
        module.scale.zero_()
    assert torch.equal(other(X), net(X))
    assert other.head.weight is other.embedding.weight


def test_a_device(path: Path) -> None:
    """With a device the whole module is there, its own buffers included."""
    module = built("no_init")
    bind_module(module, path, device="meta")
    assert all(t.is_meta for t in [*module.parameters(), *module.buffers()])


def test_shapes_of_arrays() -> None:
    """Arrays that are transposed, or have no elements or dimensions, become the tensors they look like."""
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.zeros((0, 2)), "c": np.array(3.0)}
    module = nn.ParameterDict({k: nn.Parameter(torch.ones(v.shape, dtype=torch.float64)) for k, v in arrays.items()})
    bind_module(module, arrays)
    assert all(np.array_equal(module[k].detach().numpy(), v) for k, v in arrays.items())
