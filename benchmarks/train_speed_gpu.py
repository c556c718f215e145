"""Training speed on one GPU: GPT-2 Large beside torch, a population, and where a step's time goes.

    pip install -e '.[train,cuda,peers,parity]'     # jax and torch of CUDA 13 both
    python benchmarks/train_speed_gpu.py [--json FILE] [--parts large population budget]
        [--rows 16] [--remat none] [--peers nanogpt nanogpt-bf16 huggingface]
        [--compile-modes default max-autotune] [--proxy-rows 2 8 32]

large: tokens/s and model FLOP utilisation (the model's FLOPs as `models.flops_per_token` counts
them, and with the causal half of attention, over the card's peak in the planner's table) of our
training program and of torch.compile with flash attention, bf16 autocast and fused AdamW. Ours and
one peer take turns in one process, then ours and the next. Our residual stream is bf16; the peers'
is float32, as autocast leaves it, but nanogpt-bf16's. What counts is the ratio to the fastest peer,
over all compile modes. The peers' vocabulary is padded to a multiple of 64. Ours allocates its
temporaries anew in each turn, so that the peer finds the memory free.
population: 8 models of 10M parameters in one program, and one after another. The 8 rows of 256
tokens are what counts (`DECIDES`); the others show how it depends on them.
budget: seconds of a step by part, of the model and of a 10M proxy, from a profile of the loop that
studies train with, fed by its loader with random tokens of the whole vocabulary. CUDA graphs, which
hide operations, are off there, and the profiler runs: its tokens/s are no speed.
Seconds are wall seconds until the device is done. Each measurement runs in a process of its own;
one that fails is reported, the others go on, and the exit code is 1.

Where a call has 10 minutes, one each for: `--parts large --peers NAME`, `--parts population`,
`--parts budget`. Besides jax, flax, optax, orbax, tokenizers, torch and transformers, large and
population need ml-collections; budget also grain, portpicker, array-record and zstandard. The
package itself runs from its folder: `PYTHONPATH=. python benchmarks/train_speed_gpu.py`.

What the program of today does not do can be tried: `--unrolled 0` compiles the layers as a loop,
`--loss-chunk` changes how many logits a device holds at a time.
`--model tiny` tries all of it on a CPU.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from train_apart import apart
from train_cards import FULL, SEEN, chip_of, utilisation, versions
from train_timing import alternate, ours, recipe_of, times_as_fast

from autoscale_jax.models import GPT2Config, layers, loss, num_parameters
from autoscale_jax.models.gpt2 import SIZES
from autoscale_jax.train.mesh import make_mesh

MODELS = {name: GPT2Config(50257, 1024, **size, dtype="bfloat16") for name, size in SIZES.items()}
MODELS["tiny"] = GPT2Config(300, 32, 2, 32, 2)
PROXY = GPT2Config(8192, 256, 6, 320, 5, dtype="bfloat16")
PROXIES, DECIDES = 8, 8  # models of a population; rows of a model's step that count
PEERS = ("nanogpt", "nanogpt-bf16", "huggingface")
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
RATIO = "ours is x as fast"


def proxy_of(arguments: argparse.Namespace) -> GPT2Config:
    return MODELS["tiny"] if arguments.model == "tiny" else PROXY


def large(arguments: argparse.Namespace) -> dict[str, Any]:
    """Ours and one peer: tokens/s, MFU, and how many times as fast ours is."""
    import torch
    import train_peers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    config = dataclasses.replace(MODELS[arguments.model], remat=arguments.remat)
    padded = dataclasses.replace(config, vocab_size=-(-config.vocab_size // 64) * 64)
    (peer,), (mode,) = arguments.peers, arguments.compile_modes
    model = train_peers.make(peer, padded)
    runs = {
        "ours": ours(recipe_of(config, arguments.rows)),
        peer: train_peers.theirs(model, padded, arguments.rows, device, mode),
    }
    free = torch.cuda.empty_cache if device == "cuda" else lambda: None
    seconds = alternate(runs, arguments.steps, arguments.rounds, time.perf_counter, free)
    chip = chip_of(jax.devices()[0].device_kind)
    rows = []
    for name, seconds_R in seconds.items():
        rate = arguments.rows * config.seq_len * arguments.steps / float(np.median(seconds_R))
        rows.append(
            {
                "training": name,
                "compile mode": "" if name == "ours" else mode,
                "tokens/s": rate,
                **utilisation(config, rate, chip),
                RATIO: times_as_fast(seconds["ours"], seconds_R),
                "seconds": seconds_R.tolist(),
            }
        )
    return {"rows": rows, **train_peers.versions(), "peer's residual": train_peers.residual(model)}


def population(config: GPT2Config, rows: int, count: int, steps: int, rounds: int) -> list[dict]:
    """`count` models of one shape, `rows` rows a step each: in one program, one after another."""
    recipe = recipe_of(config, rows)
    alone = [ours(recipe, [seed]) for seed in range(count)]
    runs = {
        "in one program": ours(recipe, range(count)),
        "one after another": lambda steps: [run(steps) for run in alone],
    }
    seconds = alternate(runs, steps, rounds, time.perf_counter)
    return [
        {
            "training": name,
            "tokens/s": count * recipe.step_tokens * steps / float(np.median(seconds_R)),
            "one program is x as fast": times_as_fast(seconds["in one program"], seconds_R),
            "seconds": seconds_R.tolist(),
        }
        for name, seconds_R in seconds.items()
    ]


def proxies(arguments: argparse.Namespace) -> dict[str, Any]:
    """A population whose models take so many rows a step."""
    config, (rows,) = proxy_of(arguments), arguments.proxy_rows
    timed = population(config, rows, PROXIES, 8 * arguments.steps, arguments.rounds)
    counts = "yes" if rows == DECIDES else "no"
    found = [{"tokens of a step": rows * config.seq_len, "counts": counts, **row} for row in timed]
    return {"rows": found, "models": PROXIES, "parameters": num_parameters(config)}


def budget(arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a step by part, and their shares."""
    import train_budget

    proxy = arguments.budget_of == "proxy"
    config = dataclasses.replace(MODELS[arguments.model], remat=arguments.remat)
    recipe = recipe_of(proxy_of(arguments), DECIDES) if proxy else recipe_of(config, arguments.rows)
    corpus = train_budget.random_corpus(recipe.model.vocab_size)
    with tempfile.TemporaryDirectory() as scratch:
        mesh = make_mesh(jax.devices()[:1])
        found = train_budget.budget(recipe, corpus, mesh, Path(scratch))
    step = sum(found.values())
    found["input wait + idle"] = found["input wait"] + found["idle"]
    found["step"] = step
    return {
        "rows": [{"part": part, "ms": 1e3 * s, "share": s / step} for part, s in found.items()],
        "parameters": num_parameters(recipe.model),
        "tokens of a step": recipe.step_tokens,
        "tokens/s under the profiler": recipe.step_tokens / step,
    }


PARTS = {"large": large, "population": proxies, "budget": budget}
ENVIRONMENT = {
    "large": {"XLA_PYTHON_CLIENT_ALLOCATOR": "platform"},  # which gives memory back: torch's share
    "population": {},
    "budget": {"XLA_FLAGS": "--xla_gpu_enable_command_buffer="},  # no CUDA graphs
}


def measurements(part: str, arguments: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """The arguments of each process of a part."""
    several: dict[str, list[dict[str, Any]]] = {
        "large": [
            {"peers": [peer], "compile_modes": [mode]}
            for peer in arguments.peers
            for mode in arguments.compile_modes
        ],
        "population": [{"proxy_rows": [rows]} for rows in arguments.proxy_rows],
        "budget": [{"budget_of": model} for model in ("model", "proxy")],
    }
    for changed in several[part]:
        one = copy.copy(arguments)
        vars(one).update(part=part, changed=changed, **changed)
        yield one


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own: what one measurement finds, and where."""
    here = jax.default_backend()
    layers.UNROLLED[here], loss.CHUNK[here] = arguments.unrolled, arguments.loss_chunk
    found = PARTS[arguments.part](arguments)
    return {"device": jax.devices()[0].device_kind, **versions(), **found}


def report(found: dict[str, Any]) -> Iterator[str]:
    """Markdown of a measurement's rows, after one line of what else was found."""
    yield ", ".join(f"{name} {_text(name, x)}" for name, x in found.items() if name != "rows")
    yield ""
    if "rows" in found:
        names = [name for name in found["rows"][0] if name != "seconds"]
        yield f"| {' | '.join(names)} |"
        yield "|---" * len(names) + "|"
        for row in found["rows"]:
            yield f"| {' | '.join(_text(name, row[name]) for name in names)} |"
        yield ""


def fastest_peer(measured: list[dict[str, Any]]) -> Iterator[str]:
    """Ours beside the fastest of the peers, however they were compiled."""
    theirs = [row for one in measured for row in one.get("rows", ()) if row.get("compile mode")]
    if theirs:
        row = min(theirs, key=lambda row: row[RATIO])
        yield (
            f"ours is {row[RATIO]:.3g} x as fast as the fastest peer, {row['training']}, compiled "
            f"{row['compile mode']}; {len(theirs)} of {len(measured)} measured"
        )
        yield ""


def _text(name: str, x: Any) -> str:
    if x is None:
        return "?"
    if name in (FULL, SEEN, "share"):
        return f"{x:.2%}"
    if not isinstance(x, int | float) or "cuDNN" in name:
        return str(x)
    return f"{x:,.0f}" if x >= 1000 else f"{x:.3g}"


def arguments_of(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--model", choices=MODELS, default="large")
    parser.add_argument("--rows", type=int, default=16, help="of a step")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="none")
    parser.add_argument("--peers", choices=PEERS, nargs="+", default=PEERS)
    parser.add_argument(
        "--compile-modes", choices=MODES, nargs="+", default=["default", "max-autotune"]
    )
    parser.add_argument(
        "--proxy-rows", type=int, nargs="+", default=[2, DECIDES, 32], help="of a model's step"
    )
    parser.add_argument("--steps", type=int, default=8, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--unrolled", type=int, default=layers.UNROLLED["gpu"], help="most layers outside a loop"
    )
    parser.add_argument(
        "--loss-chunk", type=int, default=loss.CHUNK["gpu"], help="logits at a time"
    )
    return parser.parse_args(argv)


def main() -> None:
    arguments = arguments_of()
    settings = {k: v for k, v in vars(arguments).items() if k != "json"}
    results: dict[str, Any] = {"settings": settings}
    with tempfile.TemporaryDirectory() as compiled:  # ours is the same beside every peer
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", compiled)
        for part in arguments.parts:
            print(f"## {part}", flush=True)
            measured = results[part] = []
            for one in measurements(part, arguments):
                measured.append({**one.changed, **apart(measure, one, ENVIRONMENT[part])})
                print(*report(measured[-1]), sep="\n", flush=True)
                if arguments.json:  # after each: the next one may fail
                    arguments.json.write_text(json.dumps(results, indent=1))
            print(*fastest_peer(measured), sep="\n", flush=True)
    if any("failed" in one for part in arguments.parts for one in results[part]):
        sys.exit(1)


if __name__ == "__main__":
    main()
