"""Rows of `mapcell ls`: versions as they are held, and models that have none."""

from __future__ import annotations

from mapcell_formats.messages import ModelRow
from mapcelld.registry import Model, Version
from mapcelld.staging import Intent, Plan


def row_of(model: Model, version: Version, outlook: str) -> ModelRow:
    """The row of `version` under the name of `model`; `outlook` as ModelRow has it."""
    tags = tuple(t for t, v in model.tags.items() if v == version.id)
    newest = bool(model.versions) and model.versions[-1] == version.id
    return ModelRow(
        name=model.name,
        version=version.id,
        tags=(*tags, "latest") if newest else tags,
        state=version.state.value,
        residence="sealed" if version.sealed_bytes == version.nbytes else version.residence,
        dtype=version.dtype,
        nbytes=version.nbytes,
        tensors=version.tensors,
        leases=version.leases,
        pinned=version.pinned,
        verified=version.verified,
        format=version.format,
        source=model.source,
        digest=version.content,
        source_state=model.source_state if newest else "",
        source_detail=model.source_detail if newest else "",
        follow=model.follow,
        guard=version.guard,
        outlook=outlook,
    )


def absent_row(intent: Intent, state: str, plan: Plan, total: int) -> ModelRow:
    """The row of a model without a version: being staged, or configured and not asked for yet. `total` in bytes."""
    return ModelRow(
        name=intent.name,
        version="",
        tags=(),
        state=state,
        residence=plan.residence,
        dtype=plan.selection.dtype,
        nbytes=total,
        tensors=0,
        leases=0,
        pinned=intent.pin,
        verified=False,
        format="",
        source=intent.source,
    )
