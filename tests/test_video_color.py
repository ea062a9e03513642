"""The conversion between coded planes and RGB: right, and the identity both ways."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfhvd_tta.video.color import (
    BT601_525,
    BT709,
    BT2020,
    KR_KB,
    YCGCO,
    ColorTags,
    PixelLayout,
    YuvCoding,
    full_range_luma,
    rgb_to_yuv,
    yuv_to_rgb,
)

CODINGS = st.builds(
    YuvCoding,
    matrix=st.sampled_from([*KR_KB, YCGCO]),
    full_range=st.booleans(),
    bits=st.sampled_from([8, 10, 12]),
    sub_x=st.just(1),
    sub_y=st.integers(0, 1),
    cosited_x=st.booleans(),
    cosited_y=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(coding=CODINGS, width=st.integers(1, 21), height=st.integers(1, 21), seed=st.integers(0, 2**32 - 1))
def test_noise_within_gamut_comes_back(coding: YuvCoding, width: int, height: int, seed: int) -> None:
    """White noise in every plane: the filters have perfect reconstruction, only RGB's rounding is left."""
    rng = np.random.default_rng(seed)
    unit = 1 << (coding.bits - 8)
    dtype = np.uint8 if coding.bits == 8 else np.uint16
    rows, columns = -(-height >> coding.sub_y), -(-width >> coding.sub_x)
    luma = rng.integers(108 * unit, 148 * unit, (height, width)).astype(dtype)
    chroma = [rng.integers(104 * unit, 152 * unit, (rows, columns)).astype(dtype) for _ in range(2)]
    rgb = yuv_to_rgb((luma, *chroma), coding)
    assert rgb.shape == (height, width, 3)
    assert rgb.dtype == (np.uint8 if coding.bits == 8 else np.uint16)
    for before, after in zip((luma, *chroma), rgb_to_yuv(rgb, coding), strict=True):
        assert after.dtype == dtype
        assert np.abs(before.astype(int) - after).max() <= (1 if coding.bits == 8 else 0)


@pytest.mark.parametrize("matrix", [BT709, BT601_525, BT2020])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("full", [False, True])
def test_against_the_standard(matrix: int, bits: int, full: bool) -> None:
    """H.273 equations in double precision, 4:4:4."""
    rng = np.random.default_rng(1)
    rgb = rng.random((16, 16, 3))
    kr, kb = KR_KB[matrix]
    r, g, b = np.moveaxis(rgb, -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    pb, pr = 0.5 * (b - y) / (1 - kb), 0.5 * (r - y) / (1 - kr)
    if full:
        top = (1 << bits) - 1
        expected = [y * top, pb * top + (1 << (bits - 1)), pr * top + (1 << (bits - 1))]
    else:
        unit = 1 << (bits - 8)
        expected = [(219 * y + 16) * unit, (224 * pb + 128) * unit, (224 * pr + 128) * unit]
    planes = rgb_to_yuv(rgb.astype(np.float32), YuvCoding(matrix, full, bits, 0, 0))
    for codes, exact in zip(planes, expected, strict=True):
        assert np.abs(codes - np.clip(exact, 0, (1 << bits) - 1)).max() <= 0.5 + 1e-3


def test_known_colours() -> None:
    """EBU bars at 100 %: red and blue of limited BT.709 and BT.601."""
    red = np.array([[[1.0, 0, 0]]], np.float32)
    assert [int(p[0, 0]) for p in rgb_to_yuv(red, YuvCoding(BT709, False, 8, 0, 0))] == [63, 102, 240]
    assert [int(p[0, 0]) for p in rgb_to_yuv(red, YuvCoding(BT601_525, False, 8, 0, 0))] == [81, 90, 240]
    blue = np.array([[[0, 0, 1.0]]], np.float32)
    assert [int(p[0, 0]) for p in rgb_to_yuv(blue, YuvCoding(BT709, False, 8, 0, 0))] == [32, 240, 118]


def test_chroma_siting() -> None:
    """A linear chroma ramp lands where the siting says: half a luma sample apart."""
    ramp = np.tile(np.arange(100, 140, 4, dtype=np.uint8), (4, 1))
    luma = np.full((4, 20), 128, np.uint8)
    neutral = np.full((4, 10), 128, np.uint8)
    red = {}
    for cosited in (True, False):
        coding = YuvCoding(BT709, True, 8, 1, 0, cosited_x=cosited)
        red[cosited] = yuv_to_rgb((luma, neutral, ramp), coding)[0, 4:16, 0].astype(float)
    # 2 codes of Cr per luma sample, 1.5748 codes of red per code of Cr.
    assert np.allclose(red[True] - red[False], 2 * 0.5 * 1.5748, atol=1.01)
    assert np.mean(red[True] - red[False]) == pytest.approx(1.5748, abs=0.3)


def test_out_of_range_values_are_clipped() -> None:
    rgb = np.array([[[-1.0, 2.0, 0.5]]], np.float32)
    clipped = np.array([[[0.0, 1.0, 0.5]]], np.float32)
    coding = YuvCoding(BT709, False, 10, 0, 0)
    for a, b in zip(rgb_to_yuv(rgb, coding), rgb_to_yuv(clipped, coding), strict=True):
        assert np.array_equal(a, b)


def test_full_range_luma() -> None:
    luma = np.array([[0, 16, 125, 126, 235, 255]], np.uint8)
    assert full_range_luma(luma, YuvCoding(BT709, False, 8)).tolist() == [[0, 0, 127, 128, 255, 255]]
    assert full_range_luma(luma, YuvCoding(BT709, True, 8)).tolist() == luma.tolist()
    ten = luma.astype(np.uint16) * 4
    assert full_range_luma(ten, YuvCoding(BT709, False, 10)).tolist() == [[0, 0, 127, 128, 255, 255]]


@pytest.mark.parametrize(
    ("tags", "pix_fmt", "height", "codec", "matrix", "full"),
    [
        (ColorTags(), "yuv420p", 720, "h264", BT709, False),
        (ColorTags(), "yuv420p", 719, "h264", BT601_525, False),
        (ColorTags(), "yuvj420p", 1080, "h264", BT709, True),
        (ColorTags(), "yuv420p", 480, "mjpeg", BT601_525, True),
        (ColorTags(matrix=5, range=2), "yuv420p", 1080, "h264", 5, True),
        (ColorTags(matrix=9, range=1), "yuv420p10le", 480, "hevc", BT2020, False),
        (ColorTags(matrix=14), "yuv420p10le", 1080, "hevc", BT709, False),
        (ColorTags(), "gray", 480, "ffv1", BT601_525, True),
        (ColorTags(), "rgb24", 480, "png", 0, True),
    ],
)
def test_resolution_of_tags(tags: ColorTags, pix_fmt: str, height: int, codec: str, matrix: int, full: bool) -> None:
    resolved = tags.resolve(pix_fmt, height, codec)
    assert (resolved.resolved_matrix, resolved.full_range) == (matrix, full)
    assert (resolved.matrix, resolved.range) == (tags.matrix, tags.range)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("yuv420p", ("yuv", 8, 1, 1, False, "yuv420p")),
        ("yuvj444p", ("yuv", 8, 0, 0, False, "yuv444p")),
        ("nv12", ("yuv", 8, 1, 1, False, "yuv420p")),
        ("p010le", ("yuv", 10, 1, 1, False, "yuv420p10le")),
        ("yuyv422", ("yuv", 8, 1, 0, False, "yuv422p")),
        ("yuva420p", ("yuv", 8, 1, 1, True, "yuv420p")),
        ("gray", ("gray", 8, 0, 0, False, "gray")),
        ("gray10le", ("gray", 10, 0, 0, False, "gray10le")),
        ("ya8", ("gray", 8, 0, 0, True, "gray")),
        ("rgb24", ("rgb", 8, 0, 0, False, "gbrp")),
        ("rgba", ("rgb", 8, 0, 0, True, "gbrp")),
        ("rgb48le", ("rgb", 16, 0, 0, False, "gbrp16le")),
        ("pal8", ("rgb", 8, 0, 0, True, "gbrp")),
        ("yuv411p", ("yuv", 8, 0, 0, False, "yuv444p")),
    ],
)
def test_layouts(name: str, expected: tuple[object, ...]) -> None:
    layout = PixelLayout.of(name)
    assert (layout.kind, layout.bits, layout.sub_x, layout.sub_y, layout.alpha, layout.planar) == expected
