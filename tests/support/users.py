"""Being another user for a moment."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import pytest

# Any uid will do: the kernel asks nobody whether it has a name.
OTHER_UID = 41_207
THIRD_UID = 41_208
A_GROUP = 41_300

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")


def as_user(uid: int, function: Callable[[], Any], groups: Sequence[int] = ()) -> Any:
    """What `function` returns (as JSON carries it) in a forked child that has become `uid`, with `groups` besides.

    A fork, not a new interpreter: the one that runs the tests may lie where another user cannot read it. For the same
    reason whatever `function` imports has to be imported before.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            os.setgroups(groups)
            os.setgid(uid)
            os.setuid(uid)
            os.write(write, json.dumps(function()).encode())
            status = 0
        # The child of a test must not return into pytest, whatever happened.
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    os.close(write)
    with open(read, "rb") as pipe:
        text = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the other user failed; its traceback is on stderr"
    return json.loads(text)


def outcome(action: Callable[[], Any]) -> str:
    """What `action` raises, or its result, in words that can be told to the parent."""
    try:
        return repr(action())
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"
