"""Reading documents from files; everything unreadable is named with its file and line."""

import gzip
import importlib
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from etils import epath
from fsspec.implementations.local import LocalFileSystem

from autoscale_jax.data import sources
from autoscale_jax.data.sources import files
from autoscale_jax.specs import BadInput


def jsonl(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": t, "meta": {}}).encode() + b"\n" for t in texts)


def read(folder, skip=False, pattern="*", **source):
    """Texts of all files, and what could not be read."""
    texts, bad = [], []
    for unit in sources.units_of(
        "a", sources.parse("a", {"path": str(folder / pattern), **source})
    ):
        documents = sources.Documents(unit)
        for i in documents.indices():
            try:
                text = documents[i]
            except BadInput as e:
                if not skip:
                    raise
                bad.append(str(e))
            else:
                texts += [text] if text else []
    return texts, bad


def test_every_format(tmp_path):
    long = "x" * 3_000_000
    (tmp_path / "1.jsonl").write_bytes(jsonl("one", "zwei\nü") + b"\n" + jsonl("", "last")[:-1])
    (tmp_path / "2.jsonl.gz").write_bytes(gzip.compress(jsonl("g1")) + gzip.compress(jsonl("g2")))
    frames = zstandard.compress(jsonl("z1")) + zstandard.compress(jsonl(long))
    (tmp_path / "3.jsonl.zst").write_bytes(frames)
    (tmp_path / "4.txt").write_bytes(b"\xef\xbb\xbfplain\ntext")
    (tmp_path / "5.md").write_text("# title")
    (tmp_path / "6").mkdir()
    texts, bad = read(tmp_path)
    assert texts == ["one", "zwei\nü", "last", "g1", "g2", "z1", long, "plain\ntext", "# title"]
    assert bad == []


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
    texts, bad = read(tmp_path, skip=True)
    assert len(texts) == remaining + 1
    assert len(bad) == (2 if case == "type" else 1)


def test_an_unreadable_file_is_named(tmp_path):
    for name in ("f.txt", "f.jsonl"):
        (tmp_path / name).write_text("x")
        (unit,) = sources.units_of("a", sources.parse("a", str(tmp_path / name)))
        (tmp_path / name).unlink()
        with pytest.raises(BadInput, match=rf"{name}.*: cannot be read \(No such file"):
            sources.Documents(unit)[0]


def test_random_access_is_what_reading_through_gives(tmp_path):
    texts = [f"text {i} " * (i % 5 + 1) for i in range(50)]
    (tmp_path / "1.jsonl").write_bytes(jsonl(*texts[:20]))
    (tmp_path / "2.jsonl.gz").write_bytes(gzip.compress(jsonl(*texts[20:30])))
    rows = pa.table({"text": texts[30:45], "meta": [{"set": "x", "n": i} for i in range(15)]})
    pq.write_table(rows, tmp_path / "3.parquet", row_group_size=4)
    for i, text in enumerate(texts[45:]):
        (tmp_path / f"4{i}.txt").write_text(text)
    data = sources.dataset("a", sources.parse("a", str(tmp_path / "*")))
    assert len(data) == 50 and list(data) == texts
    assert [data[i] for i in (44, 3, 49, 25, 30)] == [texts[i] for i in (44, 3, 49, 25, 30)]
    copy = pickle.loads(pickle.dumps(data))
    assert copy[37] == texts[37]
    shuffled = list(data.shuffle(seed=1))
    assert sorted(shuffled) == sorted(texts) and shuffled != texts


def test_records_are_chosen_by_their_fields(tmp_path):
    sets = ["RedPajamaC4", "RedPajamaBook", "RedPajamaC4"]
    lines = (
        json.dumps({"text": f"t{i}", "meta": {"redpajama_set_name": s}}) for i, s in enumerate(sets)
    )
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    rows = {"body": ["p0", "p1"], "meta": [{"redpajama_set_name": s} for s in sets[:2]]}
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    where = {"meta.redpajama_set_name": "RedPajamaC4"}
    assert read(tmp_path, pattern="*.jsonl", where=where)[0] == ["t0", "t2"]
    assert read(tmp_path, pattern="*.parquet", where=where, text="body")[0] == ["p0"]
    with pytest.raises(BadInput, match=r"x\.parquet: row 0: no field 'text' with a string"):
        read(tmp_path, pattern="*.parquet")


def test_damaged_parquet_is_named(tmp_path):
    pq.write_table(pa.table({"text": ["a" * 1000] * 100}), tmp_path / "f.parquet")
    whole = (tmp_path / "f.parquet").read_bytes()
    (tmp_path / "f.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"f\.parquet: not a whole Parquet file"):
        read(tmp_path)


def test_remote_files_are_read_through_epath(tmp_path, monkeypatch):
    class Bucket(LocalFileSystem):
        protocol = ("gs",)

        @classmethod
        def _strip_protocol(cls, path):
            inside, gs, rest = str(path).rpartition("gs://")
            if rest.startswith("bucket"):
                return f"{tmp_path}{rest.removeprefix('bucket')}".rstrip("/")
            return f"/{rest}" if gs else inside + rest

    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.jsonl.gz").write_bytes(gzip.compress(jsonl("one", "two")))
    (tmp_path / "a/2.jsonl").write_bytes(jsonl("three"))
    (tmp_path / "a/3.txt").write_text("four")
    pq.write_table(pa.table({"text": ["five"]}), tmp_path / "a/4.parquet")
    monkeypatch.setitem(importlib.import_module("fsspec.registry")._registry, "gcs", Bucket)
    epath.backend.fsspec_backend._get_filesystem.cache_clear()
    opened = []

    def open_binary(path, really=files.open_binary):
        opened.append(path)
        return really(path)

    monkeypatch.setattr(files, "open_binary", open_binary)
    names = ("1.jsonl.gz", "*.jsonl", "3.txt", "*.parquet")
    source = sources.parse("a", {"path": [f"gs://bucket/a/{name}" for name in names]})
    assert list(sources.dataset("a", source)) == ["one", "two", "three", "five", "four"]
    with pytest.raises(BadInput, match=r"s3://none/x\.jsonl: cannot be reached .*package"):
        sources.units_of("a", sources.parse("a", "s3://none/x.jsonl"))
    assert opened and all(path.startswith("gs://") for path in opened)
    epath.backend.fsspec_backend._get_filesystem.cache_clear()


def test_missing_paths_and_empty_globs_are_refused(tmp_path):
    for pattern in ("missing.txt", "*.jsonl", "."):
        with pytest.raises(BadInput, match=r"data\.domains\.a = .*: no such file; check path"):
            read(tmp_path, pattern=pattern)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["x"], "data.domains.a = ['x']: give one path or glob as text, or a dict"),
        ({"where": {}}, "give one path or glob as text, or a dict with 'path'"),
        ({"path": "x", "wheer": {}}, "data.domains.a.wheer: no such field; did you mean 'where'?"),
        ({"path": [3]}, "data.domains.a.path = [3]: give a path or a list of paths"),
        ({"path": "x", "where": 3}, "data.domains.a.where = 3: give a dict of field: value"),
        ({"path": "x", "window": "last"}, "choose one of first, random"),
        ({"path": "x", "min_chars": -1}, "data.domains.a.min_chars = -1: give a number of char"),
    ],
)
def test_bad_sources_are_named(value, message):
    with pytest.raises(BadInput) as e:
        sources.parse("a", value)
    assert message in str(e.value) and "\n" not in str(e.value)
