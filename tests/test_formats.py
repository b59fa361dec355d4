"""What readers of labelling formats draw, beside independent decoders and arithmetic."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED, needs_shared, polygon, write_palette_mask
from exports import dump, photograph, picture, png_text
from PIL import Image
from pycocotools import mask as coco_api

from common.datasets.formats import voc_masks
from common.datasets.formats.raster import ellipse, fill
from common.datasets.formats.recognise import recognise
from common.datasets.formats.rle import decode
from common.datasets.formats.source import Source
from common.datasets.reading import Problem
from common.labels import VOID

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # pycocotools 2.0 under NumPy 2
SIDE = 40  # pixels of the images here


def masks(root: Path) -> tuple[list[str], dict[str, np.ndarray], list]:
    """Return class names, masks by the images' names, and what has been left out, of the export at `root`."""
    source = Source(root)
    labels = recognise(source)[0].read(source)
    drawn = {}
    for item in labels.items:
        mask = drawn[item.image.name] = np.zeros((SIDE, SIDE), dtype=np.uint8)
        labels.left_out += item.draw(mask)
    return labels.names, drawn, [(problem.kind, str(problem)) for problem in labels.left_out]


def image(path: Path) -> None:
    picture(path, np.full((SIDE, SIDE, 3), 99, np.uint8))


# outlines


def wild_polygon(rng: np.random.Generator, cross: bool) -> np.ndarray:
    count = rng.integers(3, 30)
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    corners = rng.uniform(-20, 220, 2) + rng.uniform(5, 80, (count, 1)) * np.stack([np.cos(angles), np.sin(angles)], 1)
    corners[::2, 1] = np.floor(corners[::2, 1]) + 0.5  # rows of centres go through corners
    return rng.permutation(corners) if cross else corners


@pytest.mark.parametrize("cross", [False, True])
def test_polygons_are_filled_as_pycocotools_does_but_for_some_pixels_on_the_outline(cross):
    rng, differ, total = np.random.default_rng(cross), 0, 0
    for _ in range(50):
        corners = wild_polygon(rng, cross)
        mask = np.zeros((200, 210), dtype=np.uint8)
        fill(mask, [corners], 1)
        expected = coco_api.decode(coco_api.frPyObjects([corners.ravel().tolist()], *mask.shape))[..., 0]
        differ, total = differ + (mask != expected).sum(), total + expected.sum()
    assert total > 50_000 and differ < (0.04 if cross else 0.01) * total


def test_a_polygon_that_crosses_itself_has_a_hole_where_it_is_enclosed_twice():
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    turns = np.arange(5) * 2 * 2 * np.pi / 5
    assert fill(mask, [20 + 18 * np.stack([np.cos(turns), np.sin(turns)], 1)], 3)
    assert mask[20, 20] == 0 and mask[20, 35] == 3


def test_outlines_that_share_a_line_neither_overlap_nor_leave_a_gap():
    rng = np.random.default_rng(0)
    for _ in range(20):
        line, counts = rng.uniform(0, SIDE, (4, 2)), np.zeros((SIDE, SIDE), dtype=int)
        for end in ([(SIDE, 0), (SIDE, SIDE)], [(0, 0), (0, SIDE)]):
            part = np.zeros((SIDE, SIDE), dtype=np.uint8)
            middle = sorted(line.tolist(), key=lambda corner: corner[1])
            top, bottom = (middle[0][0], 0), (middle[-1][0], SIDE)
            fill(part, [[top, *middle, bottom, end[1], end[0]]], 1)
            counts += part
        assert (counts == 1).all()


def test_an_ellipse_has_its_area_and_its_turn():
    mask = np.zeros((200, 200), dtype=np.uint8)
    fill(mask, [ellipse(100, 100, 80, 30, 90)], 1)
    assert mask.sum() == pytest.approx(np.pi * 80 * 30, rel=0.01) and mask[25, 100] and not mask[100, 25]


@pytest.mark.parametrize("seed", range(6))
def test_both_run_length_encodings_are_decoded_as_pycocotools_does(seed):
    rng = np.random.default_rng(seed)
    shape, share = (rng.integers(1, 50), rng.integers(1, 300)), (0, 0.01, 0.5, 0.99, 1, 0.5)[seed]
    mask = (rng.random(shape) < share).astype(np.uint8)
    text = coco_api.encode(np.asfortranarray(mask))
    runs = np.diff(np.flatnonzero(np.diff(mask.ravel(order="F").astype(int), prepend=0, append=2)), prepend=0).tolist()
    for counts in (text["counts"].decode(), runs):
        assert np.array_equal(decode({"size": text["size"], "counts": counts}, mask.shape), mask)


@needs_shared
@pytest.mark.slow
def test_masks_of_voc_go_to_coco_and_back_unchanged(tmp_path):
    folder, truth, found = SHARED / "data/VOCdevkit/VOC2007", {}, []
    names = sorted(path.stem for path in (folder / "SegmentationClass").iterdir())[:40]
    for number, name in enumerate(names):
        (tmp_path / f"{name}.jpg").symlink_to(folder / "JPEGImages" / f"{name}.jpg")
        mask = truth[f"{name}.jpg"] = np.array(Image.open(folder / "SegmentationClass" / f"{name}.png"))
        for value in {*np.unique(mask).tolist()} - {0}:
            code = coco_api.encode(np.asfortranarray(mask == value))
            segmentation = {"size": code["size"], "counts": code["counts"].decode()}
            found.append(
                {"id": len(found), "image_id": number, "category_id": value % VOID or 1, "iscrowd": int(value == VOID)}
            )
            found[-1]["segmentation"] = segmentation
    images = [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate(names)]
    categories = [{"id": value, "name": f"class {value}"} for value in range(1, 21)]
    dump(tmp_path / "voc.json", {"images": images, "annotations": found, "categories": categories})
    source = Source(tmp_path)
    for item in recognise(source)[0].read(source).items:
        mask = np.zeros_like(truth[item.image.name])
        assert item.draw(mask) == [] and np.array_equal(mask, truth[item.image.name])


# COCO


def coco(root: Path, objects: list[dict], **rest) -> None:
    """Write an image, and COCO's JSON with these annotations of it and the categories 3, 1 and 90."""
    image(root / "a.jpg")
    found = [{"id": i, "image_id": 5, "category_id": 1, "iscrowd": 0} | item for i, item in enumerate(objects)]
    categories = [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}, {"id": 90, "name": "toothbrush"}]
    content = {"images": [{"id": 5, "file_name": "a.jpg", "width": SIDE, "height": SIDE}], "annotations": found}
    dump(root / "labels.json", content | {"categories": categories} | rest)


def square(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def test_coco_categories_are_classes_by_their_ids_and_smaller_objects_are_on_top(tmp_path):
    coco(tmp_path, [
        {"category_id": 90, "segmentation": [square(12, 12, 14, 14)]},
        {"category_id": 3, "segmentation": [square(0, 0, 30, 30), square(32, 32, 40, 40)]},
        {"category_id": 1, "segmentation": [square(10, 10, 20, 20)]},
    ])  # fmt: skip
    names, drawn, left_out = masks(tmp_path)
    expected = np.zeros((SIDE, SIDE), dtype=np.uint8)
    expected[:30, :30], expected[32:, 32:], expected[10:20, 10:20], expected[12:14, 12:14] = 2, 2, 1, 3
    assert names == ["background", "cat", "dog", "toothbrush"] and left_out == []
    assert np.array_equal(drawn["a.jpg"], expected)


def test_crowds_unknown_categories_and_mere_boxes_are_void_and_a_hole_is_background(tmp_path):
    ring = np.zeros((SIDE, SIDE), dtype=np.uint8)
    ring[:10, :10], ring[2:8, 2:8] = 1, 0
    code = coco_api.encode(np.asfortranarray(ring))
    coco(tmp_path, [
        {"category_id": 3, "iscrowd": 1, "segmentation": {"size": [SIDE, SIDE], "counts": [0, 5 * SIDE, 35 * SIDE]}},
        {"segmentation": {"size": code["size"], "counts": code["counts"].decode()}},
        {"category_id": 4, "segmentation": [square(20, 0, 25, 5)]},
        {"segmentation": [], "bbox": [30, 0, 5, 5]},
    ])  # fmt: skip
    _, drawn, left_out = masks(tmp_path)
    expected = np.zeros((SIDE, SIDE), dtype=np.uint8)
    expected[:, :5] = VOID
    expected[ring > 0] = 1
    expected[:5, 20:25] = expected[:5, 30:35] = VOID
    assert np.array_equal(drawn["a.jpg"], expected)
    assert [kind for kind, _ in left_out] == [
        "objects of no known class, which become void",
        "boxes without an outline, which become void",
    ]


def test_coco_objects_that_cannot_be_drawn_are_left_out_and_named(tmp_path):
    coco(tmp_path, [
        {"segmentation": [square(0, 0, 5, 5)[:4]]},
        {"segmentation": [square(50, 0, 60, 5)]},
        {"segmentation": {"size": [SIDE, SIDE], "counts": [5, 5]}},
        {"segmentation": [[1, 2, 3]]},
        {"image_id": 6, "segmentation": [square(0, 0, 5, 5)]},
        {},
    ])  # fmt: skip
    _, drawn, left_out = masks(tmp_path)
    assert not drawn["a.jpg"].any() and len(left_out) == 6
    for number, words in enumerate(("cover no pixel", "cover no pixel", "understood", "understood", "", "no pixel")):
        assert not words or any(words in kind and f"annotation {number}" in text for kind, text in left_out), number
    assert any("not listed" in kind and "1 annotations of image 6" in text for kind, text in left_out)


def test_of_cocos_own_files_those_of_instances_are_read(tmp_path):
    coco(tmp_path, [{"segmentation": [square(0, 0, 5, 5)]}])
    (tmp_path / "labels.json").rename(tmp_path / "instances_val2017.json")
    content = {"images": [{"id": 5, "file_name": "a.jpg"}], "annotations": []}
    dump(tmp_path / "captions_val2017.json", content)
    dump(tmp_path / "person_keypoints_val2017.json", content | {"categories": [{"id": 1, "name": "person"}]})
    names, drawn, _ = masks(tmp_path)
    assert len(names) == 4 and len(drawn) == 1 and drawn["a.jpg"].any()


# LabelMe


def labelme(root: Path, shapes: list[dict], **rest) -> None:
    image(root / "a.jpg")
    shapes = [{"label": "cat", "shape_type": "polygon", "points": []} | shape for shape in shapes]
    dump(root / "a.json", {"version": "5.4.1", "shapes": shapes, "imagePath": "a.jpg", "imageData": None} | rest)


def test_labelmes_shapes_lie_over_each_other_in_their_order(tmp_path):
    ring = np.full((6, 8), True)
    ring[2:4] = False
    labelme(tmp_path, [
        {"points": [[0, 0], [20, 0], [20, 20], [0, 20]]},
        {"points": [[18, 10], [10, 2]], "shape_type": "rectangle", "label": "_background_"},
        {"points": [[30, 30], [30, 36]], "shape_type": "circle", "label": "dog"},
        {"points": [[2, 25], [9, 30]], "shape_type": "mask", "mask": png_text(ring), "label": "__ignore__"},
    ])  # fmt: skip
    names, drawn, left_out = masks(tmp_path)
    expected = np.zeros((SIDE, SIDE), dtype=np.uint8)
    expected[:20, :20], expected[2:10, 10:18] = 1, 0
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    expected[(x - 30) ** 2 + (y - 30) ** 2 < 36] = 2
    expected[25:31, 2:10][ring] = VOID
    assert names == ["background", "cat", "dog"] and left_out == [] and np.array_equal(drawn["a.jpg"], expected)


@pytest.mark.parametrize("kind", ["oriented_rectangle", "rotation"])
def test_rotated_boxes_of_labelme_and_x_anylabeling_are_areas(kind, tmp_path):
    labelme(tmp_path, [{"points": [[20, 0.5], [39.5, 20], [20, 39.5], [0.5, 20]], "shape_type": kind}])
    _, drawn, left_out = masks(tmp_path)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    assert np.array_equal(drawn["a.jpg"], abs(x - 20) + abs(y - 20) < 19.5) and left_out == []


def test_lines_points_and_polygons_of_two_points_or_outside_are_left_out_and_counted(tmp_path):
    kinds = [("line", 2), ("linestrip", 4), ("point", 1), ("polygon", 2), ("polygon", 0)]
    shapes = [{"shape_type": kind, "points": [[3, 3 + 2 * i] for i in range(count)]} for kind, count in kinds]
    labelme(tmp_path, [*shapes, {"points": [[-9, 0], [-1, 0], [-1, 9]]}])
    _, drawn, left_out = masks(tmp_path)
    assert not drawn["a.jpg"].any() and len(left_out) == 6 and len({kind for kind, _ in left_out}) == 1
    assert "a.json: shape 4 is a polygon of 2 points" in left_out[3][1]


def test_an_image_of_another_folder_or_system_is_found_and_one_that_only_has_the_name_is_not(tmp_path):
    labelme(tmp_path / "labels", [{"points": [[0, 0], [9, 0], [9, 9]]}], imagePath="..\\photos\\Köln.jpg")
    (tmp_path / "labels/a.jpg").rename(tmp_path / "labels/b.jpg")
    image(tmp_path / "photos/Köln.jpg")
    image(tmp_path / "a.jpg")
    dump(tmp_path / "labels/missing.json", {"shapes": [], "imagePath": "a.jpg"})  # of which there is none beside it
    dump(tmp_path / "labels/outside.json", {"shapes": [], "imagePath": "../../../etc/passwd"})
    _, drawn, left_out = masks(tmp_path)
    assert drawn.keys() == {"Köln.jpg"} and drawn["Köln.jpg"].any()
    assert [text.split(" names ")[0].rpartition("/")[2] for _, text in left_out] == ["missing.json", "outside.json"]


# CVAT, Label Studio


def test_all_shapes_of_cvats_xml_lie_in_their_z_order_and_boxes_are_void(tmp_path):
    image(tmp_path / "a.jpg")
    shapes = [
        '<ellipse label="cat" cx="20" cy="20" rx="12" ry="4" rotation="90" z_order="2"/>',
        '<polygon label="dog" points="0,0;20,0;20,40;0,40" z_order="0"/>',
        '<box label="dog" xtl="30" ytl="10" xbr="36" ybr="30" z_order="0"/>',
        '<mask label="cat" rle="1, 2, 3" left="2" top="5" width="3" height="2" z_order="1"/>',
        '<polyline label="dog" points="0,0;9,9" z_order="0"/><tag label="dog"/>',
    ]
    text = f'<image id="0" name="sub/a.jpg" subset="Validation" width="40" height="40">{"".join(shapes)}</image>'
    (tmp_path / "annotations.xml").write_text(f"<annotations>{text}</annotations>")
    names, drawn, left_out = masks(tmp_path)
    mask = drawn["a.jpg"]
    assert names == ["background", "cat", "dog"] and mask[9, 20] == mask[31, 20] == 1 and mask[20, 25] == 0
    assert mask[5, 2:5].tolist() == [2, 1, 1] and mask[6, 2:5].tolist() == [2, 2, 2]
    assert (mask[10:30, 30:36] == VOID).all() and (mask == VOID).sum() == 120
    assert [text.rpartition(" ")[2] for _, text in left_out] == ["box", "polyline"]
    assert recognise(source := Source(tmp_path))[0].read(source).items[0].split == "val"


def test_label_studios_ellipses_boxes_and_unlabelled_tasks(tmp_path):
    for name in "abc":
        image(tmp_path / f"{name}.jpg")
    ellipse = {"x": 50, "y": 50, "radiusX": 40, "radiusY": 10, "rotation": 90, "ellipselabels": ["cat"]}
    box = {"x": 75, "y": 0, "width": 25, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}
    cancelled = {"was_cancelled": True, "result": [{"value": box}]}
    tasks = [
        {"id": 1, "data": {"image": "s3://bucket/a.jpg"}, "annotations": [{"result": [{"value": ellipse}]}, cancelled]},
        {"id": 2, "data": {"image": "b.jpg"}, "annotations": [cancelled]},
        {"id": 3, "image": "c.jpg", "tag": [box], "created_at": "today"},
    ]
    dump(tmp_path / "export.json", tasks)
    _, drawn, left_out = masks(tmp_path)
    assert drawn.keys() == {"a.jpg", "c.jpg"} and drawn["a.jpg"][5, 20] == drawn["a.jpg"][34, 20] == 1
    assert drawn["a.jpg"].sum() == pytest.approx(np.pi * 16 * 4, rel=0.05)
    assert (drawn["c.jpg"][:20, 30:] == VOID).all() and (drawn["c.jpg"] == VOID).sum() == 200
    assert [kind for kind, _ in left_out] == [
        "tasks that nobody has labelled",
        "boxes without an outline, which become void",
    ]
    tasks[0]["annotations"][0]["result"][0]["image_rotation"] = 90
    (tmp_path / "export.json").unlink()
    dump(tmp_path / "turned.json", tasks)
    with pytest.raises(Problem, match="task 1, region 1"):
        masks(tmp_path)


# VIA


def via(root: Path, regions: list[dict], **rest) -> None:
    image(root / "a.jpg")
    entry = {"filename": "a.jpg", "size": 9, "regions": regions, "file_attributes": {}}
    dump(root / "project.json", {"_via_img_metadata": {"a.jpg9": entry}} | rest)


def region(name: str, kind: object = "1", **shape) -> dict:
    return {"shape_attributes": {"name": name} | shape, "region_attributes": {"Name": kind}}


def test_all_shapes_of_via_are_drawn_and_lines_left_out(tmp_path):
    via(tmp_path, [
        region("rect", x=1, y=2, width=5, height=3),
        region("circle", "2", cx=20, cy=20, r=8),
        region("ellipse", "3", cx=30, cy=8, rx=9, ry=3, theta=90),
        region("polyline", all_points_x=[1, 2, 3], all_points_y=[1, 2, 3]),
        region("point", cx=2, cy=2),
        region("polygon", all_points_x=[50, 60, 60], all_points_y=[1, 2, 9]),
    ])  # fmt: skip
    names, drawn, left_out = masks(tmp_path)
    mask = drawn["a.jpg"]
    assert names == ["background", "1", "2", "3"] and mask[2:6, 1:7].all() and (mask == 1).sum() == 4 * 6
    assert np.pi * 8**2 < (mask == 2).sum() < np.pi * 9**2 and mask[12, 20] == mask[28, 20] == 2
    assert mask[0, 30] == 3 and mask[8, 37] == 0
    assert len(left_out) == 3 and "region 4 of a.jpg is a polyline, which has no area" in left_out[0][1]


def test_vias_class_is_the_usual_attribute_by_the_name_in_the_menu_and_none_is_void(tmp_path):
    attributes = {"region": {"class": {"type": "radio", "options": {"a": "Ahorn", "b": ""}}}}
    values = ({"class": "a"}, {"class": "b"}, {}, {"class": {"b": True}}, {"class": {"a": True, "b": True}})
    regions = [region("rect", x=5 * i, y=0, width=3, height=3) for i in range(5)]
    for found, value in zip(regions, values, strict=True):
        found["region_attributes"] = {"state": "good", **value}
    via(tmp_path, regions, _via_attributes=attributes)
    names, drawn, left_out = masks(tmp_path)
    assert names == ["background", "Ahorn", "b"] and drawn["a.jpg"][0, :25:5].tolist() == [1, 2, VOID, 2, VOID]
    assert [text[-30:] for _, text in left_out] == [f"{i} of a.jpg has no label" for i in ("region 3", "region 5")]


def test_vias_csv_and_the_regions_of_via_1_say_the_same_as_a_project(tmp_path):
    regions = [polygon([(1, 1), (9, 1), (9, 9)], "cat"), polygon([(3, 3), (30, 3), (9, 30)], "dog")]
    via(tmp_path / "project", regions)
    image(tmp_path / "one/a.jpg")
    dump(tmp_path / "one/export.json", {"a.jpg9": {"filename": "a.jpg", "regions": dict(enumerate(regions))}})
    for name in ("a", "b"):
        image(tmp_path / f"table/{name}.jpg")
    columns = ["#filename", "file_size", "file_attributes", "region_count", "region_id"]
    kinds = ["region_shape_attributes", "region_attributes"]
    with (tmp_path / "table/via.csv").open("w", newline="") as file:
        texts = [[json.dumps(part) for part in region.values()] for region in regions]
        rows = [["a.jpg", 9, "{}", 2, i, *text] for i, text in enumerate(texts)]
        csv.writer(file).writerows([columns + kinds, *rows, ["b.jpg", 9, "{}", 0, 0, "{}", "{}"]])
    expected = masks(tmp_path / "project")
    assert expected[1]["a.jpg"].max() == 2
    for name in ("one", "table"):
        names, drawn, left_out = masks(tmp_path / name)
        assert names == expected[0] and left_out == [] and np.array_equal(drawn["a.jpg"], expected[1]["a.jpg"])
    assert not drawn["b.jpg"].any()


# pictures


def test_colours_that_labelmap_txt_lacks_are_void_and_counted_and_its_background_is_class_0(tmp_path):
    image(tmp_path / "JPEGImages/a.jpg")
    mask = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    mask[:5], mask[5:9], mask[9:12] = (9, 8, 7), (224, 224, 192), (1, 1, 1)
    picture(tmp_path / "SegmentationClass/a.png", mask)
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\ncat:9,8,7::\nbackground:0,0,0::\n")
    names, drawn, left_out = masks(tmp_path)
    expected = np.select([mask[..., 0] == 9, mask[..., 0] == 224, mask[..., 0] == 1], [1, VOID, VOID])
    assert names == ["background", "cat"] and np.array_equal(drawn["a.jpg"], expected)
    assert left_out[0][1].endswith(f"a.png: {3 * SIDE} of {SIDE * SIDE} pixels")


def test_values_are_named_by_class_names_txt_and_lists_are_splits(tmp_path):
    image(tmp_path / "JPEGImages/a.jpg")
    mask = np.arange(SIDE, dtype=np.uint8)[:, None].repeat(SIDE, axis=1) // 10
    mask[35:] = 255
    picture(tmp_path / "SegmentationClass/a.png", mask)
    (tmp_path / "class_names.txt").write_text("_background_\ncat\ndog\nbird\n")
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    for name in ("Train", "trainval", "default"):
        (tmp_path / f"ImageSets/Segmentation/{name}.txt").write_text("a\n")
    assert [item.split for item in voc_masks.read(Source(tmp_path)).items] == ["train"]
    names, drawn, left_out = masks(tmp_path)
    assert names == ["background", "cat", "dog", "bird"] and np.array_equal(drawn["a.jpg"], mask) and not left_out


def test_the_numbers_of_a_palette_are_classes_though_some_do_not_occur(tmp_path):
    image(tmp_path / "JPEGImages/a.jpg")
    mask = np.array([4, 0, 255, 2], dtype=np.uint8).repeat(SIDE * SIDE // 4).reshape(SIDE, SIDE)
    (tmp_path / "SegmentationClass").mkdir()
    write_palette_mask(tmp_path / "SegmentationClass/a.png", mask)
    names, drawn, left_out = masks(tmp_path)
    assert names == [f"class {i}" for i in range(5)] and np.array_equal(drawn["a.jpg"], mask) and left_out == []


def test_a_jpeg_mask_without_a_list_is_black_and_white(tmp_path):
    image(tmp_path / "images/a.jpg")
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[8:24, 8:24] = 255
    picture(tmp_path / "masks/a.jpg", mask)
    names, drawn, left_out = masks(tmp_path)
    assert names == ["background", "foreground"] and np.array_equal(drawn["a.jpg"], mask // 255) and not left_out


@pytest.mark.parametrize(("listed", "words"), [("0 99 0", f"{20 * SIDE} of {SIDE**2} pixels"), ("20 9 9", "23 apart")])
def test_a_jpeg_mask_whose_colours_are_not_listed_or_too_much_alike_is_refused(tmp_path, listed, words):
    image(tmp_path / "images/a.jpg")
    picture(tmp_path / "masks/a.jpg", np.uint8([[0, 250]]).repeat(SIDE // 2, axis=1).repeat(SIDE, axis=0))
    (tmp_path / "classes.txt").write_text(f"sky 0 0 1\ntree {listed}\n")
    with pytest.raises(Problem, match=words):
        masks(tmp_path)


def test_the_last_annotation_of_a_task_counts_in_label_studio(tmp_path):
    image(tmp_path / "a.jpg")
    for number, label in ((8, "cat"), (12, "big-dog"), (12, "cat")):
        mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
        mask[:10, :number] = 255
        picture(tmp_path / f"task-1-annotation-{number}-by-me@x.org-tag-{label}-0.png", mask)
    dump(tmp_path / "x.json", [{"id": 1, "image": "/data/local-files/?d=photos/a.jpg"}])
    names, drawn, left_out = masks(tmp_path)
    assert names == ["background", "big-dog", "cat"] and drawn["a.jpg"][0, 11] and len(left_out) == 1


def test_masks_are_found_in_the_layouts_that_people_use(tmp_path):
    layouts = (
        ("train/images/a.jpg", "train/masks/a.png"),
        ("train/a.jpg", "train_masks/a_mask.gif"),
        ("img_dir/val/a.jpg", "ann_dir/val/a.png"),
        ("data/JPEGs/a.jpg", "data/labels/a-label.tif"),
        ("photos/a.jpg", "pngs/a.png"),
        ("a.png", "a_seg.png"),
        ("image/a.b.jpg", "gt/a.b.jpg.png"),
    )
    for number, (first, second) in enumerate(layouts):
        root = tmp_path / str(number)
        image(root / first)
        picture(root / second, np.eye(SIDE, dtype=np.uint8))
        _, drawn, left_out = masks(root)
        assert list(drawn) == [Path(first).name] and np.trace(drawn[Path(first).name]) == SIDE, first
        assert left_out == []


def test_what_no_program_writes_is_not_recognised(tmp_path):
    for name in ("a.jpg", "b.png"):
        photograph(tmp_path / name, 0)
    dump(tmp_path / "package.json", {"name": "x"})
    (tmp_path / "broken.json").write_text("{")
    assert recognise(Source(tmp_path)) == (None, "")
