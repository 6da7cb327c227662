"""The challenge branch: its size, its forms of fusion, what it reads, and what is folded of it."""

import copy
import functools

import pytest
import torch
from toy import BRANCH, randomise, toy_branch, toy_model

from hiptrack.errors import ConfigError
from hiptrack.models.backbone import Features
from hiptrack.models.challenge import AttentionFusion, ChallengeBranch, DirectFusion, GatedFusion, ResidualFusion
from hiptrack.tracking.tracker import Tracker

BOX = torch.tensor([[0.25, 0.3, 0.5, 0.4]])


def images(frames=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 3, 32, 32, generator=generator), torch.randn(1, frames, 3, 64, 64, generator=generator)


@torch.no_grad()
def last_maps(model, use_challenge=True, seed=0):
    """Score, offset and size map of one frame."""
    template, search = images(seed=seed)
    features = model.backbone(model.backbone.embed_template(template), search[:, 0], BOX)
    maps = model.predict(features, [model.template_memory(template, features, BOX)], use_challenge).maps
    return torch.cat((maps.score_logits.flatten(), maps.offset.flatten(), maps.size.flatten()))


def trained(model):
    """The model with all of its branch random, the running mean included."""
    randomise(model.challenge, seed=5)
    if model.challenge.to_grid.foldable:
        model.challenge.mean_added.copy_(torch.linspace(-1, 1, len(model.challenge.mean_added)))
    return model.eval()


def with_fusion(form):
    return functools.partial(toy_branch, fusion=form)


def parameter_count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_count_at_the_briefs_widths():
    branch = ChallengeBranch(feature_width=768, grid_width=768)
    assert parameter_count(branch) - parameter_count(branch.to_grid) == 530_186
    assert parameter_count(branch.to_grid) == 256 * 768 + 768


@pytest.mark.parametrize(("feature", "more"), [("max", 0), ("mean_max", 768 * 512)])
def test_only_mean_and_max_together_need_more_parameters(feature, more):
    branch = ChallengeBranch(feature_width=768, grid_width=768, feature=feature)
    assert parameter_count(branch) - parameter_count(branch.to_grid) == 530_186 + more


def test_output_shapes():
    model = toy_model(challenge=toy_branch)
    with torch.no_grad():
        prediction = model.track_clip(*images(2), BOX)[1][1]
    assert prediction.challenge.logits.shape == (1, 10)
    assert prediction.challenge.hidden.shape == (1, 24) and (prediction.challenge.hidden >= 0).all()
    assert prediction.challenge.fusion.shape == (1, 16)


@pytest.mark.parametrize("form", [ResidualFusion, GatedFusion, AttentionFusion])
@pytest.mark.parametrize("seed", range(3))
def test_untrained_branch_changes_no_bit_of_the_tracker(seed, form):
    plain, model = toy_model(seed=3), toy_model(challenge=with_fusion(form), seed=3)
    absent, off, on = last_maps(plain, seed=seed), last_maps(model, False, seed), last_maps(model, True, seed)
    assert torch.equal(absent, off) and torch.equal(absent, on)
    with torch.no_grad():  # a clip too, where every frame's memory depends on the boxes before it
        clips = [m.track_clip(*images(3, seed), BOX) for m in (plain, model)]
    for (_, without), (_, with_branch) in zip(*clips, strict=True):
        assert torch.equal(without.maps.score_logits, with_branch.maps.score_logits)
        assert torch.equal(without.box_cxcywh, with_branch.box_cxcywh)
        assert without.challenge is None


@pytest.mark.parametrize("form", [ResidualFusion, GatedFusion, AttentionFusion])
def test_trained_branch_changes_the_tracker_only_when_on(form):
    plain, model = toy_model(seed=3), trained(toy_model(challenge=with_fusion(form), seed=3))
    assert torch.equal(last_maps(model, use_challenge=False), last_maps(plain))
    assert not torch.allclose(last_maps(model), last_maps(plain), atol=1e-3)


@pytest.mark.parametrize("form", [ResidualFusion, GatedFusion, AttentionFusion])
def test_fusion_learns_from_the_first_step_and_all_of_it_from_the_second(form):
    model = toy_model(challenge=with_fusion(form)).train()
    optimizer = torch.optim.SGD(model.challenge.parameters(), lr=0.1)
    moved = [model.challenge.to_grid.project.weight, *model.challenge.to_grid.parameters()]
    for number in range(2):
        optimizer.zero_grad()
        prediction = model.track_clip(*images(2, seed=number), BOX)[1][1]
        prediction.maps.score_logits.square().sum().backward()
        assert all(weight.grad.abs().sum() > 0 for weight in (moved if number else moved[:1]))
        optimizer.step()


@torch.no_grad()
def test_gate_scales_each_channel_between_0_and_2():
    gate, grid, fusion = randomise(GatedFusion(16, 32)), torch.randn(3, 32, 4, 4), 40 * torch.randn(3, 16)
    scale = (grid + gate(grid, fusion)) / grid
    torch.testing.assert_close(scale, scale[:, :, :1, :1].expand_as(scale), rtol=1e-4, atol=1e-4)
    assert scale.min() < 0.1 and scale.max() > 1.9 and scale.min() > -1e-4 and scale.max() < 2 + 1e-4
    expected = 2 * torch.sigmoid(gate.project(fusion))
    torch.testing.assert_close(scale[:, :, 0, 0], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_attention_gives_each_place_what_it_asks_for():
    """Against plain attention place by place; equal places get equal answers, wherever they are."""
    attention, fusion = randomise(AttentionFusion(16, 32, tokens=3, heads=2)).double(), torch.randn(2, 16).double()
    grid = torch.randn(2, 32, 4, 4).double()
    grid[:, :, 3, 1] = grid[:, :, 0, 2]
    added = attention(grid, fusion)
    tokens = attention.to_tokens(fusion)
    assert tokens.shape == (2, 3, 16)
    for row in range(2):
        key, value = attention.key_value(tokens[row]).chunk(2, 1)
        for y, x in ((0, 0), (0, 2), (3, 3)):
            query = attention.query(grid[row, :, y, x])
            weights = [(key[:, h] @ query[h] / 8**0.5).softmax(0) for h in (slice(0, 8), slice(8, 16))]
            read = torch.cat([weights[0] @ value[:, :8], weights[1] @ value[:, 8:]])
            torch.testing.assert_close(added[row, :, y, x], attention.project(read))
    torch.testing.assert_close(added[:, :, 3, 1], added[:, :, 0, 2])
    assert (added - added[:, :, :1, :1]).abs().amax((0, 1)).flatten()[1:].min() > 1e-3  # no two others are alike


def test_heads_that_do_not_divide_the_fusion_are_refused():
    with pytest.raises(
        ConfigError, match="AttentionFusion.heads = 3 does not divide ChallengeBranch.fusion_width = 16"
    ):
        AttentionFusion(16, 32, heads=3)


def test_direct_fusion_behind_a_neck():
    model = toy_model(challenge=functools.partial(toy_branch, fusion=DirectFusion), neck_width=16)
    seen = []
    model.box_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    last_maps(model, use_challenge=False)
    last_maps(model)
    template, search = images()
    with torch.no_grad():
        features = model.backbone(model.backbone.embed_template(template), search[:, 0], BOX)
        fusion = model.challenge(features).fusion
    assert seen[0].shape == (1, 16, 8, 8)
    torch.testing.assert_close(seen[1], seen[0] + fusion[:, :, None, None], rtol=0, atol=1e-6)
    assert not list(model.challenge.to_grid.parameters())


def test_direct_fusion_of_another_width_is_refused():
    with pytest.raises(ConfigError, match="width 16 to a grid of width 32: set HIPTrack.neck_width = 16"):
        toy_model(challenge=functools.partial(toy_branch, fusion=DirectFusion))


def test_without_fusion_the_branch_only_classifies():
    plain, model = toy_model(), toy_model(challenge=functools.partial(toy_branch, fusion=None))
    randomise(model.challenge)
    assert torch.equal(last_maps(model), last_maps(plain))
    with torch.no_grad():
        challenge = model.track_clip(*images(), BOX)[0][1].challenge
    assert challenge.fusion is None and challenge.logits.shape == (1, 10)
    names = set(model.challenge.state_dict())
    assert names == {"projection.0.weight", "projection.0.bias", "classifier.weight", "classifier.bias"}


POOLINGS = {
    "mean": lambda tokens: tokens.mean(0),
    "max": lambda tokens: tokens.max(0).values,
    "mean_max": lambda tokens: torch.cat((tokens.mean(0), tokens.max(0).values)),
}
every_pooling = pytest.mark.parametrize("feature", POOLINGS)


def reading(feature):
    return functools.partial(toy_branch, feature=feature)


def some_features(rows=3, places=16, kept=9, width=32):
    """Features each row of which has lost other places; those of the last rows are negative throughout."""
    generator = torch.Generator().manual_seed(2)
    search = torch.randn(rows, places, width, generator=generator)
    search[1:] -= 4
    order = torch.rand(rows, places, generator=generator).argsort(1)
    mask = torch.zeros(rows, places, dtype=torch.bool).scatter(1, order[:, :kept], True)
    return Features(None, search * mask[:, :, None], mask, None, ())


@every_pooling
def test_the_feature_counts_kept_tokens_only(feature):
    model = toy_model(challenge=reading(feature))
    template, search = images()
    with torch.no_grad():
        features = model.backbone(model.backbone.embed_template(template), search[:, 0], BOX)
        assert 0 < features.kept.sum() < 64
        pooled = POOLINGS[feature](features.search[features.kept])
        hidden = model.challenge.projection[0](pooled).relu()
        torch.testing.assert_close(model.challenge(features).hidden[0], hidden, rtol=0, atol=1e-5)


@every_pooling
def test_an_eliminated_token_changes_nothing(feature):
    """As if it had never been there, though all others may be below its zero."""
    branch, features = reading(feature)(32, 32), some_features()
    pooled = branch.pool(features)
    expected = torch.stack(
        [POOLINGS[feature](row[kept]) for row, kept in zip(features.search, features.kept, strict=True)]
    )
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-6)
    assert (pooled[1:] < 0).all()


@every_pooling
def test_the_order_of_the_places_does_not_matter(feature):
    branch, features = reading(feature)(32, 32), some_features()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    shuffled = Features(None, features.search[:, order], features.kept[:, order], None, ())
    torch.testing.assert_close(branch.pool(shuffled), branch.pool(features), rtol=0, atol=1e-5)


@every_pooling
def test_the_gradient_goes_to_the_kept_tokens_alone(feature):
    """Of the mean to all of them alike, of the maximum to the largest of each channel."""
    branch, features = reading(feature)(32, 32), some_features()
    features.search.requires_grad_()
    branch.pool(features).sum().backward()
    mean = features.kept[:, :, None] / 9
    largest = features.search.detach().masked_fill(~features.kept[:, :, None], -1e9)
    largest = (largest == largest.amax(1, keepdim=True)).float()
    expected = {"mean": mean.expand(-1, -1, 32), "max": largest, "mean_max": mean + largest}[feature]
    gradient = features.search.grad * features.kept[:, :, None]
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-6)


def test_mean_and_max_together_are_both():
    features = some_features()
    mean, largest, both = (reading(feature)(32, 32).pool(features) for feature in POOLINGS)
    assert both.shape == (3, 64) and torch.equal(both, torch.cat((mean, largest), 1))


@every_pooling
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_pools_close_to_float32(feature, dtype):
    branch, features = randomise(reading(feature)(32, 32)).eval(), some_features()
    half = Features(None, features.search.to(dtype), features.kept, None, ())
    with torch.no_grad():
        found, expected = copy.deepcopy(branch).to(dtype)(half).probabilities, branch(features).probabilities
    assert found.isfinite().all() and (found - expected).abs().max() < 0.03


@every_pooling
def test_the_compiled_branch_is_one_graph_and_answers_alike(feature):
    branch, features = randomise(reading(feature)(32, 32)).eval(), some_features()
    compiled = torch.compile(branch, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(features).logits, branch(features).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("feature", ["max", "mean_max"])
def test_all_of_a_wider_branch_learns(feature):
    model = toy_model(challenge=reading(feature)).train()
    logits = model.track_clip(*images(2), BOX)[1][1].challenge.logits
    logits.logsumexp(1).sum().backward()
    weight = model.challenge.projection[0].weight.grad
    assert weight.shape == model.challenge.projection[0].weight.shape and (weight.abs().sum(0) > 0).all()
    assert model.backbone.search_position.grad.abs().sum() > 0


def test_class_token_feature():
    model = toy_model(challenge=functools.partial(toy_branch, feature="class_token"), class_token=True)
    template, search = images()
    with torch.no_grad():
        features = model.backbone(model.backbone.embed_template(template), search[:, 0], BOX)
        hidden = model.challenge.projection[0](features.class_token).relu()
        torch.testing.assert_close(model.challenge(features).hidden, hidden, rtol=0, atol=1e-5)


def test_class_token_feature_without_the_token_is_an_error():
    with pytest.raises(ConfigError, match="Backbone.class_token = True"):
        model = toy_model(challenge=functools.partial(toy_branch, feature="class_token"))
        model.track_clip(*images(), BOX)


def added_by(branch, features):
    """What the branch adds to the grid for these features, [B, W]."""
    grid = torch.zeros(len(features.search), 32, 2, 2)
    added = branch.fuse(grid, branch(features))
    assert torch.equal(added, added[:, :, :1, :1].expand_as(added))  # the same at every place
    return added[:, :, 0, 0]


def batches(model, number):
    generator = torch.Generator().manual_seed(7)
    for _ in range(number):
        template, search = (torch.randn(3, 3, side, side, generator=generator) for side in (32, 64))
        yield model.backbone(model.backbone.embed_template(template), search)


@torch.no_grad()
def test_running_mean_is_the_mean_of_what_was_added_in_training():
    model = trained(toy_model(challenge=toy_branch))
    branch = model.challenge
    branch.mean_added.zero_()
    branch.train()
    added = [added_by(branch, features) for features in batches(model, 6)]
    expected = torch.cat(added).mean(0)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(branch.mean_added, expected, rtol=0, atol=1e-5)

    branch.eval()
    before = branch.mean_added.clone()
    for features in batches(model, 2):
        added_by(branch, features)
    assert torch.equal(branch.mean_added, before)


@torch.no_grad()
def test_running_mean_forgets_with_its_momentum():
    branch = randomise(ChallengeBranch(32, 32, **BRANCH, momentum=0.4)).train()
    branch.mean_added.zero_()
    expected = torch.zeros(32)
    for number, features in enumerate(batches(toy_model(), 5), 1):
        expected = expected + max(1 / number, 0.4) * (added_by(branch, features).mean(0) - expected)
    torch.testing.assert_close(branch.mean_added, expected, rtol=0, atol=1e-5)


def test_a_frozen_branch_stays_as_it_is_in_training():
    model = trained(toy_model(challenge=toy_branch))
    model.challenge.requires_grad_(False)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.challenge.state_dict().items()}
    model.track_clip(*images(2), BOX)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.challenge.state_dict().items())


@pytest.mark.parametrize("form", [{}, {"neck_width": 16}], ids=["residual", "direct behind a neck"])
def test_folding_is_adding_the_mean_by_hand(form):
    fusion = {"fusion": DirectFusion} if form else {}
    by_hand, folded = (trained(toy_model(challenge=functools.partial(toy_branch, **fusion), **form)) for _ in range(2))
    mean = by_hand.challenge.mean_added.clone()
    off = last_maps(by_hand, use_challenge=False)
    by_hand.box_head.register_forward_pre_hook(lambda _, inputs: (inputs[0] + mean.view(1, -1, 1, 1),))
    folded.fold_challenge()
    assert folded.challenge is None
    assert not any(name.startswith("challenge") for name in folded.state_dict())
    expected = last_maps(by_hand, use_challenge=False)
    torch.testing.assert_close(last_maps(folded), expected, rtol=0, atol=1e-6)
    assert not torch.allclose(off, expected, atol=1e-3)


def test_folding_nothing_is_an_error():
    with pytest.raises(ConfigError, match="no challenge branch to fold"):
        toy_model().fold_challenge()


@pytest.mark.parametrize("form", [GatedFusion, AttentionFusion])
def test_what_differs_from_place_to_place_cannot_be_folded(form):
    model = trained(toy_model(challenge=with_fusion(form)))
    with pytest.raises(ConfigError, match=f"{form.__name__} adds something else at every place.*no constant vector"):
        model.fold_challenge()
    assert model.challenge is not None
    assert "challenge.mean_added" not in model.state_dict()
    with pytest.raises(ConfigError, match=form.__name__):
        Tracker(model, branch="folded", device="cpu")
