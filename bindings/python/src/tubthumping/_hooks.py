"""Hooks of Python's: registered, called, and what they raise.

In: functions, coroutine functions, resources. Out: calls of them, on a thread of the library's or on their event loop.
Invariant: nothing that a hook raises gets into the library but as a failure by its name.
Not here: order and deadlines (the library).
"""

import asyncio
import concurrent.futures
import contextvars
import functools
import inspect
import itertools
import os
import sys
import threading
import weakref

from . import _library, _loops, _random
from ._exceptions import CheckpointException, RestoreException

_lock = threading.Lock()
# What keeps the functions that C calls alive, until C releases them.
_registered = {}
_keys = itertools.count(1)


@_library.RELEASE
def _release(key):
    with _lock:
        _registered.pop(key, None)


class Registration:
    """A place in the order of hooks. It lasts until `unregister`, whether or not this object is kept."""

    def __init__(self, number):
        self._number = number

    def unregister(self):
        """Ends it; gives whether it was there. A checkpoint that is under way still calls the hook."""
        return _library.LIBRARY.tub_unregister(self._number)


class Resource:
    """What wants to know of checkpoints, in the form of a class. Either method may be a coroutine function, and
    `after_restore` may take the `Outcome` or nothing."""

    def before_checkpoint(self):
        """Before the image is taken, in reverse order of registration."""

    def after_restore(self, outcome):
        """After it, in order of registration: in the original, image or not, and in every copy."""


def _running_loop():
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _call(function, loop, *arguments):
    """Calls a hook, and waits for it where it is a coroutine function."""
    result = function(*arguments)
    if not inspect.isawaitable(result):
        return
    if loop is not None and loop.is_running():
        future = asyncio.run_coroutine_threadsafe(_awaited(result), loop)
        future.result()
    else:
        asyncio.run(_awaited(result))


# The coroutine hook in which the code runs that asks: a list that is emptied at its end, since what a hook leaves behind
# (a task, a server) runs in its context for ever.
_inside = contextvars.ContextVar("_inside", default=())


async def _awaited(result):
    running = [True]
    _inside.set(running)
    try:
        return await result
    finally:
        running.clear()


def _takes_outcome(function):
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _fail(failures, error):
    if isinstance(error, concurrent.futures.CancelledError):
        error = RuntimeError("the event loop ended before the hook did")
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    text = str(error) or repr(error)
    _library.LIBRARY.tub_fail(failures, name.encode(), text.encode(errors="replace"))


def _register(name, before, after):
    loop = _running_loop()

    def tell_before(_data, failures):
        try:
            _call(before, loop)
        except BaseException as error:  # A hook that calls sys.exit is told as well.
            _fail(failures, error)

    def tell_after(_data, raw, failures):
        try:
            outcome = _library.outcome(raw.contents)
            _call(after, loop, *([outcome] if _takes_outcome(after) else []))
        except BaseException as error:
            _fail(failures, error)

    pair = (
        _library.BEFORE(tell_before) if before else _library.BEFORE(),
        _library.AFTER(tell_after) if after else _library.AFTER(),
    )
    key = next(_keys)
    with _lock:
        _registered[key] = pair
    return Registration(_library.LIBRARY.tub_register(name.encode(), *pair, key, _release))


def _name(function):
    return getattr(function, "__qualname__", None) or repr(function)


_by_function = {}


def before_checkpoint(function):
    """Has `function` called before each checkpoint, in reverse order of registration. A decorator, too."""
    _by_function.setdefault(function, []).append(_register(_name(function), function, None))
    return function


def after_restore(function):
    """Has `function` called after each checkpoint, in order of registration, in the original and in every copy. It may
    take an `Outcome`. A decorator, too."""
    _by_function.setdefault(function, []).append(_register(_name(function), None, function))
    return function


def unregister(function):
    """Undoes all registrations of a function; gives whether there were any."""
    found = _by_function.pop(function, [])
    return any([registration.unregister() for registration in found])


def register(resource, name=None, weak=False):
    """Registers an object with the methods of `Resource`. If `weak`, it is told only for as long as somebody else keeps
    it."""
    name = name or type(resource).__qualname__
    if not weak:
        return _register(name, resource.before_checkpoint, resource.after_restore)
    reference = weakref.ref(resource, lambda _: registration.unregister())

    def before():
        alive = reference()
        return alive.before_checkpoint() if alive is not None else None

    def after(outcome):
        alive = reference()
        if alive is None:
            return None
        method = alive.after_restore
        return method(outcome) if _takes_outcome(method) else method()

    registration = _register(name, before, after)
    return registration


def _bound(function, arguments, keywords):
    return functools.wraps(function)(functools.partial(function, *arguments, **keywords))


def register_before_snapshot(function, *arguments, **keywords):
    """The same as `before_checkpoint`, by the name and with the arguments of `snapshot_restore_py`."""
    _register(_name(function), _bound(function, arguments, keywords), None)
    return function


def register_after_restore(function, *arguments, **keywords):
    """The same as `after_restore`, by the name and with the arguments of `snapshot_restore_py`: only the arguments named
    here are passed."""
    bound = _bound(function, arguments, keywords)
    _register(_name(function), None, lambda: bound())
    return function


def checkpoint():
    """Asks for a checkpoint of this process, and returns in the original and in every copy, with the `Outcome`.

    Not on the thread of a running event loop, which coroutine hooks may need: `await checkpoint_async()` there.
    """
    if _running_loop() is not None:
        raise RuntimeError("this thread runs an event loop: await checkpoint_async() instead")
    return _checkpoint()


def _checkpoint():
    outcome, has_image, failures = _library.checkpoint()
    if outcome is None:
        raise (RestoreException if has_image else CheckpointException)(failures)
    return outcome


async def checkpoint_async():
    """The same as `checkpoint`, without keeping the event loop from running."""
    if _inside.get():
        # It would wait for itself. (`checkpoint` is refused by the library, which knows its thread.)
        recursive = _library.Failure("IllegalStateException", "Recursive checkpoint is not allowed", None)
        raise CheckpointException([recursive])
    return await asyncio.get_running_loop().run_in_executor(None, _checkpoint)


def _environment(outcome):
    """A copy has the variables of its `tub restore`, what is not named keeps its value."""
    if outcome.is_restored:
        os.environ.update(outcome.environment)


def _start():
    failed = _library.start()
    if failed:
        sys.stderr.write(f"tub: {failed}\n")
        return
    # Nearest to the image, before and after it.
    if _loops.IS_NEEDED:
        _register("event loops", _loops.hold, _loops.release)
    # Before all others, so that every hook draws numbers of its own and sees the new environment.
    _register("environment", None, _environment)
    _register("random", None, _random.reseed)


_start()
