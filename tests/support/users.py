"""Being another user for a moment."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

# Any uid will do: the kernel asks nobody whether it has a name.
OTHER_UID = 41_207

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")


def as_user(uid: int, function: Callable[[], Any]) -> Any:
    """What `function` returns (as JSON carries it) in a forked child that has become `uid`, without other groups.

    A fork, not a new interpreter: the one that runs the tests may lie where another user cannot read it. For the same
    reason whatever `function` imports has to be imported before.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            os.setgroups([])
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
