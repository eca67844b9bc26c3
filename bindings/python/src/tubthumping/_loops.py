"""Event loops go on in a copy that has another process id.

In: the loops that run. Out: the same, held while the image is taken, and known to asyncio again in a copy.
Not here: hooks that run on loops.

PYTHON(before 3.12): asyncio.get_running_loop compares the process id with that of the start of the loop, and knows no
loop where it differs (Modules/_asynciomodule.c, `get_running_loop`). A copy has another one with `--pids new`; what
its loop would run before anybody could tell asyncio so would fail.
"""

import asyncio
import gc
import os
import sys
import threading

IS_NEEDED = sys.version_info < (3, 12)

# How long a loop that is busy is waited for; it is put right when it gets to it.
PATIENCE_S = 1.0

_gate = threading.Event()


def hold():
    """Called last before the image."""
    global _gate
    _gate = threading.Event()
    kind = asyncio.AbstractEventLoop
    # By type, since a proxy may answer for its class by running code.
    loops = [o for o in gc.get_objects() if issubclass(type(o), kind) and o.is_running()]
    arrivals = []
    for loop in loops:
        arrived = threading.Event()
        try:
            loop.call_soon_threadsafe(_held, loop, arrived, _gate, os.getpid())
        except RuntimeError:  # It has been closed meanwhile.
            continue
        arrivals.append(arrived)
    for arrived in arrivals:
        arrived.wait(PATIENCE_S)


def _held(loop, arrived, gate, process):
    arrived.set()
    gate.wait()
    if os.getpid() != process:
        asyncio._set_running_loop(loop)


def release():
    """Called first after it."""
    _gate.set()
