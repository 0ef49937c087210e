"""Decoding: what must work, what must be refused, and that refusal comes before the pixels."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from segserve import imaging
from segserve.errors import InvalidRequestError, NotAnImageError, TooLargeError, UndecodableImageError


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def half_red_half_blue(width: int = 40, height: int = 20) -> Image.Image:
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (width // 2, 0, width, height))
    return image


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of very few bytes that claims, and truly has, width x height black pixels of one bit."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_formats(format: str) -> None:
    decoded = imaging.decode(saved(half_red_half_blue(), format))
    assert decoded.shape == (20, 40, 3) and decoded.dtype == np.uint8
    assert decoded[10, 5, 0] > 200 and decoded[10, 5, 2] < 60
    assert decoded[10, 35, 2] > 200 and decoded[10, 35, 0] < 60


def test_cmyk_jpeg_becomes_rgb() -> None:
    decoded = imaging.decode(saved(half_red_half_blue().convert("CMYK"), "JPEG"))
    assert decoded[10, 5, 0] > 200 and decoded[10, 35, 2] > 200 and decoded[10, 35, 0] < 60


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(format: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    decoded = imaging.decode(saved(Image.fromarray(ramp), format))
    assert decoded.shape == (4, 256, 3)
    assert np.abs(decoded[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_dark_sixteen_bit_image_stays_dark() -> None:
    dark = np.full((4, 4), 128, np.uint16)
    assert imaging.decode(saved(Image.fromarray(dark), "PNG")).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = half_red_half_blue()
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that stores the picture as the tag says
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(stored, "JPEG", exif=exif, quality=95)
    info = imaging.read_info(data)
    assert (info.format, info.width, info.height) == ("JPEG", 40, 20)
    decoded = imaging.decode(data)
    assert decoded.shape == (20, 40, 3)
    assert decoded[10, 5, 0] > 200 and decoded[10, 35, 2] > 200


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    assert imaging.decode(data)[4, 4].tolist() == [255, 0, 0]


def test_alpha_lies_over_white() -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 255, 0))
    image.putpixel((0, 0), (0, 0, 255, 255))
    decoded = imaging.decode(saved(image, "PNG"))
    assert decoded[0, 0].tolist() == [0, 0, 255] and decoded[2, 2].tolist() == [255, 255, 255]


def test_palette_with_transparency() -> None:
    image = half_red_half_blue().quantize(4)
    decoded = imaging.decode(saved(image, "PNG", transparency=image.getpixel((0, 0))))
    assert decoded[10, 5].tolist() == [255, 255, 255]


def test_gray() -> None:
    assert imaging.decode(saved(Image.new("L", (3, 2), 77), "PNG")).tolist() == np.full((2, 3, 3), 77).tolist()


def test_a_bomb_is_refused_from_its_header() -> None:
    bomb = png_bomb(10_000, 6_000)
    assert len(bomb) < 100_000
    for read in (imaging.read_info, imaging.decode):
        with pytest.raises(TooLargeError, match=r"10000 x 6000 pixels; at most 50 megapixels"):
            read(bomb)


def test_a_huge_bomb_is_refused_too() -> None:
    data = bytearray(png_bomb(100, 100))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    with pytest.raises(TooLargeError, match="megapixels"):
        imaging.read_info(bytes(data))


def test_an_image_at_the_limit_is_read() -> None:
    limits = imaging.ImageLimits(max_pixels=800)
    assert imaging.decode(saved(half_red_half_blue(), "PNG"), limits).shape == (20, 40, 3)
    with pytest.raises(TooLargeError):
        imaging.decode(saved(half_red_half_blue(41), "PNG"), limits)


def test_too_many_bytes() -> None:
    with pytest.raises(TooLargeError, match=r"at most 10 are allowed") as caught:
        imaging.decode(saved(half_red_half_blue(), "PNG"), imaging.ImageLimits(max_bytes=10))
    assert caught.value.error_code == "image_too_large"


@pytest.mark.parametrize("data", [b"hello, I am a text file", b"%PDF-1.7 ...", b"<svg/>", bytes(100), b"\xff\xd8"])
def test_not_an_image(data: bytes) -> None:
    with pytest.raises((NotAnImageError, UndecodableImageError)):
        imaging.read_info(data)


def test_text_is_called_not_an_image_and_the_message_lists_formats() -> None:
    with pytest.raises(NotAnImageError, match="JPEG, PNG"):
        imaging.decode(b"hello, I am a text file")


def test_no_bytes() -> None:
    with pytest.raises(InvalidRequestError, match="0 bytes"):
        imaging.decode(b"")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_truncated_files_never_raise_anything_else(format: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    whole = saved(noise, format)
    for end in range(1, len(whole), max(1, len(whole) // 40)):
        try:
            imaging.decode(whole[:end])
        except (NotAnImageError, UndecodableImageError, TooLargeError):
            continue


def test_half_a_jpeg_is_undecodable() -> None:
    whole = saved(half_red_half_blue(400, 300), "JPEG")
    with pytest.raises(UndecodableImageError, match="truncated or corrupt"):
        imaging.decode(whole[: len(whole) // 2])


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7, 4), (5, 7)])
def test_png_round_trip(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    assert np.array_equal(np.array(Image.open(io.BytesIO(imaging.encode(picture)))), picture)


def test_jpeg_encoding_is_close() -> None:
    data = imaging.encode(np.asarray(half_red_half_blue()), "JPEG")
    assert imaging.read_info(data).format == "JPEG"
    assert np.abs(imaging.decode(data).astype(int) - np.asarray(half_red_half_blue())).mean() < 8


@pytest.mark.parametrize(("ending", "form"), imaging.SUFFIXES.items())
def test_every_format_is_written_and_read_again(ending: str, form: imaging.Format) -> None:
    picture = np.full((9, 14, 3), (40, 90, 200), dtype=np.uint8)
    data = imaging.encode(picture, form)
    assert imaging.read_info(data) == imaging.ImageInfo(form, 14, 9)
    assert np.abs(imaging.decode(data).astype(int) - picture).max() <= 4


@pytest.mark.parametrize(("form", "longest"), [("JPEG", 65_500), ("WEBP", 16_383), ("GIF", 65_535)])
def test_a_picture_too_long_for_a_format(form: imaging.Format, longest: int) -> None:
    assert imaging.read_info(imaging.encode(np.zeros((1, longest, 3), dtype=np.uint8), form)).width == longest
    with pytest.raises(TooLargeError, match=f"{form}: at most {longest:,}"):
        imaging.encode(np.zeros((longest + 1, 1, 3), dtype=np.uint8), form)
