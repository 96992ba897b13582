"""Randomness as a pure function of a key: no generator's state has to be stored, shared or replayed.

A key is a seed and counters such as `(epoch, index)`; words keep the uses of one seed apart, as in
`generator(seed, "corruption", epoch, index)`. Whatever is drawn for one key does not depend on which other
keys were used before, in which order, or in which process.
"""

import hashlib
import random

import numpy as np
import torch


def generator(seed: int, *counters: int | str) -> np.random.Generator:
    """Random numbers for one key: Philox, the same on every machine."""
    key = np.frombuffer(_digest(seed, counters), dtype="<u8")  # (2,)
    return np.random.Generator(np.random.Philox(key=key))


def torch_generator(seed: int, *counters: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator for one key.

    torch seeds its CPU generator with 32 bits, so of 65,000 keys two are likely to coincide: use `generator`
    for what is drawn once per utterance, and this for what a torch function insists on.
    """
    return torch.Generator(device).manual_seed(_torch_seed(seed, counters))


def seed_globals(seed: int, *counters: int | str) -> None:
    """Seed the global generators of Python, numpy and torch (all devices), as dropout needs every step."""
    number = _torch_seed(seed, counters)
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)


def _torch_seed(seed: int, counters: tuple[int | str, ...]) -> int:
    return int.from_bytes(_digest(seed, counters)[:8], "little")


def _digest(seed: int, counters: tuple[int | str, ...]) -> bytes:
    """16 bytes that name the key: 1 and "1", ("ab", "c") and ("a", "bc"), (1,) and (1, 0) all differ."""
    parts = (
        f"i{part}" if isinstance(part, int | np.integer) else f"s{len(part)}:{part}"
        for part in (seed, *counters)
    )
    return hashlib.blake2b(";".join(parts).encode(), digest_size=16).digest()
