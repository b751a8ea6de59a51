"""The index of hashes: what it finds is what comparing all with all finds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k710.fingerprints.bands import DULL, MIRROR, BandSettings, Entries, agreeing_part, close_owners, distances
from k710.fingerprints.frames import Hashes
from k710.fingerprints.search import groups

settings.register_profile("index", deadline=None, max_examples=25)
LAW = settings.get_profile("index")
SURE_BITS = 9
"""Ten tables have no byte in common: nine bits cannot change all of them."""


def random_hashes(seed: int, num: int) -> Hashes:
    return np.random.default_rng(seed).integers(0, 256, (num, 32), dtype=np.uint8)


def entries(whole: Hashes, owner: list[int], middle: Hashes | None = None) -> Entries:
    return Entries(
        whole=whole,
        middle=random_hashes(999, len(whole)) if middle is None else middle,
        owner=np.array(owner, dtype=np.int32),
    )


def flipped(hash_32: Hashes, bits: list[int]) -> Hashes:
    mask = np.zeros(256, dtype=bool)
    mask[bits] = True
    return hash_32 ^ np.packbits(mask)


@LAW
@given(seed=st.integers(0, 2**32), bits=st.lists(st.integers(0, 255), max_size=SURE_BITS, unique=True))
def test_hashes_up_to_nine_bits_apart_are_always_found(seed: int, bits: list[int]) -> None:
    first = random_hashes(seed, 1)
    found = close_owners(entries(np.concatenate([first, flipped(first, bits)]), [0, 1]))
    assert found.tolist() == [[0, 1]]


@LAW
@given(
    seed=st.integers(0, 2**32),
    changes=st.lists(
        st.tuples(st.integers(0, 9), st.lists(st.integers(0, 255), max_size=SURE_BITS, unique=True)), max_size=20
    ),
)
def test_the_index_finds_what_comparing_all_with_all_finds(seed: int, changes: list[tuple[int, list[int]]]) -> None:
    base = random_hashes(seed, 10)
    pool = np.concatenate([base, *(flipped(base[i : i + 1], bits) for i, bits in changes)])
    apart = distances(pool, pool)
    wanted = [list(p) for p in itertools.combinations(range(len(pool)), 2) if apart[p] <= SURE_BITS]
    found = close_owners(entries(pool, list(range(len(pool)))), BandSettings(distance=SURE_BITS))
    assert found.tolist() == wanted


@LAW
@given(seed=st.integers(0, 2**32), order=st.permutations(range(6)))
def test_the_order_of_the_hashes_plays_no_part(seed: int, order: list[int]) -> None:
    base = random_hashes(seed, 3)
    pool = np.concatenate([base, flipped(base, [seed % 256])])
    shuffled = close_owners(entries(pool[order], order))
    assert shuffled.tolist() == close_owners(entries(pool, list(range(6)))).tolist() == [[0, 3], [1, 4], [2, 5]]


@LAW
@given(seed=st.integers(0, 2**32))
def test_a_clip_is_no_pair_with_itself(seed: int) -> None:
    same = np.repeat(random_hashes(seed, 1), 5, axis=0)
    assert close_owners(entries(same, [7] * 5, same)).tolist() == []


@LAW
@given(seed=st.integers(0, 2**32), bit=st.integers(0, 255))
def test_a_mirrored_frame_is_found_whichever_side_is_the_mirror_image(seed: int, bit: int) -> None:
    first = random_hashes(seed, 1)
    mirrored = flipped(first ^ MIRROR, [bit])
    for pair in ([first, mirrored], [mirrored, first]):
        assert close_owners(entries(np.concatenate(pair), [0, 1])).tolist() == [[0, 1]]


@pytest.mark.parametrize("mirror", [np.zeros(32, dtype=np.uint8), MIRROR])
def test_a_whole_frame_that_is_the_middle_of_another_is_found(mirror: Hashes) -> None:
    whole, middle = random_hashes(1, 2), random_hashes(2, 2)
    middle[0] = whole[1] ^ mirror
    assert close_owners(entries(whole, [0, 1], middle)).tolist() == [[0, 1]]


def test_two_middles_alike_are_no_pair() -> None:
    middle = np.repeat(random_hashes(2, 1), 2, axis=0)
    assert close_owners(entries(random_hashes(1, 2), [0, 1], middle)).tolist() == []


def test_random_hashes_are_no_pairs() -> None:
    assert close_owners(entries(random_hashes(3, 20_000), list(range(20_000)))).tolist() == []


def test_no_hashes_are_no_pairs() -> None:
    assert close_owners(entries(random_hashes(0, 0), [])).shape == (0, 2)


def test_a_picture_that_thousands_show_hangs_together_and_is_not_compared_millions_of_times() -> None:
    num = 400
    found = close_owners(entries(np.repeat(random_hashes(5, 1), num, axis=0), list(range(num))))
    assert len(found) <= 16 * 2 * num
    assert not groups(num, found.tolist()).any()


def test_the_part_that_is_found_is_as_stated() -> None:
    rng, settings_ = np.random.default_rng(0), BandSettings()
    base = random_hashes(8, 4000)
    copies = np.concatenate([flipped(h, rng.choice(256, 40, replace=False).tolist()) for h in base[:, None]])
    found = close_owners(entries(np.concatenate([base, copies]), [*range(4000), *range(4000, 8000)]))
    assert len(found) / 4000 == pytest.approx(agreeing_part(40, settings_), abs=0.05)


@LAW
@given(a=st.integers(0, 2**32), b=st.integers(0, 2**32))
def test_distances_are_symmetric_and_survive_the_mirror(a: int, b: int) -> None:
    first, second = random_hashes(a, 3), random_hashes(b, 4)
    apart = distances(first, second)
    assert np.array_equal(apart, distances(second, first).T)
    assert np.array_equal(apart, distances(first ^ MIRROR, second ^ MIRROR))
    assert np.array_equal(apart, np.unpackbits(first[:, None] ^ second[None], axis=2).sum(axis=2))


@LAW
@given(seed=st.integers(0, 2**32), bit=st.sampled_from([8 * byte + bit for byte in DULL.octets for bit in range(8)]))
def test_of_dull_pictures_the_low_frequencies_alone_are_compared(seed: int, bit: int) -> None:
    first = random_hashes(seed, 1)
    other = random_hashes(seed + 1, 1)
    other[:, list(DULL.octets)] = flipped(first, [bit])[:, list(DULL.octets)]
    for form in (other, other ^ MIRROR):
        assert close_owners(entries(np.concatenate([first, form]), [0, 1]), DULL).tolist() == [[0, 1]]
        assert close_owners(entries(np.concatenate([first, form]), [0, 1])).tolist() == []


@pytest.mark.parametrize("given_", [{"tables": 0}, {"distance": 97}, {"distance": -1}, {"band_bytes": 4}])
def test_settings_that_cannot_be_are_refused(given_: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be between"):
        BandSettings(**given_)
