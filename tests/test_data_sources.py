"""Reading documents from files; everything unreadable is named with its file and line."""

import gzip
import json

import pytest
import zstandard

from autoscale_jax.data import sources
from autoscale_jax.specs import BadInput


def jsonl(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": t, "meta": {}}).encode() + b"\n" for t in texts)


def read(folder, on_bad_line="refuse", pattern="*"):
    files = sources.find({"a": str(folder / pattern)})
    documents, warnings = sources.documents(files, on_bad_line)
    return documents["a"], warnings


def test_every_format(tmp_path):
    long = "x" * 3_000_000
    (tmp_path / "1.jsonl").write_bytes(jsonl("one", "zwei\nü") + b"\n" + jsonl("", "last")[:-1])
    (tmp_path / "2.jsonl.gz").write_bytes(gzip.compress(jsonl("g1")) + gzip.compress(jsonl("g2")))
    frames = zstandard.compress(jsonl("z1")) + zstandard.compress(jsonl(long))
    (tmp_path / "3.jsonl.zst").write_bytes(frames)
    (tmp_path / "4.txt").write_bytes(b"\xef\xbb\xbfplain\ntext")
    (tmp_path / "5.md").write_text("# title")
    (tmp_path / "6").mkdir()
    texts, warnings = read(tmp_path)
    assert texts == ["one", "zwei\nü", "last", "g1", "g2", "z1", long, "plain\ntext", "# title"]
    assert warnings == []


GOOD = jsonl("good one", "good two")
BAD = {
    "json": ("f.jsonl", GOOD + b'{"text": \n' + GOOD, 4, r"f\.jsonl:3: not JSON \(Expecting value"),
    "digits": ("f.jsonl", GOOD + b"9" * 5000, 2, r"f\.jsonl:3: not JSON"),
    "depth": ("f.jsonl", GOOD + b"[" * 200_000, 2, r"f\.jsonl:3: not JSON"),
    "utf8": ("f.jsonl", GOOD + b'{"text": "\xff"}\n', 2, r"f\.jsonl:3: not UTF-8 at byte 10 of"),
    "field": ("f.jsonl", b'{"content": "x"}\n' + GOOD, 2, r"f\.jsonl:1: no field 'text' with a st"),
    "type": ("f.jsonl", b'{"text": 3}\n[1]\n' + GOOD, 2, r"f\.jsonl:1: no field 'text'"),
    "surrogate": ("f.jsonl", b'{"text": "\\ud800"}\n' + GOOD, 2, r"f\.jsonl:1: .*surrogate"),
    "gzip cut": ("f.jsonl.gz", gzip.compress(GOOD)[:-12], 0, r"f\.jsonl\.gz:1: compression cut"),
    "gzip bits": ("f.jsonl.gz", gzip.compress(GOOD)[:10] + b"\xff" * 40, 0, r"compression cut"),
    "not gzip": ("f.jsonl.gz", GOOD, 0, r"f\.jsonl\.gz:1: compression cut short or damaged"),
    "zstd cut": ("f.jsonl.zst", zstandard.compress(GOOD)[:-3], 0, r"f\.jsonl\.zst:1: compression"),
    "zstd 2nd": (
        "f.jsonl.zst",
        zstandard.compress(GOOD) + zstandard.compress(GOOD)[:-3],
        2,
        r"f\.jsonl\.zst:3: compression cut",
    ),
    "not zstd": ("f.jsonl.zst", GOOD, 0, r"f\.jsonl\.zst:1: compression cut short or damaged"),
    "text": ("f.txt", b"caf\xe9", 0, r"f\.txt: not UTF-8 at byte 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_lines_are_refused_or_skipped_and_counted(tmp_path, case):
    name, content, remaining, message = BAD[case]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "good.txt").write_text("other")
    with pytest.raises(BadInput, match=message) as e:
        read(tmp_path)
    assert "\n" not in str(e.value) and "set data.on_bad_line='skip'" in str(e.value)
    texts, (warning,) = read(tmp_path, "skip")
    assert len(texts) == remaining + 1
    count = 2 if case == "type" else 1
    assert f"domain 'a': skipped {count} bad lines or files; the first is" in warning


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "f.txt").write_text("x")
    files = sources.find({"a": str(tmp_path / "*")})
    (tmp_path / "f.txt").unlink()
    with pytest.raises(BadInput, match=r"f\.txt: cannot be read \(No such file"):
        sources.documents(files, "refuse")


def test_missing_paths_and_empty_globs_are_refused(tmp_path):
    for pattern in ("missing.txt", "*.jsonl", "."):
        with pytest.raises(BadInput, match=r"data\.domains\.a = .*: no such file; check path"):
            read(tmp_path, pattern=pattern)
    with pytest.raises(BadInput, match=r"data\.domains\.a = \['x'\]: give one path or glob"):
        sources.find({"a": ["x"]})


def test_a_domain_without_text_is_refused(tmp_path):
    (tmp_path / "f.txt").write_text(" \n")
    with pytest.raises(BadInput, match=r"data\.domains\.a: no text in 1 files, first .*f\.txt"):
        read(tmp_path)


def test_a_file_in_two_domains_is_refused(tmp_path):
    (tmp_path / "f.txt").write_text("x")
    (tmp_path / "link.txt").symlink_to(tmp_path / "f.txt")
    for second in ("f.txt", "link.txt", "*.txt"):
        with pytest.raises(BadInput, match=r"data\.domains\.b = .* is also in domain 'a'"):
            sources.find({"a": str(tmp_path / "f.txt"), "b": str(tmp_path / second)})
