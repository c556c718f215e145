"""Reading documents from files; everything unreadable is named with its file and line."""

import gzip
import importlib
import json
import os
import pickle
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from etils import epath
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_jax.data import prepare, sources
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


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder behind gs://bucket."""
    folder = tmp_path / "behind"
    folder.mkdir()

    class Bucket(LocalFileSystem):
        protocol = ("gs",)

        @classmethod
        def _strip_protocol(cls, path):
            inside, gs, rest = str(path).rpartition("gs://")
            if rest.startswith("bucket"):
                return f"{folder}{rest.removeprefix('bucket')}".rstrip("/")
            return f"/{rest}" if gs else inside + rest

    monkeypatch.setitem(importlib.import_module("fsspec.registry")._registry, "gcs", Bucket)
    epath.backend.fsspec_backend._get_filesystem.cache_clear()
    yield folder
    epath.backend.fsspec_backend._get_filesystem.cache_clear()


def test_remote_files_are_read_through_epath(bucket, monkeypatch):
    (bucket / "a").mkdir()
    (bucket / "a/1.jsonl.gz").write_bytes(gzip.compress(jsonl("one", "two")))
    (bucket / "a/2.jsonl").write_bytes(jsonl("three"))
    (bucket / "a/3.txt").write_text("four")
    pq.write_table(pa.table({"text": ["five"]}), bucket / "a/4.parquet")
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


def test_a_prepared_domain_and_its_tokeniser_behind_a_remote_scheme(bucket, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_bytes(jsonl(*(f"{name} text {i}" for i in range(60))))
    local = {name: str(tmp_path / f"{name}.jsonl") for name in "ab"}
    data = {"source": "files", "domains": local, "tokenizer": "bpe", "vocab_size": 300}
    first = prepare(data, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").glob("domain-a-*")
    shutil.copytree(folder, bucket / "a")
    remote = {"a": "gs://bucket/a", "b": local["b"]}
    for tokenizer in ("gs://bucket/a", "gs://bucket/a/tokenizer.json"):
        data = {**data, "domains": remote, "tokenizer": tokenizer}
        again = prepare(data, tmp_path / f"from{len(tokenizer)}")
        assert again.fingerprints["a"] == first.fingerprints["a"]
        assert (again.train_tokens["a"][:] == first.train_tokens["a"][:]).all()
    with pytest.raises(BadInput, match=r"tokenizer = 'gs://bucket/none': no such file"):
        prepare({**data, "tokenizer": "gs://bucket/none"}, tmp_path / "cache")
    (bucket / "a/train-00000.array_record").unlink()
    with pytest.raises(BadInput, match=r"gs://bucket/a/train-00000\.array_record: is missing"):
        prepare(data, tmp_path / "cache")


@pytest.mark.parametrize("path", ["s3://none/x.jsonl", "s3://none/*.jsonl", "foo://none/x.jsonl"])
def test_a_scheme_that_cannot_be_reached_is_one_line(tmp_path, path):
    """s3fs is not installed, and there is no scheme foo."""
    (tmp_path / "b.jsonl").write_bytes(jsonl("one", "two"))
    domains = {"a": path, "b": str(tmp_path / "b.jsonl")}
    data = {"source": "files", "domains": domains, "tokenizer": "bytes"}
    with pytest.raises(BadInput) as e:
        prepare(data, tmp_path / "cache")
    assert f"data.domains.a = {path!r}: cannot be" in str(e.value) and "\n" not in str(e.value)
    if path.startswith("s3"):
        assert "cannot be reached (Install s3fs" in str(e.value) and "credentials" in str(e.value)
        with pytest.raises(BadInput, match="tokenizer = 's3://none/tokenizer': cannot be reached"):
            prepare({**data, "tokenizer": "s3://none/tokenizer"}, tmp_path / "cache")


def test_a_remote_cache_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="cache_dir = 'gs://bucket/x': must be a folder of this mac"):
        prepare({"source": "embedded"}, "gs://bucket/x")
    assert not list(tmp_path.iterdir())


def test_json_is_json_lines_whatever_compresses_it(tmp_path):
    (tmp_path / "1.json").write_bytes(jsonl("one", "two"))
    (tmp_path / "2.json.gz").write_bytes(gzip.compress(jsonl("three")))
    (tmp_path / "3.json.zst").write_bytes(zstandard.compress(jsonl("four")))
    assert read(tmp_path)[0] == ["one", "two", "three", "four"]
    source = sources.parse("a", str(tmp_path / "1.json"))
    (unit,) = sources.units_of("a", source)
    assert unit.format == "jsonl"
    assert len(sources.units_of("a", source, most_bytes=30)) > 1  # read from the file itself


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=30),
    last_end=st.booleans(),
    most_bytes=st.integers(1, 200),
)
def test_ranges_of_a_large_file_are_the_file(tmp_path_factory, lengths, last_end, most_bytes):
    """Every line once, in order, whatever the cuts; with the numbers of their lines."""
    file = tmp_path_factory.mktemp("ranges") / "f.jsonl"
    lines = [json.dumps({"text": "x" * n}).encode() if n else b"" for n in lengths]
    file.write_bytes(b"\n".join(lines) + b"\n" * last_end)
    found = []
    for unit in sources.units_of("a", sources.parse("a", str(file)), most_bytes):
        documents = sources.Documents(unit)
        found += [(documents.place(i), documents[i]) for i in documents.indices()]
    wanted = [(f"{file}:{i + 1}", "x" * n if n else None) for i, n in enumerate(lengths)]
    if not last_end and not lengths[-1]:
        wanted.pop()  # nothing stands behind the last line end
    assert found == wanted


def test_many_files_share_units_and_one_is_open_at_a_time(tmp_path):
    texts = [f"text {i} {k}" for i in range(40) for k in range(3)]
    for i in range(40):
        part = texts[3 * i : 3 * i + 3]
        if i % 2:
            pq.write_table(pa.table({"text": part}), tmp_path / f"{i:02}.parquet")
        else:
            (tmp_path / f"{i:02}.jsonl.gz").write_bytes(gzip.compress(jsonl(*part)))
    source = sources.parse("a", str(tmp_path / "*"))
    two = sources.units_of("a", source)
    assert [(unit.format, len(unit.files)) for unit in two] == [("jsonl", 20), ("parquet", 20)]
    descriptors = len(os.listdir("/proc/self/fd"))
    found, until = [], [0]
    for unit in two:
        documents = sources.Documents(unit)
        for i in documents.indices():
            found.append(documents[i])
            until.append(documents.bytes_until(i))
            assert len(os.listdir("/proc/self/fd")) <= descriptors + 2
        assert documents[19 << 40] == found[-3]  # the first of the last file, by its index
        assert until[-1] == unit.bytes
    assert sorted(found) == sorted(texts)
    assert len(sources.units_of("a", source, most_bytes=1)) == 40


def test_units_grow_with_what_there_is():
    sizes = [sources.unit.unit_bytes(int(total)) for total in (0, 8e9, 9e9, 80e9, 1e12, 1e13)]
    assert sizes == [n << 20 for n in (32, 32, 64, 512, 512, 512)]


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
