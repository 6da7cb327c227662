"""Tracks a sequence with one of OpenCV's trackers, in an interpreter that has opencv-contrib; a script, no module.

opencv-contrib-python and opencv-python both own the name `cv2`, so they cannot stand side by side; here only NumPy and
OpenCV are needed. Standard input asks for a sequence, {"tracker": "KCF", "frames": [paths], "box": [x, y, w, h]};
standard output answers, {"boxes": [[x, y, w, h], ...], "seconds": [...], "end_to_end_seconds": s, "image_size": [w, h]}
or {"error": why}. The first box is the given one; while a tracker reports a loss its last box stays.
"""

import json
import sys
import time

import cv2


def main():
    asked = json.load(sys.stdin)
    name = asked["tracker"]
    if not hasattr(cv2, f"Tracker{name}"):
        sys.exit(f"OpenCV {cv2.__version__} has no Tracker{name}; opencv-contrib-python 4 was expected")
    try:
        answer = track(getattr(cv2, f"Tracker{name}").create(), asked["frames"], asked["box"])
    except (cv2.error, ValueError) as error:
        answer = {"error": " ".join(str(error).split())}
    print(json.dumps(answer))


def track(tracker, frames, box):
    """The answer for a sequence; box: xywh in pixels. Raises ValueError for bad input, cv2.error from OpenCV."""
    cv2.setRNGSeed(0)
    boxes, seconds, size = [box], [], None
    started = time.perf_counter()
    for path in frames:
        image = cv2.imread(path)
        if image is None:
            raise ValueError(f"{path}: the image is missing or damaged")
        before = time.perf_counter()
        if size is None:
            size = image.shape[1::-1]
            tracker.init(image, window(box, *size))
        elif image.shape[1::-1] != size:
            raise ValueError(
                f"{path}: the frame has {image.shape[1]}x{image.shape[0]} pixels, the first {size[0]}x{size[1]}"
            )
        else:
            found, last = tracker.update(image)
            boxes.append(list(map(float, last)) if found else boxes[-1])
        seconds.append(time.perf_counter() - before)
    total = time.perf_counter() - started
    return {"boxes": boxes, "seconds": seconds, "end_to_end_seconds": total, "image_size": size}


def window(box, width, height):
    """What of a box (xywh) lies in the image, in whole pixels: OpenCV's trackers take long for one far beyond it."""
    x, y, w, h = box
    left, top, right, bottom = max(0, round(x)), max(0, round(y)), min(width, round(x + w)), min(height, round(y + h))
    if left >= right or top >= bottom:
        raise ValueError(f"the first box {box} (xywh) has no pixel in the {width}x{height} frame")
    return [left, top, right - left, bottom - top]


if __name__ == "__main__":
    main()
