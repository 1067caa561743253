"""Who the processes of a run are and where they meet; whoever does not come is named.

JAX's own service cannot say who is missing, and ends the process with a stack trace. So the processes meet once before
it, at the same address.
"""

import contextlib
import os
import re
import socket
import time
from typing import NamedTuple

from jax._src import clusters, distributed  # what jax.distributed.initialize asks

from imagenet_jax.errors import UserError
from imagenet_jax.hosts.store import these

VARIABLES = {"coordinator": "JAX_COORDINATOR_ADDRESS", "processes": "JAX_NUM_PROCESSES", "process": "JAX_PROCESS_ID"}
_HELLO, _GO, _REFUSED = "imagenet_jax", "go", "refused: "
_NO_PROXY = "no_grpc_proxy"


class Place(NamedTuple):
    """Process `process` of `processes` meets the others at `coordinator`, HOST:PORT of process 0.

    local_devices: those it takes of its machine, None for all.
    """

    coordinator: str
    processes: int
    process: int
    local_devices: list[int] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; an IPv6 host without its brackets."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


def place(coordinator: str = "", processes: int | None = None, process: int | None = None, detect: bool = False,
          seconds: float = 300) -> Place | None:
    """Where this process meets the others; None for a single one. See `joining.joined`.

    Raises:
        UserError: something is missing, cannot be, or is not found out.
    """
    given = {"coordinator": coordinator or os.environ.get(VARIABLES["coordinator"]),
             "processes": _number("processes", processes), "process": _number("process", process)}
    found = Place(**given) if not detect else Place(*_detected(given, seconds))
    missing = [name for name in VARIABLES if getattr(found, name) is None]
    if len(missing) == len(VARIABLES) and not detect:
        return None
    if missing:
        there = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)
        wanted = " and ".join(f"--{name} (or {VARIABLES[name]})" for name in missing)
        raise UserError(f"several hosts need {wanted}{f' beside {there}' if there else ''}. "
                        f"{'JAX did not find' if detect else '--distributed lets JAX find'} them out here. A "
                        f"single host needs none of them: unset {', '.join(VARIABLES.values())}.")
    host, _, port = found.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"the coordinator is {found.coordinator!r}, which is not HOST:PORT: give the name of process "
                        "0's host and a free port there, such as 10.0.0.1:8476")
    if found.processes < 1 or not 0 <= found.process < found.processes:
        raise UserError(f"there is no process {found.process} of {found.processes}: they are counted from 0 to "
                        f"{max(found.processes - 1, 0)} (--process, --processes)")
    if distributed.global_state.client is not None:
        raise UserError("this process has joined other hosts already")
    return found if found.processes > 1 else None


def meet(place: Place, seconds: float) -> str:
    """The address of this host at which the others reach it; returned on all processes once all are there.

    Raises:
        UserError: nobody listens at the coordinator's address, or not us; the port is taken; or processes that did
            not come in so many seconds, or that are told another number.
    """
    host, _ = place.address
    # gRPC would ask a proxy for the coordinator.
    others = os.environ.get(_NO_PROXY) or os.environ.get(_NO_PROXY.replace("grpc_", ""))
    os.environ[_NO_PROXY] = ",".join(filter(None, [others, host]))
    return (_receive if place.process == 0 else _visit)(place, time.monotonic() + seconds, seconds)


def _number(name: str, value: int | None) -> int | None:
    text = os.environ.get(VARIABLES[name])
    if value is not None or not text:
        return value
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{VARIABLES[name]}={text!r} is not a number") from None


def _detected(given: dict[str, str | int | None], seconds: float) -> tuple[str, int, int, list[int]]:
    """What JAX finds out of what is not given."""
    try:
        return clusters.ClusterEnv.auto_detect_unset_distributed_params(*given.values(), None, None, int(seconds))
    except Exception as error:
        raise UserError(f"--distributed: JAX could not find out who the hosts are ({error}). Say it by --coordinator, "
                        "--processes and --process instead.") from error


def _receive(place: Place, deadline: float, seconds: float) -> str:
    """Process 0: waits for all others, then sends them on. Returns the address that they came to."""
    came: dict[int, socket.socket] = {}
    address = ""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(place))
        problem = ""
        while not problem and len(came) < place.processes - 1:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                visitor = stack.enter_context(server.accept()[0])
            except TimeoutError:
                late = these(set(range(1, place.processes)) - came.keys())
                problem = (f"{late} of {place.processes} did not come to {place.coordinator} within {seconds:.0f} s "
                           "(--start_timeout). Is the same command running there, and may they reach that port?")
                continue
            said = re.fullmatch(rf"{_HELLO} (\d+) (\d+)", _line(visitor))
            if not said:  # somebody who tries every port
                continue
            process, processes = map(int, said.groups())
            if processes != place.processes:
                problem = f"host {process} has --processes={processes}, host 0 has --processes={place.processes}"
            elif process in came and not _hung_up(came[process]):
                problem = f"there are two processes with --process={process}: each of {processes} needs its own"
            came[-1 if problem else process] = visitor
            address = _own_address(visitor)
        for visitor in came.values():
            with contextlib.suppress(OSError):
                visitor.sendall(f"{_REFUSED + problem if problem else _GO}\n".encode())
        for visitor in came.values():  # who closes first keeps the port from being used again at once
            _line(visitor, 2)
    if problem:
        raise UserError(problem)
    return address


def _listen(place: Place) -> socket.socket:
    """A socket at the coordinator's port, of all the addresses of this host."""
    port = place.address[1]
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise UserError(f"cannot listen at port {port} of this host, where the others are to come: {error.strerror}. "
                        "Give another port in --coordinator, to all of them.") from error


def _visit(place: Place, deadline: float, seconds: float) -> str:
    """The others: go to process 0 until it sends them on. Returns the address that they came from."""
    reason = address = ""
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(place.address, timeout=max(0.01, deadline - time.monotonic())) as server:
                server.sendall(f"{_HELLO} {place.process} {place.processes}\n".encode())
                answer, address = _line(server, deadline + 5 - time.monotonic()), _own_address(server)
        except OSError as error:
            reason, answer = error.strerror or str(error), ""
        if answer == _GO:
            return address
        if answer:
            raise UserError(answer.removeprefix(_REFUSED) if answer.startswith(_REFUSED) else
                            f"what answers at {place.coordinator} is not process 0 of this run, but some other "
                            "program, or a run that has begun: give another port in --coordinator, to all of them")
        time.sleep(0.2)
    raise UserError(f"nobody answered at {place.coordinator} within {seconds:.0f} s ({reason or 'it hung up'}). Is "
                    "process 0 running there, is the name right, and may this host reach that port (firewall)? "
                    "--start_timeout=SECONDS waits longer.")


def _own_address(connection: socket.socket) -> str:
    """This end's, without what IPv6 puts before one of IPv4."""
    return connection.getsockname()[0].removeprefix("::ffff:")


def _hung_up(connection: socket.socket) -> bool:
    try:
        connection.settimeout(0.01)
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def _line(connection: socket.socket, seconds: float = 5.0) -> str:
    """The next line that is sent, of at most 1000 bytes; what there is of it when the other hangs up or is silent."""
    text, deadline = b"", time.monotonic() + seconds
    with contextlib.suppress(OSError):
        while not text.endswith(b"\n") and len(text) < 1000:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            more = connection.recv(1000)
            if not more:
                break
            text += more
    return text.decode(errors="replace").strip()
