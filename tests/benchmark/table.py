# SPDX-License-Identifier: BSL-1.0
#
# Makes the tables from the lines of all rounds: prints them, and writes the page if there is one to be
# written. `table.py [PAGE TEMPLATE] < lines`. A line is `name who value unit`; `# round` begins a
# round, and `# key value` says something about the machine or a peer.
import collections
import datetime
import os
import platform
import statistics
import sys
import textwrap

from catalogue import GROUPS, OTHERS, Subject

LESS_IS_BETTER = {"ns", "µs", "ms", "s", "%", "bytes"}


class Figures:
    """The values of each round, by name and who. Who is `ours, get_many` is ours under a name of its
    own, and the others are the same for both."""

    def __init__(self, lines):
        self.rounds = []
        self.units = {}
        self.about = {}
        self.base = {}
        for line in lines:
            line = line.rstrip("\n")
            if line == "# round":
                self.rounds.append(collections.defaultdict(list))
            elif line.startswith("# "):
                key, value = line[2:].split("\t")
                self.about[key] = value
            else:
                name, who, value, unit = line.split("\t")
                if who.startswith("ours, "):
                    base, name, who = name, f"{name}, {who.removeprefix('ours, ')}", "ours"
                    self.base[name] = base
                self.rounds[-1][name, who].append(float(value))
                if who != "distance":
                    self.units[name] = unit

    def values(self, name, who):
        """One for each round that has some."""
        found = [self.of_round(each, name, who) for each in self.rounds]
        return [value for value in found if value is not None]

    def of_round(self, each, name, who):
        if who != "ours":
            name = self.base.get(name, name)
        return statistics.median(each[name, who]) if (name, who) in each else None

    def ratio(self, name, who):
        """How many times as good ours is, as the median of the rounds' ratios."""
        if self.units[name] == "%":
            return None  # of nothing
        pairs = [(self.of_round(each, name, "ours"), self.of_round(each, name, who)) for each in self.rounds]
        if self.units[name] in LESS_IS_BETTER:
            pairs = [(other, ours) for ours, other in pairs]
        ratios = [a / b for a, b in pairs if a is not None and b]
        return statistics.median(ratios) if ratios else None

    def distances(self):
        return [value for each in self.rounds for (_, who), values in each.items() if who == "distance"
                for value in values if value > 0]


def shown(value):
    if value == 0:
        return "0"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 4
    return f"{value:,.{digits}f}"


def factor(value):
    """A requirement: 100 and 1.3 as they are, a third and a half in words."""
    return {1 / 3: "a third of", 1 / 2: "half of"}.get(value, f"{value:g} ×")


def spread(values):
    return f"{shown(min(values))} … {shown(max(values))}"


def cell(figures, name, who):
    values = figures.values(name, who)
    if not values:
        return ""
    ratio = figures.ratio(name, who)
    return shown(statistics.median(values)) + (f" ({shown(ratio)} ×)" if ratio is not None else "")


def required(figures, subject):
    """What is required, and whether it is met; nothing is said of who did not take part."""
    for who, least in subject.required.items():
        ratio = figures.ratio(subject.name, who)
        if ratio is None:
            continue
        if figures.units[subject.name] in LESS_IS_BETTER and least < 1:
            text = f"≤ {factor(round(1 / least, 2))} {OTHERS[who]}"
        else:
            text = f"≥ {factor(least)} {OTHERS[who]}"
        yield text, ratio >= least
    if subject.at_most is not None:
        ours = statistics.median(figures.values(subject.name, "ours"))
        yield f"≤ {subject.at_most:g} {figures.units[subject.name]}", ours <= subject.at_most


def table(figures, subjects):
    """The rows of a Markdown table; columns in which there is nothing are left out."""
    others = [who for who in OTHERS if any(figures.values(subject.name, who) for subject in subjects)]
    rows = [["", "unit", "ours", "min … max", *(OTHERS[who] for who in others), "aim", "distance, µs"]]
    for subject in subjects:
        ours = figures.values(subject.name, "ours")
        distance = [value for value in figures.values(subject.name, "distance") if value > 0]
        rows.append([subject.label, figures.units[subject.name],
                     f"**{shown(statistics.median(ours))}**", spread(ours),
                     *(cell(figures, subject.name, who) for who in others),
                     "; ".join(f"{aim} {'✓' if met else '✗'}" for aim, met in required(figures, subject)),
                     spread(distance) if distance else ""])
    kept = [i for i in range(len(rows[0])) if i < 4 or any(row[i] for row in rows[1:])]
    return [[row[i] for i in kept] for row in rows]


def markdown(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(text.ljust(width) if i == 0 else text.rjust(width)
                               for i, (text, width) in enumerate(zip(row, widths))) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 2) if i == 0 else "-" * (width + 1) + ":"
                          for i, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def sections(figures):
    """Title, words, table and words on its subjects, of each group that was measured."""
    rest = list(dict.fromkeys(name for each in figures.rounds for name, who in each if who == "ours"))
    for group in GROUPS:
        subjects = [each for each in group.subjects if each.name in rest]
        subjects += [Subject(name, "") for name in rest if group.prefix and name.startswith(group.prefix)]
        if subjects:
            rest = [name for name in rest if name not in {each.name for each in subjects}]
            yield group.title, group.says, table(figures, subjects), subjects
    if rest:
        subjects = [Subject(name, "") for name in rest]
        yield "Others", "", table(figures, subjects), subjects


def processor():
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def about(figures):
    distances = figures.distances()
    facts = {
        "date": datetime.date.today().isoformat(),
        "processor": f"{processor()}, {len(os.sched_getaffinity(0))} cores for this",
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "compiler": figures.about.get("compiler", "") + ", -O3",
        "CPython": platform.python_version(),
        "Boost": figures.about.get("boost", ""),
        "MPI": figures.about.get("mpi", ""),
        "mpi4py": figures.about.get("mpi4py", ""),
        "rounds": str(len(figures.rounds)),
    }
    if distances:
        facts["distance of two cores"] = (f"{shown(statistics.median(distances))} µs, "
                                          f"from {shown(min(distances))} to {shown(max(distances))}")
    return [["", "here"], *([key, value] for key, value in facts.items() if value)]


def paragraph(text, indent=""):
    return textwrap.fill(text, 110, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def page(figures, template):
    parts = []
    for title, says, rows, subjects in sections(figures):
        parts.append(f"## {title}")
        if says:
            parts.append(paragraph(says))
        parts.append(markdown(rows))
        words = [paragraph(f"- **{each.label}**: {each.says}", "  ") for each in subjects if each.says]
        if words:
            parts.append("\n".join(words))
    with open(template) as text:
        return (text.read().replace("@about@", markdown(about(figures)))
                .replace("@tables@\n", "\n\n".join(parts) + "\n"))


def main():
    figures = Figures(sys.stdin)
    print(markdown(about(figures)))
    for title, _, rows, _ in sections(figures):
        print(f"\n{title}\n\n{markdown(rows)}")
    if len(sys.argv) == 3:
        text = page(figures, sys.argv[2])
        with open(sys.argv[1], "w") as output:
            output.write(text)


if __name__ == "__main__":
    main()
