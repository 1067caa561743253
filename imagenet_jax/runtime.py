"""Settings of the process that must be made before JAX or TensorFlow is imported."""

import os
import warnings

# XLA:CPU's default library for single convolutions is up to five times slower than the one this selects.
# An XLA that does not know a flag aborts, so it is given only to the releases it was measured with.
_CPU_FLAG, _CPU_FLAG_RELEASES = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution", ("0.10.",)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def quiet() -> None:
    """Keeps the start-up lines of TensorFlow and XLA off stderr (not their warnings and errors), and Pillow's warnings.

    It acts on what is imported after it, here and in processes started from here. What the environment says already
    stays.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # nothing below a warning
    # TensorFlow tells of oneDNN whatever the level; and here it does nothing that oneDNN is for.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    warnings.filterwarnings("ignore", module="PIL")  # they name no file; what is wrong with one, `prepare` says


def follow_parent() -> None:
    """For a process that another one has started: Ctrl-C and SIGTERM are for that one, and with it this one ends."""
    import multiprocessing
    import signal
    import threading

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def configure() -> None:
    """Is quiet, makes XLA:CPU fast, keeps freed pages, and keeps compiled programs between runs.

    The compilation cache lies in JAX_COMPILATION_CACHE_DIR, by default ~/.cache/imagenet_jax.
    """
    import ctypes  # these take 20 ms, for which `--help` need not wait
    import importlib.metadata
    import platform

    quiet()
    flags = os.environ.get("XLA_FLAGS", "")
    if _CPU_FLAG.split("=")[0] not in flags and importlib.metadata.version("jaxlib").startswith(_CPU_FLAG_RELEASES):
        os.environ["XLA_FLAGS"] = f"{flags} {_CPU_FLAG}".strip()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/imagenet_jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
    if platform.libc_ver()[0] == "glibc":
        # Every step frees and asks for the same large buffers; without this each comes back as zeroed pages.
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def compile_only() -> None:
    """Leaves the devices of this machine alone, and keeps libtpu from asking who it is: programs are only compiled.

    Before JAX is imported, which sets libtpu up. The names of TPUs that the environment has already stay.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # it could not be read without a device that runs the program
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # of Google Cloud's metadata server
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # beside another that compiles
    for name, value in (("TPU_WORKER_HOSTNAMES", "localhost"), ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
                        ("TPU_MIN_LOG_LEVEL", "3"), ("TPU_STDERR_LOG_LEVEL", "3")):
        os.environ.setdefault(name, value)
