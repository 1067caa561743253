#!/usr/bin/env python3
"""Runs a command as several processes of this machine that work as one, as hosts of a pod do.

    launch/local.py --processes=2 --devices=2 -- train --config=configs/demo.py --workdir=runs/two

What process 0 says comes here; the others write LOGS/host_1.log, ... When one fails all are stopped. SIGTERM and Ctrl-C
go to all of them: they save and end.
"""

import argparse
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import time
from typing import NoReturn

ROOT = pathlib.Path(__file__).resolve().parents[1]
GRACE = 10.0  # seconds for ending after another one has, before it is killed
MISTAKE = 2  # the exit code of a user's mistake, which no restart mends


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="how many")
    parser.add_argument("--devices", type=int, default=0, help="virtual CPU devices of each; by default what JAX finds")
    parser.add_argument("--port", type=int, default=0, help="where they meet; by default a free one")
    parser.add_argument("--logs", type=pathlib.Path, default=pathlib.Path("logs"), help="what the others say goes here")
    parser.add_argument("--restarts", type=int, default=0, help="start all again as often, if one fails")
    parser.add_argument("--backoff", type=float, default=5.0, help="seconds before that, doubled each time")
    parser.add_argument("--dry_run", action="store_true", help="print the commands, run nothing")
    parser.add_argument("command", nargs="+", help="-- and then a command of imagenet_jax with its flags")
    args = parser.parse_args()
    if args.processes < 1 or args.devices < 0 or args.restarts < 0:
        parser.error("--processes must be at least 1, --devices and --restarts at least 0")
    return args


def commands(args: argparse.Namespace) -> list[list[str]]:
    """The command line of each process."""
    port = args.port
    if not port:
        with socket.create_server(("localhost", 0)) as server:
            port = server.getsockname()[1]
    run = [sys.executable, "-m", "imagenet_jax", *args.command, f"--coordinator=localhost:{port}",
           f"--processes={args.processes}"]
    return [[*run, f"--process={index}"] for index in range(args.processes)]


def environment(args: argparse.Namespace) -> dict[str, str]:
    """What they all find in their environment besides ours."""
    path = {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    if not args.devices:
        return path
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in flag]
    flags.append(f"--xla_force_host_platform_device_count={args.devices}")
    return path | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}


def run(args: argparse.Namespace, asked: list[int]) -> int:
    """Starts all and waits for them; the exit code of the one that failed first. asked: signals that came to us."""
    args.logs.mkdir(parents=True, exist_ok=True)
    running: list[subprocess.Popen] = []
    try:
        for index, command in enumerate(commands(args)):
            with open(args.logs / f"host_{index}.log", "a", encoding="utf-8") as log:
                running.append(subprocess.Popen(command, env=os.environ | environment(args), start_new_session=True,
                                                **({"stdout": log, "stderr": log} if index else {})))
        failed, forwarded = 0, 0
        while any(process.poll() is None for process in running) and not failed:
            for number in asked[forwarded:]:
                for process in running:
                    process.send_signal(number)
            forwarded = len(asked)
            failed = next((process.returncode for process in running if process.poll()), 0)
            time.sleep(0.1)
        return exit_code(failed or next((process.returncode for process in running if process.returncode), 0))
    finally:
        stop(running)


def stop(running: list[subprocess.Popen]) -> None:
    """Lets them end for a while (whoever fails tells the others), then makes them."""
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        if number:
            for process in running:
                process.send_signal(number)
        deadline = time.monotonic() + GRACE
        while any(process.poll() is None for process in running) and time.monotonic() < deadline:
            time.sleep(0.1)


def exit_code(code: int) -> int:
    """As a shell says it: 128 and the signal that ended a process."""
    return 128 - code if code < 0 else code


def main() -> NoReturn:
    """Runs it, again where it may."""
    args = parse()
    if args.dry_run:
        names = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment(args).items())
        print("\n".join(f"{names} {shlex.join(command)}" for command in commands(args)))
        sys.exit(0)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: asked.append(number))
    for attempt in range(args.restarts + 1):
        code = run(args, asked)
        if code in (0, MISTAKE) or asked or attempt == args.restarts:
            break
        pause = min(args.backoff * 2**attempt, 300)
        print(f"exit code {code}; all are started again in {pause:.0f} s ({attempt + 1} of {args.restarts})",
              file=sys.stderr, flush=True)
        deadline = time.monotonic() + pause
        while not asked and time.monotonic() < deadline:
            time.sleep(0.1)
        if asked:
            break
    if code:
        print(f"exit code {code}; the others' words are in {args.logs}/host_*.log", file=sys.stderr)
    sys.exit(code)


main()
