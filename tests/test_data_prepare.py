"""The command line of preparation, on miniatures of RedPajama and the shared corpus."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from autoscale_jax.data import open_corpus, prepare, redpajama

ROOT = Path(__file__).parents[1]
SHARED = ROOT / "../shared/data"
CONFIG = """
from autoscale_jax.config import default_config

def get_config():
    config = default_config()
    config.data.source = "files"
    config.data.domains = {domains!r}
    config.data.tokenizer = {tokenizer!r}
    return config
"""


def command(config: Path, cache: Path, *flags: str) -> list[str]:
    module = [sys.executable, "-m", "autoscale_jax.data.prepare"]
    return [*module, f"--config={config}", f"--cache={cache}", *flags]


def write_redpajama(folder: Path) -> dict[str, int]:
    """A miniature in the published layout: documents of a domain say whose they are."""
    rng = np.random.default_rng(0)
    for name, (stem, label, _) in redpajama.DOMAINS.items():
        lines = []
        for i in range(30):
            words = " ".join(f"{name}{k}" for k in rng.integers(0, 900, 200))
            meta = {"redpajama_set_name": label, "language": "en" if i % 3 else "de"}
            lines.append(json.dumps({"text": words[: 900 + 40 * i], "meta": meta}))
        path = folder / stem / ("2019-30" if stem == "common_crawl" else "") / f"{stem}.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines))


def test_redpajama_by_file_and_by_meta(tmp_path):
    write_redpajama(tmp_path / "in")
    rules = {"min_chars": 1000, "window_chars": 1000, "held_out": 5, "tokenizer": "bytes"}
    rules["source"] = "files"
    by_file = redpajama.by_file(str(tmp_path / "in"))
    corpus = prepare({**rules, "domains": by_file}, tmp_path / "cache")
    over = sum(900 + 40 * i > 1000 for i in range(30))
    english = sum(900 + 40 * i > 1000 for i in range(30) if i % 3)
    for domain in corpus.domains:
        expected = english if domain.name == "wikipedia" else over
        assert (domain.eval_documents, domain.train_documents) == (5, expected - 5)
        text = corpus.tokenizer.decode(corpus.train_tokens[domain.name][1:500])
        assert domain.name in text
    by_meta = redpajama.by_meta(str(tmp_path / "in/**/*.jsonl"))
    again = prepare({**rules, "domains": by_meta}, tmp_path / "cache")
    for name in set(redpajama.DOMAINS) - {"wikipedia"}:
        pair = (corpus.domains, again.domains)
        one, two = (next(d for d in domains if d.name == name) for domains in pair)
        assert one.train_documents == two.train_documents
    assert redpajama.PAPER_RULES == {"min_chars": 1000, "window_chars": 1000, "held_out": 10_000}


def test_the_command_prepares_what_a_study_opens(text_files, data_settings, tmp_path):
    config = tmp_path / "config.py"
    domains = data_settings["domains"]
    config.write_text(CONFIG.format(domains=domains, tokenizer="bytes"))
    done = subprocess.run(
        command(config, tmp_path / "cache", "--config.data.held_out=20", "--workers=1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "scan: " in done.stderr and "tokenise: " in done.stderr and " left" in done.stderr
    assert done.stdout.splitlines()[1].split() == [
        *("birds", "60", "20"),
        *(f"{n:,}" for n in _tokens(tmp_path / "cache", "birds")),
        *("0", "0", "0"),
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.data.window=last"], "data.window = 'last': choose one of first, random"),
        (["--cache=gs://bucket/x"], "--cache = 'gs://bucket/x': must be a folder of this machine"),
        (["--config.data.windw=last"], 'Did you mean "window"'),
        (["more"], "argument 'more': not a flag"),
    ],
)
def test_a_mistake_is_one_line(text_files, data_settings, tmp_path, flags, message):
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(domains=data_settings["domains"], tokenizer="bytes"))
    bad = subprocess.run(
        command(config, tmp_path / "cache", *flags), capture_output=True, text=True, cwd=tmp_path
    )
    assert bad.returncode == 2
    assert message in bad.stderr and len(bad.stderr.splitlines()) == 1
    assert not (tmp_path / "cache").exists() and not (tmp_path / "gs:").exists()


def _tokens(cache: Path, name: str) -> tuple[int, int]:
    (folder,) = cache.glob("corpus-*")
    domain = next(d for d in open_corpus(folder).domains if d.name == name)
    return domain.train_tokens, domain.eval_tokens


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared corpus")
def test_killed_again_and_again_with_workers_it_still_gives_the_same(tmp_path):
    """Real text, GPT-2's tokeniser, two processes; no process outlives its killed parent."""
    domains = {p.name.split(".")[0]: str(p) for p in (SHARED / "corpus").glob("*.jsonl.gz")}
    config = tmp_path / "config.py"
    tokenizer = str(SHARED / "tokenizers/gpt2")
    config.write_text(CONFIG.format(domains=domains, tokenizer=tokenizer))
    seconds = 2.0
    kills = 0
    while True:
        process = subprocess.Popen(
            command(config, tmp_path / "cache", "--workers=2"), start_new_session=True
        )
        try:
            assert process.wait(seconds) == 0
            break
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            seconds *= 1.7
            _wait_for_group_to_end(process.pid)
    assert kills >= 2
    subprocess.run(command(config, tmp_path / "whole", "--workers=1"), check=True)
    (one,), (two,) = (list((tmp_path / x).glob("corpus-*")) for x in ("cache", "whole"))
    assert open_corpus(one).fingerprint == open_corpus(two).fingerprint


def _wait_for_group_to_end(group: int) -> None:
    for _ in range(600):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("workers outlived their parent")
