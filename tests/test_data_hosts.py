"""Real processes, one a host: stopped at an integer, continued on another number of them."""

import subprocess
import sys

import numpy as np

from autoscale_jax.data import batches, prepare

# Each host restores the position that was saved last, reads its share of the batches up to `stop`,
# and the first one saves where they stand, as training does.
HOST = """
import pathlib, sys
import numpy as np
from autoscale_jax.data import batches, open_corpus
from autoscale_jax.train.checkpoint import RunCheckpoint
folder, checkpoints, host, hosts, stop, out = sys.argv[1:]
host, hosts, stop = int(host), int(hosts), int(stop)
checkpoint = RunCheckpoint(pathlib.Path(checkpoints), ["run"])
position = int(checkpoint.restore(np.array(0)) or 0)
asked = {"birds": 3000, "metals": 1700, "rivers": 900}
corpus, found = open_corpus(pathlib.Path(folder)), {"position": np.array([[position]])}
for objective in ("causal", "mlm"):
    data = batches(corpus, asked, 16, 8, 3, objective, host=host, hosts=hosts)
    parts = [data[i] for i in range(position, min(stop, len(data)))]
    found |= {f"{objective} {k}": np.stack([part[k] for part in parts]) for k in parts[0]}
np.savez(out, **found)
print("read", flush=True)
sys.stdin.read()  # until all have restored
if host == 0:
    checkpoint.save(stop, np.array(stop))
checkpoint.close(delete=False)
"""


def steps_of(folder, hosts, stop, tmp_path) -> dict[str, np.ndarray]:
    """Global batches from where the last call stopped, each host's share by its own process."""
    outs = [tmp_path / f"{stop}-{h}-of-{hosts}.npz" for h in range(hosts)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOST]
            + [str(x) for x in (folder, tmp_path / "checkpoints", h, hosts, stop, out)],
            **pipes,
        )
        for h, out in enumerate(outs)
    ]
    assert [process.stdout.readline() for process in processes] == ["read\n"] * hosts
    for process in processes:
        process.communicate("")
    assert [process.returncode for process in processes] == [0] * hosts
    parts = [np.load(out) for out in outs]
    return {key: np.concatenate([part[key] for part in parts], axis=1) for key in parts[0]}


def test_other_numbers_of_hosts_continue_bit_for_bit(data_settings, tmp_path):
    asked = {"birds": 3000, "metals": 1700, "rivers": 900}
    corpus = prepare(data_settings, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").glob("corpus-*")
    stops = (17, 30, 1000)
    found = [steps_of(folder, n, stop, tmp_path) for n, stop in zip((1, 2, 4), stops, strict=True)]
    assert [set(steps["position"].ravel()) for steps in found] == [{0}, {17}, {30}]
    for objective in ("causal", "mlm"):
        whole = list(batches(corpus, asked, 16, 8, 3, objective))
        assert stops[1] < len(whole) < stops[2]
        for key in whole[0]:
            parts = [steps[f"{objective} {key}"] for steps in found]
            assert (np.concatenate(parts) == np.stack([batch[key] for batch in whole])).all()
