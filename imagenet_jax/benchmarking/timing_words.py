"""What `benchmark` measured of a train step, as people read it."""

from collections.abc import Mapping, Sequence
from typing import Any

from imagenet_jax.benchmarking.timing import FLOPS_PER_MAC, Figures, Refused, best, largest

_COLUMNS = (("batch", 6), ("micro", 6), ("bn_group", 9), ("img/s", 9), ("lowest-highest", 17), ("a device", 10),
            ("ms/step", 10), ("TFLOP/s", 9), ("MFU", 9), ("bandwidth", 11), ("compiled in", 14), ("memory", 20))


def heading(setting: Mapping[str, Any]) -> str:
    """What is measured, how operations are counted, what they are compared with, and the table's head."""
    config, device, peak = setting["config"], setting["device"], setting["peak"]
    memory = setting["memory"]
    model, size, macs = config["model"], config["augment"]["size"], setting["macs"]
    only = ", the first size of augment.ramp" if config["augment"]["ramp"] else ""
    lines = [
        f"{model['name']}, {size} px{only}, {model['dtype']}, {device['mode']} on {device['count']} x "
        f"{device['kind']}; JAX {setting['versions']['jax']}",
        f"{macs / 1e9:.3g} G multiply-adds an image forward; a training step is counted as 3 x forward, 2 FLOPs a "
        f"multiply-add: {FLOPS_PER_MAC * macs / 1e9:.3g} GFLOP an image",
        f"MFU is the share of {peak['tflops']:,.1f} TFLOP/s a device, dense {peak['arithmetic']} ({peak['source']})"
        if peak else f"The peak of {device['kind']!r} for {model['dtype']} is not in the table: MFU is unknown",
        f"bandwidth is what the program moves, a share of {memory['gb_per_s']:,.0f} GB/s a device ({memory['source']})"
        if memory else f"Nor is what the memory of {device['kind']!r} carries: bandwidth is unknown",
        "".join(f"{name:>{width}}" for name, width in _COLUMNS)]
    return "\n".join(lines)


def row(result: Figures | Refused) -> str:
    """A line of the table."""
    if isinstance(result, Refused):
        return f"{result.batch:6}  {result.problem}"
    memory = "unknown" if result.memory_gib is None else f"{result.memory_gib:.2f} GiB, {result.memory_from}"
    cells = (result.batch, result.micro_batches, result.bn_group or "-", _rate(result.img_per_s),
             f"{_rate(result.lowest)}-{_rate(result.highest)}", _rate(result.img_per_s_device),
             f"{result.ms_per_step:,.1f}", "unknown" if result.tflops is None else f"{result.tflops:.3g}",
             *("unknown" if share is None else f"{share:.1%}" for share in (result.mfu, result.bandwidth)),
             f"{result.compile_s:.1f} s {result.compiled}", memory)
    return "".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))


def conclusion(setting: Mapping[str, Any], results: Sequence[Figures | Refused]) -> str:
    """What that means, for at least one batch that could be run."""
    top, most, config = best(results), largest(results), setting["config"]
    of_peak = "" if top.mfu is None else f", {top.mfu:.1%} of the peak"
    lines = [f"Best: batch {top.batch} with {_rate(top.img_per_s)} img/s{of_peak}; at that rate the recipe's "
             f"{config['duration']} on ImageNet take {top.hours:,.1f} hours, if the input keeps up"
             f"{' and all images have the first size' if config['augment']['ramp'] else ''}."]
    if top.mfu is not None and top.bandwidth is not None:
        lines.append(_binds(top.mfu, top.bandwidth))
    if too_large := [each.batch for each in results if isinstance(each, Refused) and each.too_large]:
        lines.append(f"The largest that fits is {most}; {too_large[0]} does not.")
    elif len(results) > 1:
        lines.append(f"The largest that ran is {most}, and none was too large.")
    if (share := top.batch // top.micro_batches // setting["device"]["count"]) > config["max_per_device_batch"]:
        lines.append(f"Training holds that much on a device with --config.max_per_device_batch={share}.")
    group = setting["bn_group"]
    if smaller := [each.batch for each in results if isinstance(each, Figures) and each.bn_group != group]:
        batches = ", ".join(map(str, smaller))
        lines.append(f"BatchNorm groups of {group} do not fit batch {batches}: smaller ones there.")
    return "\n".join(lines)


def _binds(mfu: float, bandwidth: float) -> str:
    """Which of the two is nearer to what it can do, shares of it."""
    first, second = sorted((("memory", bandwidth), ("arithmetic", mfu)), key=lambda each: -each[1])
    slack = "" if first[1] > 0.5 else "; neither is near, so look for what waits: launches, collectives, the host"
    return (f"Of a step the {first[0]} binds more, at {first[1]:.0%} of its published rate, {second[0]} at "
            f"{second[1]:.0%}{slack}.")


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
