"""A cluster of Ray: connect to it, and find out how many actors it has room for."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from albert_hub_bridge.errors import AlbertHubBridgeError
from albert_hub_bridge.text import one_line


_PATIENCE = 10.0  # seconds, to reach the address of a cluster


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where actors run, and how many.

    Args:
        address: The address of the cluster, as in `ray.init`. By default the one in `RAY_ADDRESS`, or a new one on this
            machine; or the one to which this process is connected.
        actors: The number of actors. By default as many as the cluster has room for.
        gpus_per_actor: The number of GPUs of an actor, also a fraction. With 0 it computes on a CPU.
    """

    address: str | None = None
    actors: int | None = None
    gpus_per_actor: float = 0.0

    def __post_init__(self) -> None:
        if self.actors is not None and self.actors < 1:
            raise ValueError(f"actors must be at least 1, not {self.actors}.")
        if not 0 <= self.gpus_per_actor < float("inf"):
            raise ValueError(f"gpus_per_actor must be at least 0, not {self.gpus_per_actor}.")


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster of Ray, or start one on this machine, unless this process is connected.

    Args:
        address: As in `Cluster`.

    Raises:
        AlbertHubBridgeError: The cluster cannot be reached.
        ValueError: There is an address, and this process is connected.
    """
    import ray

    if ray.is_initialized():
        if address is not None:
            raise ValueError("This process is connected to a cluster of Ray. Leave out address.")
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = address or os.environ.get("RAY_ADDRESS") or "local"  # without any, Ray would look for a running one
    where = "a new cluster on this machine" if address == "local" else address
    try:
        _check_that_it_answers(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError, ImportError) as error:
        raise AlbertHubBridgeError(
            f"Ray cannot connect to {where}: {brief(str(error))}. Correct the address, or start the cluster."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_that_it_answers(address: str) -> None:
    """Ask the port of an address whether it is open. Ray itself tries for a quarter of an hour."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def number_of_actors(cluster: Cluster, cpus: int) -> int:
    """Return how many actors to start on the cluster to which this process is connected.

    Args:
        cluster: How many are wanted.
        cpus: The CPUs of an actor.

    Raises:
        AlbertHubBridgeError: The cluster has too little room, or others use it. Such actors would wait forever.
    """
    import ray

    there, fitting = ray.cluster_resources(), room(cluster, cpus)
    if fitting < (cluster.actors or 1):
        raise AlbertHubBridgeError(
            f"The cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs, room for {fitting} actors "
            f"of {cpus} CPUs and {cluster.gpus_per_actor:g} GPUs. Expected room for {cluster.actors or 1}. Start more "
            "machines, or pass other --actors, --threads or --gpus-per-actor."
        )
    deadline = time.monotonic() + _PATIENCE
    while (free := _free_room(cluster, cpus)) < (cluster.actors or fitting) and time.monotonic() < deadline:
        time.sleep(0.5)  # what just ended is still counted
    if free < (cluster.actors or 1):
        raise AlbertHubBridgeError(
            f"Others use the cluster: it has room for {free} more actors of {cpus} CPUs and "
            f"{cluster.gpus_per_actor:g} GPUs. Expected room for {cluster.actors or 1}. Wait until they end, or pass "
            "other --actors, --threads or --gpus-per-actor."
        )
    return cluster.actors or min(free, fitting)


def room(cluster: Cluster, cpus: int) -> int:
    """Return for how many actors the machines of a cluster have room, each for whole actors, if nobody else uses it."""
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(_fitting(machine, cluster.gpus_per_actor, cpus) for machine in machines)


def _free_room(cluster: Cluster, cpus: int) -> int:
    import ray

    return _fitting(ray.available_resources(), cluster.gpus_per_actor, cpus)


def _fitting(resources: Mapping[str, float], gpus: float, cpus: int) -> int:
    fitting = int(resources.get("CPU", 0) / cpus + 1e-6)
    if not gpus:
        return fitting
    there = resources.get("GPU", 0)
    on_gpus = int(there) * int(1 / gpus + 1e-6) if gpus < 1 else int(there / gpus + 1e-6)  # none is split over two
    return min(fitting, on_gpus)


def brief(text: str) -> str:
    """Return a message of Ray in one line, without the period at its end."""
    return one_line(" ".join(text.split()).rstrip("."), 500)
