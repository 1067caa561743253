"""Writes a dataset from a source: all of it under its name, or nothing; interrupted, it goes on where it was.

Sources come from `sources/`, images are judged in `repair.py`, one shard is written in
`shard.py`; the format is told in `dataset/prepared.py`, and where it lies until it is complete in `place.py`.
Shards are cut from the order and the sizes in the source alone, so any number of workers leaves the same bytes.
"""

import functools
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import PIL
import simplejpeg
from tqdm import tqdm

from imagenet_jax import durable
from imagenet_jax.dataset.prepared import FORMAT, INDEX, SHARD_TEMPLATE, shard_name
from imagenet_jax.errors import UserError
from imagenet_jax.prepare import card
from imagenet_jax.prepare.examples import Checked, Example, Reference, Source
from imagenet_jax.prepare.place import Place, claimed, make_place, take_name
from imagenet_jax.prepare.shard import Chunk, Summary, is_done, merge, read_summary
from imagenet_jax.prepare.workers import work

# 560 shards for ImageNet; a worker that is killed loses at most one of them.
SHARD_BYTES = (4 * 2**20, 256 * 2**20)
_SHARDS = 64  # of a small split, so that many workers have something to do
_SHARD_EXAMPLES = 2**16
_LOG_SECONDS = 30.0


def write_dataset(
    directory: str | os.PathLike[str],
    source: Source,
    check: Callable[[Example], Checked] = Checked,
    shard_bytes: int = 0,
    workers: int = 1,
    max_quarantined: float = 1.0,
) -> dict[str, Summary]:
    """Writes a dataset, all or nothing: it takes its name only when it is complete.

    Until then it lies in `DIRECTORY.incomplete` (see `place.py`), which stays when anything goes wrong; called again,
    finished shards whose sources and options are the same are not redone.

    Args:
        directory: where the dataset will be; must be missing or empty, and may be a link or a mount point.
        source: the examples; records keep their order.
        check: judges, and may mend, one example; a pure function that can be pickled.
        shard_bytes: a shard is closed once its images had this many bytes; 0 chooses by the size of the split.
        workers: processes; 1 does all the work in this one.
        max_quarantined: the share of a split that may be refused.

    Raises:
        UserError: the place is taken, the name is unusable, the disk is full, too many images of a split were
            refused, it has none, or a class has none to train on; a worker was killed.
    """
    place = make_place(directory)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", source.name):
        raise UserError(f"'{source.name}' cannot name a dataset: use a-z, 0-9 and _, a letter first (--name).")
    try:
        with claimed(place):
            counts = _write_shards(place, source, check, shard_bytes, workers)
            summaries = {split: merge(map(read_summary, _sidecars(place, split, count)))
                         for split, count in counts.items()}
            _judge(source, summaries, max_quarantined, place)
            _close_gaps(place, source, counts)
            for path in place.dataset.iterdir():
                if path.name not in _shards(source.name, summaries):
                    path.unlink()  # of an earlier attempt under another name or with other sources
            _write_lists(place.dataset, summaries)
            _write_index(place.dataset, source, summaries)
            _write_tfds_metadata(place.dataset, source, summaries)
            card.write_card(place.dataset, source, summaries)
            take_name(place)
    except OSError as error:
        raise UserError(f"Cannot write {place.target}: {error.strerror or error}. What is done stays in "
                        f"{place.work.parent}: make room and run the same command again, it goes on.") from error
    except BrokenProcessPool as error:
        raise UserError("A worker process was killed, most likely for want of memory. Run the same command again, "
                        f"it goes on; perhaps with fewer --workers than {workers}.") from error
    return summaries


def _write_shards(place: Place, source: Source, check: Callable[[Example], Checked], shard_bytes: int,
                  workers: int) -> dict[str, int]:
    """Sees to it that every shard is there; returns the number of chunks of each split."""
    _stamp.cache_clear()
    salt = repr((FORMAT, PIL.__version__, simplejpeg.__version__, _described(check)))
    counts = dict.fromkeys(source.splits, 0)
    total = sum(source.totals.values()) or None
    with tqdm(total=total, desc="prepare", unit=" images", unit_scale=True, disable=None) as bar:
        tell = _teller(bar)

        def open_chunks() -> Iterator[Chunk]:
            for split, items in source.splits.items():
                limit = shard_bytes or min(max(source.sizes.get(split, 2**60) // _SHARDS, SHARD_BYTES[0]),
                                           SHARD_BYTES[1])
                for group in _groups(items, limit):
                    chunk = _chunk(place, source.name, (split, counts[split]), group, (check, salt))
                    counts[split] += 1
                    if is_done(chunk):
                        tell(len(group))
                    else:
                        yield _spooled(chunk, group)

        for done in work(open_chunks(), workers):
            tell(done)
    return counts


def _groups(items: Iterable[Example | Reference], limit: int) -> Iterator[list[Example | Reference]]:
    group, size = [], 0
    for item in items:
        group.append(item)
        size += len(item.image) if isinstance(item, Example) else item.size
        if size >= limit or len(group) >= _SHARD_EXAMPLES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _chunk(place: Place, name: str, key: tuple[str, int], group: list[Example | Reference],
           judge: tuple[Callable[[Example], Checked], str]) -> Chunk:
    """The chunk of a group, known by a digest of all that decides what its shard will hold."""
    check, salt = judge
    digest = hashlib.blake2b(salt.encode(), digest_size=16)
    for item in group:
        if isinstance(item, Example):
            image = hashlib.blake2b(item.image).hexdigest()
        else:
            image = (_stamp(item.path), item.offset, item.size, item.fault)
        digest.update(repr((image, item.label, item.file_name)).encode())
        digest.update(bytes(item.boxes))
    sidecar = place.work / f"{key[0]}-{key[1]:05d}.json"
    return Chunk(place.dataset / shard_name(name, *key), sidecar, group, digest.hexdigest(), check)


@functools.lru_cache(maxsize=16)
def _stamp(path: str) -> tuple[str, int, int]:
    """What changes when a source file does; its folder may be another one."""
    if not path:
        return "", 0, 0
    stat = os.stat(path)
    return os.path.basename(path), stat.st_size, stat.st_mtime_ns


def _spooled(chunk: Chunk, group: list[Example | Reference]) -> Chunk:
    """Puts bytes that stream by into a file of the chunk's own, so that a worker finds them by reference too."""
    if not any(isinstance(item, Example) for item in group):
        return chunk
    spool, references = chunk.sidecar.with_suffix(".spool"), []
    with open(spool, "wb") as file:
        for item in group:
            if isinstance(item, Example):
                item = Reference(str(spool), file.tell(), file.write(item.image), *item[1:])
            references.append(item)
    return chunk._replace(references=references, spool=spool)


def _judge(source: Source, summaries: Mapping[str, Summary], max_quarantined: float, place: Place) -> None:
    for split, summary in summaries.items():
        empty = [name for label, name in enumerate(source.classes) if not summary.labels.get(label)]
        refused = summary.quarantined
        if not summary.examples or (split == "train" and empty):
            whose = f"class {empty[0]}" if summary.examples else "any class"
            raise UserError(f"The '{split}' split has no readable image of {whose}; {len(refused)} images were "
                            f"refused{_few(refused)}. Source: {source.origin}. Mend it and run the same command "
                            "again, it goes on.")
        share = len(refused) / (summary.examples + len(refused))
        if share > max_quarantined:
            raise UserError(
                f"{len(refused):,} images of '{split}' cannot be used, {share:.2%} where --max_quarantined allows "
                f"{max_quarantined:.2%}{_few(refused)}. Look into the source; or accept it with "
                f"--max_quarantined={_rounded_up(share)}: {place.work.parent} is kept, nothing is redone.")


def _few(refused: list[list[str]]) -> str:
    """The first refused images and why, to follow what is said of their number."""
    return f". The first: {'; '.join(f'{name}: {reason}' for name, reason in refused[:3])}" if refused else ""


def _rounded_up(share: float) -> str:
    """The share with two digits, and not less than it."""
    return f"{min(share * 1.1, 1.0):.2g}"


def _close_gaps(place: Place, source: Source, counts: Mapping[str, int]) -> None:
    """Numbers the shards from 0 where a chunk left none."""
    for split, count in counts.items():
        full = [i for i, path in enumerate(_sidecars(place, split, count)) if read_summary(path).examples]
        moved = [(new, old) for new, old in enumerate(full) if new != old]
        for _, old in moved:  # a shard without its sidecar is made again, should this be interrupted
            _sidecars(place, split, count)[old].unlink()
        for new, old in moved:
            os.replace(place.dataset / shard_name(source.name, split, old),
                       place.dataset / shard_name(source.name, split, new))


def _sidecars(place: Place, split: str, count: int) -> list[Path]:
    return [place.work / f"{split}-{i:05d}.json" for i in range(count)]


def _shards(name: str, summaries: Mapping[str, Summary]) -> set[str]:
    return {shard_name(name, split, i) for split, summary in summaries.items() for i in range(len(summary.shards))}


def _teller(bar: tqdm) -> Callable[[int], None]:
    """Moves the bar; in a log file a plain line now and then."""
    state = {"done": 0, "told": time.monotonic()}

    def tell(images: int) -> None:
        bar.update(images)
        state["done"] += images
        if not sys.stderr.isatty() and time.monotonic() - state["told"] > _LOG_SECONDS:
            state["told"] = time.monotonic()
            print(f"{state['done']:,} of {f'{bar.total:,}' if bar.total else 'unknown'} images", flush=True)

    return tell


def _described(check: Callable[[Example], Checked]) -> tuple[str, str]:
    """What tells one check and its options from another."""
    function = getattr(check, "func", check)
    return function.__qualname__, repr(sorted(getattr(check, "keywords", {}).items()))


def _write_lists(directory: Path, summaries: Mapping[str, Summary]) -> None:
    for name, file in {"quarantined": "quarantine", "repaired": "repairs", "corrupt": "corrupt"}.items():
        lines = [json.dumps({"split": split, "file_name": file_name, "reason": reason}) + "\n"
                 for split, summary in summaries.items() for file_name, reason, *_ in getattr(summary, name)]
        (directory / f"{file}.jsonl").write_text("".join(lines))


def _write_index(directory: Path, source: Source, summaries: Mapping[str, Summary]) -> None:
    index = {
        "format": FORMAT,
        "name": source.name,
        "variant": source.variant,
        "source": source.origin,
        "splits": {
            split: {"examples": summary.examples, "bytes": summary.bytes, "shard_lengths": summary.shards}
            for split, summary in summaries.items()
        },
        "classes": source.classes,
        "class_names": source.class_names,
        "quarantined": sum(len(summary.quarantined) for summary in summaries.values()),
        "repaired": sum(len(summary.repaired) for summary in summaries.values()),
        "corrupt": sum(len(summary.corrupt) for summary in summaries.values()),
        "dropped_boxes": sum(summary.dropped_boxes for summary in summaries.values()),
    }
    (directory / INDEX).write_text(json.dumps(index | {"seal": durable.seal(index)}, indent=1) + "\n")


def _write_tfds_metadata(directory: Path, source: Source, summaries: Mapping[str, Summary]) -> None:
    """dataset_info.json, features.json, label.labels.txt: what builder_from_directory reads."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict({
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=source.classes),
        "file_name": tfds.features.Text(),
        "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
    })
    template = tfds.core.ShardedFileTemplate(data_dir=directory, template=SHARD_TEMPLATE)
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=features,
        split_infos=[
            tfds.core.SplitInfo(split, list(summary.shards), summary.bytes, template)
            for split, summary in summaries.items()
        ],
        filename_template=SHARD_TEMPLATE,
        check_data=False,
        supervised_keys=("image", "label"),
        description=f"{source.name}: {source.origin}",
    )
