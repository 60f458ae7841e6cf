"""Photos: decoding, finding and framing the face, and noticing what was mixed up."""

from __future__ import annotations

import io
import tracemalloc

import cv2
import numpy as np
import pytest
from PIL import Image

from affectvlm.photos import PhotoError, prepare_photos, read_photo
from affectvlm.photos.decoding import MAX_SIDE
from affectvlm.photos.faces import FaceBox, cut_out, find_face
from affectvlm.photos.network import SIDE
from affectvlm.photos.training_data import clutter, make_picture, make_sprite, targets
from affectvlm.rendering import render_views


def encoded(image: Image.Image, kind: str = "PNG", **settings) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


@pytest.fixture(scope="module")
def quarters() -> np.ndarray:
    """(32, 64, 3): red, green over blue, white, so that every turn and flip shows."""
    image = np.zeros((32, 64, 3), np.uint8)
    image[:16, :32], image[:16, 32:], image[16:, :32], image[16:, 32:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255
    return image


@pytest.fixture(scope="module")
def scene(happy_scan):
    """A function: the smiling head, turned, in front of clutter; window centre and half side in pixels as asked."""
    rng = np.random.default_rng(8)
    backdrop = cv2.resize(clutter(rng), (640, 480)).astype(np.uint8)[..., None].repeat(3, axis=2)

    def make(yaw: float, x: float = 330, y: float = 220, half: float = 110) -> np.ndarray:
        side = 2 * round(half * 2.2)
        view = render_views(happy_scan, "textured", side, (yaw,), 80.0 * side / 2 / half)[0]
        cover = np.abs(view.astype(int) - 128).max(axis=2) > 3
        image = np.pad(backdrop, ((600, 600), (600, 600), (0, 0)), mode="edge")
        top, left = round(y) - side // 2 + 600, round(x) - side // 2 + 600
        image[top : top + side, left : left + side][cover] = view[cover]
        return np.ascontiguousarray(image[600:-600, 600:-600])

    return make


# --- decoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
def test_formats_are_read(quarters, kind):
    settings = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(kind, {})
    image = read_photo(encoded(Image.fromarray(quarters), kind, **settings))
    assert image.shape == quarters.shape and image.dtype == np.uint8
    assert np.abs(image.astype(int) - quarters).max() <= (8 if kind == "JPEG" else 0)


def test_paths_images_and_arrays_are_read_alike(quarters, tmp_path):
    file = tmp_path / "photo.png"
    file.write_bytes(encoded(Image.fromarray(quarters)))
    for source in (
        file,
        str(file),
        file.read_bytes(),
        bytearray(file.read_bytes()),
        Image.fromarray(quarters),
        quarters,
    ):
        assert np.array_equal(read_photo(source), quarters)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_in_exif_is_undone(quarters, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a), 7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](quarters)  # fmt: skip
    content = encoded(Image.fromarray(np.ascontiguousarray(turned)), "JPEG", quality=95, subsampling=0, exif=exif)
    assert np.abs(read_photo(content).astype(int) - quarters).max() <= 8


def test_every_mode_becomes_rgb(quarters):
    image = Image.fromarray(quarters)
    grey = np.asarray(image.convert("L"))
    for mode in ("1", "L", "P", "CMYK", "RGBA", "LA", "YCbCr", "HSV"):
        assert read_photo(image.convert(mode)).shape == (32, 64, 3)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert np.abs(read_photo(encoded(deep)).astype(int) - grey[..., None]).max() <= 1
    for array in (grey, grey[..., None], grey.astype(np.uint16) << 8, grey / 255.0, grey > 100):
        assert read_photo(array).shape == (32, 64, 3)
    assert np.abs(read_photo(grey / 255.0).astype(int) - grey[..., None]).max() <= 1


def test_greys_of_any_depth_keep_their_place_between_black_and_white():
    ramp = np.arange(256)[None].repeat(16, axis=0)
    for deep in (ramp.astype(np.uint16) * 257, ramp.astype(np.int32) * 257, (ramp / 255).astype(np.float32)):
        assert np.abs(read_photo(Image.fromarray(deep)).astype(int) - ramp[..., None]).max() == 0
    beyond = np.array([[-5, 0, 65535, 2**31 - 1]], np.int32).repeat(4, axis=1).repeat(16, axis=0)
    assert read_photo(Image.fromarray(beyond))[0, ::4, 0].tolist() == [0, 0, 255, 255]


def test_a_large_photo_of_16_bits_takes_little_memory():
    content = encoded(Image.fromarray(np.full((4000, 5000), 40_000, np.uint16)))
    tracemalloc.start()
    try:
        assert (read_photo(content) == 156).all()
        assert tracemalloc.get_traced_memory()[1] < 5 * 4000 * 5000  # bytes; a number of 8 bytes a pixel was 20 times
    finally:
        tracemalloc.stop()


def test_what_is_transparent_is_grey(quarters):
    rgba = np.dstack([quarters, np.full((32, 64), 255, np.uint8)])
    rgba[:16, :32, 3] = 0
    image = read_photo(encoded(Image.fromarray(rgba)))
    assert (image[:16, :32] == 128).all() and np.array_equal(image[16:], quarters[16:])


def test_large_photos_are_scaled_down():
    assert max(read_photo(encoded(Image.new("RGB", (4000, 3000), "red"), "JPEG")).shape) == MAX_SIDE


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"not a picture", "PNG, JPEG, WEBP and BMP are accepted"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"%PDF-1.7", "PDF"),
        (encoded(Image.new("RGB", (60, 60)), "GIF"), "a GIF picture; PNG, JPEG, WEBP and BMP are accepted; save it"),
        (encoded(Image.new("RGB", (60, 60)), "TIFF"), "a TIFF picture"),
        (encoded(Image.new("RGB", (60, 60), "red"))[:70], "damaged or cut off"),
        (encoded(Image.new("RGB", (8, 60))), "at least 16"),
        (encoded(Image.new("1", (20000, 20000))), "megapixels"),
        ("gone.jpg", "no file gone.jpg"),
        (3, "got int"),
        (np.zeros((4, 4, 7), np.uint8), "shape"),
        (np.full((40, 40), np.nan), "0 to 1"),
        (np.zeros((40, 40), np.int64), "int64"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_used_is_said(content, said):
    with pytest.raises(PhotoError, match=said) as error:
        read_photo(content, "left photo")
    assert str(error.value).startswith("left photo: ")


# --- framing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("yaw", [0, -40, 40, -65, 65])
def test_a_face_is_found_and_framed_as_our_views_are(scene, yaw):
    box = find_face(scene(yaw))
    assert box is not None
    assert np.hypot(box.x - 330, box.y - 220) < 0.25 * 110
    assert 0.8 < box.half / 110 < 1.25
    assert abs(box.yaw - yaw) < 25
    assert box.role == ("front" if yaw == 0 else "left" if yaw < 0 else "right")


def test_the_window_follows_the_face(scene):
    small = find_face(scene(0, x=200, y=300, half=60))
    assert np.hypot(small.x - 200, small.y - 300) < 0.25 * 60 and 0.75 < small.half / 60 < 1.3


def test_a_tilted_face_is_set_upright(scene):
    image = scene(0)
    tilted = cv2.warpAffine(
        image, cv2.getRotationMatrix2D((330, 220), -20, 1), (640, 480), borderMode=cv2.BORDER_REPLICATE
    )
    assert find_face(tilted).roll == pytest.approx(20, abs=7)


@pytest.mark.parametrize("quarters", [1, 3])
def test_a_photo_that_lies_on_its_side_is_set_upright(scene, quarters):
    upright, lying = scene(-40), np.ascontiguousarray(np.rot90(scene(-40), quarters))
    wanted, found = (prepare_photos(left=photo) for photo in (upright, lying))
    assert (np.abs(found.views[1].astype(int) - wanted.views[1]) < 12).mean() > 0.95
    assert any("left photo lies on its side" in said for said in found.warnings)
    assert not any("seems to show" in said or "on its side" in said for said in wanted.warnings)
    assert not any("seems to show" in said for said in found.warnings)
    assert np.array_equal(cut_out(lying, found.boxes[1], 224), found.views[1])


def test_our_own_views_stay_as_they_are(happy_scan):
    views = render_views(happy_scan, "textured", size=224)
    photos = prepare_photos(*views)
    assert photos.warnings == ()
    assert np.abs(photos.views.astype(int) - views).max() <= 1


def test_where_there_is_no_face_the_user_can_go_on():
    image = np.zeros((300, 500, 3), np.uint8)
    image[::10] = 255
    photos = prepare_photos(front=image)
    assert photos.present.tolist() == [True, False, False]
    assert any("no face was found in the front photo" in warning for warning in photos.warnings)
    assert photos.boxes[0] == FaceBox(250, 150, 150) and photos.boxes[1:] == (None, None)
    assert (photos.views[1:] == 128).all()


def test_a_window_is_cut_exactly():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert np.array_equal(cut_out(image, FaceBox(32, 32, 32), 64), image)
    assert np.array_equal(cut_out(image, FaceBox(20, 30, 10), 20), image[20:40, 10:30])
    turned = cut_out(image, FaceBox(32, 32, 32, roll=90), 64)
    assert np.array_equal(turned, np.rot90(image))
    beyond = cut_out(image, FaceBox(0, 0, 32), 64)
    assert np.array_equal(beyond[32:, 32:], image[:32, :32]) and (beyond[:32, :32] == image[0, 0]).all()


# --- roles ------------------------------------------------------------------------------------------------------------


def test_right_roles_need_no_words(scene):
    assert prepare_photos(scene(0), scene(-45), scene(45)).warnings == ()


def test_swapped_photos_are_noticed(scene):
    (said,) = prepare_photos(scene(0), scene(45), scene(-45)).warnings
    assert "left and the right photo seem to be swapped" in said


def test_the_same_photo_twice_is_noticed_even_compressed(scene):
    image = scene(0)
    copy = encoded(Image.fromarray(image), "JPEG", quality=60)
    (said,) = prepare_photos(image, copy, scene(45)).warnings
    assert said == "the front and the left photo are the same picture"


def test_a_photo_in_the_wrong_place_is_named(scene):
    (said,) = prepare_photos(front=scene(60), left=scene(-45), right=scene(50)).warnings
    assert said == "the front photo seems to show the right cheek, not the face from the front"


def test_missing_photos_are_named(scene):
    (said,) = prepare_photos(left=scene(-45)).warnings
    assert said.startswith("no front and right photos")
    with pytest.raises(PhotoError, match="at least one"):
        prepare_photos()


# --- training ---------------------------------------------------------------------------------------------------------


def test_training_pictures_know_where_their_faces_are(happy_scan):
    """Cells that are to say "face" also say where: exactly the middle of one of the faces that were drawn."""
    rng = np.random.default_rng(2)
    sprites = [make_sprite(happy_scan, rng) for _ in range(4)]
    pictures = [make_picture(sprites, rng) for _ in range(60)]
    assert all(picture.image.shape == (SIDE, SIDE) and picture.image.dtype == np.uint8 for picture in pictures)
    counts = [len(picture.faces) for picture in pictures]
    assert set(counts) >= {0, 1}
    for picture in pictures:
        wanted = targets(picture.faces)
        assert wanted.shape == (8, 16, 16)
        assert (wanted[0].sum() > 0) == (len(picture.faces) > 0)
        for row, column in zip(*np.nonzero(wanted[0]), strict=True):
            x = (column + 0.5) * 8 + wanted[1, row, column] * 32
            y = (row + 0.5) * 8 + wanted[2, row, column] * 32
            assert np.hypot(picture.faces[:, 0] - x, picture.faces[:, 1] - y).min() < 1e-3
