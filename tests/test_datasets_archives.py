"""WebDataset tar files and data sets of the `datasets` library, as a Corpus."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from attention_atlas.data import huggingface
from attention_atlas.data.corpus import read_corpus
from attention_atlas.data.images import read_rgb
from attention_atlas.data.webdataset import read_webdataset
from attention_atlas.errors import AtlasError


def image(i, format="PNG"):
    pixels = np.full((6 + i, 9, 3), 20 * i, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def add(tar, name, data, **more):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def write(path, *members):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            add(tar, name, data)
    return path.parent


def sample(i, text="txt", data=None):
    return [(f"{i:04d}.png", image(i)), (f"{i:04d}.{text}", data or f"Image {i}.".encode())]


def test_samples_of_tar_files_are_a_corpus(tmp_path):
    root = write(tmp_path / "t" / "1.tar", *sample(3), *sample(4))
    write(root / "0.tar", *sample(1), *reversed(sample(2)), (".DS_Store", b"x"))
    corpus = read_webdataset(root)
    assert [e.id for e in corpus.examples] == ["0001#0", "0002#0", "0003#0", "0004#0"]
    assert [e.text for e in corpus.examples][2] == "Image 3."
    scene = corpus.scenes["0003"]
    assert (scene.width, scene.height, scene.split) == (9, 9, "test")
    pixels = np.asarray(read_rgb(corpus.image_path("0003")))
    assert pixels.shape == (9, 9, 3) and (pixels == 60).all()
    assert list(read_webdataset(root, shards="1.tar").scenes) == ["0003", "0004"]
    assert list(read_webdataset(root, limit=3).scenes) == ["0001", "0002", "0003"]
    (root / "2.tar").write_bytes(b"is not listed")
    assert len(read_webdataset(root, limit=4).scenes) == 4


def test_the_webdataset_library_reads_the_same_samples(tmp_path):
    webdataset = pytest.importorskip(
        "webdataset", reason="pip install webdataset to compare with the library"
    )
    root = write(tmp_path / "t" / "0.tar", *sample(1), *sample(2, "txt"))
    theirs = list(webdataset.WebDataset(str(root / "0.tar"), shardshuffle=False, empty_check=False))
    corpus = read_webdataset(root)
    assert [s["__key__"] for s in theirs] == list(corpus.scenes)
    assert [s["txt"].decode() for s in theirs] == [e.text for e in corpus.examples]


def test_captions_in_json(tmp_path):
    row = json.dumps({"caption": ["One.", " Two. "], "alone": "Three."}).encode()
    root = write(tmp_path / "t" / "0.tar", *sample(1, "json", row))
    assert [(e.id, e.text) for e in read_webdataset(root, text="json").examples] == [
        ("0001#0", "One."),
        ("0001#1", "Two."),
    ]
    assert read_webdataset(root, text="json", field="alone").examples[0].text == "Three."
    with pytest.raises(AtlasError, match=r"0\.tar/0001\.json: captions: field is missing"):
        read_webdataset(root, text="json", field="captions")


BAD = {
    "leads out": ([("../0001.png", b"x")], r"member '\.\./0001\.png': its path leads out of the archive"),
    "absolute": ([("/etc/0001.png", b"x")], "its path leads out of the archive"),
    "twice": ([*sample(1), *sample(1)], r"member '0001\.png': occurs twice"),
    "no text": ([*sample(1), ("0002.png", image(2))], r"sample '0002': txt: no such member, only png"),
    "no image": ([("0002.txt", b"x")], "sample '0002': has 0 images"),
    "two images": ([*sample(2), ("0002.jpg", b"x")], "sample '0002': has 2 images"),
    "no words": ([("1.png", image(1)), ("1.txt", b" ")], "example '1#0': text: has no words"),
    "not UTF-8": ([("1.png", image(1)), ("1.txt", b"\xff\xfe\xfa")], r"1\.txt: cannot be read"),
    "bad image": ([("1.png", b"GIF"), ("1.txt", b"x")], r"0\.tar/1\.png: not an image"),
    "empty": ([], "has no sample"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_members_are_one_line(tmp_path, name):
    members, message = BAD[name]
    root = write(tmp_path / "t" / "0.tar", *members)
    with pytest.raises(AtlasError, match=message) as raised:
        read_webdataset(root)
    assert "\n" not in str(raised.value) and str(root) in str(raised.value)


def test_damaged_archives_are_one_line(tmp_path):
    root = write(tmp_path / "t" / "0.tar", *sample(1), ("0002.png", bytes(5000)))
    whole = (root / "0.tar").read_bytes()
    for damaged in (whole[:3000], b"not a tar" * 100, b""):
        (root / "0.tar").write_bytes(damaged)
        with pytest.raises(AtlasError, match=r"0\.tar"):
            read_webdataset(root)
    with tarfile.open(root / "0.tar", "w:gz") as tar:
        add(tar, "a.txt", b"x")
    with pytest.raises(AtlasError, match="not an uncompressed tar"):
        read_webdataset(root)
    with tarfile.open(root / "0.tar", "w") as tar:
        add(tar, "1.png", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    with pytest.raises(AtlasError, match=r"member '1\.png': is a link or a device"):
        read_webdataset(root)
    write(root / "0.tar", *sample(1))
    write(root / "1.tar", *sample(1))
    with pytest.raises(AtlasError, match=r"1\.tar: sample '0001': is also in 0\.tar/0001\.png"):
        read_webdataset(root)
    with pytest.raises(AtlasError, match=r"no file matches 'x\*\.tar'"):
        read_webdataset(root, shards="x*.tar")
    with pytest.raises(AtlasError, match=r"0\.tar: 7\.png: no such member"):
        read_rgb(root / "0.tar" / "7.png")


def test_an_imported_image_is_decoded_while_its_row_is_known(tmp_path):
    (tmp_path / "images").mkdir()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG")
    row = {"image": buffer.getvalue()[:1500], "text": "A."}
    with pytest.raises(AtlasError, match="row 7: image: is truncated or damaged"):
        huggingface._convert(row, "image", "text", "a: row 7", 7, tmp_path, "test")


def parquet(path, rows, captions="text"):
    import pyarrow
    import pyarrow.parquet

    table = {
        "image": [{"bytes": data, "path": None} for data, _ in rows],
        captions: [text for _, text in rows],
    }
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    return path


def test_a_data_set_is_imported_as_a_corpus_folder(tmp_path, capsys):
    pytest.importorskip("datasets", reason="pip install datasets to test the import")
    rows = [(image(i, "JPEG" if i % 2 else "PNG"), [f"Image {i}.", "Grey."]) for i in range(5)]
    file = parquet(tmp_path / "a.parquet", rows, "caption")
    words = ["parquet", str(tmp_path / "out"), "--files", str(file), "--text", "caption"]
    assert huggingface.main(words) == 0 and "5 images" in capsys.readouterr().out
    corpus = read_corpus(tmp_path / "out", "captions")
    assert len(corpus.scenes) == 5 and len(corpus.split("test")) == 10
    assert corpus.examples[2].text == "Image 1." and corpus.scenes["row000000001"].height == 7
    assert corpus.image_path("row000000001").read_bytes() == rows[1][0]
    assert huggingface.main(words) == 1 and "exists; delete it" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "out"]
    lines = tmp_path / "b.jsonl"
    lines.write_text("".join(json.dumps({"file": str(tmp_path / "p.png"), "text": t}) + "\n" for t in "abc"))
    (tmp_path / "p.png").write_bytes(image(2))
    assert huggingface.import_dataset("json", tmp_path / "o", image="file", files=[str(lines)], limit=2) == 2
    assert len(read_corpus(tmp_path / "o", "captions").examples) == 2


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([(image(1), "A."), (b"broken", "B.")], {}, "row 1: image: not an image"),
        ([(image(1), "A."), (image(2), None)], {}, "row 1: text: is not text"),
        ([(image(1), "...")], {}, "row 0: example 'row000000000#0': text: has no words"),
        ([(None, "A.")], {}, "row 0: image: is empty"),
        ([(image(1), "A.")], {"text": "caption"}, "caption: no such column; known: image, text"),
        ([(image(1), "A.")], {"rows": "dev"}, "cannot be loaded"),
        ([(image(1), "A.")], {"limit": 0}, "--limit: must be at least 1"),
    ],
)
def test_a_bad_data_set_is_one_line_and_leaves_nothing(tmp_path, rows, more, message):
    pytest.importorskip("datasets", reason="pip install datasets to test the import")
    file = parquet(tmp_path / "a.parquet", rows)
    with pytest.raises(AtlasError, match=message):
        huggingface.import_dataset("parquet", tmp_path / "out", files=[str(file)], **more)
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]
