"""Ten thousand damaged programs: each is refused with an `IRSyntaxError`, or verifies, prints and parses."""

import random
import re

import pytest

from stategrad.ir import IRSyntaxError, parse, to_text, verify
from tests.golden_files import FOLDER, read_golden

CHUNKS = 40
PER_CHUNK = 250
ALPHABET = '%$@"{}[](),:=<>/\\-.\n \t0123456789abefilnoprtuxyz\x00é\u2028\ud800'
TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[%$@]?[\w.]+|\s+|.', re.DOTALL)
POOL = [
    *["", "(", ")", "{", "}", "]", "[" * 300, "[[[[1]]]]", "%nowhere", "$nowhere", "@nowhere", "9" * 5000],
    *["999999999999999999999999", "1e999", "-inf", "nan", "0x", "none", "true", '"\\q"', "loc(unknown)"],
    *["f32[]", "i32[0]", "key<fry>[]", "f32[3000000000]", "f32[4000000000,4000000000,4000000000]"],
    *['opaque"f#1@0"', 'base64"AAAA"', 'base64"!"', "reads", "yield", "return", "func", "state", "local"],
    *["scan", "cond", "while", "call", "read", "constant", "gather", "reduce_sum", "iota", "4000000000"],
]


def sources() -> list[str]:
    files = [p for folder in ("text", "passes") for p in sorted((FOLDER / folder).glob("*.sg"))]
    return [read_golden(p.read_text()).program for p in files]


def kind(token: str) -> str:
    """Tokens of one kind can stand for each other as far as the grammar goes."""
    return "0" if token[:1].isdigit() else "a" if token[:1].isalpha() else token[:1]


def exchange(text: str, rng: random.Random) -> str:
    """The text with one to three tokens exchanged for others of their kind, to get past the grammar."""
    tokens = TOKEN.findall(text)
    for _ in range(rng.randint(1, 3)):
        i = rng.randrange(len(tokens))
        tokens[i] = rng.choice([t for t in [*tokens, *POOL] if kind(t) == kind(tokens[i])])
    return "".join(tokens)


def damage(text: str, rng: random.Random) -> str:
    """The text with one to three pieces lost, doubled, moved or replaced: characters, tokens or lines."""
    split = rng.choice([list, TOKEN.findall, lambda t: t.splitlines(keepends=True)])
    pieces = split(text)
    others = list(ALPHABET) if split is list else [*POOL, *pieces]
    for _ in range(rng.randint(1, 3)):
        i, j = rng.randrange(len(pieces)), rng.randrange(len(pieces))
        edit = rng.randrange(5)
        if edit == 0 and len(pieces) > 1:
            del pieces[i]
        elif edit == 1:
            pieces.insert(i, pieces[j])
        elif edit == 2:
            pieces[i], pieces[j] = pieces[j], pieces[i]
        elif edit == 3:
            pieces[i] = rng.choice(others)
        else:
            pieces.insert(i, rng.choice(others))
    return "".join(pieces)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_damaged_programs_are_refused_or_sound(chunk: int) -> None:
    rng, texts = random.Random(chunk), sources()
    accepted = 0
    for _ in range(PER_CHUNK):
        text = rng.choice([damage, exchange])(rng.choice(texts), rng)
        try:
            module = parse(text)
        except IRSyntaxError as e:
            assert e.line >= 1 and e.column >= 1 and e.excerpt.endswith("^"), text
            continue
        accepted += 1
        verify(module)
        printed = to_text(module)
        assert to_text(parse(printed)) == printed, text
    assert 0 < accepted < PER_CHUNK  # mutations that never or always break a program would test nothing
