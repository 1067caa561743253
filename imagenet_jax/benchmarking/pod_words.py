"""What `benchmark pod` found out, as people read it and as JSON."""

from typing import Any

from imagenet_jax import config as config_lib
from imagenet_jax.benchmarking import peaks, pod, timing
from imagenet_jax.benchmarking.pod import Compiled, Plan, Program


def words(config: config_lib.Config, topology: str, compiled: Compiled) -> str:
    """The table, and what it comes to."""
    lines = [_heading(config, topology, compiled), f"{'memory':14}{_memory(compiled.plan)}"]
    program, batch = compiled.program, compiled.batch
    if program is None:
        return "\n".join([*lines, "There is no program whose time could be told: try a smaller --batch_per_device."])
    collective = ", ".join(f"{size / 1e6:,.1f} MB {kind}" for kind, size in program.collective_bytes.items())
    accessed = program.accessed_bytes and (
        f" (with what stays on the chip, XLA's 'bytes accessed', {program.accessed_bytes / batch / 1e6:,.0f})")
    return "\n".join([
        *lines,
        f"{'HBM traffic':14}{program.hbm_bytes / batch / 1e6:,.0f} MB an image{accessed or ''}",
        f"{'collectives':14}{collective or 'none'} a step, from each device",
        f"{'least time':14}{_bound(config, compiled)}", "",
        *_largest(program, batch), "",
        _conclusion(config, compiled)])


def _heading(config: config_lib.Config, topology: str, compiled: Compiled) -> str:
    group = f", BatchNorm groups of {compiled.bn_group}" if compiled.bn_group else ""
    return (f"{config.model.name}, {config.augment.size} px, {config.model.dtype}, for {topology}: "
            f"{compiled.devices} x {compiled.device_kind} ({compiled.chips} chips), {compiled.batch} images on each "
            f"device{group}; compiled in {compiled.compile_s:.0f} s")


def _memory(plan: Plan) -> str:
    if plan.arguments is None:
        return f"does not fit: {plan.total:.2f} GiB are needed, and a device has {plan.room:.2f}"
    parts = (f"arguments {plan.arguments:.2f}, results not in their place {plan.outputs:.2f}, temporaries "
             f"{plan.temporaries:.2f}, program {plan.program:.2f}")
    if plan.room is None:
        return f"{plan.total:.2f} GiB a device: {parts}; how much there is, is not known"
    verdict = "fits" if plan.fits else "does not fit"
    return f"{plan.total:.2f} of {plan.room:.2f} GiB a device, {verdict}: {parts}"


def _bound(config: config_lib.Config, compiled: Compiled) -> str:
    kind, least = compiled.device_kind, compiled.program.bound
    memory, peak = peaks.memory(kind), peaks.peak(kind, config.model.dtype)
    links = peaks.links(kind)
    rates = (memory and f"{memory.gb_per_s:,.0f} GB/s", peak and f"{peak.tflops:,.1f} TFLOP/s {peak.arithmetic}",
             links and f"{links.gb_per_s:,.0f} GB/s from a chip")
    told = [f"{name} unknown" if each is None else f"{name} {1e3 * each:,.2f} ms ({rate})"
            for (name, each), rate in zip(least._asdict().items(), rates, strict=True)]
    source = memory or peak
    return ", ".join(told) + (f"; rates from {source.source}" if source else "")


def _largest(program: Program, batch: int) -> list[str]:
    lines = [f"{'MB an image':>11}{'share':>8}  what moves most"]
    for each in program.largest:
        lines.append(f"{each.bytes / batch / 1e6:11.1f}{each.bytes / program.hbm_bytes:8.1%}  "
                     f"{each.layer or 'of no layer'} ({each.opcode})")
    share = sum(each.bytes for each in program.largest) / program.hbm_bytes
    return [*lines, f"{'':11}{share:8.1%}  these {len(program.largest)} together"]


def _conclusion(config: config_lib.Config, compiled: Compiled) -> str:
    if compiled.hours is None:
        return f"What {compiled.device_kind!r} can do at most is not in the table: the time is unknown."
    least = compiled.program.bound
    rate = compiled.batch / least.seconds
    return (f"{least.binds.capitalize()} binds: at most {rate:,.0f} img/s a device, "
            f"{rate * compiled.devices:,.0f} in all. The recipe's {config.duration} on ImageNet, {compiled.steps:,} "
            f"steps of {compiled.batch * compiled.devices:,}, take at least {_hours(compiled.hours)} hours, "
            f"{_hours(compiled.hours * compiled.devices)} device-hours.\n"
            "That is an estimate from below: every byte moved once (of what is read in part, all) and at the full "
            "rate, three forward passes of multiply-adds a step at the peak, what is reduced sent over all links at "
            "once, and the three as if none ever waited; nothing for evaluation, checkpoints, input, start.")


def _hours(hours: float) -> str:
    return f"{hours:,.2f}" if hours >= 1 else f"{hours:.2g}"


def several(found: list[Compiled]) -> str:
    """The batches that were tried beside each other, with what they take at least."""
    lines = [f"{'a device':>9}{'global':>9}{'GiB':>8}{'MB an image':>13}{'ms a step':>11}{'img/s':>13}{'hours':>9}"]
    for each in found:
        row = f"{each.batch:9,}{each.batch * each.devices:9,}{each.plan.total:8.2f}"
        if each.program:
            row += f"{each.program.hbm_bytes / each.batch / 1e6:13,.0f}"
        if each.hours:
            seconds = each.program.bound.seconds
            row += f"{1e3 * seconds:11,.2f}{each.batch * each.devices / seconds:13,.0f}{_hours(each.hours):>9}"
        lines.append(row + ("  does not fit" if each.plan.fits is False else ""))
    if largest := pod.largest(found):
        lines.append(f"The largest of these that fits is {largest:,} a device.")
    return "\n".join(lines)


def figures(config: config_lib.Config, topology: str, found: list[Compiled]) -> dict[str, Any]:
    """The same for JSON."""
    return {"topology": topology, "versions": timing.versions(), "config": config.to_dict(),
            "batches": [_figures(each) for each in found], "largest": pod.largest(found)}


def _figures(compiled: Compiled) -> dict[str, Any]:
    program, hours = compiled.program, compiled.hours
    if program:
        least = program.bound
        program = program._asdict() | {
            "largest": [each._asdict() for each in program.largest],
            "bound": least._asdict() | {"seconds": least.seconds, "binds": least.binds}}
    return compiled._asdict() | {
        "plan": compiled.plan._asdict() | {"fits": compiled.plan.fits}, "program": program, "hours": hours,
        "device_hours": hours and hours * compiled.devices}
