"""Classes are joined by name."""

import numpy as np
import pytest

from imagenet_jax.classes import Classes, imagenet, join
from imagenet_jax.errors import UserError


def test_imagenet_has_its_thousand_classes_in_the_order_of_their_wnids():
    classes = imagenet()
    assert len(set(classes.ids)) == len(classes.names) == 1000 and list(classes.ids) == sorted(classes.ids)
    known = {0: ("n01440764", "tench"), 207: ("n02099601", "golden retriever"), 999: ("n15075141", "toilet tissue")}
    assert {label: (classes.ids[label], classes.names[label].split(",")[0]) for label in known} == known


@pytest.mark.parametrize(("folder", "label"), [
    ("n02099601", 207), ("golden retriever", 207), ("Golden_Retriever", 207), ("great-white shark", 2), ("crane", None),
    ("unicorn", None), ("n02012849", 134)])
def test_a_folder_is_found_by_wnid_or_by_name(folder, label):
    ours = Classes(("n01440764", folder), ("", folder))
    if label is not None:
        np.testing.assert_array_equal(join(ours, imagenet()).columns, [0, label])
        return
    with pytest.raises(UserError, match=f"no class {folder} of the dataset") as error:
        join(ours, imagenet())
    assert ("crane (n02012849 or n03126707)" in str(error.value)) == (folder == "crane")


def test_the_order_of_the_dataset_does_not_matter():
    model = Classes(("a", "b", "c"), ("", "", ""))
    np.testing.assert_array_equal(join(Classes(("c", "a"), ("", "")), model).columns, [2, 0])


def test_a_drawn_dataset_may_reuse_an_id_whatever_it_calls_it():
    model = Classes(("n1", "n2"), ("cat", "dog"))
    np.testing.assert_array_equal(join(Classes(("n2",), ("cat",)), model).columns, [1])


def test_numbers_are_labels_unless_the_model_knows_them():
    model = Classes(("n1", "n2", "n3"), ("cat", "dog", "owl"))
    assert join(Classes(("0", "02"), ("0", "02")), model).how == "number"
    np.testing.assert_array_equal(join(Classes(("0", "02"), ("0", "02")), model).columns, [0, 2])
    digits = Classes(tuple("102"), tuple("102"))  # a model that tells digits apart, in an order of its own
    assert join(Classes(tuple("012"), tuple("012")), digits).how == "name"
    np.testing.assert_array_equal(join(Classes(tuple("012"), tuple("012")), digits).columns, [1, 0, 2])
    for ids in (("0", "3"), ("0", "cat")):
        with pytest.raises(UserError, match="the model has no class"):
            join(Classes(ids, ids), model)


def test_two_classes_that_are_one_to_the_model_are_told():
    with pytest.raises(UserError, match="n1, Cat of the dataset are one to the model"):
        join(Classes(("n1", "Cat"), ("", "")), Classes(("n1", "n2"), ("cat", "dog")))
