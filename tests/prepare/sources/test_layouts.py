"""Layouts that are recognised by what lies there: lists, Kaggle's, Hugging Face's, WebDataset, unpacked archives."""

import gzip
import json
import tarfile
from pathlib import Path

import ilsvrc
import pyarrow
import pytest
from pyarrow import parquet

from imagenet_jax import classes
from imagenet_jax.errors import UserError
from imagenet_jax.prepare import repair, writer
from imagenet_jax.prepare.examples import DEFAULTS, Example, Options, Source
from imagenet_jax.prepare.shard import load
from imagenet_jax.prepare.sources import layouts

_A, _B = "n00000010", "n00000020"


def _images(place: Path, options: Options = DEFAULTS) -> Source:
    return layouts.open_source(layouts.IMAGES, str(place), "ours", options)


def _write(root: Path, contents: dict[str, bytes | str]) -> Path:
    for name, data in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def _examples(source: Source) -> dict[str, list[tuple[str, int, bytes]]]:
    """Name, label and image of what is not refused, by split."""
    found = {}
    for split, items in source.splits.items():
        read = [item if isinstance(item, Example) else next(load([item]))[1] for item in items]
        found[split] = [(example.file_name, example.label, example.image) for example in read if example]
    return found


_JPEGS = {f"{name}.jpg": ilsvrc.jpeg(i) for i, name in enumerate("abcd")}
_ROWS = "path,label,split\na.jpg,cat,train\nsub/b.jpg,dog,\nc.jpg,dog,val\ngone.jpg,cat,train\n"


def test_lists(tmp_path: Path) -> None:
    root = _write(tmp_path, {"list.csv": "\ufeff" + _ROWS, "sub/b.jpg": _JPEGS["b.jpg"], **_JPEGS})
    (root / "list.TSV").write_text(_ROWS.replace(",", "\t"))
    columns = zip(*(line.split(",") for line in _ROWS.splitlines()[1:]), strict=True)
    parquet.write_table(pyarrow.table(dict(zip(("path", "label", "split"), map(list, columns), strict=True))),
                        root / "list.parquet")
    for name in ("list.csv", "list.TSV", "list.parquet"):
        source = _images(root / name)
        assert (source.layout, source.classes) == ("list of images", ("cat", "dog"))
        assert source.totals == {"train": 3, "validation": 1}
        assert _examples(source) == {
            "train": [("a.jpg", 0, ilsvrc.jpeg(0)), ("sub/b.jpg", 1, ilsvrc.jpeg(1))],
            "validation": [("c.jpg", 1, ilsvrc.jpeg(2))]}
    numbers = "label,path\n10,a.jpg\n9,b.jpg\n9,c.jpg\n"
    source = _images(_write(root, {"numbers.csv": numbers}) / "numbers.csv", Options(holdout=0.5))
    assert (source.classes, source.totals) == (("9", "10"), {"train": 2, "validation": 1})
    assert {split: len(found) for split, found in _examples(source).items()} == source.totals


@pytest.mark.parametrize("rows", [
    "path;label\r\na.jpg;cat\r\nsub/b.jpg;dog\r\n",
    "FILE_NAME, Label\na.jpg, cat\n\n  \nsub\\b.jpg, dog\n , \n",
    "x\tclass\tfilename\n1,2;3\tcat\ta.jpg\n\tdog\tsub/b.jpg\n",
], ids=("of a spreadsheet", "with blanks", "with tabs"))
def test_lists_of_other_programs(tmp_path: Path, rows: str) -> None:
    root = _write(tmp_path, {"list.csv": rows, "sub/b.jpg": _JPEGS["b.jpg"], **_JPEGS})
    assert _examples(_images(root / "list.csv")) == {
        "train": [("a.jpg", 0, ilsvrc.jpeg(0)), ("sub/b.jpg", 1, ilsvrc.jpeg(1))]}


@pytest.mark.parametrize("rows", [
    "path,label,confidence\na.jpg,cat,0.1\nsub/b.jpg,,0.2\n", "path,label\nsub/b.jpg,\na.jpg,cat\n"])
def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path, rows: str) -> None:
    source = _images(_write(tmp_path, {"list.csv": rows, "sub/b.jpg": _JPEGS["b.jpg"], **_JPEGS}) / "list.csv")
    assert (source.totals, source.left_out) == ({"train": 1}, {"unlabelled": (1, "sub/b.jpg")})
    assert _examples(source) == {"train": [("a.jpg", 0, ilsvrc.jpeg(0))]}


@pytest.mark.parametrize(("rows", "message"), [
    ("file,label\na.jpg,cat\n", "has no column path; its first row is file, label"),
    ("path,label\n\n\n,cat\n", "row 4, has no path"),
    ("path,label\na.jpg,\n", "lists no images with a label"),
    ("path,label\na.jpg,\na.jpg,dog\n", "row 3, lists a.jpg once more"),
    ("path,label\na.jpg,cat\na.jpg,dog\n", "row 3, lists a.jpg once more"),
    ("path,label,split\na.jpg,cat,dev\n", "row 2: the split is dev"),
    ("path,label,split\na.jpg,cat,train\nb.jpg,dog,val\n", "classes that train has not: dog"),
    ("path,label\n", "lists no images"),
    (b"path,label\n\xff.jpg,cat\n", "cannot be read.*UTF-8"),
])
def test_wrong_lists(tmp_path: Path, rows: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _images(_write(tmp_path, {"list.csv": rows}) / "list.csv")


def _kaggle(root: Path, **changed: str) -> Path:
    data, boxes = "ILSVRC/Data/CLS-LOC", "ILSVRC/Annotations/CLS-LOC"
    return _write(root, {
        f"{data}/train/{_B}/{_B}_0.JPEG": ilsvrc.jpeg(0), f"{data}/train/{_A}/{_A}_0.JPEG": ilsvrc.jpeg(1),
        f"{data}/val/ILSVRC2012_val_00000001.JPEG": ilsvrc.jpeg(2), f"{data}/test/ILSVRC2012_test_1.JPEG": b"?",
        f"{boxes}/val/ILSVRC2012_val_00000001.xml": ilsvrc.annotation((0, 4, 12, 16)),
        "LOC_val_solution.csv": f"ImageId,PredictionString\nILSVRC2012_val_00000001,{_B} 0 4 12 16 \n",
        "LOC_synset_mapping.txt": f"{_A} tench, Tinca tinca\n{_B} goldfish\n"} | changed)


def test_kaggle(tmp_path: Path) -> None:
    root = _kaggle(tmp_path)
    for place in (root, root / "ILSVRC/Data/CLS-LOC"):
        source = _images(place)
        assert (source.layout, source.classes) == ("ILSVRC of Kaggle", (_A, _B))
        assert source.class_names == ("tench", "goldfish")
        assert source.left_out == {".jpeg": (1, "test/ILSVRC2012_test_1.JPEG")}
        boxes = [example.boxes.tolist() for _, example in load(source.splits["validation"])]
        assert boxes == [[[0.25, 0, 1, 0.5]]]
        assert _examples(_images(place)) == {
            "train": [(f"{_A}_0.JPEG", 0, ilsvrc.jpeg(1)), (f"{_B}_0.JPEG", 1, ilsvrc.jpeg(0))],
            "validation": [("ILSVRC2012_val_00000001.JPEG", 1, ilsvrc.jpeg(2))]}
    for changed, message in (("ImageId,PredictionString\n", "0 images are missing and 1 have no line"),
                             ("Id,Label\nx,y\n", "must have the columns ImageId and PredictionString")):
        with pytest.raises(UserError, match=message):
            _images(_kaggle(tmp_path, **{"LOC_val_solution.csv": changed}))
    with pytest.raises(UserError, match="holds ILSVRC of Kaggle, for which --holdout means nothing"):
        _images(root, Options(holdout=0.1))


def test_hugging_face(tmp_path: Path) -> None:
    root = _write(tmp_path, {f"data/{name}.tar.gz": gzip.compress(ilsvrc.tar(members)) for name, members in {
        "train_images_0": {f"{_B}_7_{_B}.JPEG": ilsvrc.jpeg(0), "LICENSE": b"?"},
        "train_images_1": {f"{_A}_8_{_A}.JPEG": ilsvrc.jpeg(1), f"._{_A}_8_{_A}.JPEG": b"?"},
        "val_images": {f"ILSVRC2012_val_00000293_{_B}.JPEG": ilsvrc.jpeg(2)}, "test_images": {}}.items()})
    for open_one in (layouts.ARCHIVES, layouts.IMAGES):
        source = layouts.open_source(open_one, str(root), "ours", Options(memory=tmp_path / "memory"))
        assert (source.layout, source.classes) == ("ImageNet-1k of Hugging Face", (_A, _B))
        assert source.totals == {"train": 2, "validation": 1}
        assert _examples(source) == {
            "train": [(f"{_B}_7_{_B}.JPEG", 1, ilsvrc.jpeg(0)), (f"{_A}_8_{_A}.JPEG", 0, ilsvrc.jpeg(1))],
            "validation": [(f"ILSVRC2012_val_00000293_{_B}.JPEG", 1, ilsvrc.jpeg(2))]}
        assert {ending: count for ending, (count, _) in source.left_out.items()} == {"none": 1, "hidden": 1, ".gz": 1}


def test_webdataset(tmp_path: Path) -> None:
    first = {"0.cls": b"10", "0.jpg": ilsvrc.jpeg(0), "0.json": b"{}", "1.jpg": ilsvrc.jpeg(1), "1.cls": b"2\n"}
    root = _write(tmp_path, {
        "in1k-train-0000.tar": ilsvrc.tar(first),
        "in1k-train-0001.tar": ilsvrc.tar({"2.jpg": ilsvrc.jpeg(2), "2.cls": b"2", "3.jpg": ilsvrc.jpeg(3)}),
        "in1k-validation-0000.tar": ilsvrc.tar({"4.png": ilsvrc.jpeg(4), "4.cls": b"10"})})
    for _ in range(2):  # the second time as remembered
        source = _images(root, Options(memory=tmp_path / "memory"))
        assert (source.layout, source.classes) == ("WebDataset", ("2", "10"))
        assert (source.totals, source.left_out) == ({"train": 4, "validation": 1}, {".json": (1, "0.json")})
    streamed = list(source.splits["train"])
    assert [(item.file_name, item.label, item.fault) for item in streamed] == [
        ("0.jpg", 1, ""), ("1.jpg", 0, ""), ("2.jpg", 0, ""), ("3.jpg", 0, "no class")]
    assert [example.image for _, example in load(streamed) if example] == [ilsvrc.jpeg(i) for i in range(3)]
    (root / "classes.txt").write_text("".join(f"n{i:08d} thing {i}\n" for i in range(11)))
    named = _images(root, Options(classes=str(root / "classes.txt")))
    assert (named.classes, named.class_names) == (("n00000002", "n00000010"), ("thing 2", "thing 10"))
    folders = {f"{name}/1.{kind}": data for name, kind, data in (("a", "cls", b"0"), ("a", "jpg", ilsvrc.jpeg(5)),
                                                                ("b", "jpg", ilsvrc.jpeg(6)), ("b", "cls", b"1"))}
    source = _images(_write(tmp_path / "folders", {"0.tar": ilsvrc.tar(folders)}))
    assert _examples(source) == {"train": [("a/1.jpg", 0, ilsvrc.jpeg(5)), ("b/1.jpg", 1, ilsvrc.jpeg(6))]}
    apart = {"0.jpg": ilsvrc.jpeg(0), "1.jpg": ilsvrc.jpeg(1), "0.cls": b"0", "1.cls": b"1"}
    with pytest.raises(UserError, match="no image has a class beside it.*--sort=name"):
        _images(_write(tmp_path / "apart", {"0.tar": ilsvrc.tar(apart)}))


def _damaged(packed: bytes) -> dict[str, bytes]:
    """A tar of four files of a block each, in ways that the module tarfile takes for its end."""
    header = 4 * tarfile.BLOCKSIZE
    return {"a damaged header": packed[:header] + b"?" * tarfile.BLOCKSIZE + packed[header + tarfile.BLOCKSIZE:],
            "cut between two files": packed[:header], "cut in a header": packed[:header + 100]}


def test_a_tar_without_its_end_is_no_shorter_tar(tmp_path: Path) -> None:
    few = {f"{i // 2}.{'cls' if i % 2 else 'jpg'}": b"0" for i in range(4)}
    images = {f"n00000010_{i}_n00000010.JPEG": b"0" for i in range(4)}
    for what, data in _damaged(ilsvrc.tar(few)).items():
        with pytest.raises(UserError, match="shard.tar cannot be read to its end: "):
            _images(_write(tmp_path / f"shards {what}", {"shard.tar": data}))
    for what, data in _damaged(ilsvrc.tar(images)).items():
        with pytest.raises(UserError, match="train_images_0.tar.gz cannot be read to its end: "):
            _images(_write(tmp_path / f"stream {what}", {"train_images_0.tar.gz": gzip.compress(data)}))
        outer = {"n00000010.tar": data + bytes(-len(data) % tarfile.BLOCKSIZE), "n00000020.tar": ilsvrc.tar(images)}
        with pytest.raises(UserError, match="fall11_whole.tar.* cannot be read to its end: "):
            _archives(_write(tmp_path / f"inner {what}", {"fall11_whole.tar": ilsvrc.tar(outer)}))


def _tables(root: Path, names: list[str] | None = None, **more: dict[str, list]) -> Path:
    """Parquet files as Hugging Face has them; images are numbered through, and so is their noise."""
    tables, count = {"train": {"label": [1, 0]}, "validation": {"label": [1]}, "test": {"label": [-1, -1]}} | more, 0
    for split, columns in tables.items():
        rows = [{"bytes": ilsvrc.jpeg(i), "path": f"x/{i}.JPEG"} for i in range(count, count + len(columns["label"]))]
        table, count = pyarrow.table({"image": rows, **columns}), count + len(rows)
        if names:
            features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        _table(root / f"data/{split}-00000-of-00001.parquet", table)
    return root


def _table(path: Path, table: pyarrow.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    return path


def test_tables(tmp_path: Path) -> None:
    root = _write(_tables(tmp_path / "named", ["toad", "ant"]), {"data/._a.parquet": b"?"})
    for place in (root, root / "data"):
        for open_one in (layouts.ARCHIVES, layouts.IMAGES):
            source = layouts.open_source(open_one, str(place), "ours", DEFAULTS)
            assert (source.layout, source.classes) == ("Parquet with images", ("toad", "ant"))
            assert source.left_out == {"unlabelled": (2, "test-00000-of-00001.parquet")}
    assert source.totals == {"train": 2, "validation": 1}
    assert _examples(source) == {"train": [("0.JPEG", 1, ilsvrc.jpeg(0)), ("1.JPEG", 0, ilsvrc.jpeg(1))],
                                 "validation": [("2.JPEG", 1, ilsvrc.jpeg(2))]}
    one = _images(_tables(tmp_path / "numbers") / "data/train-00000-of-00001.parquet")
    assert (one.classes, one.totals) == (("0", "1"), {"train": 2})
    words = _images(_tables(tmp_path / "words", train={"label": ["dog", "cat"]}, validation={"label": ["cat"]}))
    assert (words.classes, [label for _, label, _ in _examples(words)["train"]]) == (("cat", "dog"), [1, 0])
    wnids, called = classes.imagenet()
    called = [name.replace("crane", "crane bird", 1) if wnid == "n02012849" else name
              for wnid, name in zip(wnids, called, strict=True)]
    assert _images(_tables(tmp_path / "imagenet", called)).classes == wnids[:2]
    with pytest.raises(UserError, match="classes that train has not: 5"):
        _images(_tables(tmp_path / "other", validation={"label": [5]}))
    with pytest.raises(UserError, match="has the columns image, text; it must have"):
        _images(_table(tmp_path / "texts/0.parquet", pyarrow.table({"image": [b"?"], "text": ["a"]})).parent)
    cut = root / "data/train-00000-of-00001.parquet"
    cut.write_bytes(cut.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"train-00000-of-00001.parquet cannot be read: .*damaged, cut short"):
        _images(root)


def test_a_place_that_is_nearly_right_is_told_what_to_do(tmp_path: Path) -> None:
    for number, (there, message) in enumerate((
            ("images.zip", "Unpack it and give its folder"), ("train.txt", "write it as one of the lists below"),
            ("x/n00000010.tar", "ILSVRC2012_img_train.tar, which is read as it is"),
            ("x/0.tar", "has its class beside it"), ("x/train-00000-of-01024", "by --tfds=DIR"),
            ("x/metadata.csv", r"by --images=.*metadata.csv"), ("x/a.jpg", "each class needs a folder"),
            ("x/ILSVRC2012_img_val.tar", r"archives of ILSVRC2012: give it by --archives="))):
        root = _write(tmp_path / str(number), {there: b""})
        with pytest.raises(UserError, match=message):
            _images(root / there.split("/")[0])


def _archives(root: Path) -> Source:
    return layouts.open_source(layouts.ARCHIVES, str(root), "tiny", DEFAULTS)


_TRAIN = {f"{wnid}/{wnid}_{i}.JPEG": ilsvrc.jpeg(i) for wnid in sorted(ilsvrc.WNIDS) for i in range(2)}


def test_train_and_val_may_be_unpacked_or_packed_again(tmp_path: Path) -> None:
    """All three give the same dataset."""
    boxes = {"n00000010/n00000010_1.xml": ilsvrc.annotation((0, 4, 12, 16))}
    in_order = {f"{wnid}.tar": ilsvrc.class_tars(ilsvrc.COUNTS)[f"{wnid}.tar"] for wnid in sorted(ilsvrc.WNIDS)}
    trains = {"official": ilsvrc.tar(in_order), "unpacked": None,
              "again": ilsvrc.tar({"./train/._x.JPEG": b"?"} | {f"./train/{name}": _TRAIN[name] for name in _TRAIN})}
    written = []
    for kind, train in trains.items():
        folder = ilsvrc.write(tmp_path / kind, {ilsvrc.TRAIN: train, "ILSVRC2012_bbox_train_v2.tar.gz": gzip.compress(
            ilsvrc.tar(boxes))})
        if kind == "unpacked":
            _write(folder / "train", _TRAIN | {"checksums.txt": b""})
            (folder / ilsvrc.VAL).unlink()
            val = ilsvrc.val_images(len(ilsvrc.TRUTH))
            _write(folder / "val", {f"{number % 2}/{name}": val[name] for number, name in enumerate(val)} | {
                "val.txt": b""})
        source = _archives(folder)
        writer.write_dataset(tmp_path / "out" / kind, source, repair.check)
        written.append([path.read_bytes() for path in sorted((tmp_path / "out" / kind).glob("*record-*"))])
        assert source.left_out == {"official": {}, "unpacked": {".txt": (2, "val/val.txt")},
                                   "again": {"hidden": (1, "./train/._x.JPEG")}}[kind]
    assert written[0] == written[1] == written[2]
    (tmp_path / "unpacked/train/n00000010/n00000010_1.JPEG").unlink()
    with pytest.raises(UserError, match="train: class n00000010 has 1 images, but the devkit states 2"):
        _archives(tmp_path / "unpacked")
    (tmp_path / "unpacked/train/n00000010/n00000010_0.JPEG").unlink()
    (tmp_path / "unpacked/train/n00000010").rmdir()
    with pytest.raises(UserError, match="disagree on the classes.*only in the devkit: n00000010"):
        _archives(tmp_path / "unpacked")
