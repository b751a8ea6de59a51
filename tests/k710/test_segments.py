"""Keys, ids and hashes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k710.segments import Segment, clip_key, id_hash, is_youtube_id, safe_id


@pytest.mark.parametrize(
    ("start_s", "end_s", "key"),
    [
        (0, 10, "-bcdefghij_000000_000010"),
        (10.0, 20.0, "-bcdefghij_000010_000020"),
        (10395, 10405, "-bcdefghij_010395_010405"),
        (1.5, 10, "-bcdefghij_000001500_000010000"),
        (0.001, 3600, "-bcdefghij_000000001_003600000"),
    ],
)
def test_a_key_is_the_id_and_its_times(start_s: float, end_s: float, key: str) -> None:
    assert Segment(id="-bcdefghij", start_s=start_s, end_s=end_s).key == key


@pytest.mark.parametrize("text", ["---QUuC4vJs", "___________", "1e2aaaaaaaa", "NaN________"])
def test_eleven_characters_of_the_alphabet_are_a_youtube_id(text: str) -> None:
    assert is_youtube_id(text)


@pytest.mark.parametrize(
    "text", ["", "aaaaaaaaaa", "aaaaaaaaaaaa", "aaaaaaaaaa\n", "aaaaaaaaaaa\n", "aaaaaaaaaaé", "aaaaa aaaaa"]
)
def test_anything_else_is_none(text: str) -> None:
    assert not is_youtube_id(text)


@given(text=st.text(max_size=200))
def test_safe_ids_stay_in_their_alphabet_and_length(text: str) -> None:
    safe = safe_id(text)
    assert len(safe) <= 64
    assert all(c.isascii() and (c.isalnum() or c in "_-") for c in safe)


@given(text=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
def test_an_id_that_is_safe_stays_as_it_is(text: str) -> None:
    assert safe_id(text) == text


def test_long_ids_end_in_their_hash() -> None:
    name = safe_id("x" * 65)
    assert len(name) == 64
    assert name.endswith(hashlib.sha256(b"x" * 65).hexdigest()[:8])
    assert name != safe_id("x" * 66)


def test_the_hash_of_an_id_is_the_one_of_the_contract() -> None:
    digest = hashlib.blake2b(b"yt:---QUuC4vJs", digest_size=8).digest()
    assert id_hash("---QUuC4vJs") == int.from_bytes(digest, "big")


def test_equal_ids_of_two_kinds_have_two_hashes() -> None:
    assert id_hash("aaaaaaaaaaa", "opaque") != id_hash("aaaaaaaaaaa", "youtube")


def test_times_that_are_floating_point_noise_round_to_milliseconds() -> None:
    assert clip_key("a", 0.1 + 0.2, 1) == "a_000000300_000001000"
