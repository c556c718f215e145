"""Real processes, one a host: stopped at an integer, continued on another number of them."""

import json
import subprocess
import sys

import numpy as np

from autoscale_jax.data import batches, prepare

HOST = """
import json, pathlib, sys
import numpy as np
from autoscale_jax.data import batches, open_corpus
folder, host, hosts, position, stop, out = sys.argv[1:]
host, hosts, position, stop = int(host), int(hosts), json.load(open(position)), int(stop)
asked = {"birds": 3000, "metals": 1700, "rivers": 900}
corpus, found = open_corpus(pathlib.Path(folder)), {}
for objective in ("causal", "mlm"):
    data = batches(corpus, asked, 16, 8, 3, objective, host=host, hosts=hosts)
    parts = [data[i] for i in range(position, min(stop, len(data)))]
    found |= {f"{objective} {k}": np.stack([part[k] for part in parts]) for k in parts[0]}
np.savez(out, **found)
"""


def steps_of(folder, hosts, position, stop, tmp_path) -> dict[str, np.ndarray]:
    """Global batches from `position` on, each host's share read by a process of its own."""
    saved = tmp_path / "position.json"
    saved.write_text(json.dumps(position))
    outs = [tmp_path / f"{position}-{h}-of-{hosts}.npz" for h in range(hosts)]
    commands = [
        [sys.executable, "-c", HOST, *map(str, (folder, h, hosts, saved, stop, out))]
        for h, out in enumerate(outs)
    ]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait() for process in processes] == [0] * hosts
    parts = [np.load(out) for out in outs]
    return {key: np.concatenate([part[key] for part in parts], axis=1) for key in parts[0]}


def test_another_number_of_hosts_continues_bit_for_bit(data_settings, tmp_path):
    asked = {"birds": 3000, "metals": 1700, "rivers": 900}
    corpus = prepare(data_settings, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").glob("corpus-*")
    before = steps_of(folder, 1, 0, 17, tmp_path)
    after = steps_of(folder, 2, 17, 1000, tmp_path)
    for objective in ("causal", "mlm"):
        whole = list(batches(corpus, asked, 16, 8, 3, objective))
        for key in whole[0]:
            parts = [steps[f"{objective} {key}"] for steps in (before, after)]
            assert (np.concatenate(parts) == np.stack([batch[key] for batch in whole])).all()
