"""Training rows of the segmenter."""

import numpy as np
from PIL import Image

from lyrics.recipes.micro.refiner.cell_labels import IGNORED
from lyrics.recipes.micro.refiner.segmenter import make_segmenter_row, shift_hues
from lyrics.recipes.micro.world.scenes import draw_square


def test_the_segmenter_learns_shapes_only_in_images_with_shifted_hues():
    """Each row has labels for either colors or shapes, and hues are shifted only in rows without color labels."""
    images = {}
    for number in range(40):
        row = make_segmenter_row(draw_square("train", 0, empty=False), np.random.default_rng(number))
        labeled = tuple(kind for kind in ("color", "shape") if (row[kind] != IGNORED).all())
        assert all((row[f"{kind}_cells"] == IGNORED).all() for kind in {"color", "shape"} - set(labeled))
        images.setdefault(labeled, []).append(np.asarray(row["pixel_values"]))
    assert set(images) == {("color",), ("shape",)}
    assert all((image == images["color",][0]).all() for image in images["color",])
    assert len({image.tobytes() for image in images["shape",]}) == len(images["shape",])


def test_shifted_hues_leave_gray_gray():
    gray = np.repeat(np.arange(8, 200, 8, dtype=np.uint8)[:, None, None], 3, axis=2)
    shifted = np.asarray(shift_hues(Image.fromarray(gray), np.random.default_rng(0)))
    assert (shifted.max(axis=2) == shifted.min(axis=2)).all()
    assert (np.diff(shifted[:, 0, 0].astype(int)) > 0).all()
