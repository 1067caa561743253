"""List the recipes and what was published for them; --check tries each, --diff tells how two differ."""

from typing import Any

from absl import flags

DIR = flags.DEFINE_string("dir", "configs", "Where the recipes are.")
CHECK = flags.DEFINE_bool("check", False, "Resolve each recipe, look for keys that nothing reads and claims without "
                          "source, and run two steps of it on small drawn images.")
DIFF = flags.DEFINE_list("diff", [], "Two recipes, FILE or FILE:CHOICE, with a comma between.")


def main(argv: list[str]) -> None:
    """Runs the command; `argv` holds nothing but its name."""
    import pathlib

    from imagenet_jax import models
    from imagenet_jax.config import recipes
    from imagenet_jax.errors import UserError

    paths = DIFF.value or sorted(map(str, pathlib.Path(DIR.value).glob("[a-z]*.py")))
    found = [recipe._replace(config=models.fill_view(recipe.config)) for path in paths for recipe in recipes.load(path)]
    if not found:
        raise UserError(f"there is no recipe in {DIR.value}")
    if DIFF.value and len(found) != 2:
        raise UserError(f"--diff={','.join(DIFF.value)}: give two, as FILE or FILE:CHOICE, with a comma between; these "
                        f"are {', '.join(recipe.name for recipe in found)}")
    if DIFF.value:
        for key, (one, other) in recipes.differences(*(recipe.config for recipe in found)).items():
            print(f"{key:28} {one!r:30} {other!r}")
    elif CHECK.value:
        _check(found)
    else:
        print(f"{'recipe':40} {'top-1':>14}  what; source; protocol; hours there")
        for recipe in found:
            print(f"{recipe.name:40} {_claimed(recipe)}")
        print("\ntop-1 is what the source published. Nobody has reproduced one with this code yet.")


def _check(found: list[Any]) -> None:
    from imagenet_jax import config as config_lib
    from imagenet_jax import runtime
    from imagenet_jax.config import recipes
    from imagenet_jax.errors import UserError

    runtime.configure()
    import jax

    from imagenet_jax.benchmarking import timing

    bad = 0
    for recipe in found:
        faults = recipes.faults(recipe, config_lib.base()) or timing.trial(recipe.config)
        print(f"{recipe.name:40} {'holds' if not faults else ''}".rstrip(), *faults, sep="\n    ", flush=True)
        bad += bool(faults)
        jax.clear_caches()  # programs of networks that are not needed again take gigabytes
    if bad:
        raise UserError(f"{bad} of {len(found)} recipes do not hold")


def _claimed(recipe: Any) -> str:
    if recipe.claim is None:
        return f"{'-':>14}  {recipe.title}"
    claim = recipe.claim
    told = "; ".join(filter(None, (claim.source, claim.protocol, claim.hours)))
    seeds = "" if claim.tolerance is None else f" +- {claim.tolerance:.2f}"
    return f"{f'{claim.top1:.2f}{seeds}':>14}  {recipe.title} {told}"
