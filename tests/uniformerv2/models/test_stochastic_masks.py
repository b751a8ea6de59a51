"""Masks depend on seed, step, site, position, repeat and element, and on nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from uniformerv2 import UniFormerV2, UniFormerV2Config
from uniformerv2.models.stochastic import Dropout, DropPath, Randomness, mix

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
POSITIONS = st.lists(st.integers(0, 1 << 40), min_size=2, max_size=12, unique=True)


@settings(deadline=None)
@given(value=INT64)
def test_mix_is_splitmix64(value: int) -> None:
    assert int(mix(torch.tensor(value))) % (1 << 64) == splitmix64(value % (1 << 64))


def test_mix_gives_the_published_first_output() -> None:
    assert int(mix(torch.tensor(0))) % (1 << 64) == 0xE220A8397B1DCDAF


@settings(deadline=None)
@given(positions=POSITIONS, seed=st.integers(0, 1 << 64), step=st.integers(0, 1 << 30), data=st.data())
def test_masks_do_not_depend_on_the_batch(positions: list[int], seed: int, step: int, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(positions))))
    cut = data.draw(st.integers(1, len(positions) - 1))
    for module in (Dropout(0.5, Randomness(), "here"), DropPath(0.5, Randomness(), "here")):
        whole = masks(module, positions, seed=seed, step=step)
        for part in (order[:cut], order[cut:]):
            assert torch.equal(masks(module, [positions[i] for i in part], seed=seed, step=step), whole[part])


@settings(deadline=None, max_examples=25)
@given(rate=st.floats(0.02, 0.9), seed=st.integers(0, 1 << 62), step=st.integers(0, 1 << 30))
def test_the_rate_is_about_right(rate: float, seed: int, step: int) -> None:
    dropout = masks(Dropout(rate, Randomness(), "here"), list(range(64)), seed=seed, step=step, size=512)
    assert (dropout == 0).float().mean().item() == pytest.approx(rate, abs=0.02)
    paths = masks(DropPath(rate, Randomness(), "here"), list(range(8192)), seed=seed, step=step, size=1)
    assert (paths == 0).float().mean().item() == pytest.approx(rate, abs=0.04)
    assert dropout.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])


@settings(deadline=None)
@given(seed=st.integers(0, 1 << 62), step=st.integers(0, 1 << 30), position=st.integers(0, 1 << 40))
def test_masks_differ_by_seed_step_site_position_and_repeat(seed: int, step: int, position: int) -> None:
    here = Dropout(0.5, Randomness(), "here")
    base = masks(here, [position], seed=seed, step=step)
    assert not torch.equal(base, masks(here, [position], seed=seed + 1, step=step))
    assert not torch.equal(base, masks(here, [position], seed=seed, step=step + 1))
    assert not torch.equal(base, masks(here, [position + 1], seed=seed, step=step))
    assert not torch.equal(base, masks(here, [position], seed=seed, step=step, repeat=1))
    assert not torch.equal(base, masks(Dropout(0.5, Randomness(), "there"), [position], seed=seed, step=step))
    assert torch.equal(base, masks(Dropout(0.5, Randomness(), "here"), [position], seed=seed, step=step))


def test_neighbouring_masks_are_uncorrelated() -> None:
    drawn = torch.cat(
        [masks(Dropout(0.5, Randomness(), "here"), list(range(64)), step=step, size=64) for step in range(4)]
    )
    signs = drawn - 1
    for shifted in (signs.roll(1, 0), signs.roll(1, 1), signs.roll(64, 0)):
        assert abs((signs * shifted).mean().item()) < 0.03


def test_drop_path_removes_whole_samples() -> None:
    drop = masks(DropPath(0.5, Randomness(), "here"), list(range(32)), size=6)
    assert all(row.unique().numel() == 1 for row in drop)
    assert drop[:, 0].unique().numel() == 2


def test_official_drop_path_masks_tokens_or_the_whole_batch() -> None:
    x = torch.ones(2, 3, 40, 4)
    token = begun(DropPath(0.5, Randomness(), "here", over="token"), [4, 8])(x)
    assert torch.equal(token, token[:1, :1, :, :1].expand_as(x))
    assert token.unique().numel() == 2
    again = begun(DropPath(0.5, Randomness(), "here", over="token"), [1, 2])(x)
    assert torch.equal(token, again)
    whole = [begun(DropPath(0.5, Randomness(), "here", over="batch"), [4, 8], step=s)(x).unique() for s in range(20)]
    assert {value.item() for value in torch.cat(whole)} == {0.0, 2.0}
    assert all(value.numel() == 1 for value in whole)


def test_eval_mode_and_rate_zero_change_nothing() -> None:
    x = torch.randn(3, 4)
    assert Dropout(0.5, Randomness(), "here").eval()(x) is x
    assert DropPath(0.5, Randomness(), "here").eval()(x) is x
    assert Dropout(0.0, Randomness(), "here")(x) is x


def test_without_begin_torch_decides() -> None:
    dropout, x = Dropout(0.5, Randomness(), "here"), torch.ones(8, 16)
    torch.manual_seed(0)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(0)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)


def test_a_batch_of_another_size_than_begun_is_refused() -> None:
    with pytest.raises(ValueError, match="begun for 2 samples, the forward pass has 3"):
        begun(Dropout(0.5, Randomness(), "here"), [1, 2])(torch.ones(3, 4))


def test_positions_must_be_integers_of_one_length() -> None:
    with pytest.raises(ValueError, match=r"int64, got torch.float32"):
        Randomness().begin(0, 0, torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match=r"one length, got \(2,\) and \(3,\)"):
        Randomness().begin(0, 0, torch.arange(2), torch.arange(3))


def test_sites_of_the_largest_model_are_distinct() -> None:
    with torch.device("meta"):
        model = UniFormerV2(UniFormerV2Config.variant("l14", kind="ssv2", frames=16, classes=174))
    sites = [module.site for module in model.modules() if isinstance(module, (Dropout, DropPath))]
    assert len(sites) == 24 * 4 + 16 * 3 + 1
    assert len(set(sites)) == len(sites)


def test_drop_path_rates_grow_linearly() -> None:
    with torch.device("meta"):
        transformer = UniFormerV2(UniFormerV2Config.variant("b16", kind="ssv2", frames=16, classes=174)).transformer
    backbone = [block.drop_mlp.rate for block in transformer.resblocks]  # type: ignore[union-attr]
    assert backbone == pytest.approx(torch.linspace(0, 0.2, 12).tolist())
    blocks = [block.drop_attn.rate for block in transformer.dec]  # type: ignore[union-attr]
    assert blocks == pytest.approx(torch.linspace(0, 0.4, 8).tolist())


@pytest.mark.parametrize("mode", ["sample", "official"])
def test_split_batches_train_alike(mode: str) -> None:
    config = UniFormerV2Config(
        image_size=32,
        width=32,
        layers=2,
        heads=2,
        num_frames=2,
        num_classes=5,
        global_layers=(1,),
        drop_path_backbone=0.5,
        drop_path_global=0.5,
        drop_path_mode=mode,  # type: ignore[arg-type]
    )
    model = UniFormerV2(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    clips, positions, repeats = torch.randn(6, 3, 2, 32, 32), torch.tensor([7, 1, 99, 4, 4, 0]), torch.zeros(6).long()
    repeats[4] = 1
    model.randomness.begin(3, 11, positions, repeats)
    whole = model(clips)
    parts = []
    for part in (slice(0, 1), slice(1, 6)):
        model.randomness.begin(3, 11, positions[part], repeats[part])
        parts.append(model(clips[part]))
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-5)
    assert not torch.equal(model.eval()(clips), whole)


def begun(module: Dropout | DropPath, positions: list[int], seed: int = 0, step: int = 0, repeat: int = 0) -> nn.Module:
    positions_B = torch.tensor(positions)
    module.randomness.begin(seed, step, positions_B, torch.full_like(positions_B, repeat))
    return module


def masks(
    module: Dropout | DropPath, positions: list[int], seed: int = 0, step: int = 0, repeat: int = 0, size: int = 128
) -> Tensor:
    masked: Tensor = begun(module, positions, seed, step, repeat)(torch.ones(len(positions), size))
    return masked


def splitmix64(state: int) -> int:
    """The published function on Python integers."""
    bits = (1 << 64) - 1
    z = (state + 0x9E3779B97F4A7C15) & bits
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & bits
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & bits
    return z ^ (z >> 31)
