"""Position tables keep their class row and follow the grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from k710.errors import CheckpointError
from uniformerv2.weights.positions import resize_positions


@settings(deadline=None, max_examples=60)
@given(side=st.integers(1, 6), height=st.integers(1, 8), width=st.integers(1, 8), value=st.floats(-9, 9, width=16))
def test_a_table_of_one_value_stays_so_and_the_class_row_is_kept(
    side: int, height: int, width: int, value: float
) -> None:
    table_LC = torch.full((1 + side * side, 3), value)
    table_LC[0] = torch.arange(3)
    resized_LC = resize_positions(table_LC, (height, width))
    assert resized_LC.shape == (1 + height * width, 3)
    assert torch.equal(resized_LC[0], table_LC[0])
    assert torch.allclose(resized_LC[1:], torch.tensor(value), atol=1e-4)


def test_rows_follow_the_grid_row_by_row() -> None:
    down_S = torch.arange(4.0).repeat_interleave(4)
    table_LC = torch.stack([torch.cat([torch.zeros(1), down_S]), torch.zeros(17)], dim=1)
    resized_HW = resize_positions(table_LC, (8, 2))[1:, 0].unflatten(0, (8, 2))  # type: ignore[no-untyped-call]
    assert torch.allclose(resized_HW[:, 0], resized_HW[:, 1])
    assert (resized_HW.diff(dim=0)[1:-1] > 0).all()


def test_a_table_for_the_same_grid_is_returned_as_it_is() -> None:
    table_LC = torch.randn(10, 2)
    assert resize_positions(table_LC, (3, 3)) is table_LC


def test_a_grid_that_is_not_square_can_be_named() -> None:
    table_LC = torch.randn(7, 2)
    assert resize_positions(table_LC, (2, 3), source_grid=(2, 3)) is table_LC
    assert resize_positions(table_LC, (3, 2), source_grid=(2, 3)).shape == (7, 2)
    with pytest.raises(CheckpointError, match="6 rows beside the class row, which make no square grid"):
        resize_positions(table_LC, (3, 3))


def test_half_precision_is_resized_in_fp32_and_returned_as_it_came() -> None:
    table_LC = torch.randn(10, 2).bfloat16()
    resized_LC = resize_positions(table_LC, (5, 5))
    assert resized_LC.dtype == torch.bfloat16
    assert torch.equal(resized_LC, resize_positions(table_LC.float(), (5, 5)).bfloat16())


@pytest.mark.parametrize("num_rows", [0, 1])
def test_a_table_without_patches_is_refused(num_rows: int) -> None:
    with pytest.raises(CheckpointError, match="no square grid"):
        resize_positions(torch.zeros(num_rows, 2), (2, 2))
