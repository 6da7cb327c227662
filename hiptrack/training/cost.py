"""What a step of a stage costs: its memory, without computing a number, and its time, by passes on clips of noise."""

import copy
import time
import weakref

import numpy as np
import torch
from accelerate.utils import gather_object
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from hiptrack.data.loader import divide_batch
from hiptrack.models.challenge import taxonomy_of
from hiptrack.training.optimizers import trainable_parameters
from hiptrack.training.step import TrainingStep

# What a processor takes beside the tensors, found by measuring (docs/runs.md): copies that its libraries make of them in
# other layouts and gaps of the allocator, a share of the tensors; kernels, batches on their way and the log, a constant.
COPIES = 1.1
WORKING = 100e6
PATIENCE = 6.0  # seconds for the passes that time a step; a single one may take longer
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def memory_of_step(stage, phase, model, frames, accelerator):
    """Most bytes that the tensors of a step take on one process at once, the model's own left out.

    The step is taken on tensors without numbers (FakeTensorMode), and each storage is counted from the operation that
    makes it to its end. Called in the stage's gin scope. model: as `lay_out` gives it; frames: search frames of a clip.
    Raises RuntimeError where a part of the model, a loss or the optimiser decides by the values of a tensor.
    """
    fake, live = FakeTensorMode(allow_non_fake_inputs=True), _LiveBytes()
    with FakeCopyMode(fake):
        net = copy.deepcopy(model)
    with fake, live:
        live.leave_out([*net.parameters(), *net.buffers()])
        _take_step(stage, phase, net, frames, accelerator)
    buckets = sum(p.numel() * p.element_size() for p in net.parameters() if p.requires_grad)
    return live.peak + (buckets if accelerator.num_processes > 1 else 0)  # DDP holds the gradients a second time


def largest_phases(stage, model):
    """The phases of a stage, without those that train nothing but what another trains, too: a step of these takes no more."""
    phases = {frozenset(trainable_parameters(model, phase.trainable)): phase for phase in stage.phases}
    return [phase for own, phase in phases.items() if not any(own < other for other in phases)]


def _take_step(stage, phase, net, frames, accelerator):
    """What is in memory at a step's pass: the optimiser's state, the gradients of earlier passes, all batches."""
    stage.prepare(net, phase)
    net.train()
    optimizer = stage.optimizer(stage.parameter_groups(net))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    batches = _batches(stage, net, frames, accelerator, torch.device("cpu"))
    if len(batches) == 1:
        optimizer.zero_grad()
    step = TrainingStep(accelerator, net, stage.losses_in(net))
    counts = [torch.ones(()) for _ in step.losses]
    precision = accelerator.mixed_precision
    with torch.autocast("cpu", AUTOCAST.get(precision), enabled=precision in AUTOCAST):
        _prediction, total, _ = step.forward(batches[0], counts, largest_keep_ratio(stage, net.backbone))
    total.backward()


class _LiveBytes(TorchDispatchMode):
    """Counts, within it, the bytes of the storages that operations make, as long as they live."""

    def __init__(self):
        super().__init__()
        self.bytes = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def leave_out(self, tensors):
        for tensor in tensors:
            self._known[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage):
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = True
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._remove, size).atexit = False

    def _remove(self, size):
        self.bytes -= size


def time_of_step(stage, phase, model, frames, accelerator):
    """Seconds that a step takes: one of its passes, times their number, and the optimiser.

    Passes of 1, 2, 4, ... clips are taken as long as PATIENCE allows, after a short one to warm up. Where it ends before
    a whole pass, the last one's time is multiplied. Called in the stage's gin scope; the model is trained by the passes, and stays wrapped.
    """
    step = stage.wrap(phase, model, accelerator)
    step.model.train()
    rows, passes = divide_batch(stage.batch, accelerator.num_processes, stage.largest_pass)
    keep_ratio = largest_keep_ratio(stage, model.backbone)
    _take(step, random_clips(model, 1, min(frames, 2), accelerator.device), keep_ratio, stage, accelerator)
    doubled = [2**n for n in range(rows.bit_length()) if 2**n < rows]
    clips, one_pass, update, spent = 1, 0.0, 0.0, 0.0
    for more in (*doubled, rows, rows):  # a whole one twice: the first of a size takes longer
        if spent + one_pass * more / clips > PATIENCE:
            break
        clips = more
        batch = random_clips(model, clips, frames, accelerator.device)
        one_pass, update = _take(step, batch, keep_ratio, stage, accelerator)
        spent += one_pass + update
    return passes * one_pass * rows / clips + update


def _take(step, batch, keep_ratio, stage, accelerator):
    """Take a step of one pass; seconds of (the pass, the optimiser) on the slowest process: all go on by the same."""
    times = [_now(accelerator.device)]
    step.backward([batch], keep_ratio)
    times.append(_now(accelerator.device))
    step.clip_gradients(stage.grad_clip)
    step.optimizer.step()
    step.optimizer.zero_grad()
    times.append(_now(accelerator.device))
    seconds = gather_object([(times[1] - times[0], times[2] - times[1])])
    return max(one_pass for one_pass, _ in seconds), max(update for _, update in seconds)


def _now(device):
    """Seconds of the clock, when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def largest_keep_ratio(stage, backbone):
    """That of the epoch of a stage in which the backbone keeps most, so that it costs most; None: the backbone's own."""
    if stage.keep_ratio is None:
        return None
    return max(stage.keep_ratio(epoch, backbone.keep_ratio) for epoch in range(stage.epochs))


def search_frames(sampler):
    """Number of search frames of the clips that a sampler gives."""
    _, search = sampler(np.ones(1000, bool), np.random.default_rng(0))
    return len(search)


def _batches(stage, model, frames, accelerator, device):
    rows, passes = divide_batch(stage.batch, accelerator.num_processes, stage.largest_pass)
    return [random_clips(model, rows, frames, device) for _ in range(passes)]


def random_clips(model, clips, frames, device):
    """A batch of noise as ClipDataset's batches are, all frames labelled."""
    classes = len(taxonomy_of(model).classes)
    generator = torch.Generator().manual_seed(0)

    def noise(*shape, below):
        return torch.randint(below, shape, generator=generator).to(device)

    box = torch.tensor([0.4, 0.4, 0.2, 0.2], device=device)
    return {
        "template": noise(clips, 3, model.template_size, model.template_size, below=256).byte(),
        "search": noise(clips, frames, 3, model.search_size, model.search_size, below=256).byte(),
        "template_box": box.expand(clips, 4),
        "boxes_xywh": box.expand(clips, frames, 4),
        "labels": noise(clips, frames, below=classes),
        "flags": noise(clips, frames, classes, below=2),
        "gaps": torch.ones(clips, frames, dtype=torch.long, device=device),
    }


def duration(seconds):
    """2 d 3 h, 3 h 5 min, 5 min 7 s, 7 s."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
