"""Where results may be written: folders of this machine."""

import os
import re
from pathlib import Path

from imagenet_jax.errors import UserError


def local_folder(path: str | os.PathLike[str], flag: str) -> Path:
    """The folder that a path leads to, every link followed; it need not exist.

    Raises:
        UserError: it is the address of a bucket, which would become a folder called 'gs:'.
    """
    if scheme := re.match(r"(\w+):/", os.fspath(path)):
        advice = {"gs": "`gcloud storage cp -r DIR gs://BUCKET/`", "s3": "`aws s3 cp --recursive DIR s3://BUCKET/`"}
        raise UserError(f"--{flag}={os.fspath(path)} is no folder of this machine: write to a local one, then copy it "
                        f"with {advice.get(scheme[1], 'the tools of that place')}")
    return Path(os.path.realpath(path))
