"""Measure this machine: input, step, both together, checkpoints, scaling; find out what a TPU pod would need."""

import functools
import json
from typing import Any

from absl import flags
from ml_collections import config_flags

from imagenet_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "A recipe; by default every key's default value.")
DATASET = flags.DEFINE_string("dataset", "", "input, train, evaluate: a prepared dataset; by default the "
                              "recipe's, or IMAGENET_DIR.")
BATCHES = flags.DEFINE_list("batches", [], "step: global batches to try, such as 64,128,256, each held by the devices "
                            "whole; by default the recipe's.")
VS = flags.DEFINE_multi_string("vs", [], "step: KEY=VALUE, such as model.dtype=bfloat16: the recipe with that, too "
                               "(with all of them, if given several times), by turns with the recipe as it is.")
SECONDS = flags.DEFINE_float("seconds", None, "How long each stage (3 by default), batch or part (10) is measured.",
                             lower_bound=0.1)
WANT = flags.DEFINE_float("want", 0.0, "input: images a second that are wanted; it says how many cores make them.",
                          lower_bound=0.0)
TOPOLOGY = flags.DEFINE_string("topology", "", "pod: a TPU slice, GENERATION:CHIPS, such as v5e:4x4 or v5p:8x8x8; or "
                               "GPUs (a100-40, a100, h100, h200), h100:8, or several hosts with some each, h100:4x8.")
BATCH_PER_DEVICE = flags.DEFINE_list("batch_per_device", [], "pod, scaling: examples that a device holds; by default "
                                     "its share of the recipe's batch. pod: several to try, such as 128,256,512.")
PROFILE = flags.DEFINE_string("profile", "", "step: a directory for a trace of the best batch, whose most expensive "
                              "operations are told.")
DIR = flags.DEFINE_string("dir", ".", "checkpoint: a folder on the disk that is measured; nothing stays in it.")
OUT = flags.DEFINE_string("out", "", "Where to write the figures as JSON; by default only the table is printed. To a "
                          "FILE.jsonl they are added, as a line. compare takes its last one, of FILE.jsonl:N the Nth, "
                          "of FILE.jsonl:-2 the last but one.")

_WORDS = {"read": "read records, one thread", "whole": "(decode whole images)", "decode": "decode the crop: limit",
          "resize": "+ resize, flip, batch", "augment": "+ operations of the recipe",
          "undecoded": "(all but decode, resize)", "python": "(the same, from memory)",
          "batch": "+ read", "device": "+ to device"}


def main(argv: list[str]) -> None:
    """Runs the command; `argv` holds its name, the topic, and the two files that are to be compared."""
    topic, files = TOPICS.get("".join(argv[1:2])), argv[2:]
    if topic is None or len(files) != (2 if topic is compare else 0):
        raise UserError(f"benchmark what? Write `python -m imagenet_jax benchmark {'`, `benchmark '.join(TOPICS)} "
                        "FIRST.json SECOND.json`")
    for flag in (BATCHES, BATCH_PER_DEVICE):
        if not all(batch.isdecimal() and int(batch) for batch in flag.value):
            raise UserError(f"--{flag.name}={','.join(flag.value)}: write whole numbers above 0, such as 64,128,256")
    from imagenet_jax import runtime

    runtime.configure()
    topic(*files)


def _recipe() -> Any:
    """The recipe that is measured, filled and checked."""
    from imagenet_jax import config as config_lib
    from imagenet_jax import models

    config = CONFIG.value or config_lib.base()
    config.dataset.dir = DATASET.value or config.dataset.dir
    config = models.fill_view(config)
    config_lib.check(config)
    return config


def measure_input() -> None:
    """The stages of the input."""
    import jax
    import numpy as np

    from imagenet_jax import config as config_lib
    from imagenet_jax import dataset
    from imagenet_jax.dataset import cache
    from imagenet_jax.input import benchmark, chunks, loader, width

    config = _recipe()
    config.augment.ramp = ()  # the first size is measured
    opened = dataset.open_dataset(config_lib.dataset_dir(config.dataset.dir))
    records = cache.keep(dataset.open_split(opened, config.dataset.train_split), config.loader.cache_gb)
    stages = benchmark.measure(
        loader.Part(records, np.arange(len(records))), config.augment, batch=config.global_batch,
        workers=loader.Workers(**config.loader), seconds=SECONDS.value or 3,
        put=lambda images: jax.block_until_ready(jax.device_put(images)))
    cores = min(chunks.cores(), config.loader.threads or chunks.cores())
    print(table(stages, cores))
    worst = benchmark.binding(stages)
    print(f"{_WORDS[worst.name]!r} binds: {worst.own:.0f} us an image, of {1e6 / stages[-1].rate:.0f} in all.")
    wide = benchmark.extrapolate(stages)
    print(width.words(wide, WANT.value, _WORDS))
    _write({"dataset": opened.name, "examples": len(records), "cores": cores, "batch": config.global_batch,
            "device": jax.devices()[0].device_kind, "augment": config.augment.to_dict(),
            "binds": worst.name, "stages": [stage._asdict() for stage in stages]} | width.figures(wide, WANT.value))


def table(stages: list, cores: int) -> str:
    """One line a stage: images a second, for each core, share of the limit, own microseconds, the processor's."""
    limit = next(stage.rate for stage in stages if stage.name == "decode")
    lines = [f"{'stage':30}{'img/s':>10}{'per core':>10}{'of limit':>10}{'own us/img':>12}{'cpu us/img':>12}"
             f"   ({cores} cores)"]
    for name, rate, own, processor in stages:
        lines.append(f"{_WORDS[name]:30}{rate:10,.0f}{rate / (1 if name == 'read' else cores):10,.0f}"
                     f"{rate / limit:10.0%}{own:12,.1f}{processor:12,.1f}")
    return "\n".join(lines)


def measure_step() -> None:
    """The train step; nothing here may need TensorFlow."""
    from imagenet_jax.benchmarking import timing, timing_words

    if VS.value:
        return measure_versus()
    config = _recipe()
    setting, results = timing.setting(config), []
    print(timing_words.heading(setting), flush=True)
    for result in timing.measure(config, [*map(int, BATCHES.value)], seconds=SECONDS.value or 10):
        print(timing_words.row(result), flush=True)
        results.append(result)
    best, largest = timing.best(results), timing.largest(results)
    _write(setting | {"seconds": SECONDS.value or 10, "batches": [each._asdict() for each in results],
                      "best": best and best.batch, "largest": largest})
    if best is None:
        raise UserError("no batch could be measured")
    print(timing_words.conclusion(setting, results))
    if PROFILE.value:
        from imagenet_jax.training import profiling

        print(profiling.words(PROFILE.value, timing.profile(config, best.batch if BATCHES.value else None,
                                                               PROFILE.value)))


def measure_versus() -> None:
    """The train step of a recipe beside the same with other values, by turns."""
    from imagenet_jax import config as config_lib
    from imagenet_jax import models
    from imagenet_jax.benchmarking import timing, versus

    if BATCHES.value:
        raise UserError("--batches and --vs are apart: write --config.global_batch=N, and --vs=global_batch=M perhaps")
    config = CONFIG.value or config_lib.base()
    sides = [models.fill_view(side) for side in (config, versus.overridden(config, VS.value))]
    for side in sides:
        config_lib.check(side)
    found = versus.measure(*sides, seconds=SECONDS.value or 10)
    print(versus.words(sides[0], VS.value, found))
    _write(timing.setting(sides[0]) | {"vs": VS.value, "versus": found._asdict(), "seconds": SECONDS.value or 10})


def measure_together(topic: str) -> None:
    """Training or evaluation from a dataset, beside the input and the devices alone."""
    from imagenet_jax.benchmarking import timing, together

    config = _recipe()
    found = together.measure(topic, config, seconds=SECONDS.value or 10)
    print(together.words(topic, config, found))
    _write(timing.setting(config) | {"topic": topic, "seconds": SECONDS.value or 10, "together": found._asdict()})


def measure_scaling() -> None:
    """The train step on more and more of the devices of this host."""
    import jax

    from imagenet_jax.benchmarking import scaling, timing

    if len(BATCH_PER_DEVICE.value) > 1:
        raise UserError("benchmark scaling: --batch_per_device is one number; only pod tries several")
    config = _recipe()
    share = int(BATCH_PER_DEVICE.value[0]) if BATCH_PER_DEVICE.value else -(-config.global_batch // len(jax.devices()))
    rows = list(scaling.measure(config, share, seconds=SECONDS.value or 10))
    print(scaling.words(config, share, rows))
    _write(timing.setting(config) | {"topic": "scaling", "batch": share, "rows": [
        row._asdict() | {"name": f"{row.devices} {row.mode}"} for row in rows]})


def measure_checkpoint() -> None:
    """Saving and restoring the state of the recipe."""
    from imagenet_jax.benchmarking import checkpointing, timing

    config = _recipe()
    found = checkpointing.measure(config, DIR.value)
    print(checkpointing.words(config, DIR.value, found))
    _write(timing.setting(config) | {"topic": "checkpoint", "checkpoint": found._asdict()})


def measure_pod() -> None:
    """The train step, compiled for devices that are not there; nothing here may need TensorFlow."""
    from imagenet_jax import runtime

    if not TOPOLOGY.value:
        raise UserError("benchmark pod: for which TPUs or GPUs? Write --topology=v5e:4x4 perhaps, or --topology=h100:8")
    runtime.compile_only()
    from imagenet_jax.benchmarking import described, pod, pod_words

    config, found = _recipe(), []
    devices = described.devices_of(TOPOLOGY.value)
    for batch in map(int, BATCH_PER_DEVICE.value) if BATCH_PER_DEVICE.value else (None,):
        found.append(pod.compile_for(config, devices, batch))
        print(pod_words.words(config, TOPOLOGY.value, found[-1]), end="\n\n", flush=True)
    if len(found) > 1:
        print(pod_words.several(found))
    _write(pod_words.figures(config, TOPOLOGY.value, found))


def compare(first: str, second: str) -> None:
    """Two results of this command beside each other."""
    from imagenet_jax.benchmarking import comparing

    print(comparing.words(*map(comparing.read, (first, second))))


def _write(figures: dict[str, Any]) -> None:
    if OUT.value:
        history = OUT.value.endswith(".jsonl")
        with open(OUT.value, "a" if history else "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=None if history else 1)
            file.write("\n")


TOPICS = {"input": measure_input, "step": measure_step, "train": functools.partial(measure_together, "train"),
          "evaluate": functools.partial(measure_together, "evaluate"), "scaling": measure_scaling, "pod": measure_pod,
          "checkpoint": measure_checkpoint, "compare": compare}
ARGUMENTS = f"{'|'.join(TOPICS)} A B"
