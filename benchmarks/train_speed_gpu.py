"""Training speed on one GPU: GPT-2 Large beside torch, a population, and where a step's time goes.

    pip install -e '.[train,peers,parity]' 'jax[cuda13]'     # of the same CUDA as torch
    python benchmarks/train_speed_gpu.py [--json FILE] [--parts large population budget]
        [--rows 16] [--remat dots] [--peers nanogpt huggingface] [--proxy-rows 2 8]

large: tokens/s and model FLOP utilisation (the model's FLOPs as `models.flops_per_token` counts
them, over the card's peak in the planner's table) of our training program and of torch.compile with
flash attention, bf16 autocast and fused AdamW, taking turns in one process. The peers' vocabulary
is padded to a multiple of 64. population: 8 models of 10M parameters in one program, and one after
another. budget: seconds of a step by part, from a profile of the loop that studies train with, fed
by its loader from the embedded corpus; CUDA graphs, which hide operations, are off there.
Seconds are wall seconds until the device is done. Each part runs in a process of its own.
`--model tiny` tries all of it on a CPU.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import train_budget
from train_timing import alternate, ours, recipe_of, times_as_fast

from autoscale_jax.data import prepare
from autoscale_jax.models import GPT2Config, flops_per_token, num_parameters
from autoscale_jax.models.gpt2 import SIZES
from autoscale_jax.train.mesh import make_mesh
from autoscale_jax.train.plan_targets import CHIPS, Chip

MODELS = {name: GPT2Config(50257, 1024, **size, dtype="bfloat16") for name, size in SIZES.items()}
MODELS["tiny"] = GPT2Config(300, 32, 2, 32, 2)
PROXY = GPT2Config(8192, 256, 6, 320, 5, dtype="bfloat16")
PROXIES = 8
PEERS = ("nanogpt", "huggingface")


def chip_of(device_kind: str) -> Chip | None:
    """The planner's card of the name that jax gives a device ("NVIDIA A100-SXM4-80GB")."""
    words = device_kind.lower().replace("-", " ").split()
    named = (chip for name, chip in CHIPS.items() if set(name.split("-")) <= set(words))
    return next(named, None)


def large(arguments: argparse.Namespace) -> dict[str, Any]:
    """Ours and the peers: tokens/s, MFU, and how many times as fast ours is."""
    import torch
    import train_peers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    config = dataclasses.replace(MODELS[arguments.model], remat=arguments.remat)
    padded = dataclasses.replace(config, vocab_size=-(-config.vocab_size // 64) * 64)
    kinds = dict(zip(PEERS, (train_peers.NanoGPT, train_peers.HuggingFace), strict=True))
    runs = {"ours": ours(recipe_of(config, arguments.rows))}
    for name in arguments.peers:
        runs[name] = train_peers.theirs(
            kinds[name](padded), padded, arguments.rows, device, compiled=True
        )
    free = torch.cuda.empty_cache if device == "cuda" else lambda: None
    seconds = alternate(runs, arguments.steps, arguments.rounds, time.perf_counter, free)
    chip = chip_of(jax.devices()[0].device_kind)
    rows = []
    for name, seconds_R in seconds.items():
        rate = arguments.rows * config.seq_len * arguments.steps / float(np.median(seconds_R))
        rows.append(
            {
                "training": name,
                "tokens/s": rate,
                "MFU": rate * flops_per_token(config) / chip.flops if chip else None,
                "ours is x as fast": times_as_fast(seconds["ours"], seconds_R),
                "seconds": seconds_R.tolist(),
            }
        )
    return {"rows": rows, "torch": torch.__version__}


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
    """Populations by how many rows a step takes of each model."""
    config = MODELS["tiny"] if arguments.model == "tiny" else PROXY
    found = []
    for rows in arguments.proxy_rows:
        timed = population(config, rows, PROXIES, 8 * arguments.steps, arguments.rounds)
        found += [{"tokens of a step": rows * config.seq_len, **row} for row in timed]
    return {"rows": found, "models": PROXIES, "parameters": num_parameters(config)}


def budget(arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a step by part, and their shares."""
    config = dataclasses.replace(MODELS[arguments.model], remat=arguments.remat)
    recipe, mesh = recipe_of(config, arguments.rows), make_mesh(jax.devices()[:1])
    with tempfile.TemporaryDirectory() as scratch:
        settings = {"source": "embedded", "tokenizer": "bytes", "eval_tokens": 1024}
        corpus = prepare(settings, Path(scratch) / "corpus")
        found = train_budget.budget(recipe, corpus, mesh, Path(scratch))
    found["step"] = sum(found.values())
    rows = [{"part": part, "ms": 1e3 * s, "share": s / found["step"]} for part, s in found.items()]
    return {"rows": rows, "tokens/s": recipe.step_tokens / found["step"]}


PARTS = {"large": large, "population": proxies, "budget": budget}
ENVIRONMENT = {
    "large": {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},  # torch needs its share of the memory
    "budget": {"XLA_FLAGS": "--xla_gpu_enable_command_buffer="},  # no CUDA graphs
}


def run_part(part: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own: what a part finds, and where."""
    found = PARTS[part](arguments)
    return {"device": jax.devices()[0].device_kind, "jax": jax.__version__, **found}


def in_process(part: str, arguments: argparse.Namespace) -> dict[str, Any]:
    before = dict(os.environ)
    for name, value in ENVIRONMENT.get(part, {}).items():
        os.environ[name] = f"{before.get(name, '')} {value}".strip()
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as process:
        found = process.submit(run_part, part, arguments).result()
    os.environ.clear()
    os.environ.update(before)
    return found


def table(found: dict[str, Any]) -> Iterator[str]:
    """Markdown of a part's rows, and one line of what else was found."""
    yield ", ".join(f"{name} {_text(name, x)}" for name, x in found.items() if name != "rows")
    yield ""
    names = [name for name in found["rows"][0] if name != "seconds"]
    yield f"| {' | '.join(names)} |"
    yield "|---" * len(names) + "|"
    for row in found["rows"]:
        yield f"| {' | '.join(_text(name, row[name]) for name in names)} |"
    yield ""


def _text(name: str, x: Any) -> str:
    if x is None:
        return "?"
    if name in ("MFU", "share"):
        return f"{x:.2%}"
    if isinstance(x, str):
        return x
    return f"{x:,.0f}" if x >= 1000 else f"{x:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--model", choices=MODELS, default="large")
    parser.add_argument("--rows", type=int, default=16, help="of a step")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="dots")
    parser.add_argument("--peers", choices=PEERS, nargs="*", default=PEERS)
    parser.add_argument(
        "--proxy-rows", type=int, nargs="+", default=[2, 8], help="of a model's step"
    )
    parser.add_argument("--steps", type=int, default=8, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    results = {}
    for part in arguments.parts:
        results[part] = in_process(part, arguments)
        print(f"## {part}", *table(results[part]), sep="\n", flush=True)
        if arguments.json:  # after each part: the next one may fail
            settings = {k: v for k, v in vars(arguments).items() if k != "json"}
            arguments.json.write_text(json.dumps({"settings": settings, **results}, indent=1))


if __name__ == "__main__":
    main()
