"""`benchmark loader`: samples a second that one thread reads, beside the plain way of reading them."""

import os
import tempfile
from functools import partial

import cv2
import numpy as np
import torch
from torch.utils.data import default_collate

from hiptrack import crops
from hiptrack.data.crop_reading import read_crops
from hiptrack.extras.benchmark.measure import interleaved, ratio

SIZE = 1920, 1080
QUALITIES = (8, 25, 70, 85)  # of JPEG: about 47 (as in GOT-10k, docs/performance.md), 110, 240 and 340 kB a picture
PICTURES = 12
SEARCH_FRAMES = 5
BATCH = 8  # samples
SIDES = (40, 400)  # pixels
TEMPLATE, SEARCH = (2.0, 192), (5.0, 384)  # factor and size of the crops of HIPTrack B/384
MEAN = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
STD = torch.tensor((0.229, 0.224, 0.225))[:, None, None]


def measure(args):
    settings = {
        "pictures": f"{PICTURES} JPEGs of {SIZE[0]}x{SIZE[1]}",
        "sample": f"1 template of {TEMPLATE[1]} px, {SEARCH_FRAMES} search crops of {SEARCH[1]} px, one a picture",
        "samples": f"{args.samples}, in batches of {BATCH}",
        "repetitions": args.repetitions,
    }
    return settings, compare_loaders(args.samples, args.repetitions)


def compare_loaders(samples: int = 24, repetitions: int = 7, seed: int = 0) -> list[dict]:
    """Read the same samples in the plain way and in ours, in turn, with one thread and the files in the system's cache.

    A sample is a template and SEARCH_FRAMES search crops around a target of a side drawn from SIDES, anywhere in the
    picture, each from another picture, and the search crops stacked; BATCH of them are collated, as a loader's worker
    does. The plain way is that of published trackers: it decodes the whole
    picture, makes it RGB, pads and crops, and makes of the crop a normalised float tensor; ours leaves the crop uint8,
    to be normalised on the device. Returns a row for each of QUALITIES, for what both must do, undoing Huffman's code,
    grows with the file: its size, samples a second, the median of their ratio over the repetitions, and the mean
    absolute difference of the crops in grey levels.
    """
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        return [_compare(quality, samples, repetitions, seed) for quality in QUALITIES]
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])


def _compare(quality, samples, repetitions, seed):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        paths = _write_pictures(folder, rng, quality)
        size = np.mean([os.path.getsize(path) for path in paths])
        wanted = _draw(rng, paths, samples)
        times = interleaved({way: partial(_read, way, wanted) for way in (_plain, _ours)}, repetitions)
        difference = np.mean([_difference(*crop) for sample in wanted for crop in sample])
    plain, ours = times[_plain], times[_ours]
    return {
        "kB a picture": float(size / 1e3),
        "plain samples/s": samples / plain.median,
        "samples/s": samples / ours.median,
        "ratio": ratio(plain, ours),
        "mean difference": float(difference),
    }


def _read(way, wanted):
    for first in range(0, len(wanted), BATCH):
        default_collate([_sample([way(*crop) for crop in sample]) for sample in wanted[first : first + BATCH]])


def _sample(tensors):
    return {"template": tensors[0], "search": torch.stack(tensors[1:])}


def _plain(path, box_xywh, factor, size):
    image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
    left, top, x2, y2 = crops.shown(box_xywh, factor, image.shape[1::-1])
    side, x1, y1 = crops.crop_side(box_xywh, factor), max(left, 0), max(top, 0)
    padding = y1 - top, top + side - y2, x1 - left, left + side - x2
    square = cv2.copyMakeBorder(image[y1:y2, x1:x2], *padding, cv2.BORDER_CONSTANT)
    crop = torch.from_numpy(cv2.resize(square, (size, size)).transpose(2, 0, 1))
    return (crop.float().mul(1 / 255).clamp(0, 1) - MEAN) / STD


def _ours(path, *crop):
    return torch.from_numpy(read_crops(path, [crop])[0]).permute(2, 0, 1)


def _difference(path, *crop):
    """Mean absolute difference in grey levels of a crop in the two ways."""
    plain = (_plain(path, *crop) * STD + MEAN) * 255
    return float((plain - _ours(path, *crop)).abs().mean())


def _draw(rng, paths, samples):
    """The crops (path, box, factor, size) of each sample."""
    drawn = []
    for _ in range(samples):
        side, sample = rng.uniform(*SIDES), []
        for path, crop in zip(rng.permutation(paths), (TEMPLATE, *[SEARCH] * SEARCH_FRAMES)):
            sample.append((str(path), np.array([*rng.uniform(0, np.subtract(SIZE, side)), side, side]), *crop))
        drawn.append(sample)
    return drawn


def _write_pictures(folder, rng, quality):
    """Paths of PICTURES files whose power falls with the frequency squared, as in nature (Field, JOSA A 1987)."""
    paths = []
    for number in range(PICTURES):
        picture = np.full((SIZE[1], SIZE[0], 3), 128, np.float32)
        for octave in range(2, 10):
            cells = rng.standard_normal((SIZE[1] // 2**octave + 2, SIZE[0] // 2**octave + 2, 3), np.float32)
            picture += 10 * cv2.resize(cells, SIZE, interpolation=cv2.INTER_CUBIC)
        paths.append(os.path.join(folder, f"{number}.jpg"))
        cv2.imwrite(paths[-1], picture.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return paths
