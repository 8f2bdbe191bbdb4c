"""Writes the folder `unified`: python make_unified.py FOLDER, with MindSpore 2.10.0.

Two ranks of a model whose "w" is cut along its first axis, merged by mindspore.parallel.unified_safetensors. It begins
a new part every 3 GiB; here it is made to begin one after about half of the bytes.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
from mindspore.parallel import transform_safetensors
from mindspore.train.node_strategy_pb2 import ParallelStrategyMap

FOLDER = Path(sys.argv[1]).absolute()
RNG = np.random.default_rng(0)
WHOLE = {
    "w": RNG.standard_normal((4, 6)).astype(np.float32),
    "b": RNG.standard_normal(6).astype(np.float16),
    "norm.gamma": np.ones(4, np.float32),
    "ids": np.arange(5, dtype=np.int32),
}


def write_strategy() -> Path:
    """How each tensor is cut: "w" in two along its first axis."""
    strategy = ParallelStrategyMap(current_stage=1)
    strategy.parallel_strategy_item.add(node_name="node").parallel_strategys.stage = 0
    for name, array in WHOLE.items():
        layout = strategy.parallel_layout_item.add(param_name=name).parallel_layouts
        layout.field = layout.opt_weight_shard_step = layout.opt_weight_shard_size = 0
        layout.dev_matrix.add().dim.extend([2])
        layout.tensor_map.add().dim.extend([0 if (name, axis) == ("w", 0) else -1 for axis in range(array.ndim)])
        layout.param_split_shape.add()
    path = FOLDER / "strategy.ckpt"
    path.write_bytes(strategy.SerializeToString())
    return path


def write_rank(rank: int) -> None:
    """What one rank saves. Rank 0 has a counter, which ends up in a file that the index leaves out."""
    (FOLDER / f"rank_{rank}").mkdir(parents=True)
    parts = WHOLE | {"w": WHOLE["w"][2 * rank : 2 * rank + 2]}
    if rank == 0:
        parts["epoch_num"] = np.array([3], np.int32)
    saved = [{"name": name, "data": ms.Tensor(array)} for name, array in parts.items()]
    ms.save_checkpoint(saved, str(FOLDER / f"rank_{rank}" / "net"), format="safetensors")


for rank in range(2):
    write_rank(rank)
split = transform_safetensors._split_weight_dict
transform_safetensors._split_weight_dict = lambda weights, parts: split(weights, 2)
transform_safetensors.math = SimpleNamespace(ceil=lambda gibibytes: 2, prod=math.prod)
ms.parallel.unified_safetensors(str(FOLDER), str(write_strategy()), str(FOLDER / "unified"), False, max_process_num=1)
