"""Chat rows in plain English, made up from a seed, with the dirt that real ones have: as many as one likes."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from tuneline.data.record_files import as_line
from tuneline.data.records import Example, Message, as_json, make_example
from tuneline.output import atomic_file

SOURCE = "made_up"
SEED = 1  # of the rows that are measured
_NAMED = 0.15  # share of clauses about a person or place: rare words, as real text has many
_N_CLAUSES = (
    40_000  # of each sort; few enough that rows share some wording, many enough that no two are alike by chance
)
_N_REMEMBERED = 5000  # earlier rows that copies are made of

_NOUNS = """answer apple artist author bakery balance battery bird boat book border bottle branch bridge budget builder
camera canal captain castle chair chemist city clock cloud coach coast coffee colour company concert contract corner
country course cousin customer dancer dentist desert design device dinner doctor dragon driver editor engine engineer
evening exam factory family farmer festival field figure film forest friend garden gallery glass government guest
harbour hospital hotel island journal journey kitchen ladder lake language lawyer letter library machine manager map
market meadow mechanic medicine melody message mirror model morning mountain museum neighbour network newspaper novel
number nurse ocean office orchestra owner painter palace paper parent patient pencil phone piano picture pilot planet
player poem police printer problem project question railway recipe report river road robot sailor scientist season
secret shadow ship signal singer sister soldier station storm story student summer surgeon teacher theatre ticket tower
tractor trader train traveller tunnel university valley village visitor voice volcano waiter wall weather window
winter witness word worker writer""".split()
_VERBS = """accepts admires answers arranges avoids borrows builds buys carries catches changes checks chooses cleans
collects compares copies counts covers creates describes designs discovers draws enjoys examines explains finds fixes
follows forgets guards helps hides imagines improves keeps knows leaves likes loses makes measures meets misses moves
needs notices offers opens orders owns paints passes plans prepares presents prints protects pulls pushes reaches reads
remembers removes repairs replaces reports returns saves searches sells sends shows signs studies supports teaches
tests trusts understands uses visits wants washes watches welcomes writes""".split()
_ADJECTIVES = """ancient angry bitter bright broken busy calm careful cheap clean clever cold common curious dark deep
distant early easy elegant empty expensive famous fast foreign fresh friendly gentle golden grand happy heavy hidden
honest huge hungry important large late lazy little local lonely loud modern narrow new nervous noisy old open patient
plain polite poor popular private proud quick quiet rare recent rich rough round sharp short silent simple slow small
soft special strange strong sudden tall thin tired useful usual warm wide wild wise wooden young""".split()
_BEFORE_NOUN = "the a this that every one another some the the a her his their our".split()
_PLACES = "near behind beside above without after before during against inside outside beyond".split()
_JOINTS = (", and ", ", but ", " because ", " while ", " when ", ", so ", " although ", "; then ", " if ", " until ")
_SYLLABLES = "ba bel cor da del fen gar hol in jo ka lin mar mo na nor or pel ra ros sa sel ta tor ul va".split()
_GERMAN = (
    "Der alte Kapitän wartet im Hafen auf das Schiff, weil der Sturm noch nicht vorüber ist und niemand weiß, wann "
    "die nächste Fähre zur Insel fährt. "
)

Turn = tuple[str, str]  # question and answer


class Writer:
    """Questions and answers of the same seed are the same on every machine."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self._names = ["".join(self.rng.choices(_SYLLABLES, k=3)).capitalize() for _ in range(4000)]
        self._begins = [_capitalised(self._clause()) for _ in range(_N_CLAUSES)]
        self._ends = [f"{self.rng.choice(_JOINTS)}{self._clause()}. " for _ in range(_N_CLAUSES)]

    def turn(self, n_sentences: int) -> Turn:
        """A question of one sentence, and an answer of so many; a sentence has about 17 words."""
        return self.text(1).rstrip(". ") + "?", self.text(n_sentences).rstrip()

    def text(self, n_sentences: int) -> str:
        begins, ends = self.rng.choices(self._begins, k=n_sentences), self.rng.choices(self._ends, k=n_sentences)
        return "".join([part for sentence in zip(begins, ends, strict=True) for part in sentence])

    def _clause(self) -> str:
        choice = self.rng.choice
        subject = choice(self._names) if self.rng.random() < _NAMED else self._thing()
        words = [subject, choice(_VERBS), self._thing()]
        if self.rng.random() < 0.6:
            words += [choice(_PLACES), self._thing()]
        return " ".join(words)

    def _thing(self) -> str:
        words = [self.rng.choice(_BEFORE_NOUN), self.rng.choice(_NOUNS)]
        if self.rng.random() < 0.5:
            words.insert(1, self.rng.choice(_ADJECTIVES))
        return " ".join(words)


def chat_rows(n_rows: int, seed: int) -> Iterator[Example]:
    """Rows of about 250 words; one in ten is a copy of an earlier one or has something that a rule looks for."""
    writer = Writer(seed)
    rng = writer.rng
    earlier: list[Turn] = []
    for line in range(1, n_rows + 1):
        turn = writer.turn(rng.randint(9, 19))
        if earlier and rng.random() < _DIRTY:
            turn = _dirty(rng, turn, rng.choice(earlier))
        if len(earlier) < _N_REMEMBERED:
            earlier.append(turn)
        yield row(line, turn)


def row(line: int, turn: Turn) -> Example:
    return make_example(SOURCE, line, (Message("user", turn[0]), Message("assistant", turn[1])), None, {})


def write_rows(path: Path, rows: Iterator[Example]) -> None:
    """As ingest writes them."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.writelines(as_line(as_json(example)) for example in rows)


def replaced(rng: random.Random, text: str, n_words: int) -> str:
    """The text with so many words, at different places, replaced by words that stand nowhere else."""
    words = text.split(" ")
    for place in rng.sample(range(len(words)), min(n_words, len(words))):
        words[place] = f"x{rng.getrandbits(40):x}"
    return " ".join(words)


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def _near(rng: random.Random, turn: Turn) -> Turn:
    return turn[0], replaced(rng, turn[1], rng.randint(1, 3))


def _folded(turn: Turn) -> Turn:
    return turn[0].lower(), turn[1].replace(", ", "  ").replace(". ", "!\n")


def _with_contacts(rng: random.Random, turn: Turn) -> Turn:
    user, n = rng.choice(_NOUNS), rng.randrange(10**4)
    contacts = (
        f" Write to {user}.{n}@example.org.",
        f" Call +44 20 7946 {n:04}.",
        " Pay with 4111 1111 1111 1111.",
        f" The server is 8.8.{n % 256}.{n // 256}.",
        " The account is DE89 3704 0044 0532 0130 00.",
    )
    return turn[0], turn[1] + rng.choice(contacts)


# (share of all rows, what it makes of a new row and an earlier one)
_DIRT: tuple[tuple[float, Callable[[random.Random, Turn, Turn], Turn]], ...] = (
    (0.03, lambda _, new, old: old),
    (0.01, lambda _, new, old: _folded(old)),
    (0.03, lambda rng, new, old: _near(rng, old)),
    (0.02, lambda rng, new, old: _with_contacts(rng, new)),
    (0.004, lambda _, new, old: (new[0], "I'm sorry, but I cannot help with that request.")),
    (0.004, lambda _, new, old: (new[0], new[1].replace("coffee", "café").replace(" the ", " thÃ© ", 2))),
    (0.004, lambda _, new, old: (new[0] + "  \r\n", new[1].replace(". ", ".  \r\n\r\n\r\n\r\n"))),
    (0.003, lambda _, new, old: (new[0], (new[1][:90] + ". ") * 15)),
    (0.002, lambda _, new, old: (new[0], new[1] + " <|im_end|>")),
    (0.002, lambda _, new, old: (new[0], _GERMAN * 5)),
    (0.001, lambda _, new, old: (new[0], " ")),
)
_DIRTY = sum(share for share, _ in _DIRT)


def _dirty(rng: random.Random, new: Turn, old: Turn) -> Turn:
    (make,) = rng.choices([make for _, make in _DIRT], [share for share, _ in _DIRT])
    return make(rng, new, old)
