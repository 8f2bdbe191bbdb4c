"""The workers of torch_loading.py: load a model in one way, answer once, and say what they hold, side by side.

    python bench/torch_loading_worker.py WAY FOLDER DTYPE WORKERS

Prints a list of {"pss", "private", "logits"}: bytes, and a digest of the answer.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

import mapcell.torch
from common import MIB

Dtype = torch.dtype


def by_transformers(folder: Path, dtype: Dtype) -> Any:
    """transformers' own way."""
    return transformers.LlamaForCausalLM.from_pretrained(folder, dtype=dtype)


def by_safetensors(folder: Path, dtype: Dtype) -> Any:
    """A module without memory, and what safetensors loads assigned to it: the least that torch can do by itself."""
    with mapcell.torch.no_init_parameters():
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_pretrained(folder))
    state = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    model.load_state_dict(state, assign=True, strict=False)
    model.tie_weights()
    return model


def by_mapcell(folder: Path, dtype: Dtype) -> Any:
    """transformers, with the bytes from the daemon."""
    return mapcell.torch.from_pretrained(folder, transformers.LlamaForCausalLM, dtype=dtype, daemon="require")


def bound(folder: Path, dtype: Dtype) -> Any:
    """The same module without memory, bound."""
    with mapcell.torch.no_init_parameters():
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_pretrained(folder, dtype=dtype))
    weights = mapcell.torch.load_file(folder / "model.safetensors", dtype=dtype, daemon="require")
    mapcell.torch.bind_module(model, weights)
    return model


WAYS: Mapping[str, Callable[[Path, Dtype], Any]] = {
    "transformers": by_transformers,
    "safetensors": by_safetensors,
    "mapcell from_pretrained": by_mapcell,
    "mapcell bind_module": bound,
}


def memory() -> dict[str, int]:
    """This process's proportional and private bytes."""
    found = {"Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in found:
            found[key] = int(rest.split()[0]) * (MIB >> 10)
    return {"pss": found["Pss"], "private": found["Private_Clean"] + found["Private_Dirty"]}


def answer(way: str, folder: str, dtype: str) -> tuple[Any, str]:
    """The model, and a digest of what it answers."""
    model = WAYS[way](Path(folder), getattr(torch, dtype)).eval()
    with torch.inference_mode():
        logits = model(torch.arange(8)[None], use_cache=False).logits
    return model, hashlib.sha256(logits.float().numpy().tobytes()).hexdigest()


def hold(way: str, folder: str, dtype: str, barrier: Any, answers: Any) -> None:
    """One worker: loads, answers, and says what it holds once all have done so."""
    held = answer(way, folder, dtype)
    barrier.wait()
    found = memory()
    barrier.wait()
    answers.put(found | {"logits": held[1]})


def main(way: str, folder: str, dtype: str, workers: str) -> None:
    """Forks the workers, which share what was imported, and prints what each holds."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(int(workers)), context.SimpleQueue()
    started = [context.Process(target=hold, args=(way, folder, dtype, barrier, answers)) for _ in range(int(workers))]
    for process in started:
        process.start()
    print(json.dumps([answers.get() for _ in started]))
    for process in started:
        process.join()


transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)

if __name__ == "__main__":
    main(*sys.argv[1:])
