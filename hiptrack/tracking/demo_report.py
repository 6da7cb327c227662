"""What the demo prints and draws at its end."""

import numpy as np

from hiptrack.data.labels import CLASSES
from hiptrack.data.reading import read_image_rgb
from hiptrack.tracking.pictures import Shot, picture_sheet, write_png


def table(reports):
    """{name: Report} -> a line each with AO, SR0.5, SR0.75 and frames per second."""
    width = max(len(name) for name in reports)
    lines = [f"{'held-out synthetic':<{width}}     AO  SR0.5  SR0.75  frames/s"]
    for name, report in reports.items():
        numbers = report.overall
        lines.append(
            f"{name:<{width}}  {numbers['AO']:.3f}  {numbers['SR0.5']:.3f}   {numbers['SR0.75']:.3f}  {report.speed['fps_model']:8.1f}"
        )
    return "\n".join(lines)


def describe(classification):
    """Accuracy, balanced accuracy, and count and recall of each class (metrics.summarise_classification)."""
    accuracy, balanced = classification["accuracy"], classification["balanced_accuracy"]
    frames = classification["frames"]
    lines = [f"challenge: accuracy {accuracy:.3f}, balanced accuracy {balanced:.3f} over {frames} frames"]
    for name, count, recall in zip(CLASSES, classification["counts"], classification["recalls"], strict=True):
        lines.append(f"  {name:<22}{count:>5} frames, recall {'-' if recall is None else f'{recall:.3f}'}")
    return "\n".join(lines)


def picture_of(sequences, report, path, rows=6, columns=6):
    """Write a picture sheet: some sequences of a Report, some frames of each, with true and predicted boxes."""
    sheet = []
    for number in np.linspace(0, len(sequences) - 1, min(rows, len(sequences))).round().astype(int):
        sequence, result = sequences[number], report.scores[number].result
        row = []
        for frame in np.linspace(0, len(sequence) - 1, columns).round().astype(int):
            caption = f"{sequence.name} {frame + 1}"
            if result.challenges is not None and not np.isnan(result.challenges[frame]).any():
                caption = f"{frame + 1}: {CLASSES[int(result.challenges[frame].argmax())]}"
            image = read_image_rgb(sequence.frames[frame])
            row.append(Shot(image, sequence.boxes_xywh[frame], result.boxes_xywh[frame], caption))
        sheet.append(row)
    write_png(picture_sheet(sheet), path)
