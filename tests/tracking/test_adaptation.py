"""Tracking that adapts: which rule applies when, what the tracker then does, and that none of it costs anything when off."""

import gin
import numpy as np
import pytest
import torch
from toy import moving_target, randomise, save_toy, toy_branch, toy_model

from hiptrack import config
from hiptrack.errors import ConfigError
from hiptrack.evaluation import evaluate  # noqa: F401  registers `evaluate`
from hiptrack.taxonomy import CLASSES
from hiptrack.tracking.adaptation import Action, Adaptation, Rule
from hiptrack.tracking.memory import MemoryPolicy
from hiptrack.tracking.tracker import Tracker

FRAMES = 12
BLACK = np.zeros((90, 120, 3), np.uint8)
BOX = [50.0, 35.0, 20.0, 20.0]
PUBLISHED = Action()

pytestmark = pytest.mark.usefixtures("clean_gin")


def probabilities(**likely):
    """{class: probability} of all ten, 0 for those not named."""
    return dict.fromkeys(CLASSES, 0.0) | likely


def test_a_rule_applies_when_all_its_conditions_hold():
    rule = Rule("occlusion", above=0.6, score_below=0.3, write_memory=False)
    for occluded, score, applies in ((0.7, 0.2, True), (0.6, 0.2, False), (0.7, 0.3, False), (0.5, 0.4, False)):
        assert rule.applies(probabilities(occlusion=occluded, motion_blur=0.9), score) == applies
    assert Rule(score_below=0.3, size_rate=0.0).applies(None, 0.29)
    assert not Rule(score_below=0.3, size_rate=0.0).applies(None, 0.3)
    assert Rule("low_contrast", size_rate=0.0).applies(probabilities(low_contrast=0.51), 1.0)


def test_of_each_action_the_first_rule_that_names_it_decides():
    adaptation = Adaptation(
        [
            Rule("occlusion", write_memory=False, size_rate=0.0),
            Rule(score_below=0.3, search_scale=1.5, write_memory=True),
            Rule("scale_variation", search_scale=1.2, size_rate=1.0),
        ],
        size_rate=0.5,
    )
    assert adaptation(probabilities(), 0.9) == Action(size_rate=0.5)
    assert adaptation(probabilities(occlusion=0.9), 0.1) == Action(False, 1.5, 0.0)
    assert adaptation(probabilities(scale_variation=0.9), 0.1) == Action(True, 1.5, 1.0)
    assert adaptation(probabilities(scale_variation=0.9), 0.9) == Action(True, 1.2, 1.0)
    assert adaptation(probabilities(occlusion=0.6, scale_variation=0.6), 0.9) == Action(False, 1.2, 0.0)
    assert Adaptation([Rule("occlusion", size_rate=0.0)])(probabilities(), 0.0) == PUBLISHED


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"size_rate": 0.0}, "without condition"),
        ({"challenge": "occlusion"}, "without action"),
    ],
)
def test_rules_that_cannot_be_are_errors(settings, message):
    with pytest.raises(ConfigError, match=message):
        Rule(**settings)


@pytest.mark.parametrize(
    "challenge, message",
    [
        ("oclusion", "'oclusion' is no challenge class of this model. Did you mean 'occlusion'"),
        ("fog", "'fog' is no challenge class of this model. Known are occlusion, "),
    ],
)
def test_a_rule_names_a_class_of_the_model(challenge, message):
    with pytest.raises(ConfigError, match=message):
        Tracker(trained_toy(), branch="on", adaptation=Adaptation([Rule(challenge, size_rate=0.0)]), device="cpu")


@pytest.mark.parametrize("branch", ["off", "folded"])
def test_a_rule_for_a_challenge_needs_the_branch_on(branch):
    rules = [Rule(score_below=0.2, size_rate=0.0), Rule("motion_blur", size_rate=0.0)]
    with pytest.raises(
        ConfigError, match=f"names the challenge 'motion_blur', but only Tracker.branch = 'on'.*{branch}"
    ):
        Tracker(trained_toy(), branch=branch, adaptation=Adaptation(rules), device="cpu")
    Tracker(trained_toy(), branch=branch, adaptation=Adaptation(rules[:1]), device="cpu")


def trained_toy():
    model = toy_model(challenge=toy_branch, seed=3)
    randomise(model.challenge, seed=5)
    return model


def policy():
    return MemoryPolicy(template_frames=2, early=(1, 2), interval=2, capacity=30)


def answering(plan, rules, size_rate=1.0, memory=None):
    """A tracker whose model answers by plan, [(occlusion's probability, score, size)] for frames 1, 2, ...

    The peak lies on the crop's centre. Returns the tracker and a list that fills with the search crops it looked at.
    """
    model, seen = toy_model(challenge=toy_branch), []
    frame = iter(plan)
    now = {}

    def look(_, inputs):
        seen.append(inputs[1])
        now["occlusion"], now["score"], now["size"] = next(frame)

    def classify(_, inputs, output):
        rest = (1 - now["occlusion"]) / 9
        output[:] = torch.log(torch.tensor([now["occlusion"]] + [rest] * 9))
        return output

    def see(_, inputs, maps):
        maps.score_logits.fill_(-9.0)
        maps.score_logits[:, 4, 4] = torch.logit(torch.tensor(now["score"]))
        maps.offset.zero_()
        maps.size.fill_(now["size"])
        return maps

    model.backbone.register_forward_pre_hook(look)
    model.challenge.classifier.register_forward_hook(classify)
    model.box_head.register_forward_hook(see)
    adaptation = Adaptation(rules, size_rate)
    return Tracker(model, branch="on", memory=memory or policy(), adaptation=adaptation, device="cpu"), seen


def boxes_of(tracker, frames, start=True):
    if start:
        tracker.init(BLACK, BOX)
    return np.stack([tracker.update(BLACK).box for _ in range(frames)])


def test_size_is_held_while_the_rule_applies_and_followed_afterwards():
    """The crop's side is 4 x 20 = 80 px; a predicted size of 0.5 is 40 px."""
    plan = [(0.9, 0.8, 0.5), (0.9, 0.8, 0.5), (0.1, 0.8, 0.5)]
    tracker, _ = answering(plan, [Rule("occlusion", size_rate=0.0)])
    boxes = boxes_of(tracker, 3)
    assert boxes[:, 2] == pytest.approx([20, 20, 40]) and boxes[:, 3] == pytest.approx([20, 20, 40])
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    assert centres == pytest.approx(np.array([[60, 45]] * 3))  # the place is followed all the while


def test_a_held_size_does_not_shrink_at_the_border():
    tracker, _ = answering([(0.9, 0.8, 0.5)] * 6, [Rule("occlusion", size_rate=0.0)])
    tracker.init(BLACK, [100, 35, 30, 20])  # 10 of its 30 columns are outside
    boxes = boxes_of(tracker, 6, start=False)
    assert (np.diff(boxes[:, 2]) >= 0).all() and boxes[-1, 2] > 29  # it comes back in as it went out
    assert boxes[:, 3] == pytest.approx([20] * 6)


def test_size_is_followed_at_its_rate_about_the_new_centre():
    plan = [(0.1, 0.8, 0.5), (0.9, 0.8, 0.5), (0.1, 0.8, 0.5)]
    tracker, _ = answering(plan, [Rule("occlusion", size_rate=1.0)], size_rate=0.25)
    size, expected = 20.0, []
    for rate in (0.25, 1.0, 0.25):
        size += rate * (0.5 * np.ceil(4 * size) - size)
        expected.append(size)
    boxes = boxes_of(tracker, 3)
    assert boxes[:, 2] == pytest.approx(expected)
    assert boxes[:, :2] + boxes[:, 2:] / 2 == pytest.approx(np.array([[60, 45]] * 3))


def test_search_region_widens_for_the_next_frame_alone():
    plan = [(0.1, 0.8, 0.25), (0.1, 0.2, 0.25), (0.1, 0.8, 0.125), (0.1, 0.8, 0.25)]
    tracker, _ = answering(plan, [Rule(score_below=0.5, search_scale=2.0)])
    tracker.init(BLACK, BOX)
    white, regions = np.full((90, 120, 3), 255, np.uint8), []
    normalise = tracker.model.normalise

    def count_padding(images):
        regions.append((images[0, 0] == 0).float().mean().item())  # what lies outside the frame is black
        return normalise(images)

    tracker.model.normalise = count_padding
    boxes = [tracker.update(white).box for _ in range(4)]
    assert np.stack(boxes)[:, 2:] == pytest.approx(np.full((4, 2), 20.0))  # an eighth of 160 px is a fourth of 80 px
    near, wide = regions[0], regions[2]
    assert near == pytest.approx(0, abs=0.02) and wide == pytest.approx(1 - 119 * 89 / 160**2, abs=0.03)
    assert regions == pytest.approx([near, near, wide, near])


def remembered(tracker, frames):
    """The frames, from 1, that entered the memory."""
    tracker.init(BLACK, BOX)
    written, count = [], 0
    for frame in range(1, frames + 1):
        tracker.update(BLACK)
        if tracker.target.memory.bank.frames > count:
            written.append(frame)
        count = tracker.target.memory.bank.frames
    return written


def test_memory_is_not_written_while_the_rule_applies_and_made_up_for_afterwards():
    def plan(occluded):
        return [(0.9 if frame in occluded else 0.1, 0.8, 0.25) for frame in range(1, 13)]

    rules = [Rule("occlusion", write_memory=False)]
    assert remembered(answering(plan({}), rules)[0], 12) == [1, 2, 4, 6, 8, 10, 12]
    assert remembered(answering(plan({3, 5}), rules)[0], 12) == [1, 2, 4, 6, 8, 10, 12]  # not due
    assert remembered(answering(plan({4, 8, 9, 10}), rules)[0], 12) == [1, 2, 5, 6, 11, 12]


def test_the_templates_memory_is_read_on_while_nothing_may_be_remembered():
    tracker, _ = answering([(0.9, 0.8, 0.25)] * 6 + [(0.1, 0.8, 0.25)] * 2, [Rule("occlusion", write_memory=False)])
    tracker.init(BLACK, BOX)
    encoded, read = [], []
    memory = tracker.target.memory
    template_memory, memory_read = tracker.model.template_memory, memory.read
    tracker.model.template_memory = lambda *inputs: encoded.append(1) or template_memory(*inputs)
    memory.read = lambda: read.append(memory_read()) or read[-1]
    for _ in range(8):
        tracker.update(BLACK)
    assert len(encoded) == 2  # frames 1 and 2, as ever: nothing further runs through the network
    assert all(torch.equal(keys, read[1][0]) for keys, _ in read[2:7])
    assert not torch.equal(read[7][0], read[1][0])  # the bank, into which frame 7 went


def track(tracker, seed=0):
    pictures, box = moving_target(FRAMES, seed=seed)
    tracker.init(pictures[0], box)
    results = [tracker.update(picture) for picture in pictures[1:]]
    return np.array([[*result.box, result.score] for result in results])


ALWAYS = [Rule(score_below=1.0, write_memory=False, search_scale=1.4, size_rate=0.5)]


def test_a_new_target_begins_as_the_first_did():
    used, fresh = (
        Tracker(trained_toy(), branch="on", memory=policy(), adaptation=Adaptation(ALWAYS), device="cpu")
        for _ in range(2)
    )
    track(used, seed=1)
    assert np.array_equal(track(used, seed=2), track(fresh, seed=2))


def test_rules_that_never_apply_are_bitwise_the_published_tracker():
    never = Adaptation([Rule("occlusion", above=1.0, write_memory=False, search_scale=2.0, size_rate=0.0)])
    for seed in range(3):
        runs = [
            track(Tracker(trained_toy(), branch="on", memory=policy(), adaptation=adaptation, device="cpu"), seed)
            for adaptation in (None, never, Adaptation(ALWAYS))
        ]
        assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])


def test_nothing_more_runs_through_the_network():
    calls = []
    for adaptation in (None, Adaptation([*ALWAYS, Rule("occlusion", size_rate=0.1)])):
        model = trained_toy()
        count = {}
        for name, module in model.named_modules():
            module.register_forward_hook(
                lambda *_, name=name, count=count: count.update({name: count.get(name, 0) + 1})
            )
        track(Tracker(model, branch="on", memory=policy(), adaptation=adaptation, device="cpu"))
        calls.append(count)
    published, adapted = calls
    assert adapted.keys() == published.keys() and all(adapted[name] <= published[name] for name in adapted)


def test_the_table_is_configuration(tmp_path):
    path = tmp_path / "model.safetensors"
    save_toy(path, challenge="ChallengeBranch")
    files = ["gin/eval/tracker.gin", "gin/eval/branch_on.gin", "gin/eval/adaptive.gin", "gin/eval/smoothed.gin"]
    config.load(files, ["occlusion/Rule.above=0.25"], root="evaluate")
    tracker = gin.get_configurable("Tracker")(model=trained_toy(), device="cpu")
    assert "occlusion" in tracker.adaptation.challenges and 0 < tracker.smoothing < 1
    assert tracker.adaptation(probabilities(occlusion=0.26), 0.9) != tracker.adaptation(probabilities(), 0.9)
    config.load(files, ["occlusion/Rule.challenge=oclusion"], root="evaluate")
    with pytest.raises(ConfigError, match="Did you mean 'occlusion'"):
        gin.get_configurable("Tracker")(model=trained_toy(), device="cpu")
    config.load([files[0], files[2]], [], root="evaluate")
    with pytest.raises(ConfigError, match="only Tracker.branch = 'on'"):
        gin.get_configurable("Tracker")(model=trained_toy(), device="cpu")
