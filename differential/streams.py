"""The program's random numbers and batches (crates/decode/src/stream.rs, crates/train/src/batches.rs)."""

import struct
from hashlib import sha256

MASK32 = 0xFFFFFFFF


def chacha8(key, counter):
    """A block of 16 words."""
    start = [*struct.unpack("<4I", b"expand 32-byte k"), *key, counter & MASK32, counter >> 32, 0, 0]
    words = list(start)

    def quarter(*places):
        a, b, c, d = places
        for into, by, mixed, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            words[into] = (words[into] + words[by]) & MASK32
            mix = words[mixed] ^ words[into]
            words[mixed] = (mix << turn | mix >> (32 - turn)) & MASK32

    for _ in range(4):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return [(a + b) & MASK32 for a, b in zip(words, start)]


class Stream:
    """The random numbers of one purpose, by position."""

    def __init__(self, seed, stage, prompt="", sample=0):
        texts = b"".join(struct.pack("<Q", len(text)) + text.encode() for text in (stage, prompt))
        digest = sha256(struct.pack("<Q", seed) + texts + struct.pack("<Q", sample)).digest()
        self.key = struct.unpack("<8I", digest)

    def uniform(self, position):
        words = chacha8(self.key, position // 8)
        low, high = words[2 * (position % 8) :][:2]
        return ((high << 32 | low) >> 11) / 2**53

    def permutation(self, n):
        order = list(range(n))
        for i in range(n - 1, 0, -1):
            j = int(self.uniform(i) * (i + 1))
            order[i], order[j] = order[j], order[i]
        return order


def batch(seed, n, per_step, step):
    """The examples of a step: every epoch is a permutation, cut into whole batches."""
    epoch, place = divmod(step, max(n // per_step, 1))
    order = Stream(seed, "epoch", sample=epoch).permutation(n)
    return [order[i % n] for i in range(place * per_step, (place + 1) * per_step)]
