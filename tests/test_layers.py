"""A file imports only lower layers, or files of its own folder: the shape of the project."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "autoscale_jax"
# The modules and packages directly under autoscale_jax, lowest layer first.
LAYERS = [
    ["specs"],
    ["runs", "config", "workdir"],
    ["data", "models", "fit"],
    ["train", "methods", "verify", "paper"],
    ["execute", "simulate", "report", "progress", "study", "evidence"],
    ["summary"],
    ["pipeline"],
    ["launch"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ONLY = {"fit": {"specs", "runs"}, "config": {"specs"}, "runs": {"specs"}}  # usable in Colab alone
VAGUE = {"utils", "util", "helpers", "common", "misc"}


def imports(file: Path, root: Path) -> set[str]:
    """Full dotted names of everything a file imports, at the top or inside functions."""
    package = [root.name, *file.relative_to(root).parent.parts]
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def violations(root: Path) -> list[str]:
    """What is wrong with the tree, a line each."""
    found = []
    for file in sorted(root.rglob("*.py")):
        here = file.relative_to(root)
        if here.stem in VAGUE:
            found.append(f"{here}: name the file after its one concern")
        names = imports(file, root)
        if any(name.split(".")[0] == "jaxopt" for name in names) and here != Path("fit/simplex.py"):
            found.append(f"{here}: only fit/simplex.py imports jaxopt")
        ours = {name.split(".")[1] for name in names if name.startswith(f"{root.name}.")}
        top = here.parts[0].removesuffix(".py")
        if top == "__init__":
            found += [f"{here} imports {name}: it imports nothing of the package" for name in ours]
            continue
        if top not in LEVEL:
            found.append(
                f"{here}: not in a layer yet: place {top!r} in LAYERS of tests/test_layers.py"
            )
            continue
        for name in sorted(ours - {top}):
            if name not in LEVEL:
                found.append(f"{here} imports {name}: no module of a layer")
            elif LEVEL[name] >= LEVEL[top]:
                found.append(f"{here} (layer {LEVEL[top]}) imports {name} ({LEVEL[name]})")
            elif name not in ONLY.get(top, {name}):
                found.append(f"{here} imports {name}: {top} imports only {ONLY[top]}")
    return found


def test_layers_hold():
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "text", "word"),
    [
        ("runs.py", "from autoscale_jax import pipeline", "imports pipeline"),
        ("train/step.py", "from autoscale_jax.methods.base import Method", "imports methods"),
        ("methods/ddo.py", "def f():\n    import autoscale_jax.train", "imports train"),
        ("train/step.py", "from ..execute import execute", "imports execute"),
        ("runs.py", "from . import config", "imports config"),
        ("fit/laws.py", "from autoscale_jax.config import validate", "only"),
        ("fit/laws.py", "from autoscale_jax.data import pack", "imports data"),
        ("fit/laws.py", "import jaxopt", "jaxopt"),
        ("methods/regmix.py", "from jaxopt import ProjectedGradient", "jaxopt"),
        ("train/utils.py", "", "one concern"),
        ("plots.py", "", "place 'plots' in LAYERS"),
        ("__init__.py", "from autoscale_jax.runs import RunTable", "imports nothing"),
        ("launch.py", "from autoscale_jax.pipelin import study", "no module"),
    ],
)
def test_a_violation_is_found(tmp_path, file, text, word):
    path = tmp_path / "autoscale_jax" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert len(found := violations(tmp_path / "autoscale_jax")) == 1
    assert word in found[0]


def test_allowed_imports_pass(tmp_path):
    root = tmp_path / "autoscale_jax"
    for file, text in {
        "runs/table.py": "import numpy\nfrom . import ledger\nfrom ..specs import Run",
        "fit/simplex.py": "import jaxopt\nfrom autoscale_jax.fit import laws\nfrom ..runs import x",
        "train/loop.py": "from .step import step\nfrom autoscale_jax.models import gpt2",
        "launch.py": "from autoscale_jax import config, pipeline",
    }.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    assert violations(root) == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("autoscale_jax.fit", ["flax", "grain", "orbax", "tensorflow", "ray"]),
        ("autoscale_jax.runs", ["jax", "flax", "grain", "orbax", "tensorflow", "ray"]),
    ],
)
def test_import_is_light(module, heavy):
    code = f"import sys, {module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(heavy) & set(out.stdout.split())
