"""Taking part in checkpoints: what a program is told before and after.

    from tubthumping import before_checkpoint, after_restore, checkpoint

    @before_checkpoint
    def close_pool(): ...

    @after_restore
    async def open_pool(outcome): ...

Importing it opens the control socket by which `tub checkpoint` finds the program. Hooks before a checkpoint run
in reverse order of registration, hooks after it in order, on a thread of the library's; coroutine functions run on
the event loop that ran when they were registered. See docs/python.md.
"""

from ._hooks import (
    Registration,
    Resource,
    after_restore,
    before_checkpoint,
    checkpoint,
    checkpoint_async,
    register,
    register_after_restore,
    register_before_snapshot,
    unregister,
)
from ._library import Failure, Outcome
from ._exceptions import CheckpointException, RestoreException, TubthumpingError

__all__ = [
    "CheckpointException",
    "Failure",
    "Outcome",
    "Registration",
    "Resource",
    "RestoreException",
    "TubthumpingError",
    "after_restore",
    "before_checkpoint",
    "checkpoint",
    "checkpoint_async",
    "register",
    "register_after_restore",
    "register_before_snapshot",
    "unregister",
]
