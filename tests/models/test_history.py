"""The memory: its readout, bank and masks, and which frames a tracker remembers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from toy import toy_model

from hiptrack.errors import ConfigError
from hiptrack.models import history, layers
from hiptrack.models.history import HistoricalPrompt, MemoryBank
from hiptrack.tracking.memory import MemoryPolicy, TargetMemory, read_memories, update_memories

SIDE = 64  # of the search crop in pixels; stride 8


@pytest.fixture
def prompt():
    torch.manual_seed(0)
    return HistoricalPrompt(grid_width=16, stride=8, search_size=SIDE, key_width=8, trunk_width=4).eval()


def naive_prompt(prompt, query_grid, memory_grids, memory_values):
    """The prompt from the formula: softmax of -|q - k|^2 / sqrt(width), with both squares, in float64."""

    def places(grid):
        return prompt.key_proj(grid).double().flatten(2).transpose(1, 2)

    query, keys = places(query_grid), torch.cat([places(grid) for grid in memory_grids], 1)
    square = query.square().sum(2, keepdim=True) - 2 * query @ keys.transpose(1, 2) + keys.square().sum(2).unsqueeze(1)
    weight = (-square / keys.shape[2] ** 0.5).softmax(2)
    read = (weight @ torch.cat(memory_values, 1).double()).transpose(1, 2).unflatten(2, query_grid.shape[2:])
    return torch.cat((read.float(), prompt.key_comp(query_grid)), 1)


@pytest.mark.parametrize("chunk", [4096, 50, 1])
@pytest.mark.parametrize("spread", [1.0, 40.0])  # 40: affinities of thousands, where a careless softmax overflows
def test_readout_is_softmax_over_squared_distances(prompt, monkeypatch, chunk, spread):
    monkeypatch.setattr(history, "CHUNK", chunk)
    grids = [spread * torch.randn(2, 16, 8, 8) for _ in range(3)]
    query = grids[1] + 0.1 * torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        memory = [prompt.remember(torch.randn(2, 3, SIDE, SIDE), grid, torch.ones(2, 1, SIDE, SIDE)) for grid in grids]
        keys, values = (torch.cat(parts, 1) for parts in zip(*memory, strict=True))
        expected = prompt.fuse(query + naive_prompt(prompt, query, grids, [value for _, value in memory]))
        torch.testing.assert_close(prompt(query, [(keys, values)]), expected, rtol=1e-4, atol=1e-4)


def test_reading_in_chunks_changes_nothing_that_gradients_would_see(prompt, monkeypatch):
    monkeypatch.setattr(history, "CHUNK", 13)
    query, keys, values = torch.randn(2, 20, 8), torch.randn(2, 100, 9), torch.randn(2, 100, 5)
    with_gradients = history.readout(query.clone().requires_grad_(), keys, values, 0.7)
    assert with_gradients.requires_grad
    in_chunks = history.readout(query, keys, values, 0.7)
    torch.testing.assert_close(in_chunks, with_gradients, rtol=0, atol=1e-5)
    assert history.readout(query, keys, values.bfloat16(), 0.7).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "distance", [0.0, 30.0, 3000.0]
)  # keys so far away that exp(-distance^2) is 0, or its square huge
@pytest.mark.parametrize("places", [1, 12, 13, 14, 100])
@pytest.mark.parametrize("convolution", [True, False])
def test_readout_in_chunks_is_plain_attention_however_far_the_keys(monkeypatch, convolution, places, distance):
    monkeypatch.setattr(history, "CHUNK", 13)
    monkeypatch.setattr(layers, "convolution_is_faster", lambda: convolution)
    monkeypatch.setattr(layers, "LEAST", 0)
    own, key, values = torch.randn(2, 20, 8), distance + torch.randn(2, places, 8), torch.randn(2, places, 5)
    keys = torch.cat((key, -key.square().sum(-1, keepdim=True)), -1)
    query = torch.cat((2 * own, torch.ones(2, 20, 1)), -1).double()
    expected = F.scaled_dot_product_attention(query, keys.double(), values.double(), scale=0.35).float()
    with torch.inference_mode():
        read = history.readout(2 * own, keys, values, 0.35)
    assert read.isfinite().all()
    if distance < 1000:  # beyond, float32 no longer knows which key is nearest
        torch.testing.assert_close(read, expected, rtol=0, atol=1e-2 if distance else 1e-5)
    assert values.amin() - 1e-5 <= read.min() and read.max() <= values.amax() + 1e-5


@pytest.mark.parametrize("affinity", [2**26, 20 * 100, 7])  # all at once, two memories at once, one place at a time
def test_the_way_of_gpus_reads_the_same_from_memories_of_any_length(monkeypatch, affinity):
    queries = torch.randn(4, 10, 8).split([1, 1, 1, 1])
    lengths = (100, 40, 100, 100)
    memories = [(torch.randn(1, length, 9), torch.randn(1, length, 5)) for length in lengths]
    with torch.inference_mode():
        expected = history.read_each(queries, memories, 0.35)
        batches = []
        monkeypatch.setattr(history, "on_gpu", lambda tensor: True)
        monkeypatch.setattr(history, "AFFINITY", affinity)
        readout = history.readout
        monkeypatch.setattr(history, "readout", lambda *parts: batches.append(len(parts[0])) or readout(*parts))
        read = history.read_each(queries, memories, 0.35)
    assert sorted(batches) == {2**26: [1, 3], 2000: [1, 1, 2], 7: [1, 1, 1, 1]}[affinity]
    for ours, plain in zip(read, expected, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_affinity_of_a_long_memory_is_never_held(mode):
    """With gradients neither, where none passes: in the branch stage."""

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in given:
                self.elements = max(self.elements, result.untyped_storage().nbytes() // result.itemsize)
            return result

    query, keys, values = torch.randn(1, 64, 8), torch.randn(1, 20000, 9), torch.randn(1, 20000, 16)
    given = {part.untyped_storage().data_ptr() for part in (query, keys, values)}
    keys, values = keys[:, :19000], values[:, :19000]  # part of a bank: reading it must not copy it, either
    with mode(), Largest() as largest:
        history.readout(query, keys, values, 0.35)
    assert 0 < largest.elements <= 64 * history.CHUNK < 64 * 19000 / 10


def test_a_frame_that_is_remembered_finds_itself(prompt):
    grid = 20 * torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        keys, _ = prompt.remember(torch.zeros(1, 3, SIDE, SIDE), grid, torch.zeros(1, 1, SIDE, SIDE))
        own = prompt.key_proj(grid).flatten(2).transpose(1, 2)
        assert keys.shape == (1, 64, 9)
        read = history.readout(2 * own, keys, torch.eye(64).unsqueeze(0), prompt.scale)
    assert torch.equal(read[0].argmax(1), torch.arange(64))


def test_the_remembered_value_depends_on_image_mask_and_grid(prompt):
    images, grid, mask = torch.randn(1, 3, SIDE, SIDE), torch.randn(1, 16, 8, 8), torch.zeros(1, 1, SIDE, SIDE)
    with torch.no_grad():
        keys, values = prompt.remember(images, grid, mask)
        assert values.shape == (1, 64, 8)
        for other in ((images + 1, grid, mask), (images, grid + 1, mask), (images, grid, mask + 1)):
            assert not torch.allclose(prompt.remember(*other)[1], values, atol=1e-4)
        assert torch.equal(prompt.remember(images + 1, grid, mask + 1)[0], keys)


def test_an_odd_width_is_refused():
    with pytest.raises(ConfigError, match="33 is odd"):
        HistoricalPrompt(grid_width=33, stride=8, search_size=SIDE)


def test_bank_drops_the_oldest_and_keeps_keys_with_their_values():
    bank = MemoryBank(3)
    for number in range(1, 6):
        bank.write(torch.full((2, 4, 5), float(number)), torch.full((2, 4, 7), 10.0 * number))
        assert bank.frames == min(number, 3)
        keys, values = bank.read()
        assert keys.shape == (2, 4 * bank.frames, 5) and values.shape == (2, 4 * bank.frames, 7)
        held = sorted(set(keys.flatten().tolist()))
        assert held == [float(n) for n in range(max(1, number - 2), number + 1)]
        assert torch.equal(values[..., 0], 10 * keys[..., 0])
        assert torch.equal(keys.view(2, -1, 4, 5).std((2, 3)), torch.zeros(2, bank.frames))


PIXELS = {  # box x1, y1, x2, y2 in pixels -> first and last column, first and last row
    "inside": ((10.75, 20.25, 30.5, 40.0), (10, 29), (20, 39)),
    "left": ((-5.5, 20.0, 12.25, 40.0), (0, 11), (20, 39)),
    "right": ((50.5, 20.0, 80.5, 40.0), (50, 63), (20, 39)),
    "top": ((10.0, -7.5, 30.0, 9.75), (10, 29), (0, 8)),
    "bottom": ((10.0, 55.25, 30.0, 64.75), (10, 29), (55, 63)),
    "all edges": ((-9.0, -9.0, 73.0, 73.0), (0, 63), (0, 63)),
    "the whole crop": ((0.0, 0.0, 64.0, 64.0), (0, 63), (0, 63)),
    "one pixel": ((7.0, 8.0, 8.0, 9.0), (7, 7), (8, 8)),
    "outside": ((66.0, 10.0, 90.0, 20.0), None, None),
    "left outside": ((-30.0, 10.0, -5.0, 20.0), None, None),
    "below a pixel": ((7.25, 8.25, 7.75, 8.75), None, None),
}


@pytest.mark.parametrize("box, columns, rows", PIXELS.values(), ids=PIXELS)
def test_mask_is_exact_to_the_pixel(prompt, box, columns, rows):
    expected = np.zeros((SIDE, SIDE), np.float32)
    if columns:
        expected[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = 1
    x1, y1, x2, y2 = box
    normalised = torch.tensor([[(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]]) / SIDE
    mask = prompt.box_mask(normalised)
    assert mask.shape == (1, 1, SIDE, SIDE) and mask.dtype == torch.float32
    assert np.array_equal(mask[0, 0], expected)

    kept = torch.ones(1, 64, dtype=torch.bool)
    gone = [0, 9, 27, 36, 63]
    kept[0, gone] = False
    for place in gone:
        row, column = divmod(place, 8)
        expected[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0
    assert np.array_equal(prompt.box_mask(normalised, kept)[0, 0], expected)


def test_mask_lets_no_gradient_through(prompt):
    box = torch.tensor([[0.5, 0.5, 0.25, 0.25]], requires_grad=True)
    assert not prompt.box_mask(box).requires_grad


def test_memory_of_a_frame_and_of_a_template_by_hand():
    """Boxes drawn at the search size, eliminated cells blank in a frame; the template is upsampled, corners aligned."""
    model, box = toy_model(), torch.tensor([[0.5, 0.4375, 0.25, 0.375]])  # x 24..40, y 16..40 px
    template, search = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = model.backbone(model.backbone.embed_template(template), search)
        mask = torch.zeros(1, 1, 64, 64)
        mask[:, :, 16:40, 24:40] = 1
        grid = features.search.transpose(1, 2).view(1, 32, 8, 8)
        blank = mask.clone()
        for place in (~features.kept[0]).nonzero().flatten().tolist():
            row, column = 8 * (place // 8), 8 * (place % 8)
            blank[:, :, row : row + 8, column : column + 8] = 0
        assert 0 < blank.sum() < mask.sum()
        expected = model.history.remember(search, grid, blank)
        assert all(map(torch.equal, model.frame_memory(search, features, box), expected))

        grid = features.template.transpose(1, 2).view(1, 32, 4, 4)
        images, grid = (
            F.interpolate(part, size=(side, side), mode="bilinear", align_corners=True)
            for part, side in ((template, 64), (grid, 8))
        )
        expected = model.history.remember(images, grid, mask)
        box_xywh = torch.tensor([[0.375, 0.25, 0.25, 0.375]])
        for ours, theirs in zip(model.template_memory(template, features, box_xywh), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


class FrameNumber(torch.Tensor):
    """Stands for the backbone's features of a frame."""

    def rows(self, rows):
        return self[rows]


class Recorder:
    """A model whose memory of a frame is the frame's number, and that of the template its negative."""

    def template_memory(self, template, features, box):
        return -features, -features

    def frame_memory(self, search, features, box):
        return features, features


def frames_read(policy, frames):
    """For each frame 1, 2, ...: what is read (the list of remembered frames, or minus the frame that made the template's)."""
    nothing = torch.zeros(1)
    memory, read = TargetMemory(policy, nothing, nothing), []
    for frame in range(1, frames + 1):
        features = torch.full((1, 1, 1), float(frame)).as_subclass(FrameNumber)
        ((keys, _),) = read_memories(Recorder(), [memory], features)
        read.append(sorted(int(v) for v in keys.flatten()))
        update_memories(Recorder(), [memory], nothing, features, nothing, [True])
    return read


def test_published_policy_over_a_long_video():
    read = frames_read(MemoryPolicy(), 3100)
    # of the template anew with every frame: its tokens saw that very frame
    assert read[:10] == [[-frame] for frame in range(1, 11)]
    assert read[10] == read[19] == [5, 10]
    assert read[20] == [5, 10, 20] and read[40] == [5, 10, 20, 40] and read[60] == [5, 10, 20, 40, 60]
    assert read[2960] == [5, 10, *range(20, 2961, 20)] and len(read[2960]) == 150
    assert read[2980] == [10, *range(20, 2981, 20)]
    assert read[3099] == [*range(100, 3081, 20)] and len(read[3099]) == 150


def test_policy_is_configurable():
    read = frames_read(MemoryPolicy(template_frames=2, early=(1,), interval=3, capacity=2), 10)
    assert read[:2] == [[-1], [-2]]
    assert read[2:] == [[1], [1, 3], [1, 3], [1, 3], [3, 6], [3, 6], [3, 6], [6, 9]]


@pytest.mark.parametrize("settings", [{"early": ()}, {"early": (11,)}, {"template_frames": 9}], ids=str)
def test_policy_that_leaves_nothing_to_read_is_refused(settings):
    with pytest.raises(ConfigError, match="MemoryPolicy"):
        MemoryPolicy(**settings)
