"""What an index is made of is found in it again, by its own network only, and never half of it."""

import json
import os

import numpy as np
import pytest
from small_data import draw, make_dataset

from imagenet_jax import dataset as dataset_lib
from imagenet_jax import durable
from imagenet_jax.classes import Classes, find
from imagenet_jax.errors import UserError
from imagenet_jax.inference import images as images_lib
from imagenet_jax.inference import index as index_lib
from imagenet_jax.inference import predict, retrieval
from imagenet_jax.training import evaluating

ASKED = predict.Asked(1, features=True, pixels=True)
KINDS = ["features", "pixels"]


def make_index(directory, path, names=(), split_dir=""):
    trained, classes, source = evaluating.open_trained(path), None, index_lib.source_of(split_dir, "validation")
    if split_dir:
        dataset = dataset_lib.open_dataset(split_dir)
        images = images_lib.of_split(dataset_lib.open_split(dataset, "validation"))
        classes = Classes(dataset.classes, dataset.class_names)
    else:
        images, _ = images_lib.pointed_at(list(map(str, names)))
    network = index_lib.network_of(trained, path)
    made = index_lib.write(str(directory), predict.predict(trained, images, ASKED), network, source,
                           classes)
    return made, index_lib.open_index(str(directory))


@pytest.fixture(scope="module")
def clusters():
    """40 unit vectors around 4 directions that are at right angles, and which each is around."""
    rng, labels = np.random.default_rng(0), np.arange(40, dtype=np.int32) % 4
    vectors = np.eye(4, 16, dtype=np.float32)[labels] + 0.01 * rng.standard_normal((40, 16), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels


def test_the_nearest_of_each_picture_is_itself(weigh, photos, tmp_path):
    made, index = make_index(tmp_path / "index", weigh(), [photos])
    assert {name.removeprefix(f"{photos}/") for name, _ in made.faults} == {
        "cut.jpg", "empty.jpg", "text.jpg", "damaged.png"}
    assert made.count == len(index.names) == 14 and index.labels is None and index.classes is None
    for vectors in index.vectors.values():
        cosines, places = retrieval.nearest(vectors, np.array(vectors), 3)
        np.testing.assert_allclose(cosines[:, 0], 1, atol=1e-5)
        same = np.einsum("qd,qd->q", vectors, vectors[places[:, 0]])  # odd pictures here are the same one
        np.testing.assert_allclose(same, 1, atol=1e-5)
        np.testing.assert_allclose(cosines, np.sort(vectors @ vectors.T)[:, :-4:-1], atol=1e-5)
    alone, _ = images_lib.pointed_at([str(photos / "deeper" / "3.jpg")])
    (asked,) = predict.predict(evaluating.open_trained(index.network["path"]), alone, ASKED)
    cosines, places = retrieval.nearest(index.vectors["features"], index_lib.unit(asked.features, "3")[None], 2)
    best = retrieval.hits(index, cosines[0], places[0])[0]
    assert best == {"file": str(photos / "deeper" / "3.jpg"), "similarity": pytest.approx(1, abs=1e-5)}


def test_labels_and_classes_of_a_dataset(weigh, tmp_path):
    data = make_dataset(tmp_path / "data", 4, 30, 3)
    _, index = make_index(tmp_path / "index", weigh(), split_dir=data)
    assert index.labels.tolist() == [example.label for example in draw(30, 3, 1)]
    assert index.vectors["pixels"].shape == (30, predict.SMALL**2 * 3)
    found = retrieval.precision_of(index, 5)
    assert {row["id"]: row["pictures"] for row in found["classes"]} == dict.fromkeys(index.classes.ids, 10)
    for kind in KINDS:
        assert found["all"][kind] == pytest.approx(np.mean([row[kind] for row in found["classes"]]))
    assert found["all"]["chance"] == pytest.approx(9 / 29)
    lines = retrieval.table(found).splitlines()
    assert len(lines) == 5 and lines[0].split() == ["precision@5", "pictures", *KINDS] and "chance 31.0%" in lines[-1]
    mean = retrieval.mean_of_class(index, 1)
    _, places = retrieval.nearest(index.vectors["features"], mean[None], 30)
    by_hand = index.vectors["features"] @ index.vectors["features"][1::3].mean(axis=0)
    assert set(places[0, :10]) == set(np.argsort(-by_hand)[:10])


def test_precision_is_1_of_clusters_and_the_share_of_a_class_by_chance(clusters):
    vectors, labels = clusters
    np.testing.assert_array_equal(retrieval.precision(vectors, labels, 9), 1)
    np.testing.assert_allclose(retrieval.precision(vectors, labels, 1000), 9 / 39)
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((3000, 16), np.float32)
    vectors, labels = vectors / np.linalg.norm(vectors, axis=1, keepdims=True), rng.integers(0, 5, 3000)
    assert retrieval.precision(vectors, labels, 10).mean() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("same", [3, 40])
def test_no_picture_is_its_own_neighbour_even_among_its_copies(clusters, same):
    vectors = np.array(clusters[0])
    vectors[:same] = vectors[0]
    found = retrieval.neighbours(vectors, 5)
    assert found.shape == (40, 5) and not (found == np.arange(40)[:, None]).any()
    assert all(len(set(row)) == 5 for row in found.tolist())


def test_another_network_is_refused(weigh, photos, tmp_path):
    _, index = make_index(tmp_path / "index", weigh(), [photos / "deeper"])
    index_lib.check_network(index, evaluating.open_trained(index.network["path"]))
    with pytest.raises(UserError, match="is another network, whose features do not compare"):
        index_lib.check_network(index, evaluating.open_trained(weigh('{"size": 32, "resize": 40, "library": "tf"}')))
    other = evaluating.open_trained(weigh())
    head = other.variables["params"]["head"]
    head["bias"] = head["bias"] + 1
    with pytest.raises(UserError, match="small, drawn.safetensors, is another network"):
        index_lib.check_network(index, other)


def test_half_an_index_is_none(weigh, photos, tmp_path):
    path, directory = weigh(), tmp_path / "index"
    images, _ = images_lib.pointed_at([str(photos / "deeper")])
    trained = evaluating.open_trained(path)

    def interrupted():
        yield from list(predict.predict(trained, images, ASKED))[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_lib.write(str(directory), interrupted(), index_lib.network_of(trained, path), {})
    assert not [name for name in os.listdir(tmp_path) if name.startswith("index")]
    with pytest.raises(UserError, match="there is no index at .* make it with"):
        index_lib.open_index(str(directory))
    with pytest.raises(UserError, match=r"no picture for an index: .*empty.jpg: an empty file"):
        make_index(directory, path, [photos / "empty.jpg"])
    assert not directory.exists()


@pytest.mark.parametrize("name, spoil", [
    ("index.json", lambda data: data.replace(b"deeper/1", b"deeper/2")), ("index.json", lambda data: data[:-9]),
    ("index.json", lambda data: b"[]"), ("features.f32", lambda data: data[:-4]),
    ("features.f32", lambda data: data[:9] + b"!" + data[10:]), ("pixels.f32", lambda data: data[:-1] + b"!")])
def test_a_damaged_index_is_told(weigh, photos, tmp_path, name, spoil):
    make_index(tmp_path / "index", weigh(), [photos / "deeper"])
    file = tmp_path / "index" / name
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(UserError, match="index is damaged"):
        index_lib.open_index(str(tmp_path / "index"))


def test_nothing_is_written_over(weigh, photos, tmp_path):
    make_index(tmp_path / "index", weigh(), [photos / "deeper"])
    with pytest.raises(UserError, match="is an index already"):
        index_lib.check_place(str(tmp_path / "index"))
    with pytest.raises(UserError, match="no empty folder"):
        index_lib.check_place(str(photos))
    index_lib.check_place(str(tmp_path / "new"))
    with pytest.raises(UserError, match="has no labels"):
        retrieval.precision_of(index_lib.open_index(str(tmp_path / "index")), 10)


def test_an_index_of_a_newer_format_is_told(weigh, photos, tmp_path):
    make_index(tmp_path / "index", weigh(), [photos / "deeper"])
    card = tmp_path / "index" / "index.json"
    content = json.loads(card.read_text()) | {"format": index_lib.FORMAT + 1}
    del content["seal"]
    card.write_text(json.dumps(content | {"seal": durable.seal(content)}))
    with pytest.raises(UserError, match="newer format"):
        index_lib.open_index(str(tmp_path / "index"))


def test_a_class_is_found_by_what_it_is_called():
    classes = Classes(("n1", "n2", "n3"), ("crane, bird", "crane", "Sea_lion"))
    assert [find(word, classes) for word in ("n2", "bird", "sea lion")] == [1, 0, 2]
    with pytest.raises(UserError, match="'Crane' is what n1, n2 are called"):
        find("Crane", classes)
    with pytest.raises(UserError, match="'cat' is no class; there are n1"):
        find("cat", classes)
