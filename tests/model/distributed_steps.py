"""One step of training in each of several processes, which `tests/model/test_distributed.py` starts with torchrun."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from albert_hub_bridge import AlbertHubConfig, AlbertHubForMaskedLM
from conversion.sample import SAMPLE_ARCHITECTURE


KINDS = ("DDP", "FSDP2")


def make_model() -> AlbertHubForMaskedLM:
    """Return the model, the same in every process."""
    torch.manual_seed(0)
    model = AlbertHubForMaskedLM(AlbertHubConfig(**asdict(SAMPLE_ARCHITECTURE)))
    with torch.no_grad():  # biases and layer norms are not all alike after training either
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make_batch() -> dict[str, torch.Tensor]:
    """Return four sequences, with as much to learn in each, and so in each half."""
    ids = torch.randint(4, 400, (4, 12), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(12) < torch.tensor([[12], [7], [9], [12]])).long()
    labels = torch.where(torch.arange(12) % 3 == 1, ids, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(torch.arange(12) < 7, labels, -100)}


def step(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the loss, the gradients, and the loss after a step of the optimizer."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = model(**batch).loss
    loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.full_tensor() if isinstance(parameter.grad, DTensor) else parameter.grad
        gradients[name.removeprefix("module.")] = gradient.clone()
    optimizer.step()
    return {"loss": loss.detach(), "loss after": model(**batch).loss.detach(), **gradients}


def prepare(kind: str) -> Any:
    """Return the model as this kind of parallelism wants it."""
    model: Any = make_model()
    if kind == "DDP":
        return DistributedDataParallel(model)
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for group in model.backbone.transformer_layers:
        fully_shard(list(group), mesh=mesh)  # a ModuleList has no forward that could gather the weights
    fully_shard(model, mesh=mesh)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return model


def main(folder: Path) -> None:
    """Take a step on a share of the batch, average the losses, and let the first process save what was found."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    for kind in KINDS:
        found = step(prepare(kind), {name: tensor.chunk(size)[rank] for name, tensor in make_batch().items()})
        for name in ("loss", "loss after"):
            torch.distributed.all_reduce(found[name])
            found[name] /= size
        if rank == 0:
            torch.save(found, folder / f"{kind}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads may outlive what they use


if __name__ == "__main__":
    main(Path(sys.argv[1]))
