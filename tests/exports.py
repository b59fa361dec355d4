"""Small exports as labelling programs write them, of the same nine scenes: a cat, and in most a dog in front of it.

The structure of each is that of the documentation which the reader of the format names.
"""

import base64
import io
import itertools
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_api

WIDTH, HEIGHT = 64, 48
COUNT = 9
NAMES = ("background", "cat", "dog")
COLORS = ((0, 0, 0), (250, 50, 83), (36, 179, 83))  # CVAT's first
SPLITS = {"train": range(5), "valid": range(5, 7), "test": range(7, 9)}  # folders as Roboflow calls them


def boxes(index: int) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Return class and left, top, right and bottom edge of the objects in a scene, the last on top."""
    found = [(1, (5 + index, 6, 40 + index, 40))]
    return found + [(2, (20, 20 + index, 38, 36 + index))] * (index % 4 < 3)


def truth(index: int, only: int = 0) -> np.ndarray:
    """Return the mask (H, W) of a scene, or where one class is, before others cover it: 255."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for number, (left, top, right, bottom) in boxes(index):
        if only in (0, number):
            mask[top:bottom, left:right] = 255 if only else number
    return mask


def outline(box: tuple[int, int, int, int]) -> list[list[float]]:
    left, top, right, bottom = map(float, box)
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def photograph(path: Path, index: int) -> Path:
    """Write the photograph of a scene; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(index)
    noise = rng.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise + np.array([0, 90, 180], dtype=np.uint8)[truth(index)][..., None]).save(path)
    return path


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)


def colored(index: int) -> np.ndarray:
    return np.array(COLORS, dtype=np.uint8)[truth(index)]


def dump(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def labelme(root: Path) -> Path:
    """A JSON file beside each image, which the first two hold, too; the last lie in a folder of their own."""
    for i in range(COUNT):
        folder = root / ("trip to Köln" if i > 6 else "")
        image = photograph(folder / f"cat {i}.jpg", i)
        shapes = [
            {"label": NAMES[n], "points": outline(box), "group_id": None, "shape_type": "polygon", "flags": {}}
            for n, box in boxes(i)
        ]
        if i % 2:  # a rectangle has two opposite corners
            shapes[0] |= {"shape_type": "rectangle", "points": shapes[0]["points"][2::-2]}
        data = base64.b64encode(image.read_bytes()).decode() if i < 2 else None
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": image.name, "imageData": data}
        dump(image.with_suffix(".json"), content | {"imageHeight": HEIGHT, "imageWidth": WIDTH})
    return root


def cvat(root: Path) -> Path:
    """Segmentation mask 1.1: colours that labelmap.txt lists."""
    for i in range(COUNT):
        photograph(root / "JPEGImages" / f"{i}.jpg", i)
        picture(root / "SegmentationClass" / f"{i}.png", colored(i))
        picture(root / "SegmentationObject" / f"{i}.png", colored(i)[:, :, ::-1])
    lines = [f"{name}:{','.join(map(str, color))}::" for name, color in zip(NAMES, COLORS, strict=True)]
    (root / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines, ""]))
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text("".join(f"{i}\n" for i in range(COUNT)))
    return root


def annotations(indices: range, folder: str) -> dict:
    """Return COCO's JSON: polygons, and both forms of run lengths."""
    images, found = [], []
    for i in indices:
        images.append({"id": 100 + i, "file_name": f"{folder}{i}.jpg", "width": WIDTH, "height": HEIGHT})
        for number, box in boxes(i)[::-1]:  # the order says nothing
            shape = [np.ravel(outline(box)).tolist()]
            if i % 3:
                encoded = coco_api.encode(np.asfortranarray(truth(i, number) // 255))
                shape = {"size": encoded["size"], "counts": encoded["counts"].decode()}
            if i % 3 == 2:
                bits = truth(i, number).ravel(order="F") > 0
                ends = np.flatnonzero(np.diff(bits.astype(int), prepend=0, append=2))
                shape["counts"] = np.diff(ends, prepend=0).tolist()
            found.append({"id": len(found) + 1, "image_id": 100 + i, "category_id": 7 * number, "iscrowd": 0})
            found[-1] |= {"segmentation": shape, "area": 1.0, "bbox": [box[0], box[1], 1, 1]}
    categories = [{"id": 14, "name": "dog", "supercategory": "pet"}, {"id": 7, "name": "cat", "supercategory": "pet"}]
    return {"info": {}, "licenses": [], "images": images, "annotations": found, "categories": categories}


def coco(root: Path) -> Path:
    """annotations/ beside images/, as CVAT writes it."""
    for i in range(COUNT):
        photograph(root / "images/default" / f"{i}.jpg", i)
    dump(root / "annotations/instances_default.json", annotations(range(COUNT), ""))
    return root


def coco_roboflow(root: Path) -> Path:
    """A JSON file in each of train, valid and test, with the project itself as a category."""
    for split, indices in SPLITS.items():
        for i in indices:
            photograph(root / split / f"{i}.jpg", i)
        content = annotations(indices, "")
        content["categories"].insert(0, {"id": 0, "name": "pet", "supercategory": "none"})
        dump(root / split / "_annotations.coco.json", content)
    return root


def via(root: Path) -> Path:
    """A project of VIA 2, whose corners are pixels, the last ones of the objects among them."""
    entries = {}
    for i in range(COUNT):
        size = photograph(root / f"{i}.jpg", i).stat().st_size
        regions = []
        for number, (left, top, right, bottom) in boxes(i):
            shape = {"name": "rect", "x": left, "y": top, "width": right - 1 - left, "height": bottom - 1 - top}
            if i % 2:
                x, y = zip(*outline((left, top, right - 1, bottom - 1)), strict=True)
                shape = {"name": "polygon", "all_points_x": x, "all_points_y": y}
            regions.append({"shape_attributes": shape, "region_attributes": {"kind": str(number), "hidden": ""}})
        entries[f"{i}.jpg{size}"] = {"filename": f"{i}.jpg", "size": size, "regions": regions, "file_attributes": {}}
    options = {"1": "cat", "2": "dog"}
    kinds = {"kind": {"type": "dropdown", "options": options, "default_options": {}}, "hidden": {"type": "text"}}
    content = {"_via_settings": {}, "_via_img_metadata": entries, "_via_attributes": {"region": kinds, "file": {}}}
    dump(root / "via_project.json", content)
    return root


def label_studio(root: Path) -> Path:
    """Brush labels as PNG beside the JSON export; the images are those that were uploaded."""
    tasks = []
    for i in range(COUNT):
        photograph(root / "photographs" / f"cat {i}.jpg", i)
        tasks.append({"id": 30 + i, "data": {"image": f"/data/upload/1/0a1b2c3d-cat%20{i}.jpg"}, "annotations": []})
        for number, _ in boxes(i):
            name = f"task-{30 + i}-annotation-{50 + i}-by-1-tag-{NAMES[number]}-0.png"
            picture(root / "project-1" / name, truth(i, number))
    dump(root / "project-1-at-2025-01-01.json", tasks)
    return root


def roboflow(root: Path) -> Path:
    """Semantic Segmentation Masks: values that _classes.csv lists."""
    for split, indices in SPLITS.items():
        for i in indices:
            name = f"cat{i}_jpg.rf.0123456789abcdef"
            photograph(root / split / f"{name}.jpg", i)
            picture(root / split / f"{name}_mask.png", truth(i))
        (root / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    return root


def suffix(root: Path) -> Path:
    """Two folders; masks have _mask behind the name, and values."""
    for i in range(COUNT):
        photograph(root / "imgs" / f"{i}.jpg", i)
        picture(root / "masks" / f"{i}_mask.png", truth(i))
    return root


def class_folders(root: Path) -> Path:
    """Images, and in a folder for each class a mask of 0 and 255 for each image with that class."""
    for i in range(COUNT):
        photograph(root / "images" / f"{i}.jpg", i)
        for number, _ in boxes(i):
            picture(root / "masks" / NAMES[number] / f"{i}.png", truth(i, number))
    return root


def jpegs(root: Path) -> Path:
    """Coloured masks in JPEG, and a classes.txt of ours that lists the colours."""
    for i in range(COUNT):
        photograph(root / "images" / f"{i}.jpg", i)
        picture(root / "masks" / f"{i}.jpg", colored(i))
    lines = [f"{name} {' '.join(map(str, color))}" for name, color in zip(NAMES, COLORS, strict=True)]
    (root / "classes.txt").write_text("\n".join(lines))
    return root


def one_folder(root: Path) -> Path:
    """JPEG images and coloured PNG masks of the same names."""
    for i in range(COUNT):
        photograph(root / f"{i}.jpg", i)
        picture(root / f"{i}.png", colored(i))
    return root


def yolo(root: Path) -> Path:
    """Ultralytics' layout: polygons in shares of width and height."""
    for i in range(COUNT):
        photograph(root / "images" / f"{i}.jpg", i)
        lines = []
        for number, box in boxes(i):
            corners = " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in outline(box))
            lines.append(f"{number - 1} {corners}\n")
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"{i}.txt").write_text("".join(lines))
    (root / "data.yaml").write_text("train: images\n\nnc: 2\nnames: ['cat', 'dog']\n")
    return root


def cvat_xml(root: Path) -> Path:
    """CVAT for images 1.1: polygons and masks; the upper shape comes first."""
    images = ""
    for i in range(COUNT):
        photograph(root / "images" / f"{i}.jpg", i)
        images += f'<image id="{i}" name="{i}.jpg" width="{WIDTH}" height="{HEIGHT}">'
        for number, box in boxes(i)[::-1]:
            left, top, right, bottom = box
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in outline(box))
            shape = f'<polygon label="{NAMES[number]}" z_order="{number}" points="{points}"/>'
            if i % 2:  # a row of zeros above the object
                runs = f"{right - left}, {(right - left) * (bottom - top)}"
                shape = f'<mask label="{NAMES[number]}" z_order="{number}" rle="{runs}" left="{left}" top="{top - 1}" '
                shape += f'width="{right - left}" height="{bottom - top + 1}"/>'
            images += shape
        images += "</image>"
    names = "".join(f"<label><name>{name}</name><color>#0102f{i}</color></label>" for i, name in enumerate(NAMES[1:]))
    meta = f"<meta><job><labels>{names}</labels></job></meta>"
    (root / "annotations.xml").write_text(f"<annotations><version>1.1</version>{meta}{images}</annotations>")
    return root


def brush(pixels: np.ndarray) -> list[int]:
    """Return Label Studio's run lengths of a mask: its values are the opacity of black pixels."""
    numbers = np.zeros((*pixels.shape, 4), dtype=np.uint8)
    numbers[..., 3] = pixels
    bits = f"{numbers.size:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    flat = numbers.ravel()
    starts = [0, *np.flatnonzero(np.diff(flat.astype(int))) + 1, len(flat)]
    for start, end in itertools.pairwise(starts):
        if end - start == 1:
            bits += f"000000{flat[start]:08b}"
        else:
            bits += f"111{end - start - 1:016b}{flat[start]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def label_studio_json(root: Path) -> Path:
    """Tasks with polygons in percent, and brush labels."""
    tasks = []
    for i in range(COUNT):
        photograph(root / "photographs" / f"cat {i}.jpg", i)
        result = []
        for number, box in boxes(i)[:: -1 if i else 1]:  # the order says nothing
            points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in outline(box)]
            value = {"points": points, "closed": True, "polygonlabels": [NAMES[number]]}
            if i % 2:
                value = {"format": "rle", "rle": brush(truth(i, number)), "brushlabels": [NAMES[number]]}
            result.append({"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "value": value})
        image = f"/data/upload/1/0a1b2c3d-cat%20{i}.jpg"
        annotations = [{"id": 1, "result": []}, {"id": 2, "was_cancelled": False, "result": result}]
        tasks.append({"id": 30 + i, "data": {"image": image}, "annotations": annotations})
    dump(root / "project-1-at-2025-01-01.json", tasks)
    return root


def run_lengths(root: Path) -> Path:
    """A table of Kaggle's: runs down the columns, counted from 1."""
    lines = ["ImageId,ClassId,EncodedPixels"]
    for i in range(COUNT):
        photograph(root / "train_images" / f"{i}.jpg", i)
        for number, _ in boxes(i):
            bits = truth(i, number).ravel(order="F") > 0
            starts = np.flatnonzero(np.diff(bits.astype(int), prepend=0) == 1)
            ends = np.flatnonzero(np.diff(bits.astype(int), append=0) == -1)
            runs = " ".join(f"{start + 1} {end - start + 1}" for start, end in zip(starts, ends, strict=True))
            lines.append(f"{i}.jpg,{NAMES[number]},{runs}")
    (root / "train.csv").write_text("\n".join(lines))
    return root


def class_table(root: Path) -> Path:
    """Kaggle's CamVid: a folder of masks for each split, whose colours class_dict.csv lists."""
    for split, indices in SPLITS.items():
        for i in indices:
            photograph(root / split.removesuffix("id") / f"0001TP_{i}.png", i)
            picture(root / f"{split.removesuffix('id')}_labels" / f"0001TP_{i}_L.png", colored(i))
    lines = [f"{name},{','.join(map(str, color))}" for name, color in zip(NAMES, COLORS, strict=True)]
    (root / "class_dict.csv").write_text("\n".join(["name,r,g,b", *lines]))
    return root


EXPORTS = {
    "LabelMe": labelme,
    "CVAT's masks": cvat,
    "COCO": coco,
    "COCO by Roboflow": coco_roboflow,
    "VIA": via,
    "Label Studio's PNGs": label_studio,
    "Roboflow's masks": roboflow,
    "_mask": suffix,
    "a folder for each class": class_folders,
    "JPEG masks": jpegs,
    "one folder": one_folder,
    "YOLO": yolo,
    "CVAT's XML": cvat_xml,
    "Label Studio's JSON": label_studio_json,
    "run lengths": run_lengths,
    "CamVid's splits": class_table,
}


def png_text(pixels: np.ndarray) -> str:
    """Return a mask as LabelMe has it in a shape: a PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
