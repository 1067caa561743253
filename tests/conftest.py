"""Eight virtual CPU devices, made before JAX is imported; one compilation cache for all runs of the tests."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from imagenet_jax import runtime  # noqa: E402

runtime.configure()
