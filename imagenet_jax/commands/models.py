"""List the models: year, parameters, multiply-adds, crop, published accuracy, paper."""

from absl import flags

LIKE = flags.DEFINE_string("like", "", "Only models whose name contains this.")
JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a table.")


def main(argv: list[str]) -> None:
    """Runs the command; `argv` holds nothing but its name."""
    import json

    from imagenet_jax import models

    chosen = {name: spec for name, spec in models.REGISTRY.items() if LIKE.value in name}
    if JSON.value:
        keys = ("year", "params", "gmacs", "size", "resize", "interpolation", "top1", "source", "paper", "reference")
        print(json.dumps({name: {key: getattr(spec, key) for key in keys} for name, spec in chosen.items()}, indent=1))
        return
    if not chosen:
        print(f"no model's name contains {LIKE.value!r}{models.nearest(LIKE.value, models.REGISTRY)}")
        return
    print(f"{'model':22} {'year':4} {'params':>11} {'1e9 MACs':>8} {'crop':>4} {'of':>4} {'interpolation':13} "
          f"{'top-1':>6}  weights of; source of MACs and top-1; paper")
    for name, spec in chosen.items():
        top1 = f"{spec.top1:.2f}" if spec.top1 else "-"
        origin = "; ".join(part for part in (spec.reference, spec.source, spec.paper) if part)
        print(f"{name:22} {spec.year:4} {spec.params:11,} {spec.gmacs:8.2f} {spec.size:4} {spec.resize:4} "
              f"{spec.interpolation:13} {top1:>6}  {origin}")
    print("\ntop-1: published for somebody's weights, never measured here.")
