"""The program in Python of the end-to-end tests (tests/e2e/tests/languages.rs): three resources, and orders from a
file. It does what crates/tubthumping-app/examples/subject.rs does.

With the second argument `asyncio` it runs on an event loop, and some of its hooks are coroutine functions.
"""

import asyncio
import os
import random
import socket
import ssl  # Its generator has a state that copies share, unless it is reseeded.
import sys
import threading
import time

import tubthumping

say_lock = threading.Lock()


def say(text):
    with say_lock:
        os.write(1, f"{text}\n".encode())


class Tired(Exception):
    pass


Tired.__module__ = "builtins"  # Shown as its bare name.


def shown(outcome):
    if outcome.is_restored:
        words = ",".join(outcome.arguments)
        assert os.environ["COLOR"] == outcome.environment["COLOR"] if "COLOR" in outcome.environment else True
        return f"restored {outcome.generation} [{outcome.environment.get('COLOR', '')}] [{words}]"
    return f"resumed {outcome.generation}" if outcome.state == "resumed" else "failed"


class Noted(tubthumping.Resource):
    def __init__(self, name):
        self.name = name

    def before_checkpoint(self):
        assert threading.current_thread() is not threading.main_thread()
        say(f"before {self.name}")
        if self.name in ("bad", "worse"):
            raise Tired(f"{self.name} is tired")
        if self.name == "slow":
            time.sleep(3)

    def after_restore(self, outcome):
        say(f"after {self.name} {shown(outcome)}")


class OnLoop(Noted):
    async def before_checkpoint(self):
        assert asyncio.get_running_loop() is the_loop
        await asyncio.sleep(0.01)
        say(f"before {self.name}")

    async def after_restore(self, outcome):
        assert asyncio.get_running_loop() is the_loop
        await asyncio.sleep(0.01)
        say(f"after {self.name} {shown(outcome)}")


def draw(outcome):
    if outcome.is_restored:
        say(f"random {random.random()} {ssl.RAND_bytes(4).hex()}")


the_loop = None
registered = {}
opened = []


def carry_out(order):
    """Carries out an order; gives whether it was one for a checkpoint."""
    word, _, rest = order.partition(" ")
    if word == "open":
        opened.append(open(rest))
    elif word == "listen":
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        opened.append(listener)
    elif word == "close":
        while opened:
            opened.pop().close()
    elif word == "register":
        registered[rest] = tubthumping.register(Noted(rest), rest)
    elif word == "unregister":
        registered.pop(rest).unregister()
    elif word == "end":
        sys.exit(0)
    return word == "checkpoint"


def told(error):
    for failure in error.failures:
        say(f"{type(error).__name__} {failure}")


def orders():
    """Each new order; None where there is none."""
    seen = 0
    while True:
        try:
            found = os.stat(os.path.join(sys.argv[1], "go")).st_ino
        except FileNotFoundError:
            found = seen
        if found == seen:
            yield None
            continue
        seen = found
        with open(os.path.join(sys.argv[1], "go")) as file:
            order = file.read()
        yield order


def threads():
    for name in ("one", "two", "three"):
        registered[name] = tubthumping.register(Noted(name), name)
    tubthumping.after_restore(draw)
    say("ready")
    for order in orders():
        if order is None:
            time.sleep(0.01)
            continue
        if carry_out(order):
            try:
                say(f"checkpoint {shown(tubthumping.checkpoint())}")
            except tubthumping.TubthumpingError as error:
                told(error)
        say(f"did {order}")


async def loop():
    global the_loop
    the_loop = asyncio.get_running_loop()
    for name in ("one", "two", "three"):
        kind = OnLoop if name == "two" else Noted
        registered[name] = tubthumping.register(kind(name), name)
    tubthumping.after_restore(draw)
    say("ready")
    for order in orders():
        if order is None:
            await asyncio.sleep(0.01)
            continue
        if carry_out(order):
            try:
                say(f"checkpoint {shown(await tubthumping.checkpoint_async())}")
            except tubthumping.TubthumpingError as error:
                told(error)
        say(f"did {order}")


if sys.argv[2:] == ["asyncio"]:
    asyncio.run(loop())
else:
    threads()
