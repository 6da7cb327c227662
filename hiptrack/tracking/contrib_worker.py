"""Tracks sequences with OpenCV's own trackers, in an interpreter that has opencv-contrib; a script, not a module of hiptrack's.

opencv-contrib-python and opencv-python both own the name `cv2`, so they cannot stand side by side; here only NumPy and OpenCV are
needed. Each line of standard input asks for a sequence, {"tracker": "KCF", "frames": [paths], "box": [x, y, w, h]}; each line of
standard output answers, {"boxes": [[x, y, w, h], ...], "seconds": [...], "end_to_end_seconds": s, "image_size": [w, h]} or
{"error": why}. The first box is the given one; while a tracker reports a loss its last box stays.
"""

import json
import sys
import time

import cv2


def main():
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = track(asked["tracker"], asked["frames"], asked["box"])
        except (cv2.error, OSError) as error:
            answer = {"error": " ".join(str(error).split())}
        print(json.dumps(answer), flush=True)


def track(name, frames, box):
    """The answer for one sequence; box: xywh in pixels. Raises OSError for an unreadable frame, cv2.error for what OpenCV refuses."""
    if not hasattr(cv2, f"Tracker{name}"):
        return {"error": f"OpenCV {cv2.__version__} has no Tracker{name}; opencv-contrib-python 4 was expected"}
    cv2.setRNGSeed(0)
    tracker, boxes, seconds = getattr(cv2, f"Tracker{name}").create(), [box], []
    started = time.perf_counter()
    for number, path in enumerate(frames):
        image = cv2.imread(path)
        if image is None:
            raise OSError(f"{path}: the image is missing or damaged")
        before = time.perf_counter()
        if number == 0:
            tracker.init(image, [round(value) for value in box])
        else:
            found, last = tracker.update(image)
            boxes.append(list(map(float, last)) if found else boxes[-1])
        seconds.append(time.perf_counter() - before)
    size = [image.shape[1], image.shape[0]]
    total = time.perf_counter() - started
    return {"boxes": boxes, "seconds": seconds, "end_to_end_seconds": total, "image_size": size}


if __name__ == "__main__":
    main()
