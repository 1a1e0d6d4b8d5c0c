"""`verify(model, data) -> Verification`: whether a network is called as it was trained.

A reading of a network is what it is fed and what its output means. `alternatives` lists other readings than the stated
one, `search` compares their errors on the same noised data, `score_identities` checks the scale of the score.
"""

from __future__ import annotations

from scoresde.evaluation.verify.peer_chain import diffusers_chain
from scoresde.evaluation.verify.verification import Check, Verification
from scoresde.evaluation.verify.verify import verify

__all__ = ["Check", "Verification", "diffusers_chain", "verify"]
