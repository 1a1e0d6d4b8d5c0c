"""The released samplers that race on networks: every family on every shipped spacing, mostly of orders 2 and 3.

On exact models all settings race. Left out here are custom spacings, other orders, forms that differ little from one
that is kept, and Euler in diffusers, which is DDIM.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from race import from_azula, from_diffusers
from race.peer import Peer
from race.problems import Oracle
from race.span import Span

__all__ = ["selected_peers"]

KEPT = frozenset(
    f"diffusers {name}"
    for name in (
        *(f"dpmsolver{kind} {order}" for kind in ("", "++") for order in ("2M midpoint", "3M midpoint")),
        *(f"dpmsolver{kind} {order}" for kind in ("", "++") for order in ("2S midpoint", "3S midpoint")),
        *(f"dpmsolver{kind} {order} midpoint full-end" for kind in ("", "++") for order in ("2M", "3M")),
        *(f"UniPC-{form} {kind}" for form in ("2 bh1", "2 bh2", "3 bh2") for kind in ("x0", "eps")),
        *(f"UniPC-{form} {kind} full-end" for form in ("2 bh2", "3 bh2") for kind in ("x0", "eps")),
        *(f"SA-Solver {orders} data" for orders in ("2/2", "3/1", "3/3")),
        *("DEIS-2", "DEIS-2 full-end", "DEIS-3", "DEIS-3 full-end", "LMS-2", "LMS-4", "iPNDM", "PLMS", "PNDM"),
        *("DDIM", "Heun", "KDPM2"),
    )
) | frozenset(
    f"azula {name}"
    for name in (
        *("Euler", "Heun", "vAB4", "xEAB4"),
        *(f"{kind}AB{order}" for kind in ("z", "v", "zE", "xE") for order in "23"),
    )
)


CLIPPED_LOG_SNR = -2 * 5.1
CLIPPED_SPACINGS = ("linspace", "karras", "exponential")


def selected_peers(span: Span) -> list[Peer]:
    """The peers, deterministic, on shipped spacings; where the clock ends with less signal, also from log-SNR -10.2 on.

    Such a late start is diffusers' ``lambda_min_clipped = -5.1``, which it advises for the cosine schedule. The initial
    states stay as they are.
    """
    every = [*from_diffusers.deterministic(), *from_azula.deterministic()]
    peers = [peer for peer in every if not peer.custom_spacing and peer.name.rpartition(" ")[0] in KEPT]
    if span.clipped(CLIPPED_LOG_SNR) != span:
        peers += [_clipped(peer) for peer in peers if peer.name.endswith(CLIPPED_SPACINGS)]
    return peers


def _clipped(peer: Peer) -> Peer:
    def run(oracle: Oracle, x: Tensor, calls: int, generator: torch.Generator | None) -> Tensor:
        late = Oracle(oracle.model, oracle.span.clipped(CLIPPED_LOG_SNR))
        end = peer.run(late, x, calls, generator)
        oracle.calls += late.calls
        return end

    return replace(peer, name=f"{peer.name}, clipped", run=run)
