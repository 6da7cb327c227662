"""Images that are damaged, lie or are something else: the picture that another decoder sees, or an error that names the file."""

import io
import os
import shutil
import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageOps
from soak.fuzz_core import Folder, Tally, check_words, damaged, draw_damages, made, run, snapshot

from hiptrack import crops
from hiptrack.data.crop_reading import read_crops
from hiptrack.data.image_heads import JPEG_END, read_head
from hiptrack.data.jpeg_holes import ZEROS
from hiptrack.data.reading import read_image_rgb
from hiptrack.errors import DataError
from hiptrack.screen import shown

JPEGS = ("jpeg", "jpeg", "jpeg", "progressive", "optimised", "exif")
FORMS = (*JPEGS, "png", "png16", "bmp", "webp", "gif", "tiff", "ppm")
OWN = (*JPEGS, "png", "png16", "bmp")  # whose heads hiptrack reads itself
DEFECTS = (
    "none", "link", "segments", "bytes", "bytes", "cut", "end kept", "zeros", "head", "bomb", "dangling", "loop", "pipe", "folder", "device",
    "text", "hard name",
)  # fmt: skip
REFUSED = ("bomb", "dangling", "loop", "pipe", "folder", "device", "text")
SOUND = ("none", "link", "segments", "hard name")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".JPG")
SIZES = {"png": (16, ">II"), "png16": (16, ">II"), "bmp": (18, "<ii"), "gif": (6, "<HH")}  # where a head has its size
TEXTS = (
    b"",
    b"\0" * 999,
    b"<html>404</html>",
    b"\xff\xd8\xff",
    b"BM",
    b"\x89PNG\r\n\x1a\n",
    b"version https://git-lfs",
    b"\xff\xd8\xff\xd9",
)
HARD_NAMES = ("a\nb", "\x1b[2J", "é", "\udce9", "漢" * 70, "%s {0} $(x)", "-rf", "\u202e")
LAST_ROWS = 17  # of a cut JPEG: those of a block, and the one that colours are interpolated to
CLOSE = 1.0  # grey levels; the mean difference of two decoders of JPEG and WebP


@dataclass(frozen=True)
class Case:
    """A picture of a (width, height) in a form, under a suffix, with a defect. share, changes: where and how it is changed."""

    form: str
    suffix: str
    defect: str
    size: tuple[int, int]
    channels: int
    seed: int
    share: float
    changes: list


def _case(rng):
    size = rng.randint(9, 90), rng.randint(9, 90)
    form, suffix, defect = rng.choice(FORMS), rng.choice(SUFFIXES), rng.choice(DEFECTS)
    return Case(
        form, suffix, defect, size, rng.choice((1, 3)), rng.randrange(2**16), rng.random(), draw_damages(rng, 3)
    )


def fuzz_images(count: int, seed: int) -> Tally:
    """Each case: one image file, read as a whole and as a crop."""
    with Folder() as folder:
        return run("images", made(_case), lambda case: _check(folder.path, case), count, seed)


def _check(ground, case):
    rng = np.random.default_rng(case.seed)
    picture = _picture(case, rng)
    sound = _encoded(case, picture)
    data = _changed(case, sound)
    stem = HARD_NAMES[case.seed % len(HARD_NAMES)] if case.defect == "hard name" else "1"
    path = os.path.join(ground, f"{stem}{case.suffix}")
    _put(case, path, data)
    before = snapshot(ground)
    try:
        return _read(case, path, data, sound, picture, rng)
    finally:
        assert snapshot(ground) == before, "a file was changed"
        for entry in os.scandir(ground):
            shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)


def _read(case, path, data, sound, picture, rng):
    """Read it both ways; returns whether there was a picture, the right one."""
    try:
        image = read_image_rgb(path)
    except DataError as error:
        assert case.defect not in SOUND, f"refused: {error}"
        check_words(error, shown(path), *(["pixels"] if case.defect == "bomb" and case.form in OWN else []))
        image = None
    expected = _expected(case, picture, sound)
    assert image is None or case.defect not in REFUSED, "it was taken"
    if image is not None and case.defect in SOUND:
        assert _differ(image, expected) <= (CLOSE if case.form in (*JPEGS, "webp") else 0), "another picture"
    elif image is not None:
        _check_changed(case, data, image, expected)

    left, top = rng.uniform(-5, 60, 2)
    wanted = [((left, top, *rng.uniform(2, 40, 2)), rng.uniform(1, 4), int(rng.integers(8, 64)))]
    try:
        (crop,) = read_crops(path, wanted, reduce=False)
    except crops.EmptyCrop:
        return image is not None
    except DataError as error:
        assert image is None, f"refused as a crop alone: {error}"
        check_words(error, shown(path))
        return False
    if image is not None:
        assert np.array_equal(crop, crops.crop(image, *wanted[0])), "the crop is not that of the picture"
    return image is not None


def _check_changed(case, data, image, expected):
    """What must hold of the picture that came of a changed file."""
    head = read_head(data)
    assert image.shape[1::-1] in ((head.width, head.height), (head.height, head.width)), "of another size than it says"
    plain = case.form == "jpeg"
    if case.defect == "zeros" and plain:
        assert ZEROS not in data, "a hole was taken"
    if case.defect == "end kept" and plain:
        rows = max(image.shape[0] - image.shape[0] % 16 - LAST_ROWS, 0)
        assert _differ(image[:rows], expected[:rows]) <= CLOSE, "a cut one was taken"
    if case.defect in ("bytes", "cut") and case.form in ("png", "png16"):  # which has checksums
        assert _differ(image, expected) == 0, "a damaged one was taken"
    if case.defect == "cut":
        assert _differ(image, expected) <= CLOSE, "a cut one was taken"
    if case.defect == "head" and plain and head.height > expected.shape[0] + LAST_ROWS:
        raise AssertionError("rows that are not there were taken")


def _differ(image, other):
    if image.shape != other.shape:
        return np.inf
    return np.abs(image.astype(int) - other).mean() if image.size else 0


def _picture(case, rng):
    """[H, W, channels], uint8 or uint16, of smooth colours with some noise."""
    width, height = case.size
    levels = 2**16 if case.form == "png16" else 2**8
    spread = levels if case.seed % 2 else min(levels, 3000)  # a narrow range of 16 bits, as thermal cameras have
    coarse = rng.uniform(0, 0.9 * spread, (4, 4, case.channels)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, -1)
    noisy = np.clip(smooth + rng.uniform(0, 0.1 * spread, smooth.shape), 0, levels - 1)
    return noisy.astype(np.uint16 if levels > 2**8 else np.uint8)


def _encoded(case, picture):
    """The bytes of the sound file."""
    if case.form == "png16":
        return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    image, buffer = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture), io.BytesIO()
    if case.form in ("png", "bmp", "gif", "tiff", "webp", "ppm"):
        image.save(buffer, case.form, **({"lossless": True} if case.form == "webp" else {}))
        return buffer.getvalue()
    more = {"progressive": {"progressive": True}, "optimised": {"optimize": True}}.get(case.form, {})
    if case.form == "exif":
        exif = Image.Exif()
        exif[0x0112] = 1 + case.seed % 8
        more = {"exif": exif}
    image.save(buffer, "jpeg", quality=60 + case.seed % 40, subsampling=case.seed % 3, **more)
    return buffer.getvalue()


def _expected(case, picture, sound):
    """[H, W, 3] uint8 RGB: the sound file by another decoder, of 16 bits by the words of depth.py."""
    if case.form == "png16":
        picture = np.broadcast_to(picture, (*picture.shape[:2], 3))
        low, high = (int(value) for value in np.quantile(picture, (0.001, 0.999)))
        spare = max(256 - (high - low), 0) // 2
        low, high = low - spare, high + spare
        return np.clip(np.round((picture.astype(float) - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
    with Image.open(io.BytesIO(sound)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def _changed(case, sound):
    """The bytes after the defect of the case."""
    scan = sound.find(b"\xff\xda") + 14 if case.form in JPEGS else 40
    at = scan + int(case.share * (len(sound) - scan))
    if case.defect == "bytes":
        return damaged(sound, case.changes)
    if case.defect == "cut":
        return sound[:at]
    if case.defect == "end kept":
        return sound[:at] + (JPEG_END if case.form in JPEGS else sound[-12:])
    if case.defect == "zeros":
        return sound[:at] + bytes(len(sound) - at - 2) + sound[-2:]
    if case.defect == "segments" and case.form in JPEGS:
        return _with_segments(sound, case.seed)
    if case.defect == "text":
        return TEXTS[case.seed % len(TEXTS)]
    if case.defect == "bomb":
        return _with_size(case, sound, (30_000, 30_000 - case.seed % 999))
    if case.defect == "head":
        width, height = case.size
        return _with_size(case, sound, (width, height + 1 + case.seed % 99) if case.seed % 2 else (width + 40, height))
    return sound


def _with_segments(jpeg, seed):
    """A JPEG with what decoders pass over before its picture: filling, and segments that look like heads of others."""
    fake = b"\xff\xc0\x00\x11\x08\x75\x30\x75\x30\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01\xff\xda\x00\x02\xff\xd9"
    segments = (
        b"\xff\xe4" + struct.pack(">H", len(fake) + 2) + fake,
        b"\xff\xff\xff\xfe\x00\x06\xff\xd8\xff\xd9",
        b"\xff\xec\x00\x02",
    )
    return jpeg[:2] + b"".join(segments[: 1 + seed % 3]) + jpeg[2:]


def _with_size(case, sound, size):
    """The file with another (width, height) in its head; that of another form where this one's is not that simple."""
    if case.form in JPEGS:
        place = max(sound.find(b"\xff" + bytes([marker])) for marker in (0xC0, 0xC1, 0xC2)) + 5
        return sound[:place] + struct.pack(">HH", *size[::-1]) + sound[place + 4 :]
    if case.form not in SIZES:
        return b"P6 %d %d 255\n" % size + sound
    place, form = SIZES[case.form]
    data = sound[:place] + struct.pack(form, *size) + sound[place + struct.calcsize(form) :]
    if form == ">II" and case.seed % 4 < 2:  # with the right checksum
        data = data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
    return data


def _put(case, path, data):
    """Have the file, or what stands in its place, at a path."""
    aside = os.path.join(os.path.dirname(path), "aside")
    if case.defect in ("dangling", "loop", "device", "link"):
        target = {
            "dangling": aside,
            "loop": path,
            "device": ("/dev/zero", "/proc/self/mem")[case.seed % 2],
            "link": aside,
        }
        os.symlink(target[case.defect], path)
        path = aside
    if case.defect == "pipe":
        os.mkfifo(path)
    elif case.defect == "folder":
        os.mkdir(path)
    elif case.defect not in ("dangling", "loop", "device"):
        with open(path, "wb") as file:
            file.write(data)
