"""The MFMS-BO simulator: trainings of seven model sizes answered by a small network (2503.21023).

The network and the cost table are the authors'; they fitted it to 472 runs on SlimPajama.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from autoscale_jax.methods.mixtures import draws, vertices, within
from autoscale_jax.methods.space import Size, Space
from autoscale_jax.specs import BadInput, CurvePoint, Run, RunSpec, run_key

STEP_TOKENS = 1_000_000  # of every size: many, so that whole tokens round a mixture by under 1e-8
STEPS = (100, 200, 400, 700, 900, 1500, 2200, 3000, 4500, 6500, 9500, 13_000, 19_500)


@dataclasses.dataclass(frozen=True, eq=False)
class Simulator:
    """Runs computed by the authors' network: an `Execute`, exact and without noise.

    `metrics` are all minimised: losses (nats per token) and 1 - accuracy (`..._error`). A run's
    curve holds its `shares`, rounded to the 100 steps that the network was fitted at.
    """

    domains: tuple[str, ...]
    metrics: tuple[str, ...]
    sizes: tuple[Size, ...]
    first_steps: int
    last_steps: int
    shares: tuple[float, ...]
    fingerprint: str
    _inputs_K: np.ndarray  # where the network wants each of the sorted domains
    _accuracy_M: np.ndarray  # which of its outputs are accuracies
    _array: dict[str, np.ndarray] = dataclasses.field(repr=False)

    @classmethod
    def load(cls, folder: Path | str, shares: Sequence[float] = (0.25, 0.5, 0.75)) -> Simulator:
        """Reads simulator.json, simulator.npz and flops_dataset.csv.

        Raises `BadInput` when one is missing, or a size's cost is not proportional to its steps.
        """
        folder = Path(folder)
        files = [folder / f for f in ("simulator.json", "simulator.npz", "flops_dataset.csv")]
        for file in files:
            if not file.exists():
                raise BadInput(f"folder = {str(folder)!r}: no {file.name} there: put it there")
        about = json.loads(files[0].read_text())
        with np.load(files[1]) as stored:
            array = dict(stored)
        outputs = [(out["name"], out["kind"] == "accuracy") for out in about["outputs"]]
        names = [
            f"{name.removesuffix('_accuracy')}_error"
            if is_accuracy
            else name.removesuffix("_cross_entropy")
            for name, is_accuracy in outputs
        ]
        domains = tuple(sorted(about["domains"]))
        return cls(
            domains=domains,
            metrics=tuple(names),
            sizes=_sizes(files[2], about["cost"]["labels"]),
            first_steps=about["step_grid"]["first"],
            last_steps=about["step_grid"]["last"],
            shares=tuple(shares),
            fingerprint=hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16],
            _inputs_K=np.array([about["domains"].index(name) for name in domains]),
            _accuracy_M=np.array([is_accuracy for _, is_accuracy in outputs]),
            _array=array,
        )

    def space(
        self,
        lower: float = 0.0,
        upper: float = 1.0,
        steps: Sequence[int] = STEPS,
    ) -> Space:
        """All sizes, the largest last, and mixtures with every weight in [lower, upper]."""
        k = len(self.domains)
        return Space(
            domains=self.domains,
            sizes=self.sizes,
            steps=tuple(steps),
            target_steps=self.last_steps,
            lower_K=(lower,) * k,
            upper_K=(upper,) * k,
        )

    def predict(self, weights_QxK: np.ndarray, size: str, steps: int) -> np.ndarray:
        """Metrics, [Q, M] in the order of `metrics`, of Q mixtures of the (sorted) `domains`.

        Any number of steps: the authors' own search asks for 100 more than they trained for. Raises
        `BadInput` for a size that is not in the cost table.
        """
        weights_QxK = np.asarray(weights_QxK, np.float64)
        million = np.full(len(weights_QxK), self._size(size).parameters / 1e6)
        return self._forward(weights_QxK, million, np.full(len(weights_QxK), float(steps)))

    def __call__(self, specs: Sequence[RunSpec]) -> Iterator[Run]:
        """A run for every spec, in their order. Raises `BadInput` for what was never trained."""
        steps_R = [self._steps(spec) for spec in specs]
        points_RxC = [[*self._curve_steps(steps), steps] for steps in steps_R]
        count_R = [len(points) for points in points_RxC]
        weights_RxK = np.array([list(spec.weights.values()) for spec in specs])  # sorted by name
        million_R = [self._size(spec.size).parameters / 1e6 for spec in specs]
        values_PxM = self._forward(
            np.repeat(weights_RxK.reshape(-1, len(self.domains)), count_R, axis=0),
            np.repeat(million_R, count_R),
            np.array([steps for points in points_RxC for steps in points], float),
        )
        end = 0
        for spec, points_C in zip(specs, points_RxC, strict=True):
            begin, end = end, end + len(points_C)
            rows = zip(points_C, values_PxM[begin:end].tolist(), strict=True)
            *curve, last = (
                CurvePoint(steps * STEP_TOKENS, dict(zip(self.metrics, row, strict=True)))
                for steps, row in rows
            )
            yield Run(
                spec=spec,
                key=run_key(spec, {}, self.fingerprint),
                status="ok",
                loss=last.loss,
                realised=dict(spec.tokens),
                epochs=dict.fromkeys(spec.tokens, 0.0),
                curve=tuple(curve),
                flops=self._size(spec.size).step_flops * points_C[-1],
            )

    def optimum(
        self, space: Space, value: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, float]:
        """The mixture of the space with the least true value at the target, and that value.

        value: [Q, M] metrics -> [Q]. Searches 20,000 mixtures and the corners, then improves the 32
        best by moving weight between two domains, by ever less, down to 1e-5.
        """

        def at_target(weights_QxK: np.ndarray) -> np.ndarray:
            return value(self.predict(weights_QxK, space.target.name, space.target_steps))

        random = itertools.islice(draws(space, "dirichlet", 0), 20_000)
        start_QxK = np.concatenate([np.array(list(random)), vertices(space)])
        best_BxK = start_QxK[np.argsort(at_target(start_QxK))[:32]]
        identity_KxK = np.eye(len(space.domains))
        move_PxK = (identity_KxK[:, None] - identity_KxK[None]).reshape(-1, len(space.domains))
        length = 0.1
        while length > 1e-5:
            tried_BxPxK = best_BxK[:, None] + length * move_PxK
            tried_QxK = tried_BxPxK.reshape(-1, len(space.domains))
            inside_Q = within(space, tried_QxK)
            value_Q = np.where(inside_Q, at_target(tried_QxK), np.inf)
            chosen_B = value_Q.reshape(len(best_BxK), -1).argmin(1)  # staying is a move too
            moved_BxK = tried_BxPxK[np.arange(len(best_BxK)), chosen_B]
            if (moved_BxK == best_BxK).all():
                length /= 2
            best_BxK = moved_BxK
        value_B = at_target(best_BxK)
        return best_BxK[value_B.argmin()], float(value_B.min())

    def _forward(
        self, weights_QxK: np.ndarray, million_Q: np.ndarray, steps_Q: np.ndarray
    ) -> np.ndarray:
        array, count = self._array, len(self.domains)
        x_QxI = np.empty((len(weights_QxK), count + 2))
        x_QxI[:, self._inputs_K] = weights_QxK
        x_QxI[:, count], x_QxI[:, count + 1] = million_Q, steps_Q
        h = ((x_QxI - array["x_mean"]) / array["x_std"]).astype(np.float32)
        last = sum(name.startswith("w") for name in array) - 1
        for i in range(last + 1):
            h = h @ array[f"w{i}"] + array[f"b{i}"]
            h = np.maximum(h, 0) if i < last else h
        y_QxM = h * array["y_std"] + array["y_mean"]
        return np.where(self._accuracy_M, 1 - y_QxM, y_QxM)

    def _size(self, name: str) -> Size:
        for size in self.sizes:
            if size.name == name:
                return size
        known = ", ".join(size.name for size in self.sizes)
        raise BadInput(f"size = {name!r}: not in the cost table: use one of {known}")

    def _curve_steps(self, steps: int) -> list[int]:
        """Multiples of 100 before the end, nearest to the shares."""
        nearest = {100 * round(share * steps / 100) for share in self.shares}
        return sorted(point for point in nearest if 0 < point < steps)

    def _steps(self, spec: RunSpec) -> int:
        if set(spec.tokens) != set(self.domains):
            raise BadInput(
                f"tokens of {', '.join(spec.tokens)}: the simulator's domains are "
                f"{', '.join(self.domains)}: name each"
            )
        steps = round(spec.total / STEP_TOKENS)
        if not self.first_steps <= steps <= self.last_steps:
            raise BadInput(
                f"tokens = {spec.total:,} ({steps:,} steps of {STEP_TOKENS:,}): ask for "
                f"{self.first_steps} to {self.last_steps:,} steps"
            )
        return steps


def _sizes(file: Path, labels: dict[str, int]) -> tuple[Size, ...]:
    """The rows of the cost table by size, the smallest first."""
    with file.open() as lines:
        rows = [
            (r["model_size"], float(r["step"]), float(r["flops"])) for r in csv.DictReader(lines)
        ]
    sizes = []
    for name, million in sorted(labels.items(), key=lambda item: item[1]):
        per_step = np.array([flops / steps for label, steps, flops in rows if label == name])
        if not len(per_step) or np.ptp(per_step) > 1e-9 * per_step.max():
            raise BadInput(
                f"{file.name}: FLOPs of {name} are missing or not proportional to its steps: "
                "take the authors' table"
            )
        sizes.append(Size(name, million * 1e6, float(np.median(per_step)), STEP_TOKENS))
    return tuple(sizes)
