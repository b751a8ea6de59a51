"""Compiled models: no graph breaks, keys as they were, the numbers of eager mode, with and without recomputation."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
from small_models import LOCAL, clips, randomised

from uniformerv2 import UniFormerV2
from uniformerv2.models.stochastic import (
    commit_batch_norm,
    defer_batch_norm,
    num_pending_batches,
    pending_batch_norm,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),  # the compiler looks at it
    pytest.mark.xdist_group("compile"),  # they share the compiler's cache, which saves most of the time
    pytest.mark.timeout(600),
]


@pytest.mark.parametrize("recomputed", [0, 2])
def test_compiled_blocks_train_as_eager_ones(recomputed: int) -> None:
    _require_same_training(recomputed, lambda model: model.compile_blocks())


@pytest.mark.slow
@pytest.mark.parametrize("recomputed", [0, 2, 3])
def test_a_model_compiled_whole_trains_as_an_eager_one(recomputed: int) -> None:
    _require_same_training(recomputed, lambda model: model.compile(fullgraph=True))


def _require_same_training(recomputed: int, compile_it: Callable[[UniFormerV2], None]) -> None:
    """Two steps of two micro-batches each, dropout, drop path and deferred batch norm on."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    eager = randomised(UniFormerV2(LOCAL)).train()
    compiled = copy.deepcopy(eager)
    for model in (eager, compiled):
        defer_batch_norm(model)
        model.recompute_layers(recomputed)
    compile_it(compiled)
    for step in range(2):
        for micro in range(2):
            logits = []
            for model in (eager, compiled):
                model.randomness.begin(1, step, torch.tensor([5 + micro, 9]), torch.zeros(2, dtype=torch.int64))
                logits.append(model(clips(LOCAL, 2)))
                logits[-1].square().sum().backward()
            torch.testing.assert_close(*logits, rtol=0, atol=2e-5)
        for model in (eager, compiled):
            assert num_pending_batches(model) == 2
            pending = pending_batch_norm(model)
            assert pending is not None
            commit_batch_norm(model, pending / 2)
    _require_equal(eager, compiled)
    assert torch._dynamo.utils.counters["graph_break"] == {}
    # Another step, sample or micro-batch is no reason to compile again.
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2 * LOCAL.layers


def _require_equal(eager: UniFormerV2, compiled: UniFormerV2) -> None:
    assert list(compiled.state_dict()) == list(eager.state_dict())
    for (name, a), b in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-5 * float(a.grad.abs().max()), msg=name)
    for (name, a), b in zip(eager.named_buffers(), compiled.buffers(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.filterwarnings("ignore:.*dynamic.*:UserWarning")
def test_compiled_blocks_serve_many_layers_modes_and_batches() -> None:
    """More variants than torch allows by default: with a drop path every layer has a rate of its own."""
    torch._dynamo.reset()
    config = dataclasses.replace(LOCAL, layers=12, global_layers=(4, 6, 8, 10, 11))
    model = UniFormerV2(config)
    model.compile_blocks(backend="eager")
    for train, count in ((True, 4), (False, 4), (False, 3), (True, 3), (False, 1), (True, 1)):
        model.train(train)
        for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
            with context():
                assert model(clips(config, count)).shape == (count, 5)
