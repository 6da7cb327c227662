"""The procedural world, on land and at sea: the same scene everywhere, boxes and labels as drawn, crops as cut from frames."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from hiptrack import crops
from hiptrack.cli import make_synthetic, world_sheet
from hiptrack.data.clips import ClipData, ClipDataset, Geometry
from hiptrack.data.folders import FolderDataset
from hiptrack.data.loader import ShardedBatches, make_loader, shut_down
from hiptrack.data.reading import read_image_rgb
from hiptrack.data.sampling import CausalSampler, HardExamples
from hiptrack.errors import ConfigError, DataError
from hiptrack.evaluation.metrics import box_ious
from hiptrack.extras.world import shapes, textures
from hiptrack.extras.world.files import visible_share
from hiptrack.extras.world.scene import render, target_mask
from hiptrack.extras.world.vessels import Views, bounds, draw_mesh, make_vessel
from hiptrack.extras.world.world import HIDDEN, SceneFrame, World, flags, hidden_share, visible_boxes
from hiptrack.taxonomy import TEN

SEA = pytest.mark.parametrize("sea", [0.0, 1.0], ids=["land", "sea"])
GEOMETRY = Geometry(48, 96, 2.0, 4.0)
CALM = {
    name: 0.0
    for name in (
        "camera", "deformation", "lookalikes", "clutter", "camouflage", "occlusion", "cut", "light", "weather", "blur", "noise",
        "compression",
    )
}  # fmt: skip
SMALL = (320, 240)


def clips(*, run=0, **parameters):
    return ClipDataset(ClipData([World(**parameters)], None, CausalSampler(2, 20)), GEOMETRY, run, 0)


def as_bytes(sample):
    return [sample[key].numpy().tobytes() for key in ("template", "search", "boxes_xywh", "flags", "labels", "gaps")]


def scenes(count, **parameters):
    world = World(frames=12, **parameters)
    return [world.scene(number, SMALL) for number in range(count)]


@pytest.mark.slow
def test_a_clip_is_the_same_in_any_order_and_in_another_process():
    here = clips()
    forwards = [as_bytes(here[3, index]) for index in range(6)]
    again = clips()
    assert [as_bytes(again[3, index]) for index in reversed(range(6))] == forwards[::-1]
    batches = ShardedBatches(1, 6, 0, 1, 1)
    batches.start_at(3, 0)
    loader = make_loader(clips(), batches, workers=1, seed=0)
    try:
        batch = next(iter(loader))
    finally:
        shut_down(loader)
    tensors = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
    assert [as_bytes({key: value[row] for key, value in tensors.items()}) for row in range(6)] == forwards


@pytest.mark.parametrize("run, world", [(1, 0), (0, 1)])
def test_another_seed_shows_something_else(run, world):
    assert as_bytes(clips()[0, 0])[0] != as_bytes(clips(run=run, seed=world)[0, 0])[0]


@SEA
def test_a_clip_has_what_training_reads(sea):
    for index in range(12):
        sample = clips(sea=sea)[0, index]
        assert sample["template"].shape == (3, 48, 48) and sample["search"].shape == (2, 3, 96, 96)
        assert sample["search"].float().std() > 3
        centre = sample["template_box"][:2] + sample["template_box"][2:] / 2
        assert (centre - 0.5).abs().max() < 0.02
        assert (sample["boxes_xywh"][:, 2:] > 0).all() and sample["boxes_xywh"].isfinite().all()
        assert set(sample["flags"].unique().tolist()) <= {0.0, 1.0} and (sample["flags"].sum(1) >= 1).all()
        assert all(sample["flags"][row, label] == 1 for row, label in enumerate(sample["labels"]))
        assert sample["sequence"].startswith("world/scene_") and sample["rejected"] == []


@SEA
def test_the_box_holds_the_target_tightly(sea):
    overlaps = []
    for scene in scenes(24, clutter=0.0, canvas=96, sizes=(30.0, 200.0), cut=0.3, sea=sea):
        boxes, seen = visible_boxes(scene)
        for frame in np.flatnonzero(seen)[::5]:
            rows, columns = np.nonzero(target_mask(scene, int(frame)) > 0.4)
            if len(rows):
                corner = np.array((columns.min(), rows.min()))
                extent = np.array((columns.max(), rows.max())) + 1 - corner
                overlaps.append(box_ious(boxes[frame], np.append(corner, extent)))
    assert len(overlaps) > 40
    assert np.mean(overlaps) > 0.93 and np.mean(np.array(overlaps) > 0.85) > 0.95


@pytest.mark.parametrize("sea, usual, largest", [(0.0, 2, 10), (1.0, 5, 13)])  # waves are finer than a frame shows
def test_a_crop_is_what_would_be_cut_from_the_frame(sea, usual, largest):
    differences = []
    for scene in scenes(16, compression=0.0, sea=sea):
        boxes, seen = visible_boxes(scene)
        for frame in np.flatnonzero(seen)[:1]:
            for factor, side in ((2.0, 48), (4.0, 96)):
                around = boxes[frame] + np.array((5, -3, 4, 2))
                cut = crops.crop(render(scene, int(frame)), around, factor, side)
                drawn = SceneFrame(scene, int(frame)).crop(around, factor, side)
                differences.append(np.abs(cut.astype(int) - drawn).mean())
    assert np.median(differences) < usual and np.max(differences) < largest


def test_a_crop_beyond_the_border_is_black_there():
    (scene,) = scenes(1, **CALM)
    crop = SceneFrame(scene, 0).crop((-20.0, -20.0, 40.0, 40.0), 2.0, 80)
    assert not crop[:38].any() and not crop[:, :38].any() and crop[42:, 42:].std() > 0
    with pytest.raises(DataError, match="shows nothing"):
        SceneFrame(scene, 0).crop((-900.0, 0.0, 40.0, 40.0), 2.0, 80)


NEUTRAL = {
    "gain": 1.0, "shade": 0.0, "fog": 0.0, "rain": 0.0, "glare": 0.0, "defocus": 0.0, "coarse": 0.0, "shutter": 0.0, "noise": 0.0,
    "quality": 0, "vignette": 0.0, "sharpening": 0.0,
}  # fmt: skip
STRONG = {
    "gain": 0.6, "shade": 0.8, "fog": 0.5, "rain": 120.0, "glare": 150.0, "defocus": 3.0, "coarse": 5.0, "shutter": 1.0,
    "noise": 8.0, "quality": 20, "vignette": 0.4, "sharpening": 1.5,
}  # fmt: skip


@SEA
@pytest.mark.parametrize("effect", NEUTRAL)
def test_every_effect_shows(effect, sea):
    scene = scenes(3, **{**CALM, "camera": 1.0}, speed=2.0, sea=sea)[1]

    def pictured(value):
        now = getattr(scene.effects, effect)
        value = np.full(now.shape, value) if isinstance(now, np.ndarray) else value
        return render(replace(scene, effects=replace(scene.effects, **{effect: value})), 5)

    plain, changed = pictured(NEUTRAL[effect]), pictured(STRONG[effect])
    assert plain.dtype == changed.dtype == np.uint8
    assert np.abs(plain.astype(int) - changed).mean() > 0.4


# challenge: what brings it about, and frames of which share at least then have it
FLAG = {name: flag for flag, name in (TEN.vlm | TEN.cv).items()}
CAUSES = {
    "occlusion": ({"occlusion": 1.0}, 0.1),
    "illumination_change": ({"light": 1.0}, 0.2),
    "motion_blur": ({"blur": 1.0, "speed": 2.0}, 0.1),
    "appearance_variation": ({"deformation": 1.0}, 0.02),
    "partial_visibility": ({"cut": 1.0}, 0.02),
    "background_clutter": ({"lookalikes": 2.0}, 0.2),
    "low_contrast": ({"camouflage": 1.0}, 0.9),
}


@SEA
@pytest.mark.parametrize("challenge", CAUSES)
def test_a_challenge_is_there_when_it_was_asked_for_and_only_then(challenge, sea):
    cause, share = CAUSES[challenge]
    flag = FLAG[challenge]
    calm = [flags(scene)[flag] for scene in scenes(12, **CALM, sea=sea)]
    held = [flags(scene)[flag] for scene in scenes(12, **{**CALM, **cause}, sea=sea)]
    assert not np.concatenate(calm).any()
    assert np.concatenate(held).mean() > share


def test_small_targets_are_of_low_resolution_and_growing_ones_vary_in_scale():
    small, large = (scenes(8, **CALM, sizes=sizes) for sizes in ((5.0, 9.0), (60.0, 100.0)))
    assert all(flags(scene)["low_res"].all() for scene in small)
    assert not any(flags(scene)["low_res"].any() for scene in large)
    for scene in scenes(12, **{**CALM, "camera": 1.0}):
        area = np.prod(scene.target.boxes[:, 2:] - scene.target.boxes[:, :2], 1)
        grown = np.abs(np.log(area / area[0])) / 2 > np.log(1.5)
        assert np.array_equal(flags(scene)["scale_variation"], grown)


@SEA
def test_occlusion_is_what_the_masks_say(sea):
    agree, estimates = [], []
    for scene in scenes(16, occlusion=1.0, clutter=0.0, cut=0.0, sea=sea):
        for frame in range(0, 12, 3):
            hidden, drawn = hidden_share(scene)[frame], 1 - visible_share(scene, frame)
            agree.append(abs(hidden - drawn) < 0.2)
            estimates.append((hidden > HIDDEN) == (drawn > HIDDEN))
    assert np.mean(agree) > 0.95 and np.mean(estimates) > 0.85


@pytest.mark.parametrize("family", textures.FAMILIES)
def test_a_texture_tiles_and_is_balanced(family):
    texture = textures.make_texture(np.random.default_rng(5), family).astype(float)
    assert texture.shape == (textures.SIZE, textures.SIZE, 3)
    assert np.abs(texture.mean((0, 1)) - 128).max() < 8 and texture.std((0, 1)).min() > 20
    steps = np.abs(np.diff(texture, axis=0)).mean((1, 2))
    seam = np.abs(texture[0] - texture[-1]).mean()
    assert seam < 1.4 * steps.max() + 2


@pytest.mark.parametrize("family", shapes.FAMILIES)
def test_a_shape_lies_in_its_square(family):
    for seed in range(10):
        shape = shapes.make_shape(np.random.default_rng(seed), family)
        points = np.concatenate([piece.points for piece in shape.pieces])
        assert np.isfinite(points).all() and np.abs(points).max() < 1.25


def test_what_validation_shows_training_never_draws():
    for module in (textures, shapes):
        assert set(module.TRAINING) | set(module.HELD_OUT) == set(module.FAMILIES)
        assert not set(module.TRAINING) & set(module.HELD_OUT)


def test_scenes_are_those_that_nano_was_trained_on():
    """Another order of draws would make others of the same numbers."""
    plans = [
        ((360, 480), [2, 119, 33, 136], [2, 107, 42, 127], [0, 0, 0, 0, 0, 0, 0, 60, 0]),
        ((640, 480), [322, 154, 345, 185], [299, 210, 324, 237], [0, 0, 0, 0, 44, 0, 0, 0, 0]),
        ((360, 480), [130, 271, 171, 307], [116, 238, 153, 270], [9, 0, 1, 0, 0, 0, 0, 60, 0]),
        ((640, 480), [190, 132, 264, 200], [167, 139, 233, 197], [0, 0, 0, 0, 25, 0, 0, 52, 0]),
    ]
    for number, (size, first, last, challenges) in enumerate(plans):
        scene = World().scene(number)
        assert scene.size == size
        assert np.allclose(scene.target.boxes[[0, -1]], [first, last], atol=0.51)
        assert [int(flags(scene)[FLAG[name]].sum()) for name in TEN.challenges] == challenges


def test_the_share_at_sea_is_what_was_asked_for():
    land, mixed = World(frames=2), World(frames=2, sea=0.3)
    afloat = [mixed.scene(number).water is not None for number in range(200)]
    assert 0.2 < np.mean(afloat) < 0.4
    assert all(World(frames=2, sea=1.0).scene(number).water for number in range(5))
    assert not any(land.scene(number).water for number in range(5))


def test_vessels_stand_on_the_water():
    """Below the horizon, the larger the nearer; whatever the camera does."""
    for scene in scenes(20, sea=1.0, camera=1.0, lookalikes=2.0):
        for actor in (*scene.likes, scene.target, *scene.passers):
            depth = scene.camera.to_world(actor.anchors)[:, 1]
            assert (depth > 0).all()
            assert (np.abs(actor.boxes[:, 3] - actor.anchors[:, 1]) < actor.track.size).all()
        drawn = [*scene.likes, scene.target, *scene.passers]  # in this order: the farthest first
        depths = [scene.camera.to_world(actor.anchors)[:, 1] for actor in drawn]
        assert all((far < near).all() for far, near in itertools.pairwise(depths))


def test_nothing_of_the_sea_is_above_the_horizon():
    (scene,) = scenes(1, **CALM, sea=1.0)
    horizon = scene.target.anchors[0, 1] - scene.camera.to_world(scene.target.anchors)[0, 1]
    calm = replace(scene, water=replace(scene.water, near=np.zeros(3), far=np.zeros(3), crests=0.0, sun=None))
    changed = np.abs(render(scene, 0).astype(int) - render(calm, 0)).max((1, 2)) > 0
    above = int(np.clip(horizon - 2, 0, SMALL[1]))
    assert not changed[:above].any() and changed[above + 4 :].all()


def test_a_vessel_turns_as_a_solid():
    """Seen from astern it is narrower than from abeam, and no part of it leaves its box."""
    mesh = make_vessel(np.random.default_rng(0))
    ways = Views(np.array((0.0, np.pi / 2)), np.full(2, 0.1), np.zeros(2))
    abeam, astern = bounds(ways.project(mesh.vertices))
    assert astern[2] - astern[0] < 0.6 * (abeam[2] - abeam[0])
    canvas, scale, _ = draw_mesh(mesh, ways.at(0), ways.project(mesh.vertices)[0], 80)
    rows, columns = np.nonzero(canvas[..., 3])
    assert np.ptp(columns) + 1 == pytest.approx(scale * (abeam[2] - abeam[0]), abs=3)
    assert np.ptp(rows) + 1 == pytest.approx(scale * (abeam[3] - abeam[1]), abs=3)


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"sizes": (50.0, 20.0)}, r"World.sizes = \(50.0, 20.0\)"),
        ({"textures": ["leafs"]}, "World.textures names 'leafs'.* 'leaves'"),
        ({"shapes": []}, "World.shapes is empty"),
    ],
)
def test_sizes_in_the_wrong_order_and_unknown_families_are_refused(parameters, words):
    with pytest.raises(ConfigError, match=words):
        World(**parameters)


def test_the_world_mixes_with_data_on_disk(synthetic):
    data = ClipData([FolderDataset(str(synthetic), "train"), World()], [1.0, 1.0], CausalSampler(1, 5))
    dataset = ClipDataset(data, GEOMETRY, 0, 0)
    drawn = {dataset[0, index]["sequence"].partition("/")[0] for index in range(16)}
    assert drawn == {"world", data.datasets[0].name}
    assert data.labelled_frames == World().labelled_frames


def test_difficulties_by_sequence_are_refused():
    with pytest.raises(ConfigError, match="ClipData.priority .* world hardly ever shows a scene twice"):
        ClipDataset(ClipData([World()], priority=HardExamples()), GEOMETRY, 0, 0)


def test_the_commands_write_frames_and_a_sheet(tmp_path, monkeypatch, capsys):
    options = ["--sea", "0", "--out", str(tmp_path), "--val", "1", "--test", "0", "--frames", "3", "--size", "160x120"]
    monkeypatch.setattr("sys.argv", ["make_synthetic.py", *options])
    assert make_synthetic.main() == 0
    assert f"{tmp_path / 'val'}: 1 sequences, 3 frames" in capsys.readouterr().out and not (tmp_path / "train").exists()
    monkeypatch.setattr(
        "sys.argv", ["world_sheet.py", "--out", str(tmp_path / "sheet.jpg"), "--scenes", "2", "--sea", "1"]
    )
    assert world_sheet.main() == 0
    assert read_image_rgb(str(tmp_path / "sheet.jpg")).std() > 20
