"""List the networks: year, parameters, multiply-adds, the view they are judged by, published accuracy, paper."""

from absl import flags

LIKE = flags.DEFINE_string("like", "", "Only networks whose name contains this.")
JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a table.")


def main(argv: list[str]) -> None:
    """Runs the command; `argv` holds nothing but its name."""
    import json

    from imagenet_jax import models
    from imagenet_jax.errors import UserError

    chosen = models.table(LIKE.value)
    if not chosen:
        raise UserError(f"no network's name contains {LIKE.value!r}{models.nearest(LIKE.value, models.REGISTRY)}")
    if JSON.value:
        print(json.dumps(chosen, indent=1))
        return
    print(f"{'network':21} {'year':4} {'parameters':>11} {'1e9 MACs':>8} {'px':>3} {'of':>4} {'by':8} {'top-1':>5}  "
          "weights of; source; paper")
    for row in chosen:
        top1 = f"{row['top1']:.1f}" if row["top1"] else "-"
        origin = (row["reference"] or "nobody", row["source"], row["paper"], *pixels(row["mean"], row["std"]))
        print(f"{row['name']:21} {row['year']:4} {row['params']:11,} {row['gmacs']:8.3f} {row['size']:3} "
              f"{row['resize']:4} {row['interpolation']:8} {top1:>5}  {'; '.join(origin)}")
    print("\nEach is judged on the central px x px of an image whose shorter side is resized to `of` px. top-1 was "
          "published\nfor the weights of the source, never measured here.")


def pixels(mean: tuple[float, ...], std: tuple[float, ...]) -> list[str]:
    """What a network takes of the pixels 0..255, if that is not ImageNet's mean and deviation."""
    from imagenet_jax.models import net

    if (mean, std) == (net.MEAN, net.STD):
        return []
    each = dict.fromkeys(f"(x - {m:g}) / {s:g}" for m, s in zip(mean, std, strict=True))
    return ["pixels " + ", ".join(each)]
