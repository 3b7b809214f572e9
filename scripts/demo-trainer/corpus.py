"""The texts of scripts/demo-corpus, and conversations drawn from them.

A topic file is a list of entries:

    = name !                    `!`: asked often;  `after other`: follows that entry in a conversation
    What (is|'s) X?             question forms; (a|b|) is a choice, <list> a word of a list
    @what: X; the X             every form of a template, about X and about the X
    > The answer.               each `>` is a line of it

`* columns`, `- row | row` and `* end` make a table: the entries in between are made once per row.
`~ name: word; word` is a list. held-out.txt and dev.txt hold questions that are never trained on.
"""

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "demo-corpus"
TOPICS = [
    "about", "tee", "attestation", "identity", "keys", "sealed", "host",
    "gateway-api", "start", "self", "smalltalk", "english", "unknown",
]  # fmt: skip

# Shares of the conversations' questions; the rest goes to entries by weight.
SHARE_UNKNOWN = 0.13


@dataclass
class Entry:
    name: str
    weight: float = 1.0
    after: list[str] = field(default_factory=list)
    forms: list[str] = field(default_factory=list)
    made: set[str] = field(default_factory=set)  # the forms that came from a template
    answer: str = ""


# ---- reading ----------------------------------------------------------------------------------------------------


def lines(name):
    for number, line in enumerate((FOLDER / f"{name}.txt").read_text(encoding="ascii").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line.rstrip()


def templates():
    found, current = {}, None
    for _, line in lines("templates"):
        if line.startswith("% "):
            current = found.setdefault(line[2:], [])
        else:
            current.append(line)
    return found


class Corpus:
    def __init__(self):
        self.entries: dict[str, Entry] = {}
        self.lists: dict[str, list[str]] = {}
        self.templates = templates()
        for topic in TOPICS:
            self._read(topic)
        self._sums()
        self.system = [line for _, line in lines("system")]
        self.held_out = self._questions("held-out")
        self.dev = self._questions("dev")
        self._validate()
        self._reserved = {plain(q) for _, q in self.held_out + self.dev}
        self._drawn = [e for e in self.entries.values() if e.name != "unknown"]
        self._weights = [e.weight for e in self._drawn]

    def _read(self, topic):
        table, rows, block, entry = None, [], [], None
        for number, line in lines(topic):
            where = f"{topic}.txt:{number}"
            if line == "* end":
                self._expand(table, rows, block)
                table, rows, block, entry = None, [], [], None
            elif line.startswith("* "):
                table = [c.strip() for c in line[2:].split("|")]
            elif line.startswith("~ "):
                name, words = line[2:].split(": ", 1)
                self.lists[name] = [w.strip() for w in words.split(";")]
            elif line.startswith("- ") and table and entry is None:
                rows.append([c.strip() for c in line[2:].split("|")])
                assert len(rows[-1]) == len(table), where
            elif line.startswith("= "):
                entry = self._heading(line[2:], where)
                if table:
                    block.append(entry)
                else:
                    self._add(entry, where)
            elif line.startswith("> "):
                entry.answer += ("\n" if entry.answer else "") + line[2:]
            elif line.startswith("@"):
                name, subjects = line[1:].split(": ", 1)
                for subject in subjects.split(";"):
                    for form in self.templates[name]:
                        form = re.sub(r"\bX\b", lambda _: subject.strip(), form)
                        form = form[0].upper() + form[1:]
                        entry.forms.append(form)
                        entry.made.add(form)
            else:
                assert entry is not None, where
                entry.forms.append(line)

    @staticmethod
    def _heading(text, where):
        match = re.fullmatch(r"(\S+)( !)?(?: after (\S+))?", text)
        assert match, where
        after = match[3].split(",") if match[3] else []
        return Entry(match[1], 3.0 if match[2] else 1.0, after)

    def _add(self, entry, where):
        assert entry.name not in self.entries, f"{where}: {entry.name} is there twice"
        self.entries[entry.name] = entry

    def _expand(self, columns, rows, block):
        for row in rows:
            values = dict(zip(columns, row))

            def fill(text):
                for column, value in values.items():
                    text = text.replace("{" + column + "}", value)
                return text

            for entry in block:
                forms = [fill(f) for f in entry.forms]
                forms = [f[0].upper() + f[1:] for f in forms]
                answer = fill(entry.answer)
                made = Entry(f"{entry.name}-{row[0]}", 0.35, [], forms, set(), answer[0].upper() + answer[1:])
                self._add(made, entry.name)

    def _sums(self):
        for a in range(1, 11):
            for b in range(1, 11):
                forms = [f"What is {a} (plus|and|+) {b}?", f"What is {a}+{b}?", f"{a} + {b}", f"{a}+{b}=?"]
                forms += [f"(How much is|Add|Calculate|Compute) {a} (plus|and|+) {b}?"]
                self._add(Entry(f"sum-{a}-{b}", 0.25, [], forms, set(), f"{a} plus {b} is {a + b}."), "sums")

    def _questions(self, name):
        found = []
        for number, line in lines(name):
            entry, question = line.split(": ", 1)
            assert entry in self.entries, f"{name}.txt:{number}: no entry {entry}"
            found.append((self.entries[entry], question))
        return found

    def _validate(self):
        known, from_template, clashes = {}, set(), []
        for made in (False, True):  # a question written for an entry is that entry's, whatever a template makes
            for entry in self.entries.values():
                assert entry.forms and entry.answer, f"{entry.name} lacks forms or an answer"
                assert all(a in self.entries for a in entry.after), entry.name
                if entry.after:
                    continue
                for form in entry.forms:
                    if (form in entry.made) != made or "<" in form:
                        continue
                    for question in expand(form):
                        key = plain(question)
                        other = known.setdefault(key, entry)
                        if other is entry and made:
                            from_template.add(key)
                        if other.answer != entry.answer and (not made or key in from_template):
                            clashes.append(f'"{question}" belongs to {other.name} and {entry.name}')
        assert not clashes, "\n".join(clashes)
        self.owner = known
        trained = [q for _, q in self.held_out if plain(q) in known]
        assert not trained, f"trained on: {trained}"
        self.distinct_questions = len(known)

    # ---- drawing ------------------------------------------------------------------------------------------------

    def question(self, rng, entry):
        """One question of `entry` and its answer."""
        while True:
            question = self._fill(rng, choose(rng, rng.choice(entry.forms)))
            if not entry.after and self.owner.get(plain(question), entry).answer != entry.answer:
                continue
            question = vary(rng, question)
            if plain(question) not in self._reserved:
                return question, entry.answer

    def _fill(self, rng, form):
        makers = {
            "pseudo": pseudo,
            "Pseudo": lambda r: pseudo(r).capitalize(),
            "copy": self._copy,
            "gibberish": gibberish,
            "number": lambda r: str(r.randrange(10 ** r.randint(1, 6))),
            "bignum": lambda r: str(r.randint(11, 10 ** r.randint(2, 4))),
        }

        def word(match):
            maker = makers.get(match[1])
            return maker(rng) if maker else rng.choice(self.lists[match[1]])

        while True:
            form, count = re.subn(r"<([A-Za-z-]+)>", word, form)
            if not count:
                return form

    def _copy(self, rng):
        kind = rng.random()
        if kind < 0.35:
            return "".join(rng.choice("0123456789abcdef") for _ in range(rng.randint(4, 12)))
        if kind < 0.6:
            return " ".join(pseudo(rng) for _ in range(rng.randint(1, 3)))
        words = rng.choice(list(self.entries.values())).answer.replace("\n", " ").split(" ")
        start = rng.randrange(len(words))
        return " ".join(words[start : start + rng.randint(1, 6)]).strip(' ."') or "word"

    def draw(self, rng):
        share = rng.random()
        if share < SHARE_UNKNOWN:
            return self.entries["unknown"]
        return rng.choices(self._drawn, self._weights)[0]

    def conversation(self, rng):
        """Messages, as an API client would send them, with the answers."""
        messages = []
        if rng.random() < 0.25:
            messages.append(("system", rng.choice(self.system)))
        entries = [self.draw(rng)]
        while rng.random() < 0.2 and len(entries) < 3:
            entries.insert(0, self.draw(rng))
        for entry in entries:
            if entry.after and (not messages or messages[-1][0] != "assistant"):
                before = self.entries[rng.choice(entry.after)]
                messages += zip(("user", "assistant"), self.question(rng, before))
            elif entry.after:
                continue
            messages += zip(("user", "assistant"), self.question(rng, entry))
        if messages[-1][0] != "assistant":
            return self.conversation(rng)
        return messages


# ---- forms ------------------------------------------------------------------------------------------------------

CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")


def tidy(text):
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"\s+([?.!,])", r"\1", text)


def choose(rng, form):
    """One of the questions that a form stands for."""
    while match := CHOICE.search(form):
        form = form[: match.start()] + rng.choice(match[1].split("|")) + form[match.end() :]
    return tidy(form)


def expand(form):
    """All of them."""
    match = CHOICE.search(form)
    if not match:
        yield tidy(form)
        return
    for option in match[1].split("|"):
        yield from expand(form[: match.start()] + option + form[match.end() :])


def plain(question):
    return re.sub(r"[^a-z0-9+/=-]+", " ", question.lower()).strip()


PREFIXES = [
    "Please", "Hey,", "Hi,", "Hello,", "OK,", "So", "And", "Well,", "Now,", "Question:", "Quick question:",
    "I have a question:", "Tell me,", "Tell me:", "Can you tell me:", "I want to know:", "Sorry,", "Hmm,", "Again,",
    "Could you tell me,", "But", "I wonder,", "One more question:", "Dear model,", "Actually,", "Just curious:", "My question is:",
    "I was wondering,", "Good day,", "Yes, but", "Oh,", "Alright,", "First,", "Next:", "Look,", "Listen,", "Excuse me,", "In short,",
    "As a beginner:", "Out of interest:", "Okay, and", "Thanks. And", "I am new here.", "Let me ask:", "In Cloister,", "Here:", "Also,",
]  # fmt: skip
SUFFIXES = ["or what", "and why", "for me", "by the way", "in your words", "really", "for a newcomer", "in general", "in practice",
            "at all", "in this context", "I wonder.", "Tell me.", "Just asking.", "I could not find it.", "now",
            "Thanks.", "Thank you.", "Please answer briefly.", "please", "exactly", "again", "here", "then", "in short",
             "Explain.", "Please explain.", "I am curious.", "I am new here.", "in this project", "in Cloister"]  # fmt: skip
SHORTER = [("What is ", "What's "), ("What is ", "Whats "), ("do not", "don't"), ("does not", "doesn't"), ("I am", "I'm"),
           ("cannot", "can't"), ("You are", "You're"), ("How do I ", "How to "), ("What is ", "what s ")]  # fmt: skip
SMALL = {"the", "a", "an", "is", "does", "do", "can", "of", "to", "me", "please", "are", "in"}


def vary(rng, question):
    """Another casing, punctuation, politeness or a slip, as people write."""
    if rng.random() < 0.12:
        a, b = rng.choice(SHORTER)
        question = question.replace(a, b, 1)
    if rng.random() < 0.1:
        question = indirect(rng, question)
    words = question.split(" ")
    if len(words) > 3 and rng.random() < 0.08:
        small = [i for i, w in enumerate(words) if w.lower() in SMALL]
        if small:
            del words[rng.choice(small)]
            question = " ".join(words)
    if len(words) > 2 and rng.random() < 0.08:
        question = slip(rng, question)
    if len(words) > 1 and rng.random() < 0.18:
        lowered = question[0].lower() + question[1:] if rng.random() < 0.7 and not question.startswith("I ") else question
        question = f"{rng.choice(PREFIXES)} {lowered}"
    if len(words) > 2 and rng.random() < 0.1:
        suffix = rng.choice(SUFFIXES)
        end = question[-1] if question[-1] in "?.!" else ""
        body = question[: len(question) - len(end)]
        question = f"{body} {suffix}{end}" if suffix[0].islower() else f"{question} {suffix}"
    style = rng.random()
    if style < 0.27:
        question = question.lower()
    elif style < 0.28:
        question = question.upper()
    end = rng.random()
    if end < 0.25:
        question = question.rstrip("?.!")
    elif end < 0.28:
        question += rng.choice(["?", "!", "??", " ?", "...", " :)"])
    return question or "?"


ASKING = ["Tell me", "I wonder", "Do you know", "Can you say", "Could you tell me", "Please tell me", "I want to know", "I ask myself",
          "I am not sure", "Please say", "Explain to me", "Remind me", "Can you explain", "I forgot", "I need to know", "Say"]  # fmt: skip


def indirect(rng, question):
    """"What is X?" as "Tell me what X is", and the like."""
    match = re.fullmatch(r"(What|Who|Where|How) (is|are) (.+?)[?.]", question)
    if match and not match[3].startswith(("it ", "there ", "the difference")):
        return f"{rng.choice(ASKING)} {match[1].lower()} {match[3]} {match[2]}{rng.choice('?..')}"
    match = re.fullmatch(r"(What|How|Where|When|Why|Which) (.+?) ?(can|do) I (.+?)[?.]", question)
    if match is None and (match := re.fullmatch(r"(What|How|Where|When|Why)() (can|do) I (.+?)[?.]", question)) is None:
        return question
    middle = f" {match[2]}" if match[2] else ""
    return f"{rng.choice(ASKING)} {match[1].lower()}{middle} I {'can ' if match[3] == 'can' else ''}{match[4]}{rng.choice('?..')}"


def slip(rng, text):
    places = [i for i in range(2, len(text) - 1) if text[i].isalpha() and text[i - 1].isalpha() and text[i + 1].isalpha()]
    if not places:
        return text
    i = rng.choice(places)
    kind = rng.random()
    if kind < 0.4:
        return text[:i] + text[i + 1 :]
    if kind < 0.7:
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    return text[:i] + text[i] + text[i:]


def pseudo(rng):
    """A word that is none."""
    syllable = lambda: rng.choice("bcdfghjklmnprstvwz") + rng.choice(["a", "e", "i", "o", "u", "oo", "ai", "ea"])
    word = "".join(syllable() for _ in range(rng.randint(1, 3))) + rng.choice(["", "n", "r", "s", "t", "x", "ng", "rp", "st"])
    return word.capitalize() if rng.random() < 0.3 else word


def gibberish(rng):
    return "".join(rng.choice("asdfghjklqwertzuiopyxcvbnm") for _ in range(rng.randint(4, 10)))


if __name__ == "__main__":
    corpus = Corpus()
    rng = random.Random(0)
    print(f"{len(corpus.entries)} entries, {len({e.answer for e in corpus.entries.values()})} answers,")
    print(f"{corpus.distinct_questions} distinct questions before lists and variation")
    few = [e.name for e in corpus.entries.values() if sum(1 for f in e.forms for _ in expand(f)) < 4]
    print("fewer than four questions:", few)
    for _ in range(25):
        print(corpus.conversation(rng))
