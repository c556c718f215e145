"""The default corpus: there on any installation, the same each time, large enough."""

import subprocess
import sys

import pytest

from autoscale_jax.data import embedded, prepare


def test_the_default_corpus(tmp_path):
    corpus = prepare({}, tmp_path)
    assert [d.name for d in corpus.domains] == sorted(embedded.DEFAULT)
    for domain in corpus.domains:
        assert domain.train_tokens > 500_000, domain
        assert domain.eval_documents >= 30, domain
    assert corpus.vocab_size == 1024 and corpus.warnings == ()


@pytest.mark.parametrize("name", ["unicode", "headers"])
def test_the_same_documents_in_every_process(name):
    script = f"""
import hashlib
from autoscale_jax.data import embedded_documents
print(hashlib.sha256("\\0".join(embedded_documents(["{name}"])["{name}"]).encode()).hexdigest())
"""
    hashes = {
        subprocess.check_output([sys.executable, "-c", script], env={"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_paths_of_the_installation_do_not_matter(tmp_path, monkeypatch):
    for root in ("here", "tests/there"):
        for name in ("b", "a/x", "tests/test_it"):
            file = tmp_path / root / "pkg" / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(name)
    seen = []
    for root in ("here", "tests/there"):
        embedded._files.cache_clear()
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(tmp_path / root))
            seen.append(list(embedded._texts(("pkg",), r"^(?!.*/tests/).*\.py$")))
    embedded._files.cache_clear()
    assert seen[0] == seen[1] and sorted(seen[0]) == ["a/x", "b"]


def test_identity_ignores_test_tools():
    identity = embedded.identity()
    assert {"python", "unicode", "code", "numpy", "jax", "scipy"} <= identity.keys()
    assert not {"pytest", "hypothesis", "mypy", "ruff"} & identity.keys()


def test_code_has_no_comments_and_docs_no_code():
    text = '# c\ndef f():\n    """Doc."""\n    # d\n    return "#"\n'
    stripped = embedded._COMMENT_LINE.sub("", embedded._DOCSTRING.sub("", text))
    assert "Doc" not in stripped and "# d" not in stripped and 'return "#"' in stripped
    assert embedded._dedent("First.\n\n    Second.\n      Third.") == "First.\n\nSecond.\n  Third."
    assert embedded._C_LICENCE.sub("", "// Licence\n// more\nint x; // y\n") == "int x; // y\n"
