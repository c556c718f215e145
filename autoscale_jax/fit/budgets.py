"""Which runs belong to one token budget, and which repeat each other."""

from __future__ import annotations

import numpy as np

from autoscale_jax.fit.ddo import SAME, find_design
from autoscale_jax.specs import BadInput

NEAR = 1.6  # totals within this factor of a budget's belong to it, where no design tells


def budgets_of(tokens_RxK: np.ndarray) -> list[np.ndarray]:
    """Row numbers of each budget, smallest budget first.

    Runs that change one domain of a base run belong to the base's budget, whatever their total;
    the others go to the nearest budget, or make their own where totals leave a gap.
    """
    left = np.arange(len(tokens_RxK))
    totals_R = tokens_RxK.sum(1).astype(float)
    groups: list[tuple[float, np.ndarray]] = []
    while len(left) > tokens_RxK.shape[1]:
        try:
            design = find_design(tokens_RxK[left], whole=False)
        except BadInput:
            break
        members = np.unique(design.rows_KxP[design.used_KxP > 0])
        members = np.union1d(members, design.base_rows)
        groups.append((float(design.base_tokens_K.sum()), left[members]))
        left = np.delete(left, members)
    for row in left[np.argsort(totals_R[left], kind="stable")]:
        total = totals_R[row]
        gaps = [abs(np.log(total / g)) for g, _ in groups]
        if gaps and min(gaps) < np.log(NEAR):
            i = int(np.argmin(gaps))
            groups[i] = (groups[i][0], np.append(groups[i][1], row))
        else:
            groups.append((total, np.array([row])))
    return [np.sort(rows) for _, rows in sorted(groups, key=lambda g: g[0])]


def replicates_of(tokens_RxK: np.ndarray) -> list[np.ndarray]:
    """Row numbers of each mixture that was run more than once."""
    left, groups = list(range(len(tokens_RxK))), []
    while left:
        first = tokens_RxK[left[0]]
        same = np.abs(tokens_RxK[left] - first) <= SAME * np.maximum(tokens_RxK[left], first)
        rows = np.array(left)[same.all(1)]
        if len(rows) > 1:
            groups.append(rows)
        left = [r for r in left if r not in set(rows.tolist())]
    return groups
