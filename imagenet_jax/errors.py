"""The one exception that speaks to the person who typed the command."""


class UserError(Exception):
    """A mistake of the user's, told in one message: what was wrong, where, and what to do.

    `python -m imagenet_jax` prints the message without a traceback and exits with code 2.
    """
