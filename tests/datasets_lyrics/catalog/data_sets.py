"""Small data sets of our own making in every format of the catalog, most with a record that cannot be used.

Every image has 40 x 30 pixels.
"""

import json
import pickle
from functools import cache
from io import BytesIO
from pathlib import Path

from PIL import Image

SIZE = (40, 30)


@cache
def _content(kind):
    file = BytesIO()
    Image.new("RGB", SIZE, (200, 120, 40)).save(file, kind)
    return file.getvalue()


def put(root, *names):
    """Write images below the root."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_content("PNG" if path.suffix == ".png" else "JPEG"))


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def dump_lines(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(value) for value in values))


def coco(number, subset="train2014"):
    return f"{subset}/COCO_{subset}_{number:012d}.jpg"


def coco_captions(root):
    put(root, coco(7), coco(9))
    images = [{"id": number, "file_name": f"COCO_train2014_{number:012d}.jpg"} for number in (7, 8, 9)]
    notes = [{"id": 1, "image_id": 9, "caption": "A cat."}, {"id": 2, "image_id": 7, "caption": " A dog runs. "}]
    notes += [{"id": 3, "image_id": 7, "caption": "A brown dog."}, {"id": 4, "image_id": 8, "caption": "No image."}]
    dump(root / "annotations/captions_train2014.json", {"info": {"year": 1}, "annotations": notes, "images": images})


def karpathy_image(name, split, **more):
    return {"filename": name, "split": split, "sentences": [{"raw": "A dog runs.", "tokens": ["a"]}], **more}


def coco_karpathy(root):
    put(root, coco(7), coco(8, "val2014"), coco(9, "val2014"))
    names = [coco(7), coco(8, "val2014"), coco(9, "val2014"), coco(6)]
    images = [
        karpathy_image(name.split("/")[1], split, filepath=name.split("/")[0], cocoid=number)
        for name, split, number in zip(names, ["train", "restval", "test", "train"], [7, 8, 9, 6], strict=True)
    ]
    dump(root / "dataset_coco.json", {"images": images, "dataset": "coco"})


def flickr30k(root):
    put(root, "flickr30k-images/11.jpg", "flickr30k-images/12.jpg")
    images = [karpathy_image("11.jpg", "train", imgid=0), karpathy_image("12.jpg", "test", imgid=1)]
    broken = {"filename": "13.jpg", "split": "train"}
    dump(root / "dataset_flickr30k.json", {"images": [*images, broken]})


def nocaps(root):
    put(root, "images/a1.jpg")
    images = [{"id": 0, "file_name": "a1.jpg", "domain": "in-domain"}, {"id": 1, "file_name": "a2.jpg"}]
    notes = [{"id": number, "image_id": number, "caption": "A goat."} for number in (0, 1)]
    dump(root / "nocaps_val_4500_captions.json", {"images": images, "annotations": notes})


def textcaps(root):
    put(root, "train_images/0054c.jpg")
    data = [{"image_id": "0054c", "caption_str": f"A sign {number}.", "caption_id": number} for number in (1, 2)]
    dump(root / "TextCaps_0.1_train.json", {"dataset_type": "train", "data": [*data, {"caption_id": 3}]})


def sharegpt4v(root):
    put(root, "coco/train2017/000000000007.jpg")
    turns = [{"from": "human", "value": "<image>\nDescribe."}, {"from": "gpt", "value": "A long text."}]
    row = {"id": "000000000007", "image": "coco/train2017/000000000007.jpg", "conversations": turns}
    broken = {**row, "conversations": turns[:1]}
    dump(root / "sharegpt4v_instruct_gpt4-vision_cap100k.json", [row, broken])


def pairs_tsv(root):
    put(root, "a/1.jpg")
    (root / "pairs.tsv").write_text("A dog.\ta/1.jpg\na/1.jpg\tA cat.\nA bird.\thttps://example.org/1.jpg\n")


def pairs_parquet(root):
    import pyarrow as pa
    import pyarrow.parquet

    put(root, "1.jpg")
    columns = {"image_path": ["1.jpg", "2.jpg", None], "caption": ["A dog.", "Gone.", "None."], "score": [1, 2, 3]}
    pyarrow.parquet.write_table(pa.table(columns), root / "part-0.parquet")


def _answers(*texts):
    return [{"answer_id": number, "answer": text, "answer_confidence": "yes"} for number, text in enumerate(texts, 1)]


def _vqa(root, questions, annotations):
    put(root, coco(7))
    asked = [
        {"question_id": 7001, "image_id": 7, "question": "What runs?"},
        {"question_id": 7002, "image_id": 7, "question": "Is it brown?"},
        {"question_id": 8001, "image_id": 8, "question": "Where is the image?"},
        {"question_id": 7003, "image_id": 7, "question": "Who answers?"},
        {"question_id": 7004, "image_id": 7},
    ]
    notes = [
        {"question_id": 7002, "image_id": 7, "answers": _answers("yes", "yes"), "multiple_choice_answer": "yes"},
        {"question_id": 7001, "image_id": 7, "answers": _answers("dog", "a dog", "dog")},
        {"question_id": 8001, "image_id": 8, "answers": _answers("gone")},
        {"question_id": 9999, "image_id": 9, "answers": _answers("nobody asked")},
    ]
    dump(root / questions, {"info": {}, "data_subtype": "train2014", "questions": asked})
    dump(root / annotations, {"info": {}, "annotations": notes})


def vqav2(root):
    _vqa(root, "v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json")


def okvqa(root):
    _vqa(root, "OpenEnded_mscoco_train2014_questions.json", "mscoco_train2014_annotations.json")


def aokvqa(root):
    put(root, "train2017/000000000007.jpg")
    row = {"split": "train", "image_id": 7, "question_id": "k1", "question": "Why?", "choices": ["a", "b", "c", "d"]}
    row |= {"correct_choice_idx": 2, "direct_answers": ["c", "c", "sea"], "difficult_direct_answer": False}
    dump(root / "aokvqa_v1p0_train.json", [row, {**row, "correct_choice_idx": 4}])


def gqa(root):
    put(root, "images/2.jpg")
    entry = {"question": "Is it red?", "imageId": "2", "answer": "no", "fullAnswer": "No, it is blue."}
    dump(root / "train_balanced_questions.json", {"0201": entry, "0202": {**entry, "imageId": "3"}})


def vizwiz(root):
    put(root, "train/VizWiz_train_00000007.jpg")
    row = {"image": "VizWiz_train_00000007.jpg", "question": "What is it?", "answerable": 1}
    row["answers"] = [{"answer": "soup", "answer_confidence": "yes"}] * 10
    dump(root / "train.json", [row, {"image": "VizWiz_train_00000007.jpg", "question": "No answers?"}])


def scienceqa(root):
    put(root, "train/12/image.png")
    entry = {"question": "Which?", "choices": ["one", "two"], "answer": 1, "hint": "Look.", "image": "image.png"}
    problems = {"12": entry, "13": {**entry, "image": None, "hint": ""}, "14": {**entry, "answer": 2}, "15": entry}
    dump(root / "problems.json", problems)
    dump(root / "pid_splits.json", {"train": ["12", "13", "14"], "test": ["15"]})


def vg_qa(root):
    put(root, "VG_100K_2/2.jpg")
    qas = [{"qa_id": number, "image_id": 2, "question": "What?", "answer": "A tree."} for number in (10, 11)]
    gone = {"id": 3, "qas": [{"qa_id": 12, "image_id": 3, "question": "What?", "answer": "Gone."}]}
    dump(root / "question_answers.json", [{"id": 2, "qas": qas}, gone])


def visual7w_telling(root):
    put(root, "images/v7w_2.jpg")
    pair = {"qa_id": 5, "question": "Who?", "answer": "A man.", "multiple_choices": ["A cat.", "A dog.", "No one."]}
    image = {"image_id": 2, "filename": "v7w_2.jpg", "split": "train", "qa_pairs": [pair, {"qa_id": 6}]}
    dump(root / "dataset_v7w_telling.json", {"dataset": "v7w", "images": [image, {**image, "split": "val"}]})


def visual7w_pointing(root):
    put(root, "images/v7w_2.jpg")
    boxes = [{"box_id": number, "name": "man", "x": -2, "y": 3, "width": 12, "height": 12} for number in (70, 71, 72)]
    pair = {"qa_id": 5, "question": "Which man?", "answer": 70, "multiple_choices": [71, 72]}
    pairs = [pair, {**pair, "qa_id": 6, "answer": 99}]
    image = {"image_id": 2, "filename": "v7w_2.jpg", "split": "train", "qa_pairs": pairs}
    dump(root / "dataset_v7w_pointing.json", {"boxes": boxes, "images": [image]})


def textvqa(root):
    put(root, "train_images/0054c.jpg")
    row = {"question_id": 1, "question": "what is written?", "image_id": "0054c", "answers": ["stop"] * 10}
    dump(root / "TextVQA_0.5.1_train.json", {"data": [row, {**row, "image_id": "gone"}]})


def stvqa(root):
    put(root, "coco-text/x.jpg")
    row = {"question_id": 3, "question": "Which bus?", "answers": ["12", "twelve"], "file_path": "coco-text/x.jpg"}
    dump(root / "train_task_3.json", {"data": [row, {**row, "answers": []}]})


def ocrvqa(root):
    put(root, "images/0001.jpg")
    book = {"imageURL": "http://example.org/a/b.jpg?x=1", "questions": ["Who?", "What?"], "answers": ["Ann", "A book"]}
    books = {"0001": {**book, "split": 1}, "0002": {**book, "split": 3}, "0003": {**book, "split": 1}}
    dump(root / "dataset.json", books)


def docvqa(root):
    put(root, "documents/x_1.png")
    row = {"questionId": 9, "question": "What date?", "image": "documents/x_1.png", "docId": 1, "answers": ["1 May"]}
    dump(root / "train_v1.0.json", {"data": [row, {**row, "image": "/etc/passwd"}]})


def _refcoco(root, name, by):
    put(root, coco(7))
    folder = root / name
    sentences = [{"sent_id": 1, "sent": "left dog", "raw": "Left dog!"}, {"sent_id": 2, "sent": "dog"}]
    ref = {"ref_id": 3, "ann_id": 5, "category_id": 1, "image_id": 7, "file_name": "crop_3.jpg", "split": "train"}
    ref |= {"sent_ids": [1, 2], "sentences": sentences}
    refs = [ref, {**ref, "ref_id": 4, "ann_id": 6}, {**ref, "ref_id": 5, "split": "val"}, {**ref, "ann_id": 99}]
    image = {"id": 7, "width": 40, "height": 30, "file_name": "COCO_train2014_000000000007.jpg"}
    note = {"id": 5, "image_id": 7, "bbox": [4, 3, 20, 15], "category_id": 1}
    outside = {**note, "id": 6, "bbox": [50, 3, 20, 15]}
    dump(folder / "instances.json", {"images": [image], "annotations": [note, outside], "categories": []})
    (folder / f"refs({by}).p").write_bytes(pickle.dumps(refs, protocol=2))


def refcoco(root):
    _refcoco(root, "refcoco", "unc")


def refcoco_plus(root):
    _refcoco(root, "refcoco+", "unc")


def refcocog(root):
    _refcoco(root, "refcocog", "umd")


def vg_regions(root):
    put(root, "VG_100K/2.jpg")
    region = {"region_id": 20, "image_id": 2, "phrase": "a tree", "x": 30, "y": -3, "width": 20, "height": 18}
    regions = [region, {**region, "region_id": 21, "width": 0}]
    dump(root / "region_descriptions.json", [{"id": 2, "regions": regions}])
    dump(root / "image_data.json", [{"image_id": 2, "width": 40, "height": 30, "coco_id": 7}])


def flickr30k_entities(root):
    put(root, "flickr30k-images/11.jpg")
    lines = ["[/EN#1/people Two men] run to [/EN#2/other a ball] in [/EN#0/notvisual the rain] .", "[/EN#x Broken] ."]
    (root / "Sentences").mkdir()
    (root / "Annotations").mkdir()
    (root / "Sentences/11.txt").write_text(lines[0])
    (root / "Sentences/12.txt").write_text(lines[1])
    boxes = "".join(
        f"<object><name>1</name><bndbox><xmin>{x}</xmin><ymin>1</ymin><xmax>{x + 9}</xmax><ymax>15</ymax></bndbox>"
        "</object>"
        for x in (1, 21)
    )
    size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
    flag = "<object><name>2</name><nobndbox>1</nobndbox></object>"
    (root / "Annotations/11.xml").write_text(f"<annotation><filename>11.jpg</filename>{size}{boxes}{flag}</annotation>")
    (root / "train.txt").write_text("11\n12\n")


def pointqa(root):
    put(root, "VG_100K/2.jpg")
    row = {"file_path": "VG_100K/2.jpg", "question": "What color is this?", "answer": "Red.", "bbox": [4, 3, 24, 18]}
    dump_lines(root / "pointQA_local_train.jsonl", [row, {**row, "bbox": [4, 3]}])


def shikra(root):
    put(root, coco(7))
    row = {"img_path": "COCO_train2014_000000000007.jpg", "expression": "left dog", "bbox": [4, 3, 24, 18]}
    (root / "REC_ref3_train.jsonl").write_text(json.dumps(row) + "\n{cut")


def _talk(*texts):
    return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]


def llava_instruct(root):
    put(root, coco(7))
    row = {"id": "1", "image": "000000000007.jpg", "conversations": _talk("<image>\nWhat?", "A dog.", "Sure?", "Yes.")}
    broken = {**row, "id": "2", "conversations": _talk("<image>\n<image>\nWhat?", "A dog.")}
    dump(root / "llava_instruct_150k.json", [row, broken])


def llava_mix665k(root):
    put(root, "coco/train2017/000000000007.jpg")
    # 40 x 30 pixels padded to 40 x 40, 5 pixels above and below
    talk = _talk("<image>\nWhere is the dog?", "[0.10, 0.20, 0.60, 0.57]", "And [0.5, 0.5, 1.0, 0.875]?", "A cat.")
    row = {"id": "1", "image": "coco/train2017/000000000007.jpg", "conversations": talk}
    text = {"id": "2", "conversations": _talk("Hello", "Hi, [1, 2] is a list.")}
    padding = {**row, "id": "3", "conversations": _talk("<image>\nWhere?", "[0.1, 0.0, 0.6, 0.1]")}
    dump(root / "llava_v1_5_mix665k.json", [row, text, padding])


def llavar(root):
    put(root, "images/a.jpg")
    row = {"id": "1", "image": "a.jpg", "conversations": _talk("<image>\nRead.", "Stop.")}
    dump(root / "llavar_instruct_16k.json", [row, {**row, "conversations": "none"}])


def sharegpt(root):
    row = {"id": "x", "conversations": _talk("Hello", "Hi.")}
    dump(root / "sharegpt.json", [row, {"id": "y", "conversations": _talk("Hello", "")}])


def pope(root):
    put(root, coco(7, "val2014"))
    row = {"question_id": 1, "image": "COCO_val2014_000000000007.jpg", "text": "Is there a dog?", "label": "yes"}
    dump_lines(root / "coco_pope_random.json", [row, {**row, "question_id": 2, "label": "maybe"}])


def mme(root):
    put(root, "existence/1.jpg", "OCR/images/2.jpg")
    lines = ["1.jpg\tIs there a dog? Please answer yes or no.\tYes", "1.jpg\tIs there a cat?\tNo", "1.jpg\tCut"]
    (root / "existence.txt").write_text("\n".join(lines))
    (root / "OCR/questions_answers_YN").mkdir()
    (root / "OCR/questions_answers_YN/2.txt").write_text("Is the word stop?\tYes\n")


def llava_bench(root):
    put(root, "images/001.jpg")
    row = {"question_id": 0, "image": "001.jpg", "category": "conv", "text": "What runs?"}
    dump_lines(root / "questions.jsonl", [row, {**row, "question_id": 1}])
    dump_lines(root / "answers_gpt4.jsonl", [{"question_id": 0, "text": "A dog.", "answer_id": "x"}])
    dump_lines(root / "context.jsonl", [{"image": "001.jpg", "caption": "A dog runs."}])


def coco_detection(root):
    put(root, "train2017/000000000007.jpg")
    notes = [{"id": 1, "image_id": 7, "category_id": 18, "bbox": [4, 3, 20, 15], "iscrowd": 0}]
    notes += [{"id": 2, "image_id": 7, "category_id": 99, "bbox": [4, 3, 20, 15]}]
    notes += [{"id": 3, "image_id": 7, "category_id": 18, "bbox": [0, 0, 9, 9], "iscrowd": 1}]
    image = {"id": 7, "file_name": "000000000007.jpg", "width": 40, "height": 30}
    categories = [{"id": 18, "name": "dog"}]
    content = {"images": [image], "annotations": notes, "categories": categories}
    dump(root / "annotations/instances_train2017.json", content)


def yolo(root):
    put(root, "images/train/a.jpg")
    (root / "labels/train").mkdir(parents=True)
    (root / "data.yaml").write_text("names: {0: dog, 1: cat}\n")
    lines = ["0 0.5 0.5 0.5 0.5", "1 0.1 0.1 0.3 0.1 0.3 0.4", "7 0.5 0.5 0.5 0.5", ""]
    (root / "labels/train/a.txt").write_text("\n".join(lines))


def voc(root):
    put(root, "JPEGImages/a.jpg")
    box = "<bndbox><xmin>5</xmin><ymin>4</ymin><xmax>24</xmax><ymax>18</ymax></bndbox>"
    size = "<size><width>40</width><height>30</height></size>"
    (root / "Annotations").mkdir()
    for name, start in (("a", ""), ("b", "<!DOCTYPE x [<!ENTITY e 'e'>]>")):
        found = f"<filename>{name}.jpg</filename>{size}<object><name>dog</name>{box}</object>"
        (root / f"Annotations/{name}.xml").write_text(f"{start}<annotation>{found}</annotation>")


def table(root):
    put(root, "a.jpg")
    (root / "mine.csv").write_text("\ufeffFile;Question;Answer\na.jpg;What?;A dog\na.jpg;Why?;\n", encoding="utf-8")


def llamafactory(root):
    put(root, "a.jpg")
    row = {"instruction": "What is <image>?", "input": "", "output": "A dog.", "images": ["a.jpg"]}
    history = {**row, "history": [["Hello", "Hi."]], "system": "Be kind."}
    dump(root / "rows.json", [row, history, {"instruction": "No answer"}])


def swift(root):
    put(root, "a.jpg")
    messages = [{"role": "user", "content": "<image>Find <ref-object>"}, {"role": "assistant", "content": "<bbox>"}]
    objects = {"ref": ["dog"], "bbox": [[4, 3, 24, 18]]}
    row = {"messages": messages, "images": ["a.jpg"], "objects": objects}
    dump_lines(root / "rows.jsonl", [row, {**row, "objects": {"ref": ["dog"], "bbox": []}}])


WRITERS = {
    name.replace("refcoco_plus", "refcoco+"): function
    for name, function in list(globals().items())
    if callable(function) and getattr(function, "__module__", "") == __name__ and not name.startswith("_")
}
for helper in ("put", "dump", "dump_lines", "coco", "karpathy_image"):
    del WRITERS[helper]


def write(name, root):
    """Write the data set of this name into a new folder, and return it."""
    root = Path(root) / name
    root.mkdir(parents=True)
    WRITERS[name](root)
    return root
