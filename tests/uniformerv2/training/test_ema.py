"""The running average of the weights."""

from __future__ import annotations

import torch
from torch import nn

from uniformerv2.training.ema import Ema


def model_of(value: float) -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def test_the_average_begins_as_the_weights_and_moves_by_its_decay() -> None:
    model = model_of(1.0)
    ema = Ema(model, 0.75)
    torch.testing.assert_close(ema.state["0.weight"], torch.full((2, 2), 1.0))
    for value, expected in [(3.0, 1.5), (3.0, 1.875)]:
        model.load_state_dict(model_of(value).state_dict())
        ema.update(model)
        torch.testing.assert_close(ema.state["0.weight"], torch.full((2, 2), expected))


def test_batch_statistics_are_averaged_and_counters_copied() -> None:
    model = model_of(1.0)
    ema = Ema(model, 0.5)
    model.load_state_dict(
        {**model.state_dict(), "1.running_mean": torch.ones(2), "1.num_batches_tracked": torch.tensor(7)}
    )
    ema.update(model)
    assert ema.state["1.running_mean"].tolist() == [0.5, 0.5]
    assert ema.state["1.num_batches_tracked"].item() == 7


def test_the_average_stands_in_for_the_weights_and_leaves_every_bit() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    ema = Ema(model, 0.9)
    nn.init.normal_(model.weight)
    weight, average = model.weight.detach().clone(), ema.state["weight"].clone()
    with ema.in_place_of(model):
        assert torch.equal(model.weight, average)
    assert torch.equal(model.weight, weight)
    assert torch.equal(ema.state["weight"], average)


def test_an_average_goes_on_from_what_was_saved() -> None:
    saved = {name: value.clone() for name, value in model_of(5.0).state_dict().items()}
    ema = Ema(model_of(1.0), 0.5, saved)
    assert ema.state["0.weight"][0, 0].item() == 5.0
    ema.update(model_of(1.0))
    assert ema.state["0.weight"][0, 0].item() == 3.0
    assert saved["0.weight"][0, 0].item() == 5.0
