"""What speaks to the person who typed the command."""


class UserError(Exception):
    """A mistake of the user's, told in one message: what was wrong, where, and what to do.

    `python -m imagenet_jax` prints the message without a traceback and exits with code 2.
    """


def out_of_memory(error: BaseException) -> str:
    """What to say of an error by which JAX tells that a device has too little memory; '' if it tells something else."""
    said = str(error).partition("\n")[0]
    if "RESOURCE_EXHAUSTED" not in said or "memory" not in said:
        return ""
    return (f"a device has too little memory. {said.partition(': ')[2][:300]}\nFor training write a lower "
            "--config.max_per_device_batch: more is accumulated, and no number changes. For what only looks at images "
            "write a lower --config.evaluation.batch, or --batch.")
