# SPDX-License-Identifier: BSL-1.0
#
# Makes the table from the lines of all rounds: medians, and ours as a multiple of the others (above 1
# is better, whatever the unit).
import collections
import statistics
import sys

UNITS_OF_TIME = {"ns", "µs", "ms", "s"}
OTHERS = ("cpython", "boost", "limit")

figures = collections.defaultdict(lambda: collections.defaultdict(list))
units = {}
for line in sys.stdin:
    name, who, value, unit = line.rstrip("\n").split("\t")
    figures[name][who].append(float(value))
    units[name] = unit


def shown(values):
    return f"{statistics.median(values):,.3g}" if values else ""


def ratio(name, who):
    pairs = list(zip(figures[name]["ours"], figures[name][who]))
    if not pairs:
        return ""
    less_is_better = units[name] in UNITS_OF_TIME
    return f"{statistics.median(b / a if less_is_better else a / b for a, b in pairs):.3g}"


head = ["", "unit", "ours", "min … max", *OTHERS, *(f"/ {who}" for who in OTHERS)]
rows = []
for name in figures:
    ours = figures[name]["ours"]
    spread = f"{min(ours):,.3g} … {max(ours):,.3g}" if ours else ""
    rows.append([name, units[name], shown(ours), spread, *(shown(figures[name][who]) for who in OTHERS),
                 *(ratio(name, who) for who in OTHERS)])
widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
for row in [head, *rows]:
    print("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                    for i, (cell, width) in enumerate(zip(row, widths))))
