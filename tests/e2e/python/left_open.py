"""The program in Python of the end-to-end tests of resource policies (tests/e2e/tests/policies.rs). It does what
crates/tubthumping-app/examples/left_open.rs does; its server and its connection belong to an event loop.
"""

import asyncio
import errno
import os
import sys

import tubthumping


def say(text):
    os.write(1, f"{text}\n".encode())


def found(ask):
    """What comes of asking: text, or why not."""
    try:
        return ask()
    except OSError as error:
        return errno.errorcode[error.errno]


@tubthumping.before_checkpoint
def before():
    say("before")


@tubthumping.after_restore
def after():
    say("after")


def at(name):
    return os.path.join(sys.argv[1], name)


async def answer(reader, writer):
    """As servers do: until the client goes."""
    while await reader.read(1):
        pass
    writer.close()


async def main():
    for name in ("input.txt", "closed.txt"):
        with open(at(name), "w") as file:
            file.write("0123456789")
    given = os.open(at("input.txt"), os.O_RDONLY)
    os.read(given, 3)
    closed = os.open(at("closed.txt"), os.O_RDONLY)
    log = os.open(at("app.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, b"before\n")
    data = os.open(at("data.bin"), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.write(data, bytes(8))
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, _writer = await asyncio.open_connection("127.0.0.1", port)
    say("ready")
    seen = 0
    while True:
        await asyncio.sleep(0.01)
        if not os.path.exists(at("go")) or os.stat(at("go")).st_ino == seen:
            continue
        seen = os.stat(at("go")).st_ino
        with open(at("go")) as file:
            order = file.read()
        word = order.split(" ")[0]
        if word == "checkpoint":
            try:
                await tubthumping.checkpoint_async()
                say("checkpoint")
            except tubthumping.TubthumpingError as error:
                for failure in error.failures:
                    say(f"{type(error).__name__} {failure}")
        elif word in ("peek", "look"):
            count = 1 if word == "peek" else 100
            say("input " + found(lambda: os.read(given, count).decode()))
            say("closed " + found(lambda: os.read(closed, 1).decode()))
        if word == "look":
            say("log " + found(lambda: os.write(log, b"after\n") and "ok"))
            say("data " + found(lambda: str(os.lseek(data, 0, os.SEEK_CUR))))
            try:
                _, other = await asyncio.open_connection("127.0.0.1", port)
                other.close()
                say("server true")
            except OSError as error:
                say(f"server {error}")
            try:
                end = await asyncio.wait_for(reader.read(1), 10)
            except OSError:
                end = b""
            say(f"client {str(end == b'').lower()}")
        elif word == "end":
            return
        say(f"did {order}")


asyncio.run(main())
