"""Databases, tables, columns and the values in them: everything the generated data speaks about."""

import hashlib
import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal["id", "reference", "person", "title", "place", "label", "number"]
Split = Literal["train", "test"]
Value = str | int

HELD_OUT_SHARE = 4  # one value in four never occurs in training data or in the base model's corpus

ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pr r s sh st t tr v w z".split()
VOWELS = "a e i o u ai ea or ar el an in".split()
CODAS = "b ck d g k l m n nd p r rn s st t th x".split()
PLACE_FORMS = ("Port {}", "{} Bay", "New {}", "{} Falls", "{}", "{}", "{}")
TITLE_FORMS = ("The {} {}", "{} {}", "{} and {}", "{} of {}")


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `low` and `high` bound the values of a number."""

    name: str
    kind: Kind
    low: int = 0
    high: int = 0

    @property
    def words(self) -> str:
        """The column as English says it: `ticket_price` is `ticket price`."""
        return self.name.replace("_", " ")

    @property
    def sql_type(self) -> str:
        return "INTEGER" if self.kind in ("id", "reference", "number") else "TEXT"

    @property
    def is_text(self) -> bool:
        return self.sql_type == "TEXT"


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    columns: tuple[Column, ...]

    @property
    def words(self) -> str:
        return self.name.replace("_", " ")

    @property
    def askable(self) -> tuple[Column, ...]:
        """The columns a question may name: keys are plumbing."""
        return tuple(column for column in self.columns if column.kind not in ("id", "reference"))

    @property
    def texts(self) -> tuple[Column, ...]:
        return tuple(column for column in self.askable if column.is_text)

    @property
    def labels(self) -> tuple[Column, ...]:
        return tuple(column for column in self.askable if column.kind in ("label", "place"))

    @property
    def numbers(self) -> tuple[Column, ...]:
        return tuple(column for column in self.askable if column.kind == "number")

    @property
    def create(self) -> str:
        """The table's CREATE TABLE statement, on one line."""
        columns = ", ".join(f"{column.name} {column.sql_type}" for column in self.columns)
        return f"CREATE TABLE {self.name} ({columns});"


@dataclass(frozen=True, slots=True)
class Database:
    """Two tables; each row of `child` belongs to one row of `parent` through `child.<reference>` = `parent.id`."""

    name: str
    parent: Table
    child: Table

    @property
    def reference(self) -> Column:
        return next(column for column in self.child.columns if column.kind == "reference")

    @property
    def create(self) -> str:
        return f"{self.parent.create}\n{self.child.create}"


def _table(name: str, *specs: str) -> Table:
    """`person name`, `label genre`, `number age 18 80` ... to a table with an id in front."""
    columns = [Column("id", "id")]
    for spec in specs:
        kind, column, *bounds = spec.split()
        low, high = (int(bound) for bound in bounds) if bounds else (0, 0)
        columns.append(Column(column, kind, low, high))  # type: ignore[arg-type]  # the literals below
    return Table(name, tuple(columns))


DATABASES = (
    Database(
        "music",
        _table("singers", "person name", "number age 18 80", "label country", "label genre"),
        _table("concerts", "reference singer_id", "place city", "number year 1990 2025", "number tickets 100 9000"),
    ),
    Database(
        "library",
        _table("authors", "person name", "place birthplace", "number birth_year 1900 2000"),
        _table("books", "reference author_id", "title title", "label genre", "number pages 60 1200", "number price 5 90"),
    ),
    Database(
        "clinic",
        _table("doctors", "person name", "label specialty", "number experience 1 45"),
        _table("patients", "reference doctor_id", "person name", "place city", "number age 1 99", "number weight 20 140"),
    ),
    Database(
        "school",
        _table("teachers", "person name", "label subject", "number salary 2000 9000"),
        _table("students", "reference teacher_id", "person name", "number grade 1 12", "number score 10 100", "place city"),
    ),
    Database(
        "shop",
        _table("customers", "person name", "place city", "label segment", "number points 0 5000"),
        _table("orders", "reference customer_id", "label product", "number quantity 1 60", "number total 10 4000"),
    ),
    Database(
        "airline",
        _table("airports", "title name", "place city", "number runways 1 16", "number elevation 0 3000"),
        _table("flights", "reference airport_id", "label carrier", "number distance 100 9000", "number delay 0 300"),
    ),
    Database(
        "company",
        _table("departments", "title name", "place location", "number budget 100 9000"),
        _table("employees", "reference department_id", "person name", "label role", "number salary 1500 9500", "number age 18 67"),
    ),
    Database(
        "museum",
        _table("galleries", "title name", "place city", "number visitors 500 9500"),
        _table("paintings", "reference gallery_id", "title title", "person artist", "label style", "number year 1500 2020"),
    ),
    Database(
        "sports",
        _table("teams", "title name", "place city", "number founded 1880 2015", "number wins 0 90"),
        _table("players", "reference team_id", "person name", "label position", "number height 150 220", "number goals 0 60"),
    ),
    Database(
        "farm",
        _table("farms", "title name", "label region", "number area 5 900"),
        _table("harvests", "reference farm_id", "label crop", "number year 1995 2025", "number weight 100 9000"),
    ),
    Database(
        "cinema",
        _table("directors", "person name", "label country", "number awards 0 30"),
        _table("films", "reference director_id", "title title", "label genre", "number length 60 240", "number rating 1 100"),
    ),
    Database(
        "harbour",
        _table("harbours", "place name", "label country", "number depth 3 60", "number berths 2 80"),
        _table("ships", "reference harbour_id", "title name", "label flag", "number length 10 400", "number crew 2 300"),
    ),
)  # fmt: skip

# What the base model's corpus makes its own tables from; none of the databases above occurs there as a whole.
CORPUS_TABLES = (
    "accounts agents albums animals apartments articles artists bands boats bridges buildings buses cables cars cats "
    "channels clients clubs coaches courses crates devices dogs drivers engines events farmers files gardens guests "
    "hotels houses invoices islands items jobs journals lakes lessons loans machines managers markets meetings members "
    "mountains movies nurses offices owners packages parks parts payments phones pilots planets plants poems posts "
    "products programs projects rivers roads rooms routes schools sensors servers shops songs stations stores streets "
    "suppliers tasks tickets tools towns toys trains trees trips trucks users vendors villages visits workers writers"
).split()
CORPUS_NUMBERS = (
    "age year price salary score points total quantity weight height length width depth distance duration rating rank "
    "pages tickets visitors capacity budget cost delay speed area population goals wins awards crew stock grade level "
    "birth_year founded experience floors seats volume power mileage balance elevation runways berths"
).split()
CORPUS_LABELS = (
    "genre country category color type status brand subject role position style region crop flag product segment "
    "carrier specialty language material season team owner department industry model"
).split()
CORPUS_PLACES = "city location birthplace town district harbour".split()
CORPUS_NAMES = "name title artist author manager".split()


def is_held_out(value: Value) -> bool:
    """Whether a value belongs to the test set alone; decided by its hash, so every generator agrees."""
    return int(hashlib.sha256(str(value).encode()).hexdigest(), 16) % HELD_OUT_SHARE == 0


def word(rng: random.Random) -> str:
    """A capitalised made-up word of one or two syllables and an ending."""
    syllables = rng.choice((1, 1, 2))
    made = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables))
    return (made + rng.choice(CODAS)).capitalize()


def any_value(column: Column, rng: random.Random) -> Value:
    """A value the column could hold, held out or not."""
    match column.kind:
        case "person":
            return f"{word(rng)} {word(rng)}"
        case "title":
            return rng.choice(TITLE_FORMS).format(word(rng), word(rng))
        case "place":
            return rng.choice(PLACE_FORMS).format(word(rng))
        case "label":
            return word(rng)
        case _:
            return rng.randint(column.low, column.high)


def value_of(column: Column, split: Split, rng: random.Random) -> Value:
    """A value of the column that the given split may show."""
    while True:
        value = any_value(column, rng)
        if is_held_out(value) == (split == "test"):
            return value


def random_database(rng: random.Random, uncommon_table_fraction: float) -> Database:
    """Two tables for one document of the base model's corpus; that fraction of them bears uncommon names."""
    parent_name, child_name = _table_names(rng, uncommon_table_fraction)
    parent = Table(parent_name, (Column("id", "id"), *_random_columns(rng)))
    reference = Column(f"{parent_name.removesuffix('s')}_id", "reference")
    child = Table(child_name, (Column("id", "id"), reference, *_random_columns(rng)))
    return Database(f"{parent_name}_{child_name}", parent, child)


def _table_names(rng: random.Random, uncommon_table_fraction: float) -> list[str]:
    """Two different names, each uncommon with the given probability."""
    names = rng.sample(CORPUS_TABLES, 2)
    if uncommon_table_fraction:
        names = [_uncommon_name(rng) if rng.random() < uncommon_table_fraction else name for name in names]
    return names if names[0] != names[1] else _table_names(rng, uncommon_table_fraction)


def _uncommon_name(rng: random.Random) -> str:
    """A word that is several tokens long: made up, or one that the task's tables are named by too."""
    known = [table.name for database in DATABASES for table in (database.parent, database.child)]
    return rng.choice((f"{word(rng).lower()}s", rng.choice(known)))


def _random_columns(rng: random.Random) -> list[Column]:
    low = rng.choice((0, 1, 10, 100, 1900))
    numbers = [
        Column(name, "number", low, low + rng.choice((20, 90, 900, 9000)))
        for name in rng.sample(CORPUS_NUMBERS, rng.randint(1, 3))
    ]
    names = [Column(rng.choice(CORPUS_NAMES), rng.choice(("person", "title")))]
    labels = [Column(rng.choice(CORPUS_LABELS), "label"), Column(rng.choice(CORPUS_PLACES), "place")]
    columns = names + rng.sample(labels, rng.randint(1, 2)) + numbers
    rng.shuffle(columns)
    return columns
