"""What the user asked for: precedence, and every way to ask wrongly."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posbench.bench.config import RunConfig, load_config
from posbench.core.errors import UsageError
from tests.conftest import Ran

LARGEST = {
    "image_size": 4096,
    "train_count": 1_000_000,
    "test_count": 1_000_000,
    "jobs": 1024,
    "cpus_per_job": 1024,
    "time_limit": 10_000_000,
}
KEYS = [field.name for field in dataclasses.fields(RunConfig)]


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], RunConfig]:
    """The selection that a configuration file of this text makes."""

    def make(text: str) -> RunConfig:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, {})

    return make


@pytest.fixture
def refused(read: Callable[[str], RunConfig], tmp_path: Path) -> Callable[[str], str]:
    """What a configuration file of this text is refused with; one line, without the path of the file's folder."""

    def make(text: str) -> str:
        with pytest.raises(UsageError) as caught:
            read(text)
        message = str(caught.value)
        assert message.count("\n") == 0
        return message.removeprefix(f"{tmp_path}/")

    return make


def test_nothing_asked_for_is_the_default() -> None:
    assert load_config(None, {}) == RunConfig()
    assert load_config(None, dict.fromkeys(KEYS)) == RunConfig()


def test_the_command_line_is_over_yaml_is_over_the_default(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("paddings: [zero]\ntrain-count: 10\nquiet: true\n")
    chosen = load_config(path, {"train_count": 20, "targets": "H, V", "test_count": None})
    assert chosen == RunConfig(paddings=("zero",), train_count=20, quiet=True, targets=("H", "V"))


def test_yaml_takes_every_option(read: Callable[[str], RunConfig]) -> None:
    text = """
    backbones: vgg16, resnet50
    paddings: [zero]
    targets: [H, V, H]
    images: leaves
    test_images: photos,leaves
    readouts: [ridge]
    metrics: [spc]
    weights: [random, vgg16=a.pt]
    seeds: [0, 1]
    taps: 3
    image_size: 64
    train-count: 10
    test-count: '5'
    precision: fp32
    device: cpu
    store: results.db
    csv: '-'
    json: true
    dry-run: no
    force: yes
    fail-fast: off
    quiet: on
    """
    assert read(text) == RunConfig(
        backbones=("vgg16", "resnet50"),
        paddings=("zero",),
        targets=("H", "V"),
        images=("leaves",),
        test_images=("photos", "leaves"),
        readouts=("ridge",),
        metrics=("spc",),
        weights=("random", "vgg16=a.pt"),
        seeds=(0, 1),
        taps="3",
        image_size=64,
        train_count=10,
        test_count=5,
        precision="fp32",
        device="cpu",
        store=Path("results.db"),
        csv="-",
        json=True,
        dry_run=False,
        force=True,
        fail_fast=False,
        quiet=True,
    )


def test_weights_are_not_split_at_commas() -> None:
    assert load_config(None, {"weights": ["net=a,b.pt", "auto"]}).weights == ("net=a,b.pt", "auto")


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n"])
def test_an_empty_file_asks_for_nothing(text: str, read: Callable[[str], RunConfig]) -> None:
    assert read(text) == RunConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("paddings: zero\npading: zero", "config.yaml:2: unknown key 'pading': did you mean paddings?"),
        ("quiet: true\n\nqqq: 1", "config.yaml:3: unknown key 'qqq'"),
        ("quiet: true\nforce: true\nquiet: false", "config.yaml:3: 'quiet' is given twice: keep one"),
        ("image_size: 64\nimage-size: 65", "config.yaml:2: 'image-size' is given twice: keep one"),
        ("<<: {quiet: true}", "config.yaml:1: unknown key '<<'"),
        ("- zero\n- circular", "config.yaml:1: expected options, such as `paddings: [zero, circular]`"),
        ("\njust text", "config.yaml:2: expected options, such as `paddings: [zero, circular]`"),
        ("paddings: no", "config.yaml:1: paddings: expected names, as a list or separated by commas, not False"),
        ("\npaddings: [zero, no]", "config.yaml:2: paddings: expected names, as a list or separated by commas, not"),
        ("image_size: 010", "config.yaml:1: 010 is ambiguous: write 8, or quote it"),
        ("seeds:\n  - 0\n  - 1:30", "config.yaml:3: 1:30 is ambiguous: write 90, or quote it"),
        ("train_count: 1_000", "config.yaml:1: 1_000 is ambiguous: write 1000, or quote it"),
        ("test-count: 0x10", "config.yaml:1: 0x10 is ambiguous: write 16, or quote it"),
        ("image_size: 64.5", "config.yaml:1: image_size: expected a whole number, not '64.5'"),
        ("image_size: .nan", "config.yaml:1: image_size: expected a whole number, not '.nan'"),
        ("image_size: 1e3", "config.yaml:1: image_size: expected a whole number, not '1e3'"),
        ("image_size: true", "config.yaml:1: image_size: expected a whole number, not True"),
        ("image_size:", "config.yaml:1: a key without a value: give it one, or leave it out for the default"),
        ("store: null", "config.yaml:1: a key without a value"),
        ("csv: ~", "config.yaml:1: a key without a value"),
        ("? [a, b]\n: 1", "config.yaml:1: expected an option, such as paddings, for a key"),
        ('store: "a\\0b"', "config.yaml:1: store: 'a"),
        ("quiet: true\nimage_size: 0", "config.yaml:2: --image-size is 0: give 1 to 4096"),
        ("paddings: []", "config.yaml:1: --paddings is empty: name at least one"),
        ("seeds: [a]", "config.yaml:1: seeds: expected a whole number, not 'a'"),
        ("quiet: 1", "config.yaml:1: quiet: expected true or false, not 1"),
        ("quiet: 'yes'", "config.yaml:1: quiet: expected true or false, not 'yes'"),
        ("csv: 5", "config.yaml:1: csv: expected text, not 5"),
        ("store: ''", "config.yaml:1: store: expected text, not ''"),
        ("device: [cpu]", "config.yaml:1: device: expected text, not ['cpu']"),
        ("taps: true", "config.yaml:1: taps: expected text, not True"),
        ("paddings:\n  zero: 1", "config.yaml:2: expected a plain value or a list of plain values"),
        ("paddings: [[zero]]", "config.yaml:1: expected a plain value or a list of plain values"),
        ("csv: !mine x", "config.yaml:1: expected a plain value or a list of plain values"),
        ("quiet: true\npaddings: [zero", "config.yaml:2: not valid YAML: "),
        ("quiet: true\n\tforce: true", "config.yaml:2: not valid YAML: "),
        ("csv: 'open", "config.yaml:1: not valid YAML: "),
        ("paddings: *before", "config.yaml:1: not valid YAML: found undefined alias"),
        ("quiet: true\n---\nquiet: true", "config.yaml:2: not valid YAML: "),
    ],
)
def test_the_line_and_the_fault(text: str, message: str, refused: Callable[[str], str]) -> None:
    assert refused(text).startswith(message)


@pytest.mark.parametrize(
    "text",
    [
        "csv: !!python/name:os.system ''",
        "csv: !!python/object/apply:os.system ['touch broken']",
        "csv: !!python/object/new:pathlib.Path [x]",
        "!!python/object/apply:os.system\nargs: [touch broken]",
        "csv: !!int ''",
        "csv: !!int x",
        "csv: !!float ''",
        "quiet: !!bool perhaps",
        "csv: !!timestamp soon",
        "csv: !!binary x",
        "csv: !!set x",
        "csv: !!map x",
    ],
)
def test_a_tag_builds_nothing(
    text: str, refused: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(text).startswith("config.yaml:")
    assert not (tmp_path / "broken").exists()


@pytest.mark.parametrize("text", ["paddings: " + "[" * 3000, "paddings: " + "[" * 3000 + "]" * 3000])
def test_brackets_without_end_are_one_line(text: str, refused: Callable[[str], str]) -> None:
    assert "config.yaml" in refused(text)


@pytest.mark.parametrize(
    "text", ["image_size: " + "9" * 5000, "image_size: 0x" + "f" * 5000, "seeds: '" + "9" * 5000 + "'"]
)
def test_numbers_of_5000_digits_are_one_line(text: str, refused: Callable[[str], str]) -> None:
    assert refused(text)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("image_size", 0, "--image-size is 0: give 1 to 4096"),
        ("image_size", -224, "--image-size is -224: give 1 to 4096"),
        ("image_size", 4097, "--image-size is 4097: give 1 to 4096"),
        ("train_count", 0, "--train-count is 0: give 1 to 1000000"),
        ("test_count", 10**30, "--test-count is 1"),
        ("seeds", "-1", "--seeds -1 is negative"),
        ("seeds", "0,x", "--seeds: expected a whole number, not 'x'"),
        ("seeds", "1_0", "--seeds: expected a whole number, not '1_0'"),
        ("seeds", "٣", "--seeds: expected a whole number, not '٣'"),
        ("seeds", "", "--seeds: expected a whole number, not ''"),
        ("paddings", "", "--paddings is empty: name at least one"),
        ("paddings", " , ,", "--paddings is empty: name at least one"),
        ("backbones", ",", "--backbones is empty: name at least one"),
        ("test_images", "", "--test-images is empty: name at least one"),
        ("device", "", "--device: expected text, not ''"),
    ],
)
def test_options_out_of_range(name: str, value: object, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(None, {name: value})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", LARGEST)
def test_the_limits_themselves_are_allowed(name: str) -> None:
    for value in (1, LARGEST[name]):
        where: dict[str, object] = {"executor": "ray"} if name == "cpus_per_job" else {}
        # The counts and the size each have a limit, and so has what they make together.
        where |= {"image_size": 16} if name.endswith("count") else {"train_count": 1, "test_count": 1}
        assert getattr(load_config(None, where | {name: value}), name) == value


def test_a_seed_that_no_generator_takes_is_refused() -> None:
    assert load_config(None, {"seeds": str(2**64 - 1)}).seeds == (2**64 - 1,)
    with pytest.raises(UsageError, match="--seeds"):
        load_config(None, {"seeds": str(2**64)})
    with pytest.raises(UsageError, match="--seeds"):
        load_config(None, {"seeds": "9" * 5000})


#: Nine levels of nine: 387 million names, were they ever written out.
_KEYS = ("targets", "images", "readouts", "metrics", "backbones", "test_images", "weights", "seeds")
ALIAS_BOMB = "\n".join(
    ["paddings: &a0 [zero, zero, zero, zero, zero, zero, zero, zero, zero]"]
    + [f"{key}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level, key in enumerate(_KEYS, 1)]
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("paddings: [zero\n", "mine.yaml:2: not valid YAML: "),
        (ALIAS_BOMB, "mine.yaml:1: expected a plain value or a list of plain values\n"),
        ("csv: !!python/object/apply:os.system ['touch broken']", "mine.yaml:1: expected a plain value or a list"),
        ("quiet: true\nquiet: false", "mine.yaml:2: 'quiet' is given twice: keep one\n"),
        ("paddings: no", "mine.yaml:1: paddings: expected names, as a list or separated by commas, not False\n"),
        ("image_size: 010", "mine.yaml:1: 010 is ambiguous: write 8, or quote it\n"),
        ("pading: zero", "mine.yaml:1: unknown key 'pading': did you mean paddings?\n"),
        ("seeds: [a]", "mine.yaml:1: seeds: expected a whole number, not 'a'\n"),
        ("image_size: 4096\ntrain-count: 10000000", "mine.yaml:2: --train-count is 10000000: give 1 to 1000000\n"),
        ("image_size: " + "9" * 5000, "mine.yaml:1: "),
        (
            "image_size: 4096\ntrain-count: 1000000",
            "1000000 training and 64 test crops of 4096 pixels are 46878.0 GiB, and ",
        ),
        ("# " + "x" * 2**20, "config 'mine.yaml' cannot be read: it has more than 1 MB\n"),
        ("csv: \xe9".encode("latin-1"), "config 'mine.yaml' is not UTF-8 text: save it as UTF-8\n"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_and_exit_code_2(
    content: str | bytes, message: str, posbench: Callable[..., Ran]
) -> None:
    Path("mine.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    ran = posbench("run", "mine.yaml")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert ran.err.startswith(f"posbench: {message}")
    assert [path.name for path in Path().iterdir()] == ["mine.yaml"]  # and no store


def test_what_is_no_file_is_not_waited_for(posbench: Callable[..., Ran]) -> None:
    os.mkfifo("pipe.yaml")
    for name, why in (
        ("pipe.yaml", "it is no regular file"),
        (os.devnull.replace("null", "zero"), "it is no regular file"),
        (".", "it is no regular file"),
        ("absent.yaml", "No such file or directory"),
    ):
        assert posbench("run", name) == Ran(2, "", f"posbench: config {name!r} cannot be read: {why}\n")
    os.mkfifo("pipe.csv")
    ran = posbench("compare", "pipe.csv", "pipe.csv")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)


def test_crops_that_no_memory_holds_are_refused_before_anything(
    posbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posbench.bench.config.memory", lambda: 2**30)
    options = ("--train-count", "7000", "--test-count", "200", "--backbones", "none", "--images", "leaves", "--quiet")
    assert posbench("run", *options) == Ran(
        2,
        "",
        "posbench: 7000 training and 200 test crops of 224 pixels are 1.0 GiB, and this machine has 1.0 GiB of memory: "
        "lower --train-count, --test-count or --image-size\n",
    )
    assert not list(Path().iterdir())
    # What is only planned may be for another machine, though for none that there is.
    assert posbench("run", *options, "--dry-run").code == 0
    for more in (("--dry-run",), ("--executor", "ray")):
        ran = posbench("run", *options, *more, "--train-count", "1000000", "--image-size", "4096")
        assert (ran.code, ran.out) == (2, "")
        assert "are 46884.4 GiB, and a job may take 1024.0 GiB of memory: lower" in ran.err


TAGS = st.sampled_from(["", "!!int ", "!!bool ", "!!timestamp ", "!!null ", "!!str ", "!!seq ", "!x ", "&a ", "*a "])
VALUES = st.one_of(
    st.text(max_size=8),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["[", "]", "{", "}", "[a, b]", "- a", "|", "> x", "~", "no", "010", "0b1", "1:2", "2020-01-01"]),
)
LINES = st.tuples(st.sampled_from([*KEYS, "x", ""]), TAGS, VALUES).map(lambda line: f"{line[0]}: {line[1]}{line[2]}")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(text=st.one_of(st.text(), st.lists(LINES, max_size=4).map("\n".join)))
def test_of_junk_in_a_file_only_usage_errors_escape(text: str, read: Callable[[str], RunConfig]) -> None:
    try:
        chosen = read(text)
    except UsageError:
        return
    assert isinstance(chosen, RunConfig)


@settings(deadline=None)
@given(name=st.sampled_from(KEYS), value=st.one_of(st.text(), st.integers(), st.booleans(), st.floats(), st.binary()))
def test_of_junk_on_the_command_line_only_usage_errors_escape(name: str, value: object) -> None:
    try:
        chosen = load_config(None, {name: value})
    except UsageError:
        return
    assert isinstance(getattr(chosen, name), tuple | str | int | Path)


def test_a_caller_may_have_defaults_of_its_own(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("store: kept.db", encoding="utf-8")
    own = {"store": Path("elsewhere.db")}
    assert load_config(None, {}, defaults=own).store == Path("elsewhere.db")
    assert load_config(config, {}, defaults=own).store == Path("kept.db")
    assert load_config(config, {"store": "mine.db"}, defaults=own).store == Path("mine.db")
