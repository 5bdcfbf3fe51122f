"""Files in and out: every mode, orientation, damage, and nothing half-written."""

import io
import json
import re
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from addsr.errors import InputImageError, OutputError
from addsr.image import read
from addsr.image.picture import from_array
from addsr.image.read import opened, read_picture, read_pil, upright_size
from addsr.image.write import check_target, write_picture
from addsr.image.xmp import MAX_XMP


def gradient(mode="RGB", size=(23, 17)):
    array = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(array).convert(mode)


@pytest.mark.parametrize(
    ("mode", "alpha", "gray"),
    [
        ("RGB", False, False),
        ("L", False, True),
        ("LA", False, True),
        ("RGBA", False, False),
        ("CMYK", False, False),
        ("P", False, False),
        ("1", False, True),
        ("YCbCr", False, False),
        ("HSV", False, False),
        ("I", False, True),
        ("F", False, True),
    ],
)
def test_every_mode_is_read(mode, alpha, gray):
    image = gradient("L").convert("F") if mode == "F" else gradient(mode)
    if mode == "F":
        image = image.point(lambda v: v * (1 / 255))
    picture = read_pil(image)
    assert picture.size == (17, 23)
    assert (picture.alpha is not None) == alpha
    assert picture.gray == gray


def test_sixteen_bits_are_scaled(tmp_path):
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    picture = read_picture(tmp_path / "deep.png")
    torch.testing.assert_close(picture.pixels[0], torch.from_numpy(values / np.float32(65535)))


def test_palette_transparency_becomes_alpha(tmp_path):
    image = gradient("P")
    image.save(tmp_path / "p.png", transparency=image.getpixel((0, 0)))
    assert read_picture(tmp_path / "p.png").alpha is not None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset(tmp_path, orientation):
    upright = np.asarray(gradient())
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    Image.fromarray(np.ascontiguousarray(undo(upright))).save(tmp_path / "o.png", exif=exif)
    picture = read_picture(tmp_path / "o.png")
    assert np.array_equal(np.asarray(picture.to_pil()), upright)
    exif = Image.Exif()
    exif.load(picture.exif)
    assert dict(exif) == {0x010F: "maker"}


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "gif", "bmp"])
def test_every_truncation_is_an_error_of_ours_or_a_picture(tmp_path, ending):
    buffer = io.BytesIO()
    gradient(size=(40, 30)).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending.upper()))
    data = buffer.getvalue()
    path, refused = tmp_path / f"cut.{ending}", []
    for length in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:length])
        try:
            assert read_picture(path).size == (30, 40)
        except InputImageError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert all(str(path) in message and "\n" not in message for message in refused)


def test_bad_files_are_named(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    for name, message in (("text.png", "not a picture"), ("empty.png", "empty"), ("none.png", "no such file")):
        with pytest.raises(InputImageError, match=message):
            read_picture(tmp_path / name)
    with pytest.raises(InputImageError, match="not a regular file"):
        read_picture(tmp_path)


def test_postscript_is_never_opened(tmp_path):
    gradient().save(tmp_path / "a.eps")
    with pytest.raises(InputImageError, match="not a picture"):
        read_picture(tmp_path / "a.eps")


def test_huge_pictures_are_refused_from_their_header(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "MAX_PIXELS", 100)
    gradient().save(tmp_path / "big.png")
    with pytest.raises(InputImageError, match="megapixels"):
        read_picture(tmp_path / "big.png")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int32),
        np.full((4, 4, 3), np.nan, np.float32),
        np.full((4, 4, 3), 2.0, np.float32),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array):
    with pytest.raises(InputImageError):
        from_array(array)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_metadata_says_what_made_it(tmp_path, name):
    write_picture(gradient(), tmp_path / name, {"model": "compact", "seed": 7, "version": "1"})
    with Image.open(tmp_path / name) as image:
        exif = image.getexif()
        assert exif[0x0131] == "addsr 1"
        comment = exif[0x010E] if name == "a.tif" else exif.get_ifd(0x8769)[0x9286][8:]
        assert json.loads(comment) == {"model": "compact", "seed": 7, "version": "1"}
        if name == "a.png":
            assert json.loads(image.text["addsr"])["seed"] == 7
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"old")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_picture(gradient(), tmp_path / "a.png", {}, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_formats_that_cannot_hold_the_picture_are_refused(tmp_path):
    with pytest.raises(OutputError, match="16383"):
        check_target(tmp_path / "a.webp", (10, 20_000), False)
    Image.new("L", (65_500, 1)).save(tmp_path / "widest.jpg")
    with pytest.raises(OutputError, match="65500"):
        check_target(tmp_path / "a.jpg", (10, 65_501), False)
    with pytest.raises(OutputError, match="transparency"):
        check_target(tmp_path / "a.jpg", (10, 10), True)
    check_target(tmp_path / "a.png", (10, 20_000), True)


@pytest.mark.parametrize("tag", [(0x0128, 70000), (0x011A, -1.5), (0x9286, "x" * 80_000)])
def test_odd_exif_is_dropped_not_fatal(tmp_path, tag):
    image = gradient()
    image.getexif()[tag[0]] = tag[1]
    with pytest.warns(UserWarning, match="EXIF"):
        picture = read_pil(image)
    write_picture(picture.to_pil(), tmp_path / "a.jpg", {})
    assert Image.open(tmp_path / "a.jpg").size == image.size


@pytest.mark.parametrize("tag", [(0x0128, 70000), (0x011A, -1.5)])
def test_a_picture_with_odd_exif_is_turned_all_the_same(tag):
    image = gradient()
    image.getexif().update({0x0112: 6, tag[0]: tag[1]})
    picture = read_pil(image)
    assert np.array_equal(np.asarray(picture.to_pil()), np.rot90(np.asarray(image), -1))


def test_clear_grey_stays_clear(tmp_path):
    deep = np.full((8, 8), 300, np.uint16)
    deep[2:4] = 7
    Image.fromarray(deep).save(tmp_path / "deep.png", transparency=7)
    picture = read_picture(tmp_path / "deep.png")
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha[0].numpy() == 0, deep == 7)
    Image.fromarray(deep == 7).save(tmp_path / "one.png", transparency=255)
    picture = read_picture(tmp_path / "one.png")
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha[0].numpy() == 0, deep == 7)


def png(path, bits, colour, rows, key):
    """A 2-pixel-wide PNG of any depth with a colour key, which Pillow would not write."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 2, len(rows), bits, colour, 0, 0, 0)), (b"tRNS", key)]
    chunks += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    body = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))


@pytest.mark.parametrize(
    ("bits", "colour", "row", "key", "mode"),
    [
        (16, 2, struct.pack(">6H", *[0x1234] * 3, *[0x3434] * 3), struct.pack(">3H", *[0x1234] * 3), "RGBA"),
        (8, 0, bytes([7, 9]), struct.pack(">H", 7), "LA"),
        (4, 0, bytes([0x3F]), struct.pack(">H", 3), "LA"),
        (2, 0, bytes([0b01110000]), struct.pack(">H", 1), "LA"),
        (1, 0, bytes([0b10000000]), struct.pack(">H", 1), "LA"),
    ],
)
def test_a_colour_key_of_any_depth(tmp_path, bits, colour, row, key, mode):
    png(tmp_path / "a.png", bits, colour, [row, row], key)
    picture = read_picture(tmp_path / "a.png")
    assert picture.mode == mode
    assert picture.alpha is not None
    assert picture.alpha[0].tolist() == [[0, 1], [0, 1]]


def test_premultiplied_grey():
    picture = read_pil(Image.new("LA", (4, 4), (100, 128)).convert("La"))
    assert picture.mode == "LA"


def test_a_damaged_avif_is_an_error_of_ours(tmp_path, monkeypatch):
    def damaged(_self):
        raise RuntimeError("Failed to decode image: Missing or empty image item")

    gradient().save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", damaged)  # not every Pillow has AVIF
    with pytest.raises(InputImageError, match=r"a\.png: .*damaged.*Missing or empty"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_text_of_the_photo_is_written_as_it_was(tmp_path, ending, encoding):
    artist, exif = "Jörg Müller".encode(encoding), Image.Exif()
    exif[0x013B] = artist
    gradient().save(tmp_path / "in.jpg", exif=exif)
    write_picture(read_picture(tmp_path / "in.jpg").to_pil(), tmp_path / f"out.{ending}", {})
    with Image.open(tmp_path / f"out.{ending}") as image:
        assert image.getexif()[0x013B].encode("latin-1") == artist


def test_what_the_photographer_noted_is_kept_in_our_comment(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "caption"
    exif.get_ifd(0x8769).update({0x9286: b"ASCII\0\0\0my note", 0xA002: 23})
    gradient().save(tmp_path / "in.jpg", exif=exif)
    for source, target in (("in.jpg", "out.jpg"), ("out.jpg", "again.jpg"), ("in.jpg", "out.tif")):
        write_picture(read_picture(tmp_path / source).to_pil(), tmp_path / target, {"sha256": "x"})
    comments = {}
    for name in ("out.jpg", "again.jpg"):
        with Image.open(tmp_path / name) as image:
            directory = image.getexif().get_ifd(0x8769)
            assert 0xA002 not in directory
            comments[name] = json.loads(directory[0x9286][8:])
    with Image.open(tmp_path / "out.tif") as image:
        assert json.loads(image.getexif()[0x010E]) == {"sha256": "x", "photo_comment": "caption"}
    assert comments == {"out.jpg": {"sha256": "x", "photo_comment": "my note"}, "again.jpg": {"sha256": "x"}}


XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title='Jörg'
 exif:PixelXDimension='23' hdrgm:Version="1.0"><xmp:Rating>5</xmp:Rating><Container:Directory a="b"><rdf:li/>
</Container:Directory><tiff:Orientation>6</tiff:Orientation></rdf:Description></x:xmpmeta>"""
KEPT_XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="1" dc:title='Jörg'
><xmp:Rating>5</xmp:Rating><tiff:Orientation>1</tiff:Orientation></rdf:Description></x:xmpmeta>"""


def without_turn(xmp):
    """Of a TIFF, Pillow itself takes the turn away."""
    return re.sub(r"<tiff:Orientation>1</tiff:Orientation>|tiff:Orientation=.1.|\s", "", xmp)


@pytest.mark.parametrize("source", ["jpg", "webp", "png", "tif"])
def test_xmp_is_kept_but_for_what_is_of_the_file(tmp_path, source):
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP)
    options = {"png": {"pnginfo": text}, "tif": {"tiffinfo": {700: XMP.encode()}}}
    gradient().save(tmp_path / f"in.{source}", **options.get(source, {"xmp": XMP.encode()}))
    picture = read_picture(tmp_path / f"in.{source}")
    assert picture.size == (23, 17)  # turned, as it says and nothing else does
    with Image.open(tmp_path / f"in.{source}") as image:
        assert upright_size(image) == (17, 23)
    for target in ("jpg", "webp", "png", "tif"):
        path = tmp_path / f"out.{target}"
        write_picture(picture.to_pil(), path, {"model": "m"}, overwrite=True)
        with Image.open(path) as image:
            kept = image.info["xmp"].decode()
            assert kept == KEPT_XMP or (source == "tif" and without_turn(kept) == without_turn(KEPT_XMP))
            assert '"model": "m"' in str(image.getexif()) + str(image.getexif().get_ifd(0x8769))
        assert read_picture(path).size == (23, 17)


@pytest.mark.parametrize(("xmp", "words"), [(b"x" * 65_505, "65505 bytes"), (XMP.encode("utf-16"), "not UTF-8")])
def test_xmp_that_cannot_be_kept_is_said(tmp_path, xmp, words):
    gradient().save(tmp_path / "in.webp", xmp=xmp)
    with pytest.warns(UserWarning, match=f"in.webp: its XMP .*{words}"):
        assert read_picture(tmp_path / "in.webp").xmp is None


def test_blanks_of_xmp_take_no_time(tmp_path):
    xmp, begun = XMP.encode() + b" " * 60_000, time.monotonic()
    gradient().save(tmp_path / "in.jpg", xmp=xmp)
    assert read_picture(tmp_path / "in.jpg").xmp == KEPT_XMP.encode() + b" " * 60_000
    assert time.monotonic() - begun < 5


def test_a_second_part_of_xmp_is_said(tmp_path):
    gradient().save(tmp_path / "in.webp", xmp=b'<a xmpNote:HasExtendedXMP="0123" dc:title="b"/>')
    with pytest.warns(UserWarning, match=r"in\.webp: the second part of its XMP is left out"):
        assert read_picture(tmp_path / "in.webp").xmp == b'<a dc:title="b"/>'


def test_the_turn_of_a_large_png_is_in_its_header(tmp_path):
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP)
    gradient(size=(230, 170)).save(tmp_path / "in.png", pnginfo=text)
    data = (tmp_path / "in.png").read_bytes()
    assert upright_size(opened(data[: len(data) // 2])) == (170, 230)


def test_as_much_xmp_as_a_jpeg_holds(tmp_path):
    image = gradient()
    image.info["xmp"] = b"x" * MAX_XMP
    write_picture(image, tmp_path / "a.jpg", {})
    with Image.open(tmp_path / "a.jpg") as written:
        assert written.info["xmp"] == b"x" * MAX_XMP


def test_more_exif_than_a_jpeg_holds(tmp_path):
    image = gradient()
    exif = Image.Exif()
    exif[0x013B] = "x" * 59_000
    image.info["exif"] = exif.tobytes()
    with pytest.warns(UserWarning, match=r"a\.jpg: the photo's EXIF .* do not both fit"):
        write_picture(image, tmp_path / "a.jpg", {"prompt": "y" * 9000})
    with Image.open(tmp_path / "a.jpg") as written:
        assert b"yyyy" in written.getexif().get_ifd(0x8769)[0x9286]
    with pytest.warns(match="do not both fit"), pytest.raises(OutputError, match=r"b\.jpg: so long a prompt"):
        write_picture(image, tmp_path / "b.jpg", {"prompt": "y" * 70_000})
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


def test_a_tiffs_own_directory_is_not_copied(tmp_path):
    gradient().save(tmp_path / "a.tif", tiffinfo={0x0110: "camera"})
    exif = Image.Exif()
    exif.load(read_picture(tmp_path / "a.tif").exif)
    assert dict(exif) == {0x0110: "camera"}


def test_a_file_that_appeared_meanwhile_is_kept(tmp_path):
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        write_picture(gradient(), tmp_path / "a.png", {})
    assert (tmp_path / "a.png").read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_opaque_rgba_becomes_a_jpeg(tmp_path):
    write_picture(gradient("RGBA"), tmp_path / "a.jpg", {})
    assert Image.open(tmp_path / "a.jpg").mode == "RGB"


@pytest.mark.parametrize("depth", ["16", "float"])
def test_a_tiff_whose_zero_is_white_is_no_negative(depth, tmp_path):
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    stored = 1 - values if depth == "float" else ((1 - values) * 65535).round().astype(np.uint16)
    Image.fromarray(stored).save(tmp_path / "white_is_zero.tif", tiffinfo={262: 0})
    torch.testing.assert_close(
        read_picture(tmp_path / "white_is_zero.tif").pixels[0].numpy(), values, atol=1e-4, rtol=0
    )


def test_too_large_a_makers_note_costs_nothing_else(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x927C] = b"x" * 62_000
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    gradient().save(tmp_path / "photo.jpg", exif=exif)
    with pytest.warns(UserWarning, match=r"photo\.jpg: the maker's note is left out"):
        picture = read_picture(tmp_path / "photo.jpg")
    write_picture(picture.to_pil(), tmp_path / "out.png", {})
    kept = Image.open(tmp_path / "out.png").getexif()
    assert kept[0x010F] == "Maker"
    assert kept.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
    assert 0x927C not in kept.get_ifd(0x8769)


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile_is_applied_where_the_format_has_no_grey(mode, tmp_path):
    steps = np.repeat(np.array([[64, 128, 192]], np.uint8), 8, 0)
    image = Image.fromarray(np.dstack([steps, np.full_like(steps, 255)]) if mode == "LA" else steps)
    image.info["icc_profile"] = gray_profile(1.0)
    write_picture(image, tmp_path / "out.webp", {})
    shown = np.asarray(Image.open(tmp_path / "out.webp").convert("RGB"))[4].astype(int)
    srgb = [round(255 * (1.055 * (v / 255) ** (1 / 2.4) - 0.055)) for v in (64, 128, 192)]
    assert np.abs(shown - np.array(srgb)[:, None]).max() <= 6  # WebP is lossy


def gray_profile(gamma):
    """The smallest ICC profile of grey pictures with one gamma."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 63190, 65536, 54061)
    text = b"text" + bytes(4) + b"grey" + bytes(4)
    parts, offset, table = b"", 128 + 4 + 4 * 12, b""
    for tag, data in ((b"kTRC", curve), (b"wtpt", white), (b"cprt", text), (b"desc", text)):
        table += tag + struct.pack(">II", offset + len(parts), len(data))
        parts += data
    header = struct.pack(">I4sI4s4s4s", 0, b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    header = header.ljust(128, b"\0")
    profile = header + struct.pack(">I", 4) + table + parts
    return struct.pack(">I", len(profile)) + profile[4:]


@pytest.mark.parametrize("source", ["png", "tif", "jpg"])
@pytest.mark.parametrize("target", ["png", "tif", "jpg"])
def test_resolution_is_kept(source, target, tmp_path):
    gradient().save(tmp_path / f"scan.{source}", dpi=(600, 300))
    picture = read_picture(tmp_path / f"scan.{source}")
    write_picture(picture.to_pil(), tmp_path / f"out.{target}", {})
    assert Image.open(tmp_path / f"out.{target}").info["dpi"] == pytest.approx((600, 300), abs=0.1)


def test_resolution_is_of_the_upright_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient().save(tmp_path / "scan.jpg", dpi=(600, 300), exif=exif)
    assert read_picture(tmp_path / "scan.jpg").dpi == (300, 600)


@pytest.mark.parametrize("dpi", [(0, 0), (1, 1), (1e9, 1e9)])
def test_odd_resolutions_are_left_out(dpi, tmp_path):
    image = gradient()
    image.info["dpi"] = dpi
    assert read_pil(image).dpi is None


@pytest.mark.parametrize("ending", ["tif", "gif", "png"])
def test_further_pages_are_named(ending, tmp_path):
    pages = [gradient(), gradient().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    pages[0].save(tmp_path / f"album.{ending}", save_all=True, append_images=pages[1:])
    with pytest.warns(UserWarning, match="holds 2 pictures; the first is taken"):
        read_picture(tmp_path / f"album.{ending}")


def test_a_tiffs_caption_in_utf8_is_read_as_such(tmp_path):
    image = gradient()
    image.save(tmp_path / "scan.tif", tiffinfo={0x010E: "Großmutter 1932".encode()})
    write_picture(read_picture(tmp_path / "scan.tif").to_pil(), tmp_path / "out.tif", {})
    told = json.loads(Image.open(tmp_path / "out.tif").tag_v2[0x010E])
    assert told["photo_comment"] == "Großmutter 1932"
