"""A server with an index shows the pictures most like one, and no file that is not of the index."""

import io
import os
import shutil
import tarfile

import pytest
from PIL import Image
from served import JPEG
from small_data import make_dataset

from imagenet_jax import dataset as dataset_lib
from imagenet_jax.classes import Classes
from imagenet_jax.errors import UserError
from imagenet_jax.inference import images, predict, retrieval
from imagenet_jax.inference import index as index_lib
from imagenet_jax.training import evaluating

ASKED = predict.Asked(1, features=True)


def make_index(directory, path, found, source, classes=None):
    trained = evaluating.open_trained(path)
    index_lib.write(str(directory), predict.predict(trained, found, ASKED), index_lib.network_of(trained, path), source,
                    classes)
    return index_lib.open_index(str(directory))


def of_dataset(directory, path, data):
    dataset = dataset_lib.open_dataset(data)
    found = images.of_split(dataset_lib.open_split(dataset, "validation"))
    return make_index(directory, path, found, index_lib.source_of(data, "validation"),
                      Classes(dataset.classes, dataset.class_names))


def colour(encoded):
    """The mean of an image, and whether it is a tile of one grey."""
    with Image.open(io.BytesIO(encoded)) as image:
        return image.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0)), len(
            image.convert("RGB").getcolors(2**24)) == 1


def test_answers_have_the_pictures_that_a_search_finds(serve, weigh, photos, tmp_path):
    index = of_dataset(tmp_path / "index", weigh(), make_dataset(tmp_path / "data", 4, 30, 3))
    served, file = serve(index=index), photos / "deeper" / "1.jpg"
    asked = predict.predict(evaluating.open_trained(weigh()), images.pointed_at([str(file)])[0], ASKED)
    (near,) = retrieval.most_like(index, list(asked), 4)
    status, said = served.predict(file.read_bytes(), "?similar=4&topk=1")
    hits = said["predictions"][0]["similar"]
    assert status == 200 and [hit.pop("thumbnail") for hit in hits] == [f"similar/{place}" for place in near[1]]
    for hit, wanted in zip(hits, retrieval.hits(index, *near), strict=True):
        assert hit == wanted | {"similarity": pytest.approx(wanted["similarity"], abs=1e-5)}
    assert "similar" not in served.predict(file.read_bytes())[1]["predictions"][0]
    assert len(served.predict(file.read_bytes(), "?similar=99")[1]["predictions"][0]["similar"]) == 30
    status, said = served.predict(b"no image", "?similar=4")
    assert status == 400 and said["predictions"] == [{"file": "picture", "error": said["error"]}]
    for word in ("-1", "x", "101", "1" * 5000):
        status, said = served.predict(file.read_bytes(), f"?similar={word}")
        assert status == 400 and "a whole number up to 100" in said["error"]


def test_thumbnails_are_of_the_index_and_of_nothing_else(serve, weigh, tmp_path):
    data = make_dataset(tmp_path / "data", 4, 30, 3)
    index = of_dataset(tmp_path / "index", weigh(), data)
    split = images.of_split(dataset_lib.open_split(dataset_lib.open_dataset(data), "validation"))
    served = serve(index=index)
    for place in (0, 29):
        status, headers, jpeg = served.ask("GET", f"/similar/{place}")
        (got, flat), (wanted, _) = colour(jpeg), colour(split.load(place).encoded)
        assert (status, headers["Content-Type"], headers["X-Content-Type-Options"]) == (200, "image/jpeg", "nosniff")
        assert not flat and max(abs(a - b) for a, b in zip(got, wanted, strict=True)) <= 3
    for place in ("30", "-1", "1.0", "", "x", "9" * 5000, "%C2%B2", "..%2f..%2fetc%2fpasswd", "../index.json",
                  "%2e%2e/%2e%2e/etc/passwd", f"/{tmp_path}/index/index.json", "0%00"):
        status, _, answer = served.ask("GET", f"/similar/{place}")
        assert status == 404 and b"there is no GET" in answer, place
    metrics = served.ask("GET", "/metrics")[2].decode()
    assert 'imagenet_jax_requests_total{path="/similar/",status="200"} 2.0' in metrics


def test_without_an_index_there_is_nothing_similar(serve, photos):
    served = serve()
    assert served.ask("GET", "/similar/0")[0] == 404
    status, said = served.predict((photos / "deeper" / "0.jpg").read_bytes(), "?similar=3", JPEG)
    assert status == 400 and "there is no index" in said["error"] and "--index=DIR" in said["error"]


def test_an_index_of_another_network_is_refused_at_the_start(serve, weigh, photos, tmp_path):
    index = make_index(tmp_path / "index", weigh('{"size": 32, "resize": 40, "library": "tf"}'),
                       images.pointed_at([str(photos / "deeper")])[0], index_lib.source_of())
    with pytest.raises(UserError, match="is another network"):
        serve(index=index)


def test_files_and_members_of_tars_are_found_again_by_name(weigh, photos, tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "more.tar", "w") as tar:
        tar.add(photos, "in")
    monkeypatch.chdir(tmp_path)
    found, _ = images.pointed_at(["photos", "more.tar"])
    index = make_index("index", weigh(), found, index_lib.source_of())
    assert len(index.names) == 28 and index.names[0].startswith("photos/") and index.places.tolist() != [*range(28)]
    expected = [found.load(place) for place in index.places.tolist()]
    monkeypatch.chdir("/")
    again = index_lib.pictures(index)
    assert [again.load(place) for place in range(again.count)] == expected
    assert [picture.name for picture in expected] == index.names
    shutil.move(photos, tmp_path / "elsewhere")
    os.remove(tmp_path / "more.tar")
    assert all(index_lib.pictures(index).load(place).fault for place in range(again.count))


@pytest.mark.parametrize("become", ["nothing", "cut", "shorter", "others", "unsaid"])
def test_what_is_no_longer_there_is_a_grey_tile(serve, weigh, tmp_path, become):
    data = make_dataset(tmp_path / "data", 4, 30, 3)
    index = of_dataset(tmp_path / "index", weigh(), data)
    if become == "unsaid":
        index = index._replace(source={})
    elif become == "cut":
        (shard,) = (tmp_path / "data").glob("*validation*record*")
        os.truncate(shard, shard.stat().st_size // 2)
    else:
        shutil.rmtree(data)
    if become == "shorter":
        make_dataset(data, 4, 10, 3)
    elif become == "others":
        make_dataset(data, 4, 30, 3)
        index = index._replace(names=[f"other_{name}" for name in index.names])
    status, _, jpeg = serve(index=index).ask("GET", "/similar/29")
    assert status == 200 and colour(jpeg)[1]
