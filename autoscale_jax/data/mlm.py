"""Masked language modelling as in BERT: 15% of the tokens are predicted from what hides them."""

from __future__ import annotations

import dataclasses

import numpy as np

from autoscale_jax.data.permute import key_of, mix64
from autoscale_jax.data.tokenize import Tokenizer

SHARE, HIDDEN, RANDOM = 0.15, 0.8, 0.1


def mask_id(tokenizer: Tokenizer) -> int:
    """The id that hides a token: the tokeniser's own, or one more than it has."""
    return tokenizer.vocab_size if tokenizer.mask_id is None else tokenizer.mask_id


def vocab_size(tokenizer: Tokenizer) -> int:
    """Ids of a masked language model: the tokeniser's and, where it has none, one for the mask."""
    return max(tokenizer.vocab_size, mask_id(tokenizer) + 1)


@dataclasses.dataclass(frozen=True)
class Masking:
    """Which tokens are hidden follows from (key, number of the row) and nothing else.

    Of each row 15% of the tokens, special ones aside, are predicted (rounded, at least one). Of
    these 80% show the mask, 10% a random token and 10% themselves.
    """

    key: int
    mask_id: int
    vocab_size: int
    special_ids: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer, seed: int) -> Masking:
        special = tuple(tokenizer.special_ids)
        return cls(int(key_of(seed, "mlm")), mask_id(tokenizer), tokenizer.vocab_size, special)

    def __call__(
        self, tokens_BxL: np.ndarray, weight_BxL: np.ndarray, at_B: np.ndarray
    ) -> dict[str, np.ndarray]:
        """{"inputs", "targets", "weight"}: weight 1 at the predicted tokens, 0 elsewhere."""
        length = tokens_BxL.shape[1]
        row_B = mix64(np.uint64(self.key) + np.asarray(at_B).astype(np.uint64))
        position_L = np.arange(1, length + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        draw_BxL = mix64(row_B[:, None] + position_L)
        may_BxL = (weight_BxL > 0) & ~np.isin(tokens_BxL, self.special_ids)
        may_B = may_BxL.sum(1)
        n_B = np.where(may_B > 0, np.maximum(1, np.rint(SHARE * may_B)), 0).astype(np.int64)
        # the n lowest draws of a row; draws of tokens that may not be taken come last
        ranked_BxL = np.where(may_BxL, draw_BxL >> np.uint64(1), np.uint64(2**64 - 1))
        rank_BxL = ranked_BxL.argsort(1, kind="stable").argsort(1, kind="stable")
        taken_BxL = rank_BxL < n_B[:, None]
        how_BxL = (mix64(draw_BxL ^ np.uint64(self.key)) >> np.uint64(11)) / 2**53
        other_BxL = mix64(draw_BxL + np.uint64(self.key)) % np.uint64(self.vocab_size)
        inputs_BxL = np.where(taken_BxL & (how_BxL < HIDDEN), self.mask_id, tokens_BxL)
        swap_BxL = taken_BxL & (how_BxL >= HIDDEN) & (how_BxL < HIDDEN + RANDOM)
        inputs_BxL = np.where(swap_BxL, other_BxL.astype(np.int64), inputs_BxL)
        return {
            "inputs": inputs_BxL.astype(np.int32),
            "targets": tokens_BxL,
            "weight": taken_BxL.astype(np.float32),
        }
