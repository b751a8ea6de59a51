"""Sums over ranks go in portions, whatever the sizes of the tensors."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from uniformerv2.training import distributed
from uniformerv2.training.distributed import Ranks


def test_every_tensor_is_summed_once_and_no_portion_is_larger_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    def all_reduce(flat: torch.Tensor, async_op: bool = False) -> None:
        sent.append(flat.nbytes)
        flat.mul_(3)

    monkeypatch.setattr(distributed, "_BUCKET_BYTES", 64)
    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    tensors = [torch.full(shape, 2.0) for shape in ((4,), (2, 5), (3,), (100,), (1,), (2, 2))]
    Ranks(device=torch.device("cpu"), world=3).sum_all_(tensors)
    assert sent == [4 * 14, 4 * 3, 4 * 100, 4 * 5]
    assert all(torch.equal(tensor, torch.full_like(tensor, 6.0)) for tensor in tensors)
