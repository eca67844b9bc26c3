"""Fresh random numbers in every copy.

In: the seed that `tub restore` gives. Out: generators that have been seeded with it. What asks the kernel each time
(os.urandom, secrets, uuid4, random.SystemRandom) needs nothing. Not here: generators that the program has made.
"""

import hashlib
import random
import sys


def _derived(seed, purpose):
    return hashlib.sha256(purpose + seed).digest()


def reseed(outcome):
    """Seeds what modules share, in a copy."""
    if not outcome.is_restored:
        return
    random.seed(_derived(outcome.seed, b"random"))
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        derived = _derived(outcome.seed, b"numpy")
        words = [int.from_bytes(derived[at : at + 4], "little") for at in range(0, 32, 4)]
        numpy.random.seed(words)
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        # OpenSSL's generators, of all threads, mix it in before they draw again.
        ssl.RAND_add(_derived(outcome.seed, b"ssl"), 32.0)
