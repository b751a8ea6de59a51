"""What is kept for the backward pass, and what is computed again instead."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
from small_models import LOCAL, TINY, clips, randomised
from torch import Tensor

from uniformerv2 import UniFormerV2
from uniformerv2.models.layers import MLP


@pytest.mark.parametrize(("num_layers", "every"), [(1, 1), (3, 1), (3, 2), (99, 1)])
def test_recomputed_layers_change_no_number(num_layers: int, every: int) -> None:
    model = randomised(UniFormerV2(LOCAL)).train()
    recomputed = copy.deepcopy(model)
    recomputed.recompute_layers(num_layers, every)
    for each in (model, recomputed):
        each.randomness.begin(1, 2, torch.tensor([5, 9]), torch.zeros(2, dtype=torch.int64))
        each(clips(LOCAL, 2)).square().sum().backward()
    for (name, a), b in zip(model.named_parameters(), recomputed.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name  # type: ignore[arg-type]
    for (name, a), b in zip(model.named_buffers(), recomputed.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_a_recomputed_graph_can_be_gone_through_twice() -> None:
    model = randomised(UniFormerV2(LOCAL)).train()
    model.recompute_layers(3)
    loss = model(clips(LOCAL, 2)).square().sum()
    loss.backward(retain_graph=True)
    once = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * once[name], msg=name)


def test_more_recomputed_layers_keep_less() -> None:
    config = dataclasses.replace(LOCAL, layers=6, global_layers=(4, 5))
    kept = []
    for num_layers, every in ((0, 1), (6, 3), (6, 2), (6, 1)):
        model = UniFormerV2(config)
        model.recompute_layers(num_layers, every)
        kept.append(kept_bytes(model, lambda model=model: model(clips(config, 2))))
    assert kept == sorted(set(kept), reverse=True)


@pytest.mark.parametrize(("num_layers", "every"), [(-1, 1), (1, 0)])
def test_what_cannot_be_recomputed_is_refused(num_layers: int, every: int) -> None:
    with pytest.raises(ValueError, match=r"expected num_layers >= 0 and every >= 1, got"):
        UniFormerV2(TINY).recompute_layers(num_layers, every)


def test_an_mlp_keeps_its_input_and_one_hidden_tensor() -> None:
    mlp, x = MLP(16, 64), torch.randn(10, 16, requires_grad=True)
    assert kept_bytes(mlp, lambda: mlp(x)) == 4 * 10 * (16 + 64)
    assert kept_bytes(mlp, lambda: MLP(16, 64, "exact")(x)) == 4 * 10 * (16 + 64 + 64) + 4 * 2 * 16 * 64


def test_an_mlp_has_the_gradients_of_its_definition() -> None:
    mlp, x = MLP(4, 8).double(), torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    hidden = mlp.c_fc(x)
    torch.testing.assert_close(mlp(x), mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden)))
    parameters = (mlp.c_fc.weight, mlp.c_fc.bias, mlp.c_proj.weight, mlp.c_proj.bias)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(("c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias"), values, strict=True))
        return torch.func.functional_call(mlp, named, (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters))


def test_a_frozen_backbone_keeps_nothing_of_its_layers() -> None:
    sizes = []
    for layers in (3, 6):
        config = dataclasses.replace(TINY, layers=layers, frozen_backbone=True)
        model = UniFormerV2(config)
        sizes.append(kept_bytes(model, lambda model=model, config=config: model(clips(config, 2))))
    assert sizes[0] == sizes[1]


def kept_bytes(model: torch.nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that ``forward`` keeps for the backward pass, each storage once, parameters not counted."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
