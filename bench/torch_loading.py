"""A transformers model in several workers: time to load and to answer, and memory, in each way to have the weights.

    python bench/torch_loading.py [--layers 8] [--workers 4] [--rounds 5]

A Llama of random weights (about 54 MiB a layer in float32), in float32 as it is stored, and in float32 with bfloat16 on
disk. The ways take turns in one process that has imported everything; the daemon has loaded the model already, as it
has for every worker but the first. Then so many workers of each way stand side by side, each after its first answer,
and their memory is added up. Needs torch and transformers (`make test` installs them). All ways have to give the same
logits, bit for bit; `same` says whether they did.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import mapcell
from common import BENCH, Case, Row, compare, folder, parser, private_daemon, row, run, worker_environment

WAYS = ("transformers", "safetensors", "mapcell from_pretrained", "mapcell bind_module")
STORED = ("float32", "bfloat16")
USED = "float32"


def write(path: Path, layers: int, stored: str) -> Path:
    """The model's folder."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    config = transformers.LlamaConfig(
        vocab_size=8192, hidden_size=1024, intermediate_size=2816, num_hidden_layers=layers, num_attention_heads=16,
        num_key_value_heads=16, tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).to(getattr(torch, stored))
    model.save_pretrained(path)
    return path


def memory(path: Path, way: str, workers: int) -> dict[str, Any]:
    """The bytes of so many workers at once, proportional and those private to one; and their answers' digests."""
    command = [sys.executable, str(BENCH / "torch_loading_worker.py"), way, str(path), USED, str(workers)]
    done = subprocess.run(command, env=worker_environment(1), stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    return {
        "pss": sum(f["pss"] for f in found),
        "private": int(median(f["private"] for f in found)),
        "logits": sorted({f["logits"] for f in found}),
    }


def times(path: Path, ways: Sequence[str], case: Case, options: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    """Rows of the seconds until a model is loaded, and until it has answered."""
    from torch_loading_worker import WAYS, answer

    loaded = {way: partial(partial, WAYS[way], path, torch_dtype()) for way in ways}
    answered = {way: partial(partial, answer, way, str(path), USED) for way in ways}
    return tuple(  # type: ignore[return-value]
        compare({**case, "until": until}, prepared, options.rounds)
        for until, prepared in (("loaded", loaded), ("answered", answered))
    )


def torch_dtype() -> Any:
    """torch's own name of what is used."""
    import torch

    return getattr(torch, USED)


def case_rows(options: argparse.Namespace, path: Path, stored: str) -> list[Row]:
    """The figures of every way, and mapcell's against transformers' from the same run."""
    ways = [way for way in WAYS if options.only is None or way in options.only]
    case: dict[str, object] = {"stored": stored, "used": USED, "layers": options.layers, "workers": options.workers}
    loaded, answered = times(path, ways, case, options)
    figures: dict[str, dict[str, Any]] = {}
    failed = [found for found in (*loaded, *answered) if "failed" in found]
    for load, answer in zip(loaded, answered, strict=True):
        if "failed" in load or "failed" in answer:
            continue
        held = memory(path, load["way"], options.workers)
        figures[load["way"]] = {"load": load["figures"]["seconds"], "answer": answer["figures"]["seconds"], **held}
    rows = failed + [row(case, way, **found) for way, found in figures.items()]
    rows.append(row(case, "all", same=len({digest for f in figures.values() for digest in f["logits"]}) == 1))
    theirs = figures.get("transformers")
    if theirs is not None:
        ours = {way: found for way, found in figures.items() if found is not theirs}
        rows += [row(case, f"transformers / {way}", **against(theirs, found)) for way, found in ours.items()]
    return rows


def against(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, float]:
    """How many times as long, and as much."""
    return {
        "load": theirs["load"]["p50"] / ours["load"]["p50"],
        "answer": theirs["answer"]["p50"] / ours["answer"]["p50"],
        "pss": theirs["pss"] / ours["pss"],
        "private": theirs["private"] / ours["private"],
    }


def measure(options: argparse.Namespace) -> list[Row]:
    """Each case under a daemon of its own."""
    rows: list[Row] = []
    for stored in STORED:
        with folder(options.folder) as place, private_daemon():
            path = write(place / "model", options.layers, stored)
            cast = None if stored == USED else USED
            with mapcell.attach(path / "model.safetensors", dtype=cast, daemon="require", timeout=600):
                rows += case_rows(options, path, stored)
    return rows


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--layers", type=int, default=8, help="54 MiB each, in float32")
    arguments.add_argument("--workers", type=int, default=4, help="side by side, for their memory")
    arguments.add_argument("--rounds", type=int, default=5, help="loads of each way")
    run(__file__, measure, arguments)
