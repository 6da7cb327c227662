"""What a tracker remembers of its targets, and when it reads it."""

import gin
import torch

from hiptrack.errors import ConfigError
from hiptrack.models.history import MemoryBank
from hiptrack.ranges import Count, require


@gin.register
class MemoryPolicy:
    """Which frames are remembered and when they are read (HIPTrack, section 4).

    Args:
        template_frames: the first frames read the template's memory, the later ones the bank.
        early: frames among the first that enter the bank.
        interval: afterwards every such frame enters it.
        capacity: frames the bank holds; the oldest leaves first.
    """

    def __init__(
        self,
        template_frames: Count = 10,
        early: tuple[Count, ...] = (5, 10),
        interval: Count = 20,
        capacity: Count = 150,
    ):
        if not early or max(early) > template_frames:
            raise ConfigError(
                f"MemoryPolicy.early = {tuple(early)}: at least one frame was expected, and none but 1 to {template_frames} "
                "(template_frames): later ones enter the bank by the interval."
            )
        self.template_frames, self.early = template_frames, tuple(early)
        self.interval, self.capacity = interval, capacity
        require(self)

    def enters(self, frame):
        """Whether frame number `frame` (the first tracked one is 1) enters the bank."""
        return frame in self.early if frame <= self.template_frames else frame % self.interval == 0

    def reads_template(self, frame):
        """Whether frame number `frame` reads the template's memory rather than the bank."""
        return frame <= self.template_frames


class TargetMemory:
    """A target's memory, driven by a MemoryPolicy: `read_memories` before, `update_memories` after each prediction."""

    def __init__(self, policy, template, template_box_xywh):
        """template: [1, 3, Ht, Ht] normalised; template_box_xywh: [1, 4] normalised."""
        self.policy = policy
        self.template, self.template_box_xywh = template, template_box_xywh
        self.bank = MemoryBank(policy.capacity)
        self.of_template = None  # keys and values
        self.frame, self.due = 1, False

    @property
    def reads_template(self):
        """Whether the present frame reads the template's memory, made anew from that very frame."""
        return self.policy.reads_template(self.frame)

    def read(self):
        """(keys, values) for the present frame.

        While no frame was allowed into the bank, the template's memory is read on, as it was in the last of its frames.
        """
        return self.of_template if self.reads_template or not self.bank.frames else self.bank.read()

    def state(self):
        """{name: number or tensor} of what was remembered since the start, for `restore`."""
        state = {"frame": self.frame, "due": self.due, **self.bank.state()}
        if self.of_template is not None:
            state["template_keys"], state["template_values"] = self.of_template
        return state

    def restore(self, state):
        """Go on from the `state` of a memory with the same policy and template, given as {name: tensor}."""
        device = self.template.device
        held = {name: part.to(device) for name, part in state.items() if name.endswith(("keys", "values"))}
        self.frame, self.due = int(state["frame"]), bool(state["due"])
        self.bank.restore(int(state["written"]), held.get("keys"), held.get("values"))
        if "template_keys" in held:
            self.of_template = [held["template_keys"], held["template_values"]]


def read_memories(model, memories, features):
    """What B targets remember for their present frames: a list of (keys, values), as HIPTrack.predict takes it.

    memories: B TargetMemory; features: the backbone's of the present frames, B rows.
    """
    fresh = [row for row, memory in enumerate(memories) if memory.reads_template]
    if fresh:
        templates = torch.cat([memories[row].template for row in fresh])
        boxes = torch.cat([memories[row].template_box_xywh for row in fresh])
        for row, *of_template in zip(fresh, *_rows(model.template_memory(templates, features.rows(fresh), boxes))):
            memories[row].of_template = [part.clone() for part in of_template]  # outlives the step
    return [memory.read() for memory in memories]


def update_memories(model, memories, search, features, box_cxcywh, allowed):
    """Remember the present frames that the policies ask for, and go on to the next.

    memories: B TargetMemory; search: [B, 3, Hs, Hs] normalised; box_cxcywh: [B, 4] normalised; allowed: whether each
    frame may be remembered; the next that may makes up for one that may not.
    """
    for memory in memories:
        memory.due = memory.due or memory.policy.enters(memory.frame)
        memory.frame += 1
    entering = [row for row, memory in enumerate(memories) if memory.due and allowed[row]]
    if not entering:
        return
    remembered = model.frame_memory(search[entering], features.rows(entering), box_cxcywh[entering])
    for row, keys, values in zip(entering, *_rows(remembered)):
        memories[row].bank.write(keys, values)
        memories[row].due = False


def _rows(keys_and_values):
    """(keys [B, ...], values [B, ...]) -> both as B parts of one row."""
    return [part.split(1) for part in keys_and_values]
