"""The configuration of a run: its options, read from the command line, a YAML file and the defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_type_hints

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from posbench.bench import experiments
from posbench.bench.config_file import LONGEST_NUMBER, read_options
from posbench.core.device import memory
from posbench.core.errors import UsageError
from posbench.core.files import user_path

#: The executor that runs jobs on this machine.
LOCAL = "local"
LARGEST_CROPS = 2**40  # bytes: what the largest machines have
LARGEST_GPUS = 1024
LARGEST_SEED = 2**64 - 1  # the largest that torch's generators take
#: Characters of a wrong value that a message repeats.
LONGEST_VALUE = 80

T = TypeVar("T")

# A converter returns what it cannot convert as it is, so that pydantic refuses it. A check raises ValueError with the
# end of a sentence that begins with the option's name.


def _split(value: object) -> object:
    """Return text separated by commas, or a list, as a tuple."""
    return _wrap(value.split(",") if isinstance(value, str) else value)


def _wrap(value: object) -> object:
    """Return one text, or a list, as a tuple."""
    value = [value] if isinstance(value, str) else value
    return tuple(value) if isinstance(value, list) else value


def _split_numbers(value: object) -> object:
    return _split(value) if isinstance(value, str | list | tuple) else (value,)


def _join_numbers(value: object) -> object:
    """Return one number, or a list of them, as text separated by commas."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def _unique(values: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))


def _unique_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return _unique(tuple(stripped for name in names if (stripped := name.strip())))


def _parse_whole(value: object) -> object:
    # int() would also take "1_0" and "٣".
    if isinstance(value, str) and (text := value.strip()).isascii() and text.removeprefix("-").isdigit():
        return int(text) if len(text) <= LONGEST_NUMBER else value
    return value


def _parse_number(value: object) -> object:
    # float() would also take "nan", "1e9" and "1_0".
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}\.?[0-9]{0,9}|\.[0-9]{1,9}", text := value.strip()):
        return float(text)
    return value


def _expand_path(value: object) -> object:
    return user_path(str(value)) if isinstance(value, str | Path) and str(value) else value


def _expand_file_name(value: object) -> object:
    """Return the path of a file as text; `-` stands for standard output."""
    path = value if value == "-" else _expand_path(value)
    return str(path) if isinstance(path, Path) else path


def _at_most(largest: int) -> AfterValidator:
    def check(value: int) -> int:
        if not 1 <= value <= largest:
            raise ValueError(f"is {value}: give 1 to {largest}")
        return value

    return AfterValidator(check)


def _check_seed(seed: int) -> int:
    if seed < 0:
        raise ValueError(f"{seed} is negative: seeds are whole numbers from 0")
    if seed > LARGEST_SEED:
        raise ValueError(f"{seed} is too large: give at most {LARGEST_SEED}")
    return seed


def _check_shard(text: str) -> str:
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"{text!r}: give i/n with i from 1 to n, such as 2/8")
    return text


def _check_gpus(count: float) -> float:
    if not 0 < count <= (LARGEST_GPUS if count.is_integer() else 1):
        raise ValueError(f"{count:g}: give a share of one, such as 0.5, or a whole number")
    return count


Text: TypeAlias = Annotated[str, Field(min_length=1)]
StorePath: TypeAlias = Annotated[Path, BeforeValidator(_expand_path)]
FileName: TypeAlias = Annotated[Text, BeforeValidator(_expand_file_name)]
#: Names, as a list or separated by commas.
AnyNames: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_unique_names)]
Names: TypeAlias = Annotated[AnyNames, Field(min_length=1)]
#: Names that may hold commas, as a list.
WholeNames: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_wrap), AfterValidator(_unique_names)]
Whole: TypeAlias = Annotated[int, BeforeValidator(_parse_whole)]
Seed: TypeAlias = Annotated[Whole, AfterValidator(_check_seed)]
Seeds: TypeAlias = Annotated[
    tuple[Seed, ...], BeforeValidator(_split_numbers), AfterValidator(_unique), Field(min_length=1)
]
Taps: TypeAlias = Annotated[Text, BeforeValidator(_join_numbers)]
ScoreAt: TypeAlias = Literal["grid", "image"]
Shard: TypeAlias = Annotated[Text, AfterValidator(_check_shard)]
Pixels: TypeAlias = Annotated[Whole, _at_most(4096)]
Crops: TypeAlias = Annotated[Whole, _at_most(1_000_000)]
Processes: TypeAlias = Annotated[Whole, _at_most(1024)]
Seconds: TypeAlias = Annotated[Whole, _at_most(10_000_000)]
GpuShare: TypeAlias = Annotated[float, BeforeValidator(_parse_number), AfterValidator(_check_gpus)]


@dataclass(frozen=True)
class Option:
    """Describe an option to users.

    Attributes:
        metavar: the placeholder of its value; None for a flag.
        unset: shown as the default where the default is None or empty.
        repeated: given once for each value, rather than with values separated by commas.
        output_only: changes only what the command line prints, so that `posbench.run` does not take it.
    """

    help: str
    metavar: str | None = None
    unset: str | None = None
    repeated: bool = False
    output_only: bool = False


@pydantic_dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True))
class RunConfig:
    """The options of one run, the same for the command line, YAML files and `posbench.run`.

    Values are converted from what users write, such as `"H,V"`, and checked one by one; `check` tests how they go
    together. Names of components are looked up later, by `posbench.bench.resolve`.

    Raises:
        pydantic.ValidationError: if a value has the wrong type or is out of range; `load_config` raises UsageError.
    """

    #: None: EfficientNet-Lite0 and the control `none`.
    backbones: Annotated[Names | None, Option("timm models, `none`, or a plugin's.", "A,B")] = None
    paddings: Annotated[Names, Option("What padded operations see.", "A,B")] = ("zero", "circular", "reflect")
    targets: Annotated[Names, Option("Patterns to draw.", "A,B")] = ("H", "V", "G", "HS", "VS")
    images: Annotated[Names, Option("Sources to train on, and to test on; a path is a folder.", "A,B")] = ("photos",)
    #: None: the training source.
    test_images: Annotated[Names | None, Option("Other sources to test on.", "A,B")] = None
    readouts: Annotated[Names, Option("Models that are trained to draw the targets.", "A,B")] = ("ridge",)
    metrics: Annotated[Names, Option("Scores.", "A,B")] = ("spc", "mae", "r2")
    controls: Annotated[AnyNames, Option("Checks of every cell.", "all|A,B", unset="none")] = ()
    weights: Annotated[
        WholeNames, Option("Which weights; may be repeated.", "auto|pretrained|random|NAME=PATH", repeated=True)
    ] = ("auto",)
    seeds: Annotated[Seeds, Option("Seeds of random weights and readouts.", "0,1")] = (0,)
    taps: Annotated[Taps, Option("Feature maps to read from.", "all|each|1,3")] = "all"
    image_size: Annotated[Pixels, Option("Side of a crop, in pixels.", "PIXELS")] = 224
    train_count: Annotated[Crops, Option("Training crops.", "N")] = 256
    test_count: Annotated[Crops, Option("Test crops.", "N")] = 64
    score_at: Annotated[ScoreAt, Option("Score on the readout's grid, or at image size.", "grid|image")] = "grid"
    precision: Annotated[Text, Option("Precision of the forward pass.", "auto|fp32|bf16")] = "auto"
    device: Annotated[Text, Option("Where to compute.", "auto|cpu|cuda")] = "auto"
    store: Annotated[StorePath, Option("The SQLite file for results.", "FILE")] = Path("posbench.db")
    published: Annotated[Text | None, Option("Show a paper's numbers beside ours.", "TABLE")] = None
    experiment: Annotated[
        Text | None, Option("Begin from an experiment that ships; see `list experiments`.", "NAME")
    ] = None
    shard: Annotated[Shard | None, Option("Only the I-th of N parts of the plan; `merge` joins them.", "I/N")] = None
    executor: Annotated[Text, Option("Where jobs run; see `list executors`.", "NAME")] = LOCAL
    jobs: Annotated[
        Processes | None, Option("Jobs at once.", "N", unset="local: 1; a cluster: as many as it has room for")
    ] = None
    time_limit: Annotated[Seconds | None, Option("Stop a job that takes longer; it counts as failed.", "SECONDS")] = (
        None
    )
    cpus_per_job: Annotated[
        Processes | None, Option("CPUs of a cluster, and threads, for each job.", "N", unset="1")
    ] = None
    gpus_per_job: Annotated[
        GpuShare | None, Option("GPUs of a cluster for each job, such as 0.5.", "X", unset="none")
    ] = None
    ray_address: Annotated[
        Text | None, Option("Address of a Ray cluster.", "ADDRESS", unset="RAY_ADDRESS, or one started here")
    ] = None
    csv: Annotated[FileName | None, Option("Write the rows as CSV.", "FILE|-")] = None
    json: Annotated[bool, Option("Print the rows as JSON alone.", output_only=True)] = False
    dry_run: Annotated[bool, Option("Show jobs and cells; compute nothing.")] = False
    force: Annotated[bool, Option("Compute again what is stored.")] = False
    fail_fast: Annotated[bool, Option("Stop at the first job that fails.")] = False
    quiet: Annotated[bool, Option("No progress and no summary.", output_only=True)] = False

    def check(self) -> None:
        """Raise UsageError if options do not fit together, or memory does not hold the crops of a job."""
        for name in ("cpus_per_job", "gpus_per_job", "ray_address"):
            if getattr(self, name) is not None and self.executor == LOCAL:
                raise UsageError(f"{option_name(name)} is for jobs that run on a cluster: add --executor ray")
        size = (self.train_count + self.test_count) * self.image_size**2 * 3
        # The memory of this machine does not matter to a cluster, nor to a plan that is only shown.
        here = self.executor == LOCAL and not self.dry_run
        room = min(memory(), LARGEST_CROPS) if here else LARGEST_CROPS
        if size > room:
            where = "this machine has" if room < LARGEST_CROPS else "a job may take"
            raise UsageError(
                f"{self.train_count} training and {self.test_count} test crops of {self.image_size} pixels are "
                f"{size / 2**30:.1f} GiB, and {where} {room / 2**30:.1f} GiB of memory: "
                "lower --train-count, --test-count or --image-size"
            )

    def part(self) -> tuple[int, int]:
        """Return the number of the shard, from 1, and the count of shards."""
        number, _, count = (self.shard or "1/1").partition("/")
        return int(number), int(count)


def option_name(name: str) -> str:
    """Return the command line's name of a field, such as `--image-size`."""
    return "--" + name.replace("_", "-")


def options() -> Iterator[tuple[str, Any, Option]]:
    """Yield the name, the type and the description of each option; the help ends with the default, in brackets.

    The type is plain: a class such as `int`, or `tuple[str, ...]`, without bounds and without None.
    """
    types, annotated = get_type_hints(RunConfig), get_type_hints(RunConfig, include_extras=True)
    for field in fields(RunConfig):
        kind = types[field.name]
        if type(None) in get_args(kind):
            kind = next(argument for argument in get_args(kind) if argument is not type(None))
        described = next(item for item in annotated[field.name].__metadata__ if isinstance(item, Option))
        values = field.default if isinstance(field.default, tuple) else (field.default,)
        default = described.unset or ("" if field.default in (None, False) else ",".join(map(str, values)))
        yield field.name, kind, replace(described, help=described.help + (f" [{default}]" if default else ""))


def load_config(
    config: Path | None, options: Mapping[str, Any], *, defaults: Mapping[str, Any] = MappingProxyType({})
) -> RunConfig:
    """Return the configuration that the options, a YAML file, an experiment and the defaults make, in this precedence.

    Args:
        config: a YAML file with the options' names as keys, or None.
        options: by field name, from the command line or Python; None stands for an option that was not given.
        defaults: replace those of the fields.

    Raises:
        UsageError: if a key is unknown or given twice, or a value does not fit, with the file and line where it is in
            a file; if options do not go together; or if no memory holds the crops.
    """
    chosen = _parse_file(config) if config else {}
    chosen |= {name: _parse(name, value, option_name(name)) for name, value in options.items() if value is not None}
    if "experiment" in chosen:
        chosen = _parse_file(experiments.path(chosen["experiment"])) | chosen
    run_config = RunConfig(**{**defaults, **chosen})
    run_config.check()
    return run_config


def _parse_file(path: Path) -> dict[str, Any]:
    names = [field.name for field in fields(RunConfig)]
    return {option[0]: _parse(*option) for option in read_options(path, names)}


#: What a message says was expected, by the type of pydantic's error.
_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number, such as 0.5",
    "tuple_type": "names, as a list or separated by commas",
}


def _parse(name: str, value: Any, key: str, place: str = "") -> Any:
    """Return the value of one option, converted; `key` and `place` are those of `read_options`."""
    try:
        return getattr(RunConfig(**{name: value}), name)
    except UsageError as error:
        raise UsageError(f"{place}{key}: {error}") from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    kind, wrong, option = problem["type"], problem["input"], option_name(name)
    if kind == "string_type" and len(problem["loc"]) > 1:  # an item of a list of names
        kind, wrong = "tuple_type", value
    match kind:
        case "value_error":
            message = f"{option} {problem['ctx']['error']}"
        case "too_short":
            message = f"{option} is empty: name at least one, or leave it out for the default"
        case "literal_error":
            choices = problem["ctx"]["expected"].replace("'", "")
            message = f"{option} {wrong!r}: choose {choices}"
        case _:
            shown = repr(wrong)
            if len(shown) > LONGEST_VALUE:
                shown = shown[: LONGEST_VALUE - 1] + "…"
            message = f"{key}: expected {_EXPECTED.get(kind, 'text')}, not {shown}"
    raise UsageError(place + message)
