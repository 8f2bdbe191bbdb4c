"""Access: who is admitted, who operates, and who sees what."""

from __future__ import annotations

import pytest

from daemon.building import user
from mapcell_formats.errors import AccessDenied
from mapcelld.access import OVERFLOW_UID, Access
from mapcelld.channel import Credentials
from mapcelld.config import Config, ModelConfig, Principals
from mapcelld.registry import Model

OPERATORS = Principals(frozenset({1}), frozenset({50}))
RULES = Access(
    Config(
        budget=1,
        allow=Principals(frozenset({7}), frozenset({70})),
        operators=OPERATORS,
        models=(ModelConfig("secret", "/s", allow=Principals(frozenset({8}), frozenset({80}))),),
    )
)
OPEN = Access(Config(budget=1, operators=OPERATORS))


@pytest.mark.parametrize(
    ("rules", "who", "admitted"),
    [
        (OPEN, user(9), True),
        (OPEN, user(OVERFLOW_UID), False),
        (RULES, user(7), True),
        (RULES, user(9), False),
        (RULES, user(9, 70), True),
        (RULES, user(70), True),
        (RULES, user(1), True),
        (RULES, user(9, 50), True),
        (RULES, user(OVERFLOW_UID, 70), False),
    ],
)
def test_admit(rules: Access, who: Credentials, admitted: bool) -> None:
    """With [allow] those it names and operators; without, everybody; never the uid that stands for nobody."""
    if admitted:
        rules.admit(who)
    else:
        with pytest.raises(AccessDenied):
            rules.admit(who)


SHARED, OWNED, HIDDEN = Model("m", None, ""), Model("/home/m", 9, ""), Model("secret", None, "")


@pytest.mark.parametrize(
    ("who", "seen", "changes"),
    [
        (user(9), [SHARED, OWNED], [OWNED]),
        (user(8), [SHARED, HIDDEN], []),
        (user(5, 80), [SHARED, HIDDEN], []),
        (user(5), [SHARED], []),
        (user(1), [SHARED, OWNED, HIDDEN], [SHARED, OWNED, HIDDEN]),
        (user(5, 50), [SHARED, OWNED, HIDDEN], [SHARED, OWNED, HIDDEN]),
    ],
)
def test_models(who: Credentials, seen: list[Model], changes: list[Model]) -> None:
    """Seen by its owner, by everybody or by those it names, and by operators; changed by owner and operators."""
    assert [m for m in (SHARED, OWNED, HIDDEN) if RULES.sees(who, m)] == seen
    for model in (SHARED, OWNED, HIDDEN):
        if model in changes:
            RULES.demand_change(who, model)
        else:
            with pytest.raises(AccessDenied, match="takes an operator"):
                RULES.demand_change(who, model)
