"""Labels of other scripts: a font that has their characters is found or named, or the missing ones are said once."""

import shutil
from pathlib import Path

import matplotlib
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image
from transformers.utils import logging

from lyrics.processing_lyrics import VisualObjects, label_fonts
from lyrics.processing_lyrics.drawing import draw_attention, draw_objects
from lyrics.processing_lyrics.spatial_text import parse_spatial_text

DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
CAT = "猫"


def seen(label):
    """Objects with one label."""
    return VisualObjects(labels=[label], boxes=[[0.1, 0.3, 0.6, 0.9]], scores=[0.5])


def draw(label, **options):
    """Draw an object with a label."""
    return draw_objects(Image.new("RGB", (320, 240), (90, 90, 90)), seen(label), **options)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The only folder with fonts; empty at first."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_DATA_DIRS"):
        monkeypatch.setenv(name, str(tmp_path / "share"))
    monkeypatch.setattr("sys.platform", "linux")
    folder = tmp_path / "share" / "fonts" / "deep"
    folder.mkdir(parents=True)
    caches = (label_fonts._installed_fonts, label_fonts._find_font, logging.warning_once)
    for cache in caches:
        cache.cache_clear()
    yield folder
    for cache in caches:
        cache.cache_clear()


@pytest.fixture(scope="module")
def cat_font(tmp_path_factory):
    """A font with digits, letters, a full stop, a space, and one Chinese character, all of them triangles."""
    characters = f"0123456789. abcdefghijklmnopqrstuvwxyz{CAT}"
    names = [".notdef", *(f"u{ord(character):04X}" for character in characters)]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(character): f"u{ord(character):04X}" for character in characters})
    glyphs = {}
    for number, name in enumerate(names):
        pen = TTGlyphPen(None)
        pen.moveTo((50, 0))
        pen.lineTo((100 + 15 * number, 0))
        pen.lineTo((50, 700))
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Cat", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    path = tmp_path_factory.mktemp("font") / "cat.ttf"
    builder.save(path)
    return path


def test_without_a_font_the_missing_characters_are_said_once(installed, caplog):
    drawn = draw(f"a {CAT}")
    assert drawn == draw(f"a {CAT}")
    told = [record.message for record in caplog.records if "are drawn as boxes" in record.message]
    assert len(told) == 1
    assert f"has the characters {CAT!r}" in told[0]
    assert "--font" in told[0]


def test_an_installed_font_is_found(installed, cat_font, caplog):
    shutil.copy(DEJAVU, installed)
    (installed / "damaged.ttf").write_bytes(b"no font")
    shutil.copy(cat_font, installed / "zz.ttf")
    assert draw(CAT) == draw(CAT, font=cat_font)
    assert draw("кот") == draw("кот", font=DEJAVU)
    assert draw("cat") != draw("cat", font=DEJAVU)  # Pillow's own font has these characters
    answer = parse_spatial_text(f"{CAT}: [0.1, 0.3, 0.6, 0.9]").objects
    assert draw("", answer=answer) == draw("", answer=answer, font=cat_font)
    picture = Image.new("RGB", (320, 240))
    assert draw_attention(picture, seen(CAT), [1.0]) == draw_attention(picture, seen(CAT), [1.0], cat_font)
    assert not caplog.records


def test_a_font_that_is_named_is_used_for_all_labels(installed, cat_font, caplog):
    assert draw("cat", font=cat_font) != draw("cat")
    draw("ö", font=cat_font)
    assert f"The font {cat_font} lacks the characters 'ö'" in caplog.text
    with pytest.raises(ValueError, match=r"The font .*none\.ttf cannot be read"):
        draw("cat", font=installed / "none.ttf")


def test_what_is_not_drawn_is_not_missing(installed, caplog):
    draw("a\u200d\u00a0 b\u3000c")
    draw(CAT, labels=False)
    assert not caplog.records


def test_control_characters_are_drawn_as_spaces(installed):
    assert draw("a\r\n\x1c b\u2028", font=DEJAVU) == draw("a  b ", font=DEJAVU)
