"""A second world, for evaluation alone: the same words, drawn by other code, in other colors, fonts and proportions.

Nothing of it is shown in training, and it shares no drawing code with the first one. What a model can do only in the
world that it was trained in shows here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from .objects import CHARACTERS, COLORS, SHAPES, SIZES, Box, Scene, SceneObject, bounding_box
from .shapes import load_font

Grounds = Literal["pale", "saturated", "textured"]

_SIDE = 256  # pixels of the short side
_SCALE = 3  # at which a scene is drawn before it is reduced
_SHADES = {
    "red": ("red", "crimson", "firebrick"),
    "orange": ("orange", "darkorange"),
    "yellow": ("yellow", "gold"),
    "green": ("green", "forestgreen", "seagreen"),
    "cyan": ("cyan", "turquoise", "darkturquoise"),
    "blue": ("blue", "royalblue", "mediumblue"),
    "purple": ("purple", "darkorchid", "rebeccapurple"),
    "pink": ("hotpink", "lightpink", "pink"),
}
_GROUNDS = {
    "pale": ("white", "ivory", "whitesmoke", "lightgray", "gainsboro", "black", "dimgray"),
    "saturated": (
        *("saddlebrown", "olive", "darkgreen", "navy", "indigo", "maroon", "teal", "khaki"),
        *("lawngreen", "deepskyblue", "tomato", "violet", "goldenrod", "slateblue", "springgreen"),
    ),
    "textured": ("tan", "steelblue", "darkseagreen", "rosybrown", "lightslategray", "thistle"),
}
_RADII = {"small": (0.055, 0.07), "medium": (0.105, 0.125), "large": (0.165, 0.2)}  # in shares of the short side
_FONTS = ("DejaVuSansMono-Bold", "STIXGeneralBol", "cmb10")
_WRITTEN_ON = ("circle", "square", "triangle", "star")
_MIN_CONTRAST = 90.0  # of a color with the ground


@dataclass(eq=False)
class _Figure:
    """Object at its place: its words, middle and radius in drawn pixels, turn in degrees, and color."""

    color: str
    shape: str
    size: str
    x: float
    y: float
    radius: float
    turn: float
    rgb: tuple[int, ...]
    outlined: bool
    character: str | None
    font: str
    mask: np.ndarray = field(init=False)
    character_box: Box | None = None

    def draw(self, draw: Any, fill: Any, outline: Any = None) -> None:
        """Draw the figure without its character."""
        x, y, radius, width = self.x, self.y, self.radius, max(1, round(self.radius / 12)) if outline else 0
        circle = (x, y, radius)
        match self.shape:
            case "circle":
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill, outline, width)
            case "ring":
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), None, fill, round(0.4 * radius))
            case "square":
                draw.polygon(_regular(circle, [1.0] * 4, self.turn + 45), fill, outline, width)
            case "triangle":
                draw.polygon(_regular(circle, [1.0] * 3, self.turn - 90), fill, outline, width)
            case "star":
                draw.polygon(_regular(circle, [1.0, 0.42] * 5, self.turn - 90), fill, outline, width)
            case _:
                near, far = math.hypot(0.3, 0.3), math.hypot(0.3, 0.95)
                half = math.degrees(math.atan2(0.3, 0.95))
                angles = [turn + side for turn in (0, 90, 180, 270) for side in (-half, half, 45)]
                points = [
                    _at(circle, near if index % 3 == 2 else far, angle + self.turn)
                    for index, angle in enumerate(angles)
                ]
                draw.polygon(points, fill, outline, width)


def draw_second_scene(number: int, grounds: Grounds = "pale", aspect_ratio: float = 1.0) -> Scene:
    """Draw a scene of the second world, 256 pixels high or wide at its short side.

    Args:
        number: number of the scene, on which everything but the ground depends.
        grounds: kind of ground.
        aspect_ratio: width divided by height.
    """
    random = np.random.default_rng((number, 77))
    width, height = round(_SIDE * max(1, aspect_ratio)), round(_SIDE * max(1, 1 / aspect_ratio))
    ground_random = np.random.default_rng((number, 78))
    ground = ImageColor.getrgb(str(ground_random.choice(_GROUNDS[grounds])))
    figures: list[_Figure] = []
    for _ in range(int(random.integers(2, 10))):
        for _ in range(30):
            figure = _choose_figure(random, width * _SCALE, height * _SCALE, ground)
            if all(_distance(figure, other) > 0.95 * (figure.radius + other.radius) for other in figures):
                figures.append(figure)
                break
    canvas = Image.new("RGB", (width * _SCALE, height * _SCALE), ground)
    if grounds == "textured":
        _hatch(canvas, ground_random)
    for index, figure in enumerate(figures):
        _paint(canvas, figure, figures[:index])
    return Scene((width, height), tuple(map(_to_object, figures)), lambda: canvas.reduce(_SCALE))


def _choose_figure(random: np.random.Generator, width: int, height: int, ground: tuple[int, ...]) -> _Figure:
    """Choose an object and its place, of a color that differs from the ground."""
    while True:
        color, shape, size = (str(random.choice(words)) for words in (COLORS, SHAPES, SIZES))
        rgb = ImageColor.getrgb(str(random.choice(_SHADES[color])))
        if math.dist(rgb, ground) > _MIN_CONTRAST:
            break
    radius = random.uniform(*_RADII[size]) * min(width, height)
    x, y = random.uniform(radius + 3, np.array((width, height)) - radius - 3)
    written = shape in _WRITTEN_ON and size != "small" and random.random() < 0.5
    character = str(random.choice(list(CHARACTERS))) if written else None
    turn, outlined = random.uniform(-25, 25), random.random() < 0.3
    return _Figure(color, shape, size, x, y, radius, turn, rgb, outlined, character, str(random.choice(_FONTS)))


def _paint(canvas: Image.Image, figure: _Figure, below: list[_Figure]) -> None:
    """Paint a figure over a canvas, and take what it covers from the masks of the figures below."""
    stencil = Image.new("1", canvas.size)
    figure.draw(ImageDraw.Draw(stencil), 1)
    figure.mask = np.asarray(stencil)[_SCALE // 2 :: _SCALE, _SCALE // 2 :: _SCALE].copy()
    for other in below:
        other.mask &= ~figure.mask
    draw = ImageDraw.Draw(canvas)
    figure.draw(draw, figure.rgb, (20, 20, 20) if figure.outlined and figure.shape != "ring" else None)
    if figure.character:
        middle = (figure.x, figure.y + (0.12 * figure.radius if figure.shape == "triangle" else 0))
        font = load_font(figure.font, round(1.1 * figure.radius))
        red, green, blue = figure.rgb
        ink = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 120 else "white"
        draw.text(middle, figure.character, ink, font, anchor="mm")
        edges = np.array(draw.textbbox(middle, figure.character, font, anchor="mm")) / (*canvas.size, *canvas.size)
        figure.character_box = (float(edges[0]), float(edges[1]), float(edges[2]), float(edges[3]))


def _hatch(canvas: Image.Image, random: np.random.Generator) -> None:
    """Draw lines over the ground that are a little lighter or darker, as of wood or cloth."""
    ground, draw = np.array(canvas.getpixel((0, 0))), ImageDraw.Draw(canvas)
    slope, reach = random.uniform(-1, 1), sum(canvas.size)
    for start in range(-reach, reach, int(random.integers(12, 40))):
        shade = (ground + random.uniform(-28, 28)).clip(0, 255).astype(int)
        ends = [(start, 0), (start + slope * canvas.height, canvas.height)]
        draw.line(ends, tuple(shade.tolist()), int(random.integers(3, 12)))


def _regular(circle: tuple[float, float, float], radii: list[float], turn: float) -> list[tuple[float, float]]:
    """Return points around a circle, evenly spaced, each at a share of its radius."""
    return [_at(circle, radius, turn + 360 * index / len(radii)) for index, radius in enumerate(radii)]


def _at(circle: tuple[float, float, float], radius: float, degrees: float) -> tuple[float, float]:
    x, y, size = circle
    return x + size * radius * math.cos(math.radians(degrees)), y + size * radius * math.sin(math.radians(degrees))


def _distance(one: _Figure, other: _Figure) -> float:
    return math.dist((one.x, one.y), (other.x, other.y))


def _to_object(figure: _Figure) -> SceneObject:
    box = bounding_box(figure.mask)
    return SceneObject(
        figure.color, figure.shape, figure.size, box, figure.mask, figure.character, figure.character_box
    )
