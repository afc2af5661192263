"""The vectors of chunks of texts on a cluster of Ray: each actor loads the model once, and computes whole chunks.

This process hands out the chunks and gets their vectors back in the order of the chunks. So the caller reads and writes
as it does without Ray, and gets the same parts. `map_batches` of Ray Data would not do: it reads in its workers, cuts
and merges what they read by its size in bytes, and gives each batch to any actor. The order, the parts and the place
where a stopped run continues would be others. Actors, their restarts and the retries are Ray's own, as in Ray Data.
"""

from __future__ import annotations

import importlib.util
import os
import platform
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, get_args

from albert_hub_bridge.choices import Device, choose
from albert_hub_bridge.errors import AlbertHubBridgeError, SourceError
from albert_hub_bridge.runtime.embedding import Embedded, Embedder, EmbeddingSettings
from albert_hub_bridge.runtime.ray_cluster import Cluster, brief, connected, number_of_actors, room
from albert_hub_bridge.runtime.tokens import Text


_AT_ONCE = 2  # chunks of an actor: it computes one, and tokenizes the next
_WINDOW = 3  # chunks for each actor that are not returned yet: the others go on while the first is slow
_RESTARTS = 10  # of each actor
_RETRIES = 3  # of each chunk
_PATIENCE = 60.0  # seconds without a result, until the machines of the cluster are counted again
_AGAIN = "The parts that are written stay. Run the command again to continue."


@dataclass(frozen=True, slots=True)
class _Model:
    """What an actor says of its model."""

    settings: EmbeddingSettings
    fingerprint: str
    dimension: int


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an actor has no model."""

    message: str
    is_wrong_option: bool


class _Actor:
    """A model on some machine of the cluster. It runs a few calls at once."""

    def __init__(self, model: str, options: dict[str, Any]) -> None:
        self._tokenizing, self._computing = Lock(), Lock()  # a tokenizer has settings that each call changes
        self._model: _Model | _Failure
        try:
            self._embedder = embedder = Embedder(model, **options)
            self._model = _Model(embedder.settings, embedder.fingerprint, embedder.dimension)
        except Exception as error:  # raised, it would be Ray's traceback instead of one message
            is_ours = isinstance(error, AlbertHubBridgeError | ValueError)
            message = str(error) if is_ours else f"{type(error).__name__}: {error}"
            self._model = _Failure(message, isinstance(error, ValueError))

    def model(self) -> tuple[str, _Model | _Failure]:
        """Return the name of the machine, and what the actor says of its model."""
        return platform.node(), self._model

    def embed(self, texts: Sequence[Text], expected: _Model) -> Embedded:
        """Return the vectors of a chunk. An actor that was started again may find another model, and refuses."""
        if self._model != expected:
            how = self._model.message if isinstance(self._model, _Failure) else "It was changed during the run."
            raise SourceError(f"An actor on {platform.node()} has another model than the others. {how}")
        with self._tokenizing:
            tokens = self._embedder.tokenize(texts)
        with self._computing:
            return self._embedder.compute(tokens)


class RayEmbedder:
    """The vectors of chunks of texts, computed by actors. `ray_embedder` makes it.

    Attributes:
        settings: How texts become vectors.
        fingerprint: That of the model.
        dimension: The size of a vector.
    """

    def __init__(self, actors: Sequence[Any], model: _Model, check_room: Callable[[], None]) -> None:
        self.settings, self.fingerprint, self.dimension = model.settings, model.fingerprint, model.dimension
        self._actors, self._model, self._check_room = actors, model, check_room

    def encode_chunks(self, chunks: Iterable[Sequence[Text]]) -> Iterator[Embedded]:
        """Yield the vectors of chunks of texts, in their order. The vectors of each are those of `Embedder`.

        Args:
            chunks: Chunks of texts or pairs. They are read as actors become free. If reading fails, the chunks before
                are yielded first.

        Raises:
            AlbertHubBridgeError: A chunk cannot be computed, actors die again and again, or machines left the cluster.
        """
        remaining: Iterator[Sequence[Text]] | None = iter(chunks)
        unreadable: BaseException | None = None
        in_order: deque[Any] = deque()  # the results, computed or not
        actor_of: dict[Any, int] = {}  # of the results that are not computed yet
        while True:
            while remaining is not None and len(in_order) < _WINDOW * len(self._actors):
                load = Counter(actor_of.values())
                actor = min(range(len(self._actors)), key=lambda number: load[number])
                if load[actor] >= _AT_ONCE:
                    break
                try:
                    texts = next(remaining, None)
                except Exception as error:
                    texts, unreadable = None, error
                if texts is None:
                    remaining = None
                    break
                in_order.append(self._actors[actor].embed.remote(texts, self._model))
                actor_of[in_order[-1]] = actor
            if not in_order:
                if unreadable is not None:
                    raise unreadable
                return
            while in_order[0] in actor_of and not _computed(actor_of, 1, _PATIENCE):
                self._check_room()  # an actor that finds no machine would wait for one forever
            for result in _computed(actor_of, len(actor_of), 0):
                del actor_of[result]
            if in_order[0] not in actor_of:
                yield _value(in_order.popleft())


@contextmanager
def ray_embedder(
    model: str | Path,
    cluster: Cluster,
    *,
    device: Device = "auto",
    threads: int | None = None,
    **options: Any,
) -> Iterator[RayEmbedder]:
    """Start actors on a cluster, and yield what computes with them. End them afterwards.

    Args:
        model: As in `Embedder`. Each actor loads it, so a folder must be one that all machines have.
        cluster: Where the actors run.
        device: `auto`, or what follows from the number of GPUs.
        threads: The threads of an actor, and the CPUs that it takes of the cluster. By default 1.
        **options: As in `Embedder`.

    Raises:
        AlbertHubBridgeError: Ray is not installed, the cluster cannot be reached, or it has too little room.
        SourceError: An actor cannot load the model.
        ValueError: An option has an unsupported value.
    """
    device = choose("device", device, get_args(Device))
    computing_on: Device = "cuda" if cluster.gpus_per_actor else "cpu"
    if device not in ("auto", computing_on):
        raise ValueError(f"With gpus_per_actor {cluster.gpus_per_actor:g}, the device is {computing_on}, not {device}.")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}.")
    if importlib.util.find_spec("ray") is None:
        raise AlbertHubBridgeError("The engine ray needs Ray. Run: pip install 'albert-hub-bridge[ray]'.")
    threads = threads or 1
    options |= {"device": computing_on, "threads": threads}
    with connected(cluster.address):
        import ray

        resources = {"num_cpus": threads, "num_gpus": cluster.gpus_per_actor}
        count = number_of_actors(cluster, threads)

        def check_room() -> None:
            if (fitting := room(cluster, threads)) < count:
                raise AlbertHubBridgeError(
                    f"Machines left the cluster: it has room for {fitting} of {count} actors. {_AGAIN}"
                )

        make = ray.remote(_Actor).options(
            **resources, max_restarts=_RESTARTS, max_task_retries=_RETRIES, max_concurrency=_AT_ONCE
        )
        # A worker has a working directory of its own.
        name = os.path.abspath(os.path.expanduser(model)) if Path(model).expanduser().exists() else str(model)
        actors = [make.remote(name, options) for _ in range(count)]
        try:
            yield RayEmbedder(actors, _common_model(actors, name), check_room)
        finally:
            for actor in actors:
                with suppress(Exception):  # without a cluster there is nothing to end, and another error says so
                    ray.kill(actor)


def _common_model(actors: Sequence[Any], source: str) -> _Model:
    """Wait until all actors have loaded the model, and return what they say of it."""
    loaded: list[tuple[str, _Model]] = []
    for machine, model in [_value(result, "") for result in [actor.model.remote() for actor in actors]]:
        if not isinstance(model, _Model):
            if model.is_wrong_option:
                raise ValueError(model.message)
            raise SourceError(f"An actor on {machine} cannot load the model {source}: {model.message}")
        loaded.append((machine, model))
    first_machine, first = loaded[0]
    for machine, model in loaded:
        if model != first:
            raise SourceError(
                f"{source} is not the same model on {machine} and on {first_machine}. Name a folder that all machines "
                "share, or a handle with its revision."
            )
    return first


def _computed(results: Iterable[Any], count: int, timeout: float) -> Sequence[Any]:
    """Return the results that are there, once there are so many of them, or after so many seconds."""
    import ray

    waiting = list(results)
    return ray.wait(waiting, num_returns=count, timeout=timeout, fetch_local=False)[0] if waiting else []


def _value(result: Any, advice: str = _AGAIN) -> Any:
    """Wait for the result of a call of an actor, and return it. An error ends with some advice."""
    import ray

    try:
        return ray.get(result)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        if isinstance(cause, AlbertHubBridgeError):
            raise AlbertHubBridgeError(f"{cause} {advice}".rstrip()) from error
        detail = brief(f"{type(cause).__name__}: {cause}")
        raise AlbertHubBridgeError(f"An actor cannot compute a chunk: {detail}. {advice}".rstrip()) from error
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise AlbertHubBridgeError(
            "An actor ended, and starting it again did not help. Its machine may have too little memory, or lack this "
            f"package. Ray says: {brief(str(error))}. {advice}".rstrip()
        ) from error
