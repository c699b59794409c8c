"""An ordinary PyTorch script: a linear model, data parallel over gloo. It knows nothing of Capstan."""
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")  # reads RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as under torchrun
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
model = DistributedDataParallel(torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
truth = torch.tensor([[1.0], [-2.0], [3.0], [0.5]])
generator = torch.Generator().manual_seed(rank)
for step in range(200):
    x = torch.randn(32, 4, generator=generator)
    loss = ((model(x) - x @ truth) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
total = torch.tensor([float(rank + 1)])
dist.all_reduce(total)
print(f"rank {rank} of {world}: sum over ranks {total.item():.0f}, loss {loss.item():.6f}", flush=True)
dist.destroy_process_group()
