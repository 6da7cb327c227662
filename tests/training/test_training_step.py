"""A training step: no graph of what is frozen, activation checkpointing, products of matrices."""

import copy

import pytest
import torch
from accelerate import Accelerator
from torch.autograd.graph import saved_tensors_hooks
from toy import toy_branch, toy_model
from training_runs import run_here, same_log, same_tensors, toy_stages

from hiptrack.models.layers import Linear
from hiptrack.models.prepare import lay_out, prepare
from hiptrack.models.weights import load_model
from hiptrack.taxonomy import CLASSES, TEN
from hiptrack.training.checkpoint import OPTIMIZER, Checkpoint, load_tensors
from hiptrack.training.losses import CenterFocalLoss, ChallengeLoss, GIoULoss, L1Loss
from hiptrack.training.stage import Stage
from hiptrack.training.step import TrainingStep, flatten_frames
from hiptrack.training.train import Training

FROM_SCRATCH = ["tests/support/toy.gin"]
LOSSES = [GIoULoss(), L1Loss(), CenterFocalLoss(), ChallengeLoss()]
CLIPS, FRAMES = 2, 3

pytestmark = pytest.mark.usefixtures("clean_gin")


def stage(trainable=("all",), **settings):
    return Stage(None, LOSSES, 1, 1e-3, CLIPS, CLIPS, trainable=trainable, **settings)


def batch():
    generator = torch.Generator().manual_seed(3)
    box = torch.tensor([0.4, 0.3, 0.2, 0.4])
    return {
        "template": torch.randint(256, (CLIPS, 3, 32, 32), generator=generator).byte(),
        "search": torch.randint(256, (CLIPS, FRAMES, 3, 64, 64), generator=generator).byte(),
        "template_box": box.expand(CLIPS, 4),
        "boxes_xywh": box.expand(CLIPS, FRAMES, 4),
        "labels": torch.zeros(CLIPS, FRAMES, dtype=torch.long),
    }


def loss_and_kept(model, clips):
    """(total loss of a forward pass, elements that the graph keeps for the backward pass)."""
    kept = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        prediction = flatten_frames(model(clips["template"], clips["search"], clips["template_box"]))
        names = {loss: clips[loss.target].flatten(0, 1) for loss in LOSSES}
        total = sum(loss(prediction, target) for loss, target in names.items())
    return total, sum(kept)


def graph_of(tensor):
    """All nodes of a tensor's graph."""
    found, left = set(), [tensor.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in found:
            found.add(node)
            left += [parent for parent, _ in node.next_functions]
    return found


def test_the_branch_stage_builds_no_graph_of_the_frozen_tracker():
    model = toy_model(toy_branch)
    for trainable in (("all",), ("challenge",)):
        own = stage(trainable)
        own.prepare(model, own.phase_at(0))
        model.train()
        total, kept = loss_and_kept(model, batch())
        nodes = graph_of(total)
        if trainable == ("all",):
            whole_kept, whole_nodes = kept, len(nodes)
    leaves = {id(node.variable) for node in nodes if hasattr(node, "variable")}
    assert leaves <= {id(parameter) for parameter in model.challenge.parameters()}
    convolutions = [node for node in nodes if "Convolution" in node.name()]
    layers = [module for module in model.box_head.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convolutions) == FRAMES * len(layers)  # the head's alone
    assert not [node for node in nodes if "LayerNorm" in node.name() or "ScaledDot" in node.name()]
    assert len(nodes) < whole_nodes / 3 and kept < whole_kept / 5
    features, prediction = model.track_clip(
        model.normalise(batch()["template"]), model.normalise(batch()["search"]), batch()["template_box"]
    )[0]
    keys, values = model.frame_memory(model.normalise(batch()["search"][:, 0]), features, prediction.box_cxcywh)
    assert prediction.box_cxcywh.requires_grad
    assert not (features.search.requires_grad or keys.requires_grad or values.requires_grad)


def test_no_graph_of_the_blocks_below_the_first_that_is_trained():
    model = toy_model()
    own = stage(("backbone.blocks.3", "box_head"))
    own.prepare(model, own.phase_at(0))
    seen = {}
    for number, block in enumerate(model.backbone.blocks):
        block.mlp.register_forward_hook(
            lambda _, __, output, number=number: seen.update({number: output.requires_grad})
        )
    clips = batch()
    model.train()(clips["template"], clips["search"], clips["template_box"])
    assert seen == {0: False, 1: False, 2: False, 3: True}


def test_checkpointing_keeps_less_and_changes_no_gradient():
    """Drop path, dropout and candidate elimination included."""
    found = []
    for checkpointing in (False, True):
        model = toy_model(toy_branch, drop_path=0.4)
        own = stage(activation_checkpointing=checkpointing)
        own.prepare(model, own.phase_at(0))
        model.train()
        torch.manual_seed(5)
        total, kept = loss_and_kept(model, batch())
        total.backward()
        found.append((kept, total.detach(), {name: p.grad for name, p in model.named_parameters()}, torch.rand(3)))
    (kept, total, gradients, drawn), (kept_less, same_total, same_gradients, same_drawn) = found
    assert kept_less < 0.8 * kept
    assert torch.equal(total, same_total) and torch.equal(drawn, same_drawn)
    assert all(torch.equal(gradient, same_gradients[name]) for name, gradient in gradients.items())
    assert any(gradient.abs().max() > 1e-3 for name, gradient in gradients.items() if "blocks.0" in name)


def run_four_steps(overrides, folder, monkeypatch):
    """A run that is killed after its fourth step."""
    take_step = Training.take_step

    def crash(self, *given):
        if self.at.step == 4:
            raise KeyboardInterrupt
        return take_step(self, *given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Training, "take_step", crash)
        run_here(FROM_SCRATCH, overrides, folder)


def test_a_run_may_go_on_with_checkpointing_and_ends_the_same(synthetic, tmp_path, monkeypatch):
    overrides = toy_stages(synthetic, tracker=2)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_here(FROM_SCRATCH, overrides, whole) == 0
    run_four_steps([*overrides, "train.save_steps=1"], cut, monkeypatch)
    assert run_here(FROM_SCRATCH, [*overrides, "tracker/Stage.activation_checkpointing=True"], cut) == 0
    assert same_tensors(whole / "model.safetensors", cut / "model.safetensors") and same_log(whole, cut)


def test_what_a_model_is_does_not_depend_on_checkpointing(synthetic, tmp_path):
    from hiptrack.models.weights import read_metadata

    overrides = toy_stages(synthetic, tracker=1)
    run_here(FROM_SCRATCH, overrides, tmp_path / "plain")
    run_here(FROM_SCRATCH, [*overrides, "Stage.activation_checkpointing=True"], tmp_path / "less")
    plain, less = tmp_path / "plain" / "model.safetensors", tmp_path / "less" / "model.safetensors"
    assert read_metadata(plain) == read_metadata(less) and same_tensors(plain, less)


def test_a_step_in_bfloat16_may_be_checkpointed(synthetic, tmp_path):
    overrides = [*toy_stages(synthetic, tracker=1), "train.mixed_precision=bf16"]
    run_here(FROM_SCRATCH, overrides, tmp_path / "plain")
    run_here(FROM_SCRATCH, [*overrides, "Stage.activation_checkpointing=True"], tmp_path / "less")
    assert same_tensors(tmp_path / "plain" / "model.safetensors", tmp_path / "less" / "model.safetensors")


def test_the_layout_for_bfloat16_on_processors_changes_no_function():
    clips = [batch()[part] for part in ("template", "search", "template_box")]
    plain = toy_model(toy_branch).eval()
    before = plain(*clips)
    assert lay_out(plain, torch.device("cpu"), "no") is plain and plain.backbone.blocks[0].attn.fused_attn
    other = lay_out(plain, torch.device("cpu"), "bf16")
    assert other.history.fuse.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    after = other(*clips)
    assert torch.allclose(after.maps.score_logits, before.maps.score_logits, atol=1e-4)
    assert torch.allclose(after.maps.size, before.maps.size, atol=1e-4)


def test_a_model_suited_to_train_or_to_track_multiplies_by_the_faster_library():
    model = toy_model(toy_branch)

    def layers(model):
        return {type(part) for part in model.backbone.blocks.modules() if isinstance(part, torch.nn.Linear)}

    assert layers(model) == {torch.nn.Linear}
    names = list(model.state_dict())
    assert layers(prepare(copy.deepcopy(model), "float32", compile=False, device="cpu")) == {Linear}
    laid_out = lay_out(model, torch.device("cpu"), "no")
    assert layers(laid_out) == {Linear} and list(laid_out.state_dict()) == names


def test_a_run_in_bfloat16_is_resumed_bitwise(synthetic, tmp_path, monkeypatch):
    overrides = [*toy_stages(synthetic, tracker=2), "train.mixed_precision=bf16", "train.save_steps=1"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_here(FROM_SCRATCH, overrides, whole) == 0
    run_four_steps(overrides, cut, monkeypatch)
    assert run_here(FROM_SCRATCH, overrides, cut) == 0
    assert same_tensors(whole / "model.safetensors", cut / "model.safetensors") and same_log(whole, cut)


def test_the_moments_of_another_layout_go_with_their_own_weights(synthetic, tmp_path):
    """A float32 run that goes on in bfloat16: the fused optimiser walks weights and moments side by side."""
    run_here(FROM_SCRATCH, toy_stages(synthetic, tracker=2), tmp_path / "run")
    path = min((tmp_path / "run" / "checkpoints").glob("step-*"))  # of the first epoch
    saved = load_tensors(path / OPTIMIZER)["optimizer"]
    model = lay_out(load_model(tmp_path / "run" / "model.safetensors"), torch.device("cpu"), "bf16")
    names, parameters = zip(*((name, p) for name, p in model.named_parameters() if name in saved), strict=True)
    optimizer = torch.optim.AdamW([{"params": parameters, "name": "rest"}], fused=True)
    Checkpoint.open(path).load_optimizer(model, optimizer)
    for name, parameter in zip(names, parameters, strict=True):
        moment = optimizer.state[parameter]["exp_avg"]
        assert torch.equal(moment, saved[name]["exp_avg"]) and moment.stride() == parameter.stride(), name


def test_linear_is_that_of_torch_with_its_gradients():
    torch.manual_seed(0)
    ours, theirs = Linear(24, 40), torch.nn.Linear(24, 40)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 24, requires_grad=True)
    weight = torch.randn(2, 5, 40)
    for layer in (ours, theirs):
        (layer(x) * weight).sum().backward()
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(parameter.grad, other.grad, atol=1e-5)


def test_an_exported_linear_layer_is_a_plain_one():
    program = torch.export.export(torch.nn.Sequential(Linear(24, 40)), (torch.randn(2, 5, 24),), strict=False)
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called == ["aten.linear.default"]


def test_a_step_leaves_the_batch_norm_of_frozen_parts_alone():
    model = toy_model(toy_branch)
    own = stage(("challenge",))
    own.prepare(model, own.phase_at(0))
    model.train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if "challenge" not in name}
    loss_and_kept(model, batch())[0].backward()
    after = dict(model.named_buffers())
    assert before and all(torch.equal(buffer, after[name]) for name, buffer in before.items())


def test_class_weights_below_one_give_the_gradients_of_one_however_the_batch_is_divided():
    """What a weighted loss is divided by may lie below 1."""
    gradients = []
    for weight, passes in ((1.0, 1), (0.01, 1), (0.01, 2)):
        model = toy_model(toy_branch, seed=1).eval()
        loss = ChallengeLoss(class_weights=dict.fromkeys(CLASSES, weight))
        loss.weigh(TEN, None)
        parts = [{name: value[part::passes] for name, value in batch().items()} for part in range(passes)]
        TrainingStep(Accelerator(cpu=True), model, [loss]).backward(parts)
        gradients.append(model.challenge.classifier.weight.grad)
    assert gradients[0].abs().max() > 0
    assert all(torch.allclose(gradients[0], other, rtol=1e-4, atol=1e-7) for other in gradients[1:])
