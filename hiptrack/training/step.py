"""One optimiser step, divided over processes and passes so that the division does not show in the gradients."""

from contextlib import nullcontext
from dataclasses import fields, replace

import torch
from accelerate.utils import send_to_device

from hiptrack.boxes import cxcywh_to_xyxy, iou_and_giou, xywh_to_xyxy
from hiptrack.data.loader import collate
from hiptrack.errors import HiptrackError
from hiptrack.processes import raise_together

SCALARS = {
    "total": "Loss/total",
    "giou": "Loss/giou",
    "l1": "Loss/l1",
    "focal": "Loss/location",
    "classification": "Loss/classification",
}


class TrainingStep:
    """Forward, losses and backward of one global batch, whose passes this process holds a share of.

    Each loss is divided by its count over all processes and passes, and multiplied by the clip length: the losses of
    a clip's frames are summed.
    """

    def __init__(self, accelerator, model, losses, optimizer=None):
        """model, optimizer: as `accelerator.prepare` returned them; only `backward` does without an optimiser."""
        self.accelerator, self.model, self.losses, self.optimizer = accelerator, model, losses, optimizer

    def backward(self, batches, keep_ratio=None, observe=None):
        """Accumulate the gradients of the global batch.

        batches: this process's passes, on the device; each is a dict of B clips of F frames as ClipDataset gives them
        (template [B, 3, Ht, Ht], search [B, F, 3, Hs, Hs], template_box [B, 4], boxes_xywh [B, F, 4], labels [B, F],
        flags [B, F, C], gaps [B, F]). observe: called with (prediction, batch) of each pass. Returns (scalars, last
        prediction): {name: float} over the whole global batch, under the names of TensorBoard; the prediction has rows
        of frames.
        """
        counts = self._global_counts(batches)
        sums = torch.zeros(len(self.losses) + 4, device=self.accelerator.device, dtype=torch.float64)
        for number, batch in enumerate(batches):
            last = number + 1 == len(batches)
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                prediction, total, parts = self.forward(batch, counts, keep_ratio)
                self.accelerator.backward(total * self.accelerator.num_processes)
            if observe is not None:
                observe(prediction, batch)
            sums += torch.cat((parts, self._metrics(prediction, batch)))
        sums = self.accelerator.reduce(sums)
        return self._scalars(sums, counts, batches[0]["search"].shape[1]), prediction

    def forward(self, batch, counts, keep_ratio=None):
        """A pass: (its prediction, in rows of frames; its loss; what each of the losses gives to it, detached).

        counts: what each loss is divided by.
        """
        prediction = self.model(batch["template"], batch["search"], batch["template_box"], keep_ratio)
        prediction = flatten_frames(prediction)
        return prediction, *self._loss(prediction, batch, counts)

    def clip_gradients(self, most):
        """Scale the gradients down to a norm of `most` (None: leave them); returns the norm they had."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        return float(self.accelerator.clip_grad_norm_(parameters, float("inf") if most is None else most))

    @property
    def skips_overflow(self):
        """Whether a loss scaler skips a step by itself whose gradient is not finite."""
        return self.accelerator.scaler is not None and self.accelerator.scaler.get_scale() >= 1

    def settle_buckets(self, clips):
        """One step on a clip of a ClipDataset whose result is thrown away.

        DDP orders its buckets anew after the first step, and with three processes or more the order decides how a sum
        is rounded: without this a resumed run would differ from an uninterrupted one in the last bit.
        """
        device = self.accelerator.device
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        batch = collate([clips[0, 0]])
        raise_together(batch if isinstance(batch, HiptrackError) else None)
        self.model.train()
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            self.backward([send_to_device(batch, device)])
        self.optimizer.zero_grad()
        for buffer, kept in buffers:
            buffer.copy_(kept)

    def _target(self, loss, batch):
        return batch[loss.target].flatten(0, 1)

    def _global_counts(self, batches):
        counts = [sum(loss.count(self._target(loss, batch)) for batch in batches) for loss in self.losses]
        counts = torch.tensor([float(count) for count in counts], device=self.accelerator.device, dtype=torch.float64)
        return self.accelerator.reduce(counts)

    def _loss(self, prediction, batch, counts):
        frames = batch["search"].shape[1]
        total, parts = 0.0, []
        for loss, count in zip(self.losses, counts, strict=True):
            value = loss(prediction, self._target(loss, batch))
            total = total + frames * loss.weight * value / or_one(count).to(value.dtype)
            parts.append(value.detach().double())
        for output in unused_outputs(prediction, self.losses):
            total = total + 0 * output.sum()
        return total, torch.stack(parts)

    @torch.no_grad()
    def _metrics(self, prediction, batch):
        """[sum of IoU, frames, correct classes, labelled frames].

        Correct is a frame whose most probable class is its label; where a loss teaches all flags of a frame, one whose
        most probable class is among these (1 - "one-error", Zhang and Zhou, TKDE 2014).
        """
        truth = xywh_to_xyxy(batch["boxes_xywh"].flatten(0, 1)).clamp(0, 1)
        iou = iou_and_giou(cxcywh_to_xyxy(prediction.box_cxcywh), truth)[0].sum().double()
        labels = batch["labels"].flatten()
        correct = iou.new_zeros(())
        if prediction.challenge is not None:
            best = prediction.challenge.logits.argmax(1, keepdim=True)
            if any(loss.target == "flags" for loss in self.losses):
                hits = batch["flags"].flatten(0, 1).gather(1, best) > 0
            else:
                hits = best[:, 0] == labels
            correct = hits.sum().double()
        return torch.stack((iou, iou.new_tensor(len(truth)), correct, (labels >= 0).sum().double()))

    def _scalars(self, sums, counts, frames):
        values, total = {}, 0.0
        means = sums[: len(self.losses)] / or_one(counts)
        *means, iou, rows, correct, labelled = torch.cat((means, sums[-4:])).tolist()  # the device is waited for once
        for loss, mean in zip(self.losses, means, strict=True):
            mean *= frames
            values[SCALARS.get(loss.name, f"Loss/{loss.name}")] = mean
            total += loss.weight * mean
        values["IoU"] = iou / rows
        if labelled and any(loss.part == "classification" for loss in self.losses):
            values["Accuracy"] = correct / labelled
        return {"Loss/total": total, **values}


def or_one(count):
    """A count to divide by: where nothing counts, 1."""
    return torch.where(count > 0, count, 1)


def flatten_frames(prediction):
    """A clip's Prediction [B, F, ...] -> rows of frames [B*F, ...]."""

    def flat(part):
        tensors = {f.name: getattr(part, f.name) for f in fields(part)}
        return replace(part, **{name: None if t is None else t.flatten(0, 1) for name, t in tensors.items()})

    challenge = prediction.challenge
    return replace(
        prediction,
        maps=flat(prediction.maps),
        box_cxcywh=prediction.box_cxcywh.flatten(0, 1),
        challenge=None if challenge is None else flat(challenge),
    )


def unused_outputs(prediction, losses):
    """Outputs that no loss reads: DDP expects a gradient of every trained parameter."""
    parts = {loss.part for loss in losses}
    outputs = [] if prediction.challenge is None or "classification" in parts else [prediction.challenge.logits]
    if "location" not in parts:
        maps = prediction.maps
        outputs += [maps.score_logits, maps.offset, maps.size]
    return [output for output in outputs if output.requires_grad]
