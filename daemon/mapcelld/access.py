"""Who may do what. Pure: credentials and configuration in, an answer or AccessDenied out."""

from __future__ import annotations

from dataclasses import dataclass

from mapcell_formats.errors import AccessDenied
from mapcelld.channel import Credentials
from mapcelld.config import Config
from mapcelld.registry import Model

# What a user namespace shows for everyone it does not know: it stands for nobody in particular, so it is nobody.
OVERFLOW_UID = 65534


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one configuration."""

    config: Config

    def admit(self, who: Credentials) -> None:
        """AccessDenied unless `who` may talk to the daemon at all."""
        allow = self.config.allow
        if who.uid == OVERFLOW_UID:
            raise AccessDenied("uid 65534 stands for unknown users and is never admitted")
        if allow is not None and not allow.include(who.uid, who.groups) and not self.operates(who):
            raise AccessDenied(f"uid {who.uid} is not in the daemon's [allow]; ask its operator")

    def operates(self, who: Credentials) -> bool:
        """Whether `who` is an operator."""
        return self.config.operators.include(who.uid, who.groups)

    def sees(self, who: Credentials, model: Model) -> bool:
        """Whether `model` exists as far as `who` can tell."""
        if model.owner == who.uid or self.operates(who):
            return True
        configured = self.config.model(model.name)
        narrowed = configured.allow if configured is not None else None
        return model.owner is None and (narrowed is None or narrowed.include(who.uid, who.groups))

    def demand_change(self, who: Credentials, model: Model) -> None:
        """AccessDenied unless `who` may change `model`: its owner, or an operator."""
        if not self.operates(who) and model.owner != who.uid:
            raise AccessDenied(f"changing {model.name!r} takes an operator (see operators in the configuration)")
