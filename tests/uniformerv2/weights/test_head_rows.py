"""Head rows are picked bit for bit, and only rows that exist."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.weights.remap import HEAD_KEYS, select_rows


@settings(deadline=None)
@given(rows=st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_rows_are_exact_copies_in_the_asked_order(rows: list[int]) -> None:
    weight, bias = torch.randn(10, 4), torch.randn(10)
    picked_weight, picked_bias = select_rows(weight, bias, rows)
    assert picked_weight.shape == (len(rows), 4)
    for place, row in enumerate(rows):
        assert torch.equal(picked_weight[place], weight[row])
        assert torch.equal(picked_bias[place], bias[row])


def test_copies_keep_the_dtype_and_do_not_share_memory() -> None:
    weight, bias = torch.randn(3, 2).half().requires_grad_(), torch.randn(3).half()
    picked, _ = select_rows(weight, bias, range(3))
    picked.zero_()
    assert picked.dtype == torch.float16
    assert not picked.requires_grad
    assert weight.abs().sum() > 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 3], r"rows\[1\] must be between 0 and 2, got 3"),
        ([-1], r"rows\[0\] must be between 0 and 2, got -1"),
        ([], "no rows"),
    ],
)
def test_rows_outside_the_head_are_refused(rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_rows(torch.zeros(3, 2), torch.zeros(3), rows)


def test_weight_and_bias_must_belong_together() -> None:
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(4,\)"):
        select_rows(torch.zeros(3, 2), torch.zeros(4), [0])


def test_head_keys_are_keys_of_the_model() -> None:
    with torch.device("meta"):
        state = UniFormerV2(UniFormerV2Config(num_classes=710)).state_dict()
    assert [tuple(state[key].shape) for key in HEAD_KEYS] == [(710, 768), (710,)]
