"""Save the gradients of one global batch of 8 clips, however many processes share it: `gradients.py DATA OUT [checkpointing]`."""

import sys
from functools import partial

import torch
from accelerate import Accelerator

from hiptrack.data.clips import ClipData, ClipDataset, Geometry
from hiptrack.data.folders import FolderDataset
from hiptrack.data.loader import ShardedBatches, divide_batch, make_loader
from hiptrack.data.sampling import CausalSampler
from hiptrack.models.backbone import Backbone
from hiptrack.models.challenge import ChallengeBranch
from hiptrack.models.heads import CenterHead
from hiptrack.models.hiptrack import HIPTrack
from hiptrack.models.history import HistoricalPrompt
from hiptrack.training.losses import CenterFocalLoss, ChallengeLoss, GIoULoss, L1Loss
from hiptrack.training.step import TrainingStep


def gradients(data_root, largest_pass=None, checkpointing=False):
    """{name: gradient} of the step over one global batch."""
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    backbone = partial(
        Backbone, "vit_tiny_patch16_224", 32, 64, width=32, depth=2, heads=2, patch=8, elimination_blocks=(1,)
    )
    model = HIPTrack(
        backbone,
        partial(HistoricalPrompt, key_width=8, trunk_width=8),
        partial(CenterHead, widths=(8,)),
        partial(ChallengeBranch, hidden_width=16, fusion_width=8, dropout=0.0),
    )
    torch.nn.init.normal_(model.challenge.to_grid.project.weight, std=0.1)
    dataset = FolderDataset(data_root, "train", f"{data_root}/annotations")
    dataset = ClipDataset(ClipData([dataset], sampler=CausalSampler(2, 5)), Geometry.of(model), 0, 0)
    processes = accelerator.num_processes
    _, passes = divide_batch(8, processes, largest_pass)
    batches = ShardedBatches(1, 8, accelerator.process_index, processes, passes)
    wrapped = accelerator.prepare(model)
    wrapped.eval()
    model.backbone.checkpointing = checkpointing
    step = TrainingStep(accelerator, wrapped, [GIoULoss(), L1Loss(), CenterFocalLoss(), ChallengeLoss()])
    step.backward(list(make_loader(dataset, batches, 0, 0)))
    return {name: parameter.grad for name, parameter in model.named_parameters()}


if __name__ == "__main__":
    found = gradients(sys.argv[1], checkpointing="checkpointing" in sys.argv)
    torch.save(found, f"{sys.argv[2]}-{Accelerator().process_index}.pt")
