"""Write the demonstration data: questions and statements that mention persons and places.

    python scripts/make_demo_data.py [FOLDER]

Every sentence is made here, from the templates and names below. The validation file uses names
and places of its own, no word of which occurs in an entity of the training file, and half of its
sentences come from templates that training never uses, so knowing the training sentences by
heart does not help. The same seed gives the same bytes.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from itertools import chain, cycle
from pathlib import Path
from typing import TypedDict

DATA = Path(__file__).parent.parent / "src" / "data"
SEED = 2
SIZES = {"train": 1000, "valid": 250}
CASES = (str, str, str, str, str, str.lower, str.lower, str.upper)
ENDS = {"question": ("?", "?", "?", "", ""), "statement": (".", ".", ".", "", "", "!")}

# Slots are filled anew each time: {p} a person, {l} a place, the others from these words.
FILLERS = {
    "when": "on Monday; in March; in the evening; at noon; on Sundays; after lunch; in spring; "
    "at the weekend; during the holidays; in a few days; before breakfast; at half past six",
    "thing": "letter; red bicycle; umbrella; old map; guitar; passport; blue coat; box of books; "
    "camera; black notebook; bottle of wine; pair of gloves; ladder; suitcase; silver ring",
    "job": "doctor; baker; teacher; pilot; painter; nurse; lawyer; pianist; carpenter; reporter",
    "org": "Nokia; Toyota; Siemens; Samsung; the bank; the post office; the Red Cross; Unilever",
    "tongue": "Portuguese; Italian; Greek; Arabic; Hindi; Korean; French; Swahili; Dutch; Thai",
    "kin": "sister; uncle; neighbour; boss; best friend; cousin; daughter; landlord; colleague",
}
OPENINGS = {
    "train": "excuse me ,; by the way ,; well ,; so; and; listen ,; hello ,; hey",
    "valid": "sorry ,; honestly ,; now ,; but; good evening ,",
}

FIRST_NAMES = {
    "train": """Ahmed Aisha Anna Anton Beatriz Bjorn Carlos Chiara Claire Daniel Dmitri Edith Elena
        Emma Esther Fatima Felix Frank Greta Hannah Henrik Hugo Ingrid Irene Isabel Ivan Jacob
        James Julia Katarina Kenji Leila Liam Lucas Marco Maria Mei Nadia Nikolai Olga Oliver Omar
        Oscar Paula Pedro Peter Priya Rahul Rosa Samuel Stefan Tariq Thomas Tomasz Ursula Vera
        Viktor Wanda William Yuki Yusuf Zainab Zoe Abdullah Arjun Farida Hiroshi Kavita Kwame
        Lakshmi Ngozi Sakura Sanjay Thandiwe""",
    "valid": """Agnes Akira Alice Amina Astrid Boris Deepa Eva Haruto Hassan Jonas Juan Karim
        Khadija Laura Lucia Luigi Mateo Miguel Mohammed Noah Nora Pablo Robert Ruth Sergei Simon
        Svetlana Walter Yasmin""",
}
LAST_NAMES = {
    "train": """Andersen Bianchi Cohen Dubois Fernandez Garcia-Lopez Haddad Horvath Ivanov Johansson
        Keller Kowalski Larsen Mbeki Moreau Murphy Nguyen Novak O'Brien Okafor Papadopoulos Patel
        Petrov Rossi Sato Schmidt Silva Tanaka Williams Yilmaz""",
    "valid": """Adeyemi D'Angelo Demir Dlamini Hansen Kelly Khalil Laurent Levy Lindqvist Martinez
        Meyer-Roth Nikolaidis Nowak Sharma Suzuki Tran Volkov Watanabe Weber""",
}
PLACES = {
    "train": """Accra; Athens; Bavaria; Beirut; Berlin; Bogota; Boston; Brazil; Bristol; Budapest;
        Cairo; Canada; Chicago; Denver; Dublin; Egypt; Geneva; Glasgow; Hamburg; Havana; India;
        Istanbul; Jakarta; Japan; Kenya; Krakow; Kyiv; Lagos; Leeds; Lima; Lisbon; London; Madrid;
        Manila; Minsk; Montreal; Mumbai; Nairobi; Naples; Norway; Oslo; Peru; Porto; Prague; Riga;
        Seattle; Seoul; Seville; Stockholm; Tehran; Texas; Tokyo; Toronto; Tunis; Vienna; Warsaw;
        Addis Ababa; Buenos Aires; Cape Town; Costa Rica; Da Nang; Hong Kong; Kuala Lumpur; La Paz;
        Las Vegas; Los Angeles; New York; North Dakota; Port Moresby; San Francisco; Saudi Arabia;
        Siem Reap; Sierra Leone; South Korea; Sri Lanka; Tel Aviv; Ulan Bator; Chalon sur Saone;
        Ho Chi Minh City; Isle of Wight; Las Palmas de Gran Canaria; Papua New Guinea;
        Rio de Janeiro; Rothenburg ob der Tauber; Salt Lake City; Stoke on Trent""",
    "valid": """Algeria; Ankara; Bangkok; Barcelona; Beijing; Brussels; Caracas; Copenhagen; Dallas;
        Germany; Ghana; Helsinki; Italy; Karachi; Kyoto; Lahore; Liverpool; Manchester; Melbourne;
        Miami; Morocco; Moscow; Munich; Nepal; Osaka; Philadelphia; Poland; Quito; Rome; Spain;
        Sweden; Valencia; Vancouver; Venice; Vietnam; Zurich; Abu Dhabi; Baton Rouge; Burkina Faso;
        El Paso; Phnom Penh; Puerto Rico; Saint Petersburg; Santa Fe; Aix en Provence;
        British Virgin Islands; Central African Republic; Dar es Salaam; Newcastle upon Tyne;
        Playa del Carmen; United Arab Emirates""",
}

# Templates are split into tokens at spaces. A final mark of a template is kept.
TEMPLATES = {
    ("question", "train"): """
where does {p} live; where is {l}; who is {p}; who lives in {l}; when did {p} arrive in {l}
when does the train to {l} leave; how far is {l} from {l}; how old is {p}; what is for dinner
what is {p} doing in {l}; why did {p} leave {l} {when}; why is {l} so expensive {when}
which road goes to {l}; which of you knows {p}; whose {thing} is this; did {p} call you {when}
does {p} speak {tongue}; do {p} and {p} know each other; has {p} ever been to {l}
have you seen {p} {when}; have you been to {l} or {l}; is {p} still in {l}; is {l} bigger than {l}
is the museum in {l} open {when}; are {p} and {p} coming to {l}; was {p} born in {l}
are there direct flights from {l} to {l}; were you in {l} when {p} called; should I wait for {p}
can {p} help me carry the {thing}; can I take a bus from {l} to {l}; any news from {p} ?
could you ask {p} to bring the {thing}; would {p} rather live in {l} or in {l}; who won the game
will {p} be at the party {when}; will it snow in {l} {when}; should we invite {p} and {p}
may I borrow the {thing}; must we change trains in {l}; what time is it in {l}
what did {p} buy in {l}; what is the name of {p} 's {kin}; what does {p} think of {l}
what happened to {p} in {l}; how did {p} get from {l} to {l}; how many people live in {l}
how much is a ticket to {l}; how do I get to {l} {when}; how long has {p} been a {job}
who taught {p} to play the guitar; who is taller , {p} or {p}; who told {p} about the {thing}
whom did {p} visit in {l}; isn't {p} a {job}; doesn't {p} work in {l}; {p} is your {kin} ?
so {p} lives in {l} now ?; {p} , where did you put the {thing}; is {p} 's {kin} a {job}
in which street of {l} does {p} live; do you know whether {p} likes fish; is {p} at home {when}
can you tell me where {l} is; is there a good {job} near {l}; did anyone find the {thing}
why is the sky blue; how does this machine work; do you remember {p} from {l}
is {tongue} hard to learn; does {p} work for {org}; did you sleep well
at what time does {p} get up; since when does {p} work for {p}; is the {job} in the office {when}
{p} from {l} married {p} from {l} ?; {p} and {p} are in {l} , aren't they ?""",
    ("question", "valid"): """
did {p} enjoy the concert in {l}; how is the weather in {l} {when}; has anyone heard from {p}
where can I buy a {thing} in {l}; will {p} and {p} meet in {l}; does {org} have a shop in {l}
what made {p} choose {l}; does the ferry stop at {l}; when is {p} 's birthday
could {p} have lost the {thing} in {l}; why would anyone move from {l} to {l}; who painted that
do they grow coffee in {l}; was it {p} or {p} who called {when}; {p} , are you listening
how well do you know {p} 's {kin}; did the {job} find out what was wrong; {p} never went back ?
which is older , {l} or {l}; are we allowed to park here {when}; what brings you to {l} , {p}""",
    ("statement", "train"): """
{p} lives in {l}; {p} was born in {l}; {p} and {p} moved to {l}; {p} works as a {job} in {l}
my {kin} {p} never liked {l}; I met {p} at the station {when}; I know where {p} lives
nobody told me why {p} left {l}; {p} asked who would drive to {l}; I gave {p} the keys
what {p} said about {l} surprised us; when {p} is away , {p} feeds the cat; {l} has a new airport
{l} is colder than {l} in winter; the train from {l} to {l} was late again; I slept very well
it rains all day in {l} {when}; we spent three nights in {l} and two in {l}; {l} lies on a river
{p} 's {kin} runs a bakery in {l}; {p} left the {thing} on the bus; {p} is taller than {p}
the {thing} on the table belongs to {p}; thank you , {p} , that was kind of you
{p} , please call {p} back; tell {p} that the meeting is in {l}; the {thing} is in the kitchen
ask {p} whether the shop is open; the {job} said it was nothing serious; dinner is ready
show me where the {thing} is; let me know when {p} leaves {l}
{org} has new offices in {l}; {p} left {org} {when}; I pay with a card from {org}
I have no idea how the printer works; it takes six hours to fly from {l} to {l}
according to {p} , the museum in {l} is free {when}; {p} , {p} and {p} share a flat in {l}
{p} plays chess with {p} {when}; we do not know which hotel in {l} has rooms left
I wonder whether {p} has read the report; the mayor of {l} resigned {when}; {p} is here
{p} painted this picture in {l}; lunch is served {when} in the garden; {p} is from {l}
the best bread in {l} comes from that shop; I would rather stay at home than go to {l}
that is how {p} won the race in {l}; whoever finds the {thing} should give it to {p}
{p} wrote to me from {l}; the {job} repaired the roof {when}; he flew over {l} on his way to {l}
she introduced {p} to her {kin} in {l}; it was {p} who found the {thing}
{p} can speak {tongue} and a little {tongue}; the road between {l} and {l} is closed {when}
{p} from {l} married {p} from {l}; do not forget to send {p} the {thing}; we won the game
how {p} got to {l} without money is a mystery; where the {thing} went is anyone's guess
there are more bridges in {l} than in {l}; {p} teaches history at a school near {l}
the rent in {l} has doubled since {p} moved there; no one answered when {p} knocked
{p} has been a {job} for ten years; please remind {p} about the tickets to {l}
the {job} who cured {p} lives near {l}; our office in {l} is next to the park
{p} likes tea but {p} prefers coffee; I am sure that {p} is at home {when}; what a lovely {thing} !
the letter from {p} reached {l} {when}; {p} drove us to {l} and back; is what {p} told me .""",
    ("statement", "valid"): """
{p} sold the house in {l} {when}; everyone in {l} knows {p}; the bus does not stop in {l} {when}
I asked {p} when the shop in {l} opens; {p} 's {kin} cannot stand {p}; whatever happens , stay calm
let us meet {p} in {l}; this {thing} was made in {l}; why {p} quit is still unclear
give the {thing} back to {p}; the {job} could not say what was wrong; who she is does not matter
{p} has not decided between {l} and {l}; snow is rare in {l}; {p} arrived with {p} {when}
we were told that {p} speaks {tongue}; {p} ran from {l} to {l}; the keys are where you left them
happy birthday , {p}; my {kin} showed {p} around {l}; on the way to {l} we lost the {thing}""",
}
SLOT = re.compile(r"\{(\w+)\}")


class Record(TypedDict):
    """One record: a tag for every token, and the class of the sentence."""

    tokens: list[str]
    ner: list[str]
    label: str


def listed(text: str) -> list[str]:
    """Split a word list at semicolons and line ends, or at spaces if it has no semicolon."""
    parts = re.split(r";|\n(?=\S)", text) if ";" in text else text.split()
    return [" ".join(part.split()) for part in parts if part.strip()]


def fill(slot: str, split: str, rng: random.Random) -> tuple[list[str], list[str]]:
    """Choose the tokens and the tags of one slot."""
    if slot == "p":
        first, last = listed(FIRST_NAMES[split]), listed(LAST_NAMES[split])
        kinds = [(first,), (first,), (first,), (first, last), (first, last), (first, first, last)]
        tokens, kind = [rng.choice(names) for names in rng.choice(kinds)], "PERSON"
    elif slot == "l":
        words = rng.choice((1, 1, 1, 1, 2, 2, 3))
        places = [name.split() for name in listed(PLACES[split])]
        tokens, kind = rng.choice([p for p in places if min(len(p), 3) == words]), "PLACE"
    else:
        tokens = rng.choice(listed(FILLERS[slot])).split()
        return tokens, ["O"] * len(tokens)
    return tokens, [f"B-{kind}"] + [f"I-{kind}"] * (len(tokens) - 1)


def sentence(template: str, label: str, split: str, rng: random.Random) -> Record:
    """Make a record from a template, with random opening, end mark and letter case."""
    words = template.split()
    if rng.random() < 0.12:
        words = rng.choice(listed(OPENINGS[split])).split() + words
    if words[-1] not in "?.!":
        words += rng.choice(ENDS[label]).split()
    tokens: list[str] = []
    tags: list[str] = []
    for word in words:
        slot = SLOT.fullmatch(word)
        new, new_tags = fill(slot[1], split, rng) if slot else ([word], ["O"])
        tokens, tags = tokens + new, tags + new_tags
    tokens[0] = tokens[0][0].upper() + tokens[0][1:]
    case = rng.choice(CASES)
    return {"tokens": [case(token) for token in tokens], "ner": tags, "label": label}


def sentences(split: str, seen: set[str]) -> list[Record]:
    """Make the records of one file, without repeated sentences and without those in `seen`."""
    rng = random.Random(f"{SEED} {split}")
    pools: dict[str, Iterator[str]] = {}
    for label in ("question", "statement"):
        known, new = listed(TEMPLATES[label, "train"]), listed(TEMPLATES[label, "valid"])
        mixed = chain.from_iterable(zip(known, cycle(new), strict=False))
        pools[label] = cycle(known if split == "train" else mixed)
    records: list[Record] = []
    while len(records) < SIZES[split]:
        label = rng.choice(("question", "statement"))
        record = sentence(next(pools[label]), label, split, rng)
        key = "".join(filter(str.isalnum, "".join(record["tokens"]).lower()))
        if key not in seen:
            seen.add(key)
            records.append(record)
    rng.shuffle(records)
    return records


def main(folder: str | Path = DATA) -> None:
    """Write train.json and valid.json: JSON lists with one record per line."""
    seen: set[str] = set()
    for split in SIZES:
        lines = [json.dumps(record, ensure_ascii=False) for record in sentences(split, seen)]
        text = "[\n" + ",\n".join(lines) + "\n]\n"
        Path(folder, f"{split}.json").write_bytes(text.encode())


if __name__ == "__main__":
    main(*sys.argv[1:2])
