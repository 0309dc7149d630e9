"""The numbers of sampling: what they are, that they are uniform and that only their three keys matter."""

import itertools
import math

import pytest
import torch

from groschen.engine import noise

LEAST, GREATEST = -(2**63), 2**63 - 1
# Outputs of SplitMix64 as published with it: the first of seed 0, the first five of seed 1234567.
PUBLISHED = {
    0: [0xE220A8397B1DCDAF],
    1_234_567: [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431,
                16408922859458223821],
}  # fmt: skip
# Frozen: a seed that somebody noted must give the same text in every later version.
FROZEN = {
    (0, 0, 0): "0x1.1c13ade1c7e5cp-3",
    (1, 0, 1): "0x1.f18b6c5907ee0p-1",
    (-1, 5, 2**31): "0x1.f8e8264d78900p-7",
    (GREATEST, 63, GREATEST): "0x1.f7f1fa297de11p-1",
    (LEAST, GREATEST, 0): "0x1.a9a329b8f3718p-2",
    (42, 7, 1000): "0x1.27bc0ac2eee6bp-1",
}


def uniforms(seeds: torch.Tensor, samples: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return noise.uniforms(*(each.flatten() for each in torch.broadcast_tensors(seeds, samples, positions)))


def in_words(seed: int, sample: int, position: int) -> float:
    """The definition once more, in Python's integers."""

    def output(state: int, index: int) -> int:
        word = (state + (index + 1) * 0x9E3779B97F4A7C15) & (2**64 - 1)
        word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        word = ((word ^ word >> 27) * 0x94D049BB133111EB) & (2**64 - 1)
        return word ^ word >> 31

    return (output(output(output(seed, 0), sample), position) >> 11) / 2**53


@pytest.mark.parametrize("seed", PUBLISHED)
def test_the_hash_is_the_published_splitmix64(seed: int) -> None:
    expected = PUBLISHED[seed]
    found = noise._outputs(torch.full((len(expected),), seed), torch.arange(len(expected)))
    assert [word % 2**64 for word in found.tolist()] == expected


def test_the_numbers_are_those_of_every_earlier_version() -> None:
    keys = torch.tensor(list(FROZEN))
    assert [number.hex() for number in noise.uniforms(*keys.unbind(1)).tolist()] == list(FROZEN.values())


def test_tensors_compute_what_the_definition_says_for_every_kind_of_key() -> None:
    ends = [LEAST, LEAST + 1, -(2**32), -1, 0, 1, 2**31, 2**53 + 1, GREATEST - 1, GREATEST]
    keys = list(itertools.product(ends, repeat=3))
    assert noise.uniforms(*torch.tensor(keys).unbind(1)).tolist() == [in_words(*key) for key in keys]


def test_a_number_does_not_depend_on_the_batch_it_is_computed_in() -> None:
    seeds = torch.randint(LEAST, GREATEST, (301,), generator=torch.Generator().manual_seed(0))
    samples, positions = torch.arange(301) % 7, torch.arange(301) * 13
    together = noise.uniforms(seeds, samples, positions)
    for size in (1, 2, 3, 64, 300):
        split = [
            noise.uniforms(*keys)
            for keys in zip(seeds.split(size), samples.split(size), positions.split(size), strict=True)
        ]
        assert torch.equal(torch.cat(split), together)
    assert torch.equal(noise.uniforms_of(noise.streams(seeds, samples), positions), together)


@pytest.mark.gpu
def test_a_gpu_computes_the_same_numbers() -> None:
    keys = torch.tensor(list(FROZEN)).unbind(1)
    assert torch.equal(noise.uniforms(*(key.cuda() for key in keys)).cpu(), noise.uniforms(*keys))


def test_numbers_lie_from_0_up_to_but_not_at_1() -> None:
    numbers = uniforms(torch.arange(1000)[:, None], torch.tensor([0]), torch.arange(1000))
    assert numbers.dtype == torch.float64
    assert numbers.min() >= 0 and numbers.max() < 1


def grids() -> dict[str, torch.Tensor]:
    """A million numbers for each key, [1000, 1000]: it runs on in the last place while the others stand."""
    many, few = torch.arange(1000), torch.arange(1000)[:, None]
    return {
        "position": uniforms(torch.tensor(5), few, many).view(1000, 1000),
        "sample": uniforms(torch.tensor(5), many, few).view(1000, 1000),
        "seed": uniforms(many, torch.tensor(0), few).view(1000, 1000),
    }


@pytest.mark.parametrize("key", ["position", "sample", "seed"])
def test_numbers_are_uniform(key: str) -> None:
    # Chi-square with 1,023 degrees of freedom: 1023 +- 45. Five deviations: luck once in a million.
    for bins in (torch.histc(grids()[key], 1024, 0, 1), torch.histc(grids()[key] * 1024 % 1, 1024, 0, 1)):
        chi_square = float(((bins - 1e6 / 1024) ** 2 / (1e6 / 1024)).sum())
        assert abs(chi_square - 1023) < 5 * math.sqrt(2 * 1023)


@pytest.mark.parametrize("distance", [1, 2, 64])
@pytest.mark.parametrize("key", ["position", "sample", "seed"])
def test_neighbours_are_independent(key: str, distance: int) -> None:
    grid = grids()[key]
    left, right = grid[:, :-distance].flatten(), grid[:, distance:].flatten()
    # The correlation of a million independent pairs is 0 +- 0.001. Five deviations: luck twice in a million.
    assert abs(float(torch.corrcoef(torch.stack([left, right]))[0, 1])) < 5 / math.sqrt(len(left))
    # Pairs fall evenly into 32 x 32 cells, which a correlation alone would not tell.
    cells = ((left * 32).long() * 32 + (right * 32).long()).bincount(minlength=1024).double()
    mean = len(left) / 1024
    assert abs(float(((cells - mean) ** 2 / mean).sum()) - 1023) < 5 * math.sqrt(2 * 1023)


def test_every_bit_of_every_key_turns_half_of_the_bits_of_the_number() -> None:
    generator = torch.Generator().manual_seed(1)
    keys = torch.randint(LEAST, GREATEST, (3, 4000), generator=generator)
    plain = (noise.uniforms(*keys) * 2**53).long()
    for which, bit in itertools.product(range(3), range(0, 64, 7)):
        turned = keys.clone()
        turned[which] ^= (1 << bit) if bit < 63 else LEAST
        changed = plain ^ (noise.uniforms(*turned) * 2**53).long()
        shares = torch.stack([changed >> place & 1 for place in range(53)]).double().mean(1)
        # Each share is 0.5 +- 0.0079; six deviations over 1,600 shares: luck three times in a million.
        assert (shares - 0.5).abs().max() < 0.048


def test_keys_are_not_exchangeable() -> None:
    keys = list(itertools.permutations([1, 2, 3]))
    assert len(set(noise.uniforms(*torch.tensor(keys).unbind(1)).tolist())) == 6


def test_derived_seeds_differ_by_every_number_and_by_their_order() -> None:
    keys = [
        *itertools.product(range(20), repeat=3),
        *itertools.product(range(20), repeat=2),
        *((n,) for n in range(20)),
    ]
    derived = [noise.mix(*key) for key in keys]
    assert len(set(derived)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in derived)


def test_derived_seeds_are_those_of_every_earlier_version() -> None:
    assert [noise.mix(0), noise.mix(1, 2, 3), noise.mix(1, 3, 2), noise.mix(-1, 5)] == MIXED
    assert noise.mix(-1, 5) == noise.mix(2**64 - 1, 5)


MIXED = [4179014730673511244, 5020819081772538734, 8279866710586036465, 7449308462726440487]


def test_fresh_seeds_are_exact_in_json_and_do_not_come_twice() -> None:
    seeds = [noise.fresh_seed() for _ in range(1000)]
    assert all(0 <= seed < 2**53 and int(float(seed)) == seed for seed in seeds)
    assert len(set(seeds)) == 1000  # two equal ones: luck once in 10^10
