"""Makes the wheel: the Python sources, and the C library beside them.

In: `src/tubthumping`, and the library that TUBTHUMPING_LIBRARY names or `cargo build` makes.
Out: one wheel for this kind of machine and every Python from 3.9 on (the library is reached by ctypes,
which binds to no version of Python). Not here: source distributions, which nobody could build from.
"""

import base64
import hashlib
import os
import pathlib
import platform
import subprocess
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
VERSION = "0.1.0"
DIST_INFO = f"tubthumping-{VERSION}.dist-info"


def library():
    named = os.environ.get("TUBTHUMPING_LIBRARY")
    if named:
        return pathlib.Path(named)
    root = HERE.parent.parent
    try:
        subprocess.check_call(["cargo", "build", "--release", "--package", "tubthumping-c"], cwd=root)
    except FileNotFoundError:
        raise SystemExit(
            "the library for C is built by cargo, which was not found: install Rust, or let TUBTHUMPING_LIBRARY "
            "name a libtubthumping.so"
        ) from None
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    return target / "release" / "libtubthumping_c.so"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    tag = f"py3-none-linux_{platform.machine()}"
    metadata = (
        f"Metadata-Version: 2.1\nName: tubthumping\nVersion: {VERSION}\nRequires-Python: >=3.9\n"
        "Summary: Taking part in checkpoints: what a program is told before and after\n"
        "License: Apache-2.0 OR MIT\n"
    )
    wheel = f"Wheel-Version: 1.0\nGenerator: tubthumping\nRoot-Is-Purelib: false\nTag: {tag}\n"
    files = {
        f"tubthumping/{path.name}": path.read_bytes()
        for path in sorted((HERE / "src" / "tubthumping").iterdir())
        if path.suffix in (".py", ".typed")
    }
    files["tubthumping/libtubthumping.so"] = library().read_bytes()
    files[f"{DIST_INFO}/METADATA"] = metadata.encode()
    files[f"{DIST_INFO}/WHEEL"] = wheel.encode()
    record = f"{DIST_INFO}/RECORD"
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    files[record] = ("".join(lines) + f"{record},,\n").encode()
    name = f"tubthumping-{VERSION}-{tag}.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            # A fixed time: the same sources give the same wheel.
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), data)
    return name
