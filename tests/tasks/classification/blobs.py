"""Pictures in which a bright ellipse is the finding and a dark one a decoy, with a table of labels and one of boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

SIDE = 32
SPEC = """
name: Blobs
task: classification
inputs: [{role: image, channels: [image]}]
layouts: [{name: all, inputs: {image: ["images/{case}.png"]}}]
grouping: {table: labels.csv}
options:
  targets: [{column: ill, classes: {0: plain, 1: bright}}]
  localise: true
  boxes: {table: boxes.csv, x_column: x, y_column: y}
"""


def write_blobs(folder: Path, count: int, seed: int) -> None:
    """Every second picture has the finding; the images lie in `images/`, the tables beside."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    rows, boxes = ["case,ill"], ["case,label,x,y,width,height"]
    for number in range(count):
        pixels = rng.normal(100, 12, (SIDE, SIDE))
        ellipse(pixels, -60, rng)
        if number % 2:
            boxes.append(f"c{number},bright,{','.join(map(str, ellipse(pixels, 60, rng)))}")
        rows.append(f"c{number},{number % 2}")
        PillowImage.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / "images" / f"c{number}.png")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "boxes.csv").write_text("\n".join(boxes) + "\n")


def ellipse(pixels: np.ndarray, brighter: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draws one somewhere; its x, y, width and height."""
    width, height = (int(side) for side in rng.integers(7, 11, 2))
    x, y = int(rng.integers(0, SIDE + 1 - width)), int(rng.integers(0, SIDE + 1 - height))
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    inside = ((columns - x - width / 2) / (width / 2)) ** 2 + ((rows - y - height / 2) / (height / 2)) ** 2 <= 1
    pixels[inside] += brighter
    return x, y, width, height
