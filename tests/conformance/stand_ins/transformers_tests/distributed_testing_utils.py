"""Not in the source distribution: run a function in several processes of this machine, on CPUs, over gloo."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, multiprocessing


# Each process is a fork of one that has imported the slow libraries.
multiprocessing.set_forkserver_preload(
    [
        *("torch.distributed.tensor", "torch.distributed.fsdp", "torch._dynamo", "transformers.testing_utils"),
        *(
            "transformers.trainer",
            "transformers.models.auto.modeling_auto",
            "transformers.models.albert.modeling_albert",
        ),
    ]
)


def run_distributed(world_size: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return what makes of `function(rank, *args)` a function of `args` that runs it in `world_size` processes."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any) -> None:
            # The server listens on a port that was free, and lives until all are done.
            store = distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
            _start_rank_processes(_in_group, (world_size, store.port, function, args), world_size)

        return run

    return decorate


def _in_group(rank: int, world_size: int, port: int, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    store = distributed.TCPStore("localhost", port, is_master=False)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    try:
        function(rank, *args)
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def _start_rank_processes(function: Callable[..., None], args: tuple[Any, ...], nprocs: int) -> None:
    multiprocessing.start_processes(_prepared, (function, args), nprocs, start_method="forkserver")


def _prepared(rank: int, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    from transformers import AutoModelForMaskedLM

    from . import test_fsdp_mixin

    test_fsdp_mixin.AutoModelForCausalLM = AutoModelForMaskedLM  # ALBERT has no causal language model
    function(rank, *args)
    # All is done and reported; threads of torch that outlive the interpreter would abort the process now and then.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _get_distributed_backend() -> str:
    return "gloo"


def _get_distributed_device_type() -> str:
    return "cpu"


def _get_rank_device(rank: int) -> torch.device:
    return torch.device("cpu")


def _set_rank_device(rank: int) -> None:
    """There is one CPU for all."""
