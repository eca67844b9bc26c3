"""The C library, by ctypes (tub.h): declarations, and its structs as values of Python.

Not here: hooks of Python's.
"""

import ctypes
import os
import platform
import typing
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint8, c_uint64, c_void_p

RESUMED, RESTORED, FAILED = 1, 2, 3
STATES = {RESUMED: "resumed", RESTORED: "restored", FAILED: "failed"}


class RawOutcome(ctypes.Structure):
    _fields_ = [
        ("state", c_int),
        ("generation", c_uint64),
        ("image", c_char_p),
        ("instance", c_char_p),
        ("seed", c_uint8 * 32),
        ("restore_unix_ms", c_uint64),
        ("environment", POINTER(c_char_p)),
        ("arguments", POINTER(c_char_p)),
    ]


BEFORE = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)
AFTER = ctypes.CFUNCTYPE(None, c_void_p, POINTER(RawOutcome), c_void_p)
RELEASE = ctypes.CFUNCTYPE(None, c_void_p)


class Outcome(typing.NamedTuple):
    """How this process goes on: `state` is "resumed" (the original; there is an image), "restored" (a copy), or
    "failed" (the original; there is none)."""

    state: str
    generation: int
    image: typing.Optional[str]
    instance: typing.Optional[str]
    seed: bytes
    restore_unix_ms: int
    environment: dict
    arguments: list

    @property
    def is_restored(self):
        """Whether this process is a copy."""
        return self.state == "restored"

    def __repr__(self):
        # The seed is secret, and the environment may be.
        return f"Outcome({self.state}, generation={self.generation}, instance={self.instance})"


class Failure(typing.NamedTuple):
    """One thing that went wrong: a name for its kind, a message (of a descriptor its path or address), and the
    hook that failed, if one did."""

    type: str
    message: str
    resource: typing.Optional[str]

    def __str__(self):
        return f"{self.resource}: {self.type}: {self.message}" if self.resource else f"{self.type}: {self.message}"


def _strings(pointer):
    strings = []
    while pointer and pointer[len(strings)] is not None:
        strings.append(os.fsdecode(pointer[len(strings)]))
    return strings


def _text(data):
    return None if data is None else os.fsdecode(data)


def outcome(raw):
    """What a RawOutcome holds."""
    return Outcome(
        STATES[raw.state],
        raw.generation,
        _text(raw.image),
        _text(raw.instance),
        bytes(raw.seed),
        raw.restore_unix_ms,
        dict(pair.split("=", 1) for pair in _strings(raw.environment) if "=" in pair),
        _strings(raw.arguments),
    )


def _load():
    path = os.environ.get("TUBTHUMPING_LIBRARY")
    library = ctypes.CDLL(path or os.path.join(os.path.dirname(__file__), "libtubthumping.so"))
    report = c_void_p
    for name, result, arguments in [
        ("tub_start", c_char_p, [c_char_p, c_bool]),
        ("tub_register", c_uint64, [c_char_p, BEFORE, AFTER, c_void_p, RELEASE]),
        ("tub_unregister", c_bool, [c_uint64]),
        ("tub_fail", None, [c_void_p, c_char_p, c_char_p]),
        ("tub_checkpoint", c_int, [POINTER(report)]),
        ("tub_report_count", c_size_t, [report]),
        ("tub_report_has_image", c_bool, [report]),
        ("tub_report_outcome", POINTER(RawOutcome), [report]),
        ("tub_report_type", c_char_p, [report, c_size_t]),
        ("tub_report_message", c_char_p, [report, c_size_t]),
        ("tub_report_resource", c_char_p, [report, c_size_t]),
        ("tub_report_free", None, [report]),
    ]:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


LIBRARY = _load()


def start():
    """Opens the control socket. Says why the program cannot take part, if so."""
    runtime = f"{platform.python_implementation()} (Python {platform.python_version()})"
    return _text(LIBRARY.tub_start(runtime.encode(), False))


def checkpoint():
    """Asks for a checkpoint. Gives how the process goes on (None where something failed), whether there is an image,
    and what failed."""
    report = c_void_p()
    # ctypes lets other threads run meanwhile, the one that calls the hooks among them.
    LIBRARY.tub_checkpoint(ctypes.byref(report))
    try:
        failures = [
            Failure(
                _text(LIBRARY.tub_report_type(report, index)),
                _text(LIBRARY.tub_report_message(report, index)),
                _text(LIBRARY.tub_report_resource(report, index)),
            )
            for index in range(LIBRARY.tub_report_count(report))
        ]
        raw = LIBRARY.tub_report_outcome(report)
        return outcome(raw.contents) if raw else None, LIBRARY.tub_report_has_image(report), failures
    finally:
        LIBRARY.tub_report_free(report)
