"""The random numbers of sampling, each a function of (seed, sample, position) and of nothing else.

So a seeded request draws the same numbers alone and among others, after a pre-emption, after a restart and on
every device: there is no generator whose state would have to be kept. One uniform number decides a token by
the inverse distribution function (kernels/categorical.c), therefore the token is no argument: a number for
each token of the vocabulary, as the Gumbel trick needs, would cost more than the draw itself. The price: if
the logits move a little, the inverse distribution function changes its token somewhat more often than Gumbel
noise would.

Method: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014) with the
finaliser that Vigna's splitmix64.c uses. Its n-th output is a hash of state + n * odd constant and needs no
outputs before it. Seed, sample and position are absorbed one after the other: each output is the state of the
next. Integers wrap around at 2^64; no floating point but the last, exact, step, so every device has the same
bits. Leaves out cryptography: who knows some outputs can compute the others.
"""

import secrets

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_DERIVED = 0x6D69785F73656564  # keeps the seeds of `mix` apart from the streams of `uniforms`
_WORD = 1 << 64
SEED_BITS = 53  # of a fresh seed: what JSON readers keep that know only floats


def fresh_seed() -> int:
    """A seed from the system's entropy, 0 to 2^53 - 1, for a request that names none."""
    return secrets.randbits(SEED_BITS)


def mix(seed: int, *numbers: int) -> int:
    """A seed for a part of something seeded, say (run seed, problem): 0 to 2^63 - 1.

    seed, numbers: -2^63 to 2^64 - 1; numbers that are equal modulo 2^64 give the same seed. The order of
    numbers counts.
    """
    state = _output(_output(seed, 0) ^ _DERIVED, len(numbers))
    for number in numbers:
        state = _output(state, number)
    return state >> 1


def streams(seeds: Tensor, samples: Tensor) -> Tensor:
    """What `uniforms_of` needs of rows that go on for many positions: compute it once for each row.

    seeds, samples: [R] int64, any value. Returns [R] int64 on their device.
    """
    return _outputs(_outputs(seeds, torch.zeros_like(seeds)), samples)


def uniforms_of(streams: Tensor, positions: Tensor) -> Tensor:
    """The uniform number of each stream at a position.

    streams, positions: [R] int64. Returns [R] float64: multiples of 2^-53 from 0 to 1 - 2^-53.
    """
    return _shifted(_outputs(streams, positions), 11).double() * 2.0**-53


def uniforms(seeds: Tensor, samples: Tensor, positions: Tensor) -> Tensor:
    """The number that decides the token at `position` of completion `sample` of the request with this seed.

    seeds, samples, positions: [R] int64 on one device, any value. Returns [R] float64 in [0, 1) there.
    """
    return uniforms_of(streams(seeds, samples), positions)


def _output(state: int, index: int) -> int:
    """Output `index`, counted from 0, of the SplitMix64 that starts in `state`: 0 to 2^64 - 1."""
    word = (state + (index + 1) * _GOLDEN) % _WORD
    word = (word ^ (word >> 30)) * _FIRST % _WORD
    word = (word ^ (word >> 27)) * _SECOND % _WORD
    return word ^ (word >> 31)


def _outputs(states: Tensor, indices: Tensor) -> Tensor:
    """`_output` for tensors: torch's int64 has the bits of an unsigned word and wraps around alike."""
    word = states + (indices + 1) * _signed(_GOLDEN)
    word = (word ^ _shifted(word, 30)) * _signed(_FIRST)
    word = (word ^ _shifted(word, 27)) * _signed(_SECOND)
    return word ^ _shifted(word, 31)


def _shifted(word: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; torch fills with the sign."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    return word - _WORD if word >= _WORD // 2 else word
