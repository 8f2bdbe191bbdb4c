"""The shape of the source: which package may know which, no cycles, no module too long, and a cheap import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOTS: Mapping[str, Path] = {
    "mapcell_formats": ROOT / "formats" / "mapcell_formats",
    "mapcelld": ROOT / "daemon" / "mapcelld",
    "mapcell": ROOT / "sdk" / "mapcell",
}
MAY_IMPORT = {
    "mapcell_formats": {"mapcell_formats"},
    "mapcelld": {"mapcell_formats", "mapcelld"},
    "mapcell": {"mapcell_formats", "mapcell"},
}
MAX_LINES = 400
# Every message of the wire stands in one place, whatever its length.
LONGER = {"mapcell_formats.messages": 600}
# What costs more to import than NumPy, or is needed by few.
HEAVY = {
    "zmq", "psutil", "rich", "click", "scipy", "cryptography", "ml_dtypes", "safetensors", "torch", "msgpack", "blake3",
    "tokenizers", "asyncio",
}  # fmt: skip


def name_of(path: Path) -> str:
    """The dotted name of the module at `path`."""
    package = next(p for p, root in ROOTS.items() if path.is_relative_to(root))
    parts = path.relative_to(ROOTS[package].parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for root in ROOTS.values() for path in sorted(root.rglob("*.py"))}


def _nodes(tree: ast.AST, everywhere: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports of a module; but `everywhere`, only those that run when it is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif everywhere or not _runs_later(node):
            yield from _nodes(node, everywhere)


def _runs_later(node: ast.AST) -> bool:
    """Whether the body of `node` is not run on import: a function's, or what only type checkers read."""
    typing_only = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    return typing_only or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))


@cache
def imports(module: str, everywhere: bool) -> frozenset[str]:
    """What `module` imports, by dotted names: modules, or names in them."""
    path, found = MODULES[module], set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _nodes(ast.parse(path.read_text()), everywhere):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        else:
            levels = package.split(".")
            base = ".".join(levels[: len(levels) - node.level + 1]) if node.level else ""
            whole = ".".join(filter(None, [base, node.module]))
            found.update(f"{whole}.{alias.name}" for alias in node.names)
    return frozenset(found)


def modules_of(names: frozenset[str]) -> set[str]:
    """The modules of ours among imported names."""
    return {n if n in MODULES else n.rpartition(".")[0] for n in names} & MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_direction(module: str) -> None:
    """formats <- daemon, formats <- sdk, and nothing else; also within functions."""
    allowed = MAY_IMPORT[module.split(".")[0]]
    foreign = {n.split(".")[0] for n in imports(module, True)} & ROOTS.keys()
    assert foreign <= allowed


@pytest.mark.parametrize("module", MODULES)
def test_no_dynamic_imports(module: str) -> None:
    """No module is named by a string to get around that."""
    text = MODULES[module].read_text()
    others = ROOTS.keys() - MAY_IMPORT[module.split(".")[0]]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            assert not any(other in ast.unparse(node) for other in others)


def test_no_cycles() -> None:
    """No module needs itself to be imported."""
    state: dict[str, int] = {}
    trail: list[str] = []

    def visit(module: str) -> None:
        if state.get(module) == 2:
            return
        assert state.get(module) != 1, "cycle: " + " -> ".join([*trail[trail.index(module) :], module])
        state[module] = 1
        trail.append(module)
        for needed in sorted(modules_of(imports(module, False)) - {module}):
            # A package's __init__ is not needed for a module of it: it gathers what they have.
            if not module.startswith(needed + "."):
                visit(needed)
        trail.pop()
        state[module] = 2

    for module in sorted(MODULES):
        visit(module)


@pytest.mark.parametrize("module", MODULES)
def test_length(module: str) -> None:
    """Nobody has to read a module of more than 400 lines."""
    assert len(MODULES[module].read_text().splitlines()) <= LONGER.get(module, MAX_LINES)


CHEAP = """
import sys
import {module}
print(" ".join(sorted({{name.split(".")[0] for name in sys.modules}})))
"""


def loaded(module: str) -> set[str]:
    """The packages that importing `module` loads in a fresh interpreter."""
    command = [sys.executable, "-W", "error", "-c", CHEAP.format(module=module)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split())


@pytest.mark.parametrize("module", ["mapcell", "mapcell.nn", "mapcell.ops", "mapcell.common.initializer"])
def test_cheap_import(module: str) -> None:
    """Importing the SDK costs NumPy, and none of what only some need."""
    assert loaded(module) & HEAVY == set()


def test_heavy_imports_are_noticed() -> None:
    """What the test above looks for is found where it is."""
    assert loaded("mapcelld.control") >= {"zmq", "asyncio", "msgpack"}
    assert "mapcell_formats.wire" in modules_of(imports("mapcelld.control", False))
    assert "zmq" not in imports("mapcell.watching", False)
    assert "zmq" in imports("mapcell.watching", True)


def test_nothing_foreign_in_formats() -> None:
    """Formats need no sockets, threads or daemons to be parsed."""
    for module in MODULES:
        if module.startswith("mapcell_formats"):
            assert not {n.split(".")[0] for n in imports(module, True)} & {"socket", "asyncio", "zmq", "subprocess"}


def test_nothing_is_executed() -> None:
    """No module unpickles, evaluates or marshals what it read."""
    forbidden = {"pickle.load", "pickle.loads", "pickle.Unpickler", "eval", "exec", "marshal.loads", "torch.load"}
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Call) and ast.unparse(node.func) in forbidden), path
