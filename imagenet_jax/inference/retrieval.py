"""Searching an index, exactly: the pictures whose vectors have the largest inner product with that of a query."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.inference.index import Index, unit
from imagenet_jax.inference.predict import Prediction

_QUERIES_AT_ONCE = 1024
_ALL = "all"


def nearest(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k vectors most like each query, best first, by all cores.

    It brings an OpenMP of its own, whose threads wait at full speed for a moment: search when the network has done, or
    in the thread of `alone`.

    Args:
        vectors: float32 [N, D] of length 1; a mapped file is read where it lies.
        queries: float32 [Q, D], likewise.

    Returns:
        Cosines, float32 [Q, k], and places, int64 [Q, k]; k is at most N.
    """
    import faiss  # who does not search need not wait for it

    k = min(k, len(vectors))
    return faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)


def alone() -> ThreadPoolExecutor:
    """A thread in which searches take no other core, while the network goes on with its work."""
    def begin() -> None:
        import faiss

        faiss.omp_set_num_threads(1)  # of this thread's searches

    thread = ThreadPoolExecutor(1, "search", begin)
    thread.submit(int).result()  # so that the first who asks need not wait for the import
    return thread


def most_like(index: Index, found: Sequence[Prediction], k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cosines and places, see `nearest`, of the k pictures most like each prediction's; none where that has a fault.

    Raises:
        UserError: features are not finite.
    """
    vectors = [unit(each.features, each.picture.name) for each in found if not each.picture.fault]
    answers = iter(zip(*nearest(index.vectors["features"], np.stack(vectors), k), strict=True) if vectors else ())
    nothing = np.zeros(0, np.float32), np.zeros(0, np.int64)
    return (nothing if each.picture.fault else next(answers) for each in found)


def mean_of_class(index: Index, label: int) -> np.ndarray:
    """The mean direction of a class: float32 [D] of length 1.

    Raises:
        UserError: the index has no picture of it.
    """
    members = index.labels == label
    if not members.any():
        raise UserError(f"the index {index.directory} has no picture of {index.classes.ids[label]}")
    mean = index.vectors["features"][members].mean(axis=0)
    return mean / max(np.linalg.norm(mean), np.finfo(np.float32).tiny)


def neighbours(vectors: np.ndarray, k: int, progress: Callable[[range], Iterable[int]] = iter) -> np.ndarray:
    """For each vector the places of the k others most like it: int64 [N, min(k, N - 1)]."""
    k, found = min(k, len(vectors) - 1), []
    for start in progress(range(0, len(vectors), _QUERIES_AT_ONCE)):
        _, places = nearest(vectors, vectors[start : start + _QUERIES_AT_ONCE], k + 1)
        own = places == np.arange(start, start + len(places))[:, None]
        own[~own.any(axis=1), -1] = True  # k + 1 others were as near as itself
        found.append(places[~own].reshape(len(places), k))
    return np.concatenate(found)


def precision(vectors: np.ndarray, labels: np.ndarray, k: int,
              progress: Callable[[range], Iterable[int]] = iter) -> np.ndarray:
    """Precision@k, leave-one-out: the share of each vector's k nearest others that have its label, float64 [N]."""
    return (labels[neighbours(vectors, k, progress)] == labels[:, None]).mean(axis=1)


def precision_of(index: Index, k: int, progress: Callable[[range], Iterable[int]] = iter) -> dict[str, Any]:
    """Precision@k of all kinds of vectors: of all pictures, of each class, worst first, and what chance would give.

    Raises:
        UserError: the index has no labels, or a single picture.
    """
    if index.labels is None:
        raise UserError(f"the index {index.directory} has no labels, which precision is counted by: make it of a "
                        "dataset, search --index=ANOTHER --dataset=DIR --split=S")
    count = len(index.names)
    if count < 2:
        raise UserError(f"the index {index.directory} has a single picture, and nothing to find beside it")
    counts = np.bincount(index.labels, minlength=len(index.classes.ids))
    each = {kind: precision(vectors, index.labels, k, progress) for kind, vectors in index.vectors.items()}
    classes = [{"id": index.classes.ids[label], "name": index.classes.names[label].split(",")[0],
                "pictures": int(counts[label])}
               | {kind: float(found[index.labels == label].mean()) for kind, found in each.items()}
               for label in np.flatnonzero(counts)]
    return {"k": min(k, count - 1), "classes": sorted(classes, key=lambda row: row["features"]),
            _ALL: {"pictures": count} | {kind: float(found.mean()) for kind, found in each.items()}
            | {"chance": float((counts / count * (counts - 1) / (count - 1)).sum())}}


def table(found: dict[str, Any]) -> str:
    """What `precision_of` found as lines for people, all pictures last."""
    kinds = [kind for kind in ("features", "pixels") if kind in found[_ALL]]
    rows = [(f"precision@{found['k']}", "pictures", *kinds)]
    for row in (*found["classes"], found[_ALL] | {"id": _ALL, "name": _ALL}):
        name = row["id"] if row["name"] in ("", row["id"]) else f"{row['name']} ({row['id']})"
        rows.append((name, f"{row['pictures']:,}", *(f"{row[kind]:.1%}" for kind in kinds)))
    width = max(len(name) for name, *_ in rows)
    lines = [f"{name:{width}}" + "".join(f"{cell:>10}" for cell in cells) for name, *cells in rows]
    return "\n".join(lines) + f"   by chance {found[_ALL]['chance']:.1%}"


def hits(index: Index, cosines: np.ndarray, places: np.ndarray) -> list[dict[str, Any]]:
    """The pictures found for one query, as objects of JSON: file, similarity, and the class if it has one."""
    found = []
    for cosine, place in zip(cosines.tolist(), places.tolist(), strict=True):
        hit = {"file": index.names[place], "similarity": round(cosine, 6)}
        if index.labels is not None:
            label = int(index.labels[place])
            names = index.classes.names[label].split(",")[0]
            hit |= {"label": label, "id": index.classes.ids[label], "name": names or index.classes.ids[label]}
        found.append(hit)
    return found
