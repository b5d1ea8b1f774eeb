"""Tar shards: read in order and from any start; hostile and damaged ones are refused with a name."""

import io
import os
import pickle
import random
import tarfile
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyrics.datasets_lyrics.webdataset import IMAGE_EXTENSIONS, expand_braces
from lyrics.refinement import TarSample, TarShardError, expand_shards, read_shard

PAIR = [IMAGE_EXTENSIONS, ["txt"]]
LONG = "very-long-directory-name/" * 8 + "sample"  # needs a header of its own


def write_tar(path, files, mode="w", **options):
    with tarfile.open(path, mode, **options) as tar:
        for name, content in files:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(content) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(content))
    return path


def pairs(count=5, key="{:04}"):
    for index in range(count):
        yield key.format(index) + ".jpg", b"picture %d" % index * (index * 300)
        yield key.format(index) + ".txt", b"caption %d" % index


def special(name, kind, **changes):
    member = tarfile.TarInfo(name)
    member.type = kind
    for attribute, value in changes.items():
        setattr(member, attribute, value)
    return member


def failures(shard, **options):
    """Samples and errors of a shard that is read to the end."""
    errors = []
    return list(read_shard(shard, on_error=errors.append, **options)), errors


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_samples_from_any_start(tmp_path, mode, tar_format):
    shard = write_tar(tmp_path / "a.tar", pairs(), mode, format=tar_format)
    samples = list(read_shard(shard, require=PAIR))
    assert [(one.shard, one.index, one.key) for one in samples] == [(str(shard), i, f"{i:04}") for i in range(5)]
    assert samples[3].files == {"jpg": b"picture 3" * 900, "txt": b"caption 3"}
    assert samples[3].first_of(("png", "jpg")) == b"picture 3" * 900
    assert samples[3].first_of(("png",)) is None
    for start in range(7):
        assert list(read_shard(shard, start)) == samples[start:]


def test_long_and_strange_names(tmp_path):
    """Keys are the path up to the first dot of the file name; what is no sample is passed over."""
    files = [
        (special("photos.d", tarfile.DIRTYPE), b""),
        ("./photos.d/日本 1.JPG", b"1"),
        ("photos.d/日本 1.seg.png", b"2"),
        ("photos.d/.DS_Store", b"x"),
        ("README", b"x"),
        (LONG + ".jpg", b"3"),
    ]
    for tar_format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        samples = list(read_shard(write_tar(tmp_path / "a.tar", files, format=tar_format)))
        assert [one.key for one in samples] == ["photos.d/日本 1", LONG]
        assert samples[0].files == {"jpg": b"1", "seg.png": b"2"}


def test_an_empty_shard(tmp_path):
    assert list(read_shard(write_tar(tmp_path / "a.tar", []))) == []


def test_skipping_reads_headers_only(tmp_path):
    """A shard of 30 MB, of which the last sample is wanted."""
    shard = write_tar(
        tmp_path / "a.tar", [(f"{index}.jpg", bytes(10_000_000)) for index in range(3)] + [("3.jpg", b"")]
    )
    tracemalloc.start()
    assert [one.key for one in read_shard(shard, 3)] == ["3"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("../x.jpg", "points out of the archive"),
        ("a/../../x.jpg", "points out of the archive"),
        ("/etc/x.jpg", "points out of the archive"),
        ("a\\..\\x.jpg", "points out of the archive"),
        ("C:\\x.jpg", "points out of the archive"),
        (special("x.jpg", tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
        (special("x.jpg", tarfile.LNKTYPE, linkname="0000.jpg"), "is a link"),
        (special("x.jpg", tarfile.CHRTYPE, devmajor=1, devminor=3), "is no regular file"),
        (special("x.jpg", tarfile.FIFOTYPE), "is no regular file"),
        ("huge.jpg", "has 2,000 bytes, and the limit is 1,500"),
    ],
)
def test_members_that_are_refused(tmp_path, member, reason):
    """The sample is left out, by name; the others are read."""
    files = [*pairs(1), (member, bytes(2000)), ("after.jpg", b"1")]
    samples, errors = failures(write_tar(tmp_path / "a.tar", files), max_file_size=1500)
    assert [one.key for one in samples] == ["0000", "after"]
    assert [error.reason.split(", which ")[1] for error in errors] == [reason + "."]
    assert os.listdir(tmp_path) == ["a.tar"], "nothing is extracted"


def test_pairs_that_are_not_there_or_twice(tmp_path):
    """They are named with shard and key, the others are read, and skipping does not hide a repeated key."""
    files = [("a.jpg", b"1"), *pairs(2), ("b.txt", b"1"), ("0000.jpg", b"2"), ("0000.txt", b"2")]
    files += [("c.jpg", b"1"), ("c.txt", b"1"), ("c.jpg", b"2"), ("c.txt", b"2"), ("d.jpg", b"1"), ("d.txt", b"1")]
    shard = write_tar(tmp_path / "a.tar", files)
    samples, errors = failures(shard, require=PAIR)
    assert [(one.key, one.index) for one in samples] == [("0000", 1), ("0001", 2), ("d", 6)]
    assert all(error.shard == str(shard) for error in errors)
    assert [(error.key, error.reason) for error in errors] == [
        ("a", "has no file .txt, only .jpg."),
        ("b", f"has no file {' or '.join('.' + name for name in IMAGE_EXTENSIONS)}, only .txt."),
        ("0000", "is there twice."),
        ("c", "is there twice: it has two files .jpg."),
    ]
    assert [error.key for error in failures(shard, require=PAIR, start=3)[1]] == ["b", "0000", "c"]
    assert [error.key for error in failures(shard, require=PAIR, start=5)[1]] == ["c"]
    with pytest.raises(TarShardError, match=r"a\.tar: sample 'a' has no file \.txt") as caught:
        list(read_shard(shard, require=PAIR))
    assert vars(pickle.loads(pickle.dumps(caught.value))) == vars(caught.value)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_cut_anywhere(tmp_path, mode):
    """Wherever a shard is cut, also between two members, its samples are right and the cut is noticed."""
    whole = tmp_path / "whole.tar"
    expected = list(read_shard(write_tar(whole, pairs(3), mode)))
    content, cut = whole.read_bytes(), tmp_path / "cut.tar"
    end = 512 * (6 + 0 + 1 + 6 + 1 + 11 + 1)  # of the last member: six headers, and contents in whole blocks
    places = range(0, end + 1, 256) if mode == "w" else range(0, len(content), 7)
    for place in places:
        cut.write_bytes(content[:place])
        samples, errors = failures(cut)
        assert len(errors) == 1, place
        assert errors[0].key is None
        assert "is cut or damaged" in errors[0].reason
        assert [one.files for one in samples] == [one.files for one in expected[: len(samples)]]
    assert len(samples) >= 2


def test_damaged_or_not_a_tar(tmp_path):
    shard = tmp_path / "a.tar"
    content = bytearray(write_tar(shard, pairs(3)).read_bytes())
    content[1536 + 20] ^= 1  # in the third header
    shard.write_bytes(content)
    assert failures(shard)[1][0].key is None
    shard.write_bytes(2 * write_tar(shard, pairs(3)).read_bytes())
    with pytest.raises(TarShardError, match="archives that were joined are not read"):
        list(read_shard(shard))
    shard.write_bytes(b"not a tar" * 1000)
    with pytest.raises(TarShardError, match="cut or damaged, or cannot be read"):
        list(read_shard(shard))
    with pytest.raises(FileNotFoundError, match="none"):
        list(read_shard(tmp_path / "none.tar"))


@given(st.binary(max_size=3000), st.integers(0, 2**32))
def test_hostile_bytes(tmp_path_factory, noise, seed):
    """Whatever the bytes, there are samples and named errors, and nothing else."""
    shard = tmp_path_factory.getbasetemp() / "hostile.tar"
    content = bytearray(write_tar(shard, [*pairs(3), (LONG + ".jpg", b"1")]).read_bytes())
    place = random.Random(seed).randrange(len(content))
    content[place : place + len(noise)] = noise
    shard.write_bytes(content)
    samples, errors = failures(shard)
    assert all(isinstance(one, TarSample) for one in samples)
    assert all(error.shard == str(shard) for error in errors)


def test_urls_of_other_file_systems(tmp_path):
    """By fsspec, as `s3://` and `hf://` are."""
    write_tar(tmp_path / "a-0.tar", pairs(1))
    write_tar(tmp_path / "a-1.tar", pairs(2))
    assert [len(list(read_shard(shard))) for shard in expand_shards(f"file://{tmp_path}/a-*.tar")] == [1, 2]


def test_expanding(tmp_path):
    for name in ("a-00.tar", "a-01.tar", "a-02.tar", "b{0}.tar"):
        (tmp_path / name).touch()
    names = [str(tmp_path / name) for name in ("a-01.tar", "a-00.tar", "a-02.tar", "b{0}.tar")]
    one, zero, two, braces = names
    assert expand_shards(tmp_path / "a-{00..02}.tar") == [zero, one, two]
    assert expand_shards(str(tmp_path / "a-*.tar")) == [zero, one, two]
    assert expand_shards([one, str(tmp_path / "a-0{0,2}.tar"), braces]) == names
    with pytest.raises(FileNotFoundError, match=r"There is no file .*a-03\.tar"):
        expand_shards(str(tmp_path / "a-{01..03}.tar"))
    with pytest.raises(FileNotFoundError, match="There is no file"):
        expand_shards(str(tmp_path / "c*.tar"))
    with pytest.raises(ValueError, match=r"a-01\.tar is there twice"):
        expand_shards([one, str(tmp_path / "a-*.tar")])


def test_braces():
    assert expand_braces("x{8..10}") == ["x8", "x9", "x10"]
    assert expand_braces("{a,b}-{08..10}.tar")[2:4] == ["a-10.tar", "b-08.tar"]
    assert expand_braces("no braces, {one}, {}") == ["no braces, {one}, {}"]
    with pytest.raises(ValueError, match=r"the range 3\.\.1 runs backwards"):
        expand_braces("{3..1}")
    for pattern in ("{0..999999999999}", "{0..9999}" * 3):
        with pytest.raises(ValueError, match="more than 10,000,000 names"):
            expand_braces(pattern)


@given(st.lists(st.text("ab/.-", max_size=8), max_size=5), st.lists(st.integers(0, 99), max_size=4))
def test_braces_as_nested_loops(words, numbers):
    """The names of a pattern are those of loops, the last brace fastest."""
    pattern, expected = "", [""]
    for word, number in zip(words, numbers, strict=False):
        pattern += word + f"{{{number:02}..{number + 2:02}}}"
        expected = [name + word + f"{value:02}" for name in expected for value in range(number, number + 3)]
    assert expand_braces(pattern) == expected
