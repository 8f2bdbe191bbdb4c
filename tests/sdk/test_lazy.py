"""Names that are imported when they are first asked for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import mapcell
import mapcell.nn
import mapcell.ops
import mapcell.train

PACKAGES = [mapcell, mapcell.ops, mapcell.nn, mapcell.train]
HEAVY = ["zmq", "psutil", "rich", "click", "scipy", "cryptography", "ml_dtypes", "safetensors", "msgpack", "torch"]


def in_stub(package):
    """(module, name) of everything that the stub tells type checkers."""
    stub = Path(package.__file__).with_suffix(".pyi")
    return sorted(
        ("." * node.level + (node.module or ""), alias.name)
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    )


def in_table(package):
    """(module, name) of everything in the table of the package."""
    call = next(n for n in ast.walk(ast.parse(Path(package.__file__).read_text())) if isinstance(n, ast.Call))
    table = ast.literal_eval(call.args[1])
    return sorted((module, name) for module, names in table.items() for name in names.split())


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
def test_the_stub_says_what_the_table_says(package):
    """Type checkers and editors see exactly the names that there are."""
    assert in_stub(package) == in_table(package)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
def test_every_name_is_there(package):
    """Each name can be had, is what its module holds, and is in dir() and __all__."""
    for module, name in in_table(package):
        value = getattr(package, name)
        if module == ".":
            assert value is importlib.import_module(f"{package.__name__}.{name}")
        else:
            assert value is getattr(importlib.import_module(module, package.__name__), name)
    names = {name for _, name in in_table(package)}
    assert names == set(package.__all__) == set(dir(package))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
def test_no_name_is_hidden_by_a_module(package):
    """A module of the package that has the name of something else would take its place when it is imported."""
    folder = Path(package.__file__).parent
    modules = {path.stem for path in folder.iterdir()}
    named = {name for module, name in in_table(package) if module not in (".", ".common")}
    assert not named & modules


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
def test_unknown_name(package):
    """AttributeError that names it, as from any module."""
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        package.nonsense  # noqa: B018


def test_one_dtype_module():
    """`mapcell.dtype` and `mapcell.common.dtype` are one module, so a dtype exists once."""
    by_name = importlib.import_module("mapcell.dtype")
    assert by_name is importlib.import_module("mapcell.common.dtype") is mapcell.dtype
    assert mapcell.float32 is by_name.float32


@pytest.mark.parametrize(
    "statement",
    ["import mapcell", "from mapcell import nn, ops, Tensor; nn.Dense(2, 3)(ops.ones((1, 2)))"],
    ids=["import", "first use"],
)
def test_importing_is_light(statement):
    """Neither importing nor computing pulls in what only some need."""
    code = f"import sys; {statement}; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("package", "name", "advice"),
    [
        (mapcell, "Model", "load the checkpoint here"),
        (mapcell, "vmap", "only gradients are here"),
        (mapcell.nn, "Momentum", "Train with MindSpore"),
        (mapcell.ops, "AllReduce", "Start one process for each replica"),
    ],
)
def test_names_left_out(package, name, advice):
    """Asking for one says why and what to do instead; hasattr and a guarded import find that it is not there."""
    with pytest.raises(mapcell.NotOffered, match=advice):
        getattr(package, name)
    assert not hasattr(package, name)
    with pytest.raises(ImportError):
        exec(f"from {package.__name__} import {name}")


@pytest.mark.parametrize("module", ["operations", "functional", "composite"])
def test_older_modules_of_ops(module):
    """Networks import operators by the module that they once were in."""
    older = importlib.import_module(f"mapcell.ops.{module}")
    assert older.MatMul is mapcell.ops.MatMul
    assert older.GradOperation is mapcell.ops.GradOperation
    assert set(dir(older)) == set(dir(mapcell.ops))
    assert getattr(mapcell.ops, module) is older
