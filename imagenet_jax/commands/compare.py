"""Compare runs: curves, metrics with intervals, differing config keys, and tests on the same examples."""

from absl import flags

from imagenet_jax.errors import UserError

ARGUMENTS = "RUN RUN [RUN ...]"

OUT = flags.DEFINE_string("out", "", "A folder for compare.md, compare.html and compare.png with the curves.")


def main(argv: list[str]) -> None:
    """Runs the command; `argv` holds its name and the runs, which are tested against the first of them."""
    if len(argv) < 3:
        raise UserError("compare what? Name at least two runs, such as runs/a runs/b")
    from imagenet_jax.training import side_by_side

    runs = side_by_side.read(argv[1:])
    text = side_by_side.words(runs)
    print(text, end="")
    if OUT.value:
        side_by_side.write(OUT.value, runs, text)
        print(f"\nLook at {OUT.value}/compare.html")
