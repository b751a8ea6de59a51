"""How the global blocks of UniFormerV2 are joined: the four fusions of the paper (arXiv 2211.09552, section 3.4).

G_i is global block i, X_i the backbone tokens that it sees, q_i a learned query, z_i what the block returns.

    sequential        z_i = G_i(z_{i-1}, X_i), z_0 = q     the published weights
    parallel          z_i = G_i(q_i, X_i)                  F = linear(concat(z_1 .. z_N))
    hierarchical_kv   z_i = G_i(q_i, [z_{i-1}, X_i])
    hierarchical_q    z_i = G_i([z_{i-1}, q_i], X_i)       F is the last block's own query

Axes: B clip, Q queries of a block, N blocks, M tokens of a part, C width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

Fusion = Literal["sequential", "parallel", "hierarchical_kv", "hierarchical_q"]
"""Name of a fusion."""

Parts: TypeAlias = tuple[Tensor, ...]
"""What one global block looks at, as [B, M, C] tensors that stay apart: joining them would copy all tokens."""

GlobalBlocks: TypeAlias = Sequence[Callable[[Tensor, Parts], Tensor]]
"""Each takes queries [B, Q, C] and what to look at, and returns the queries."""


def fuse(
    kind: Fusion, blocks: GlobalBlocks, query_N1C: Tensor, seen: Sequence[Parts], joint: nn.Module | None = None
) -> Tensor:
    """The clip's feature [B, C] after all global blocks.

    Args:
        kind: which fusion.
        blocks: the global blocks, first to last; at least one.
        query_N1C: the learned queries: one for ``sequential``, else one for each block.
        seen: tokens of each block.
        joint: the linear layer of ``parallel``.
    """
    num_clips = seen[0][0].shape[0]  # len() would tie an exported program to one batch size
    # A single one serves every block; written out, so that blocks are compiled for one layout only.
    query_NB1C = query_N1C[:, None].expand(len(blocks), num_clips, 1, -1).contiguous()
    steps = zip(blocks, query_NB1C.unbind(0), seen, strict=True)
    if kind == "parallel":
        assert joint is not None, "the parallel fusion ends in a linear layer"
        feature_BNC = torch.cat([block(query_B1C, parts) for block, query_B1C, parts in steps], dim=1)
        joined: Tensor = joint(feature_BNC.flatten(1))
        return joined
    z_BQC: Tensor | None = None
    for block, query_B1C, parts in steps:
        if z_BQC is None:
            z_BQC = block(query_B1C, parts)
        elif kind == "sequential":
            z_BQC = block(z_BQC, parts)
        elif kind == "hierarchical_kv":
            z_BQC = block(query_B1C, (z_BQC, *parts))
        else:
            # Queries do not see each other, so the result depends on the last block alone. That follows from the
            # formula; no code of the authors shows whether they meant more.
            z_BQC = block(torch.cat([z_BQC, query_B1C], dim=1), parts)
    assert z_BQC is not None, "a fusion joins at least one block"
    return z_BQC[:, -1]
