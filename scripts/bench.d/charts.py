"""Plots as SVG, without a library: log axes, a label at each line, light and dark by the reader's choice."""

import html
import math

LIGHT = ["#0b6e99", "#c2410c", "#4d7c0f", "#7c3aed", "#b45309", "#be185d"]
DARK = ["#5cc8f2", "#fb923c", "#a3d65c", "#c4a5ff", "#fbbf24", "#f9a8d4"]
WIDTH = 860


def style():
    def theme(text, faint, colours, ground):
        rules = [f"text{{fill:{text}}}", f".grid{{stroke:{faint}}}", f".ground{{fill:{ground}}}"]
        rules += [f".s{number}{{stroke:{colour};fill:{colour}}}text.s{number}{{stroke:none;fill:{colour}}}"
                  for number, colour in enumerate(colours)]
        return "".join(rules)

    return ("<style>text{font:13px system-ui,sans-serif}.title{font-size:15px;font-weight:600}.small{font-size:12px}"
            ".grid{stroke-width:1}.line{fill:none!important;stroke-width:2}.range{stroke-width:2;opacity:.45}"
            ".dashed{stroke-dasharray:6 4}" +
            theme("#1f2328", "#d8dee4", LIGHT, "#ffffff") +
            "@media(prefers-color-scheme:dark){" + theme("#e6edf3", "#30363d", DARK, "#0d1117") + "}</style>")


def number(value):
    """A number with at most three digits that count."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(abs(value)))
    text = f"{value:.{max(0, digits)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class Log:
    """A logarithmic axis from `first` to `last` pixels."""

    def __init__(self, values, first, last):
        self.low = math.floor(math.log10(min(values)) + 1e-9)
        self.high = max(math.ceil(math.log10(max(values)) - 1e-9), self.low + 1)
        self.first, self.last = first, last

    def at(self, value):
        share = (math.log10(max(value, 10 ** self.low)) - self.low) / (self.high - self.low)
        return self.first + share * (self.last - self.first)

    def ticks(self):
        """Powers of ten; on a short axis also their double and their fivefold."""
        steps = (1, 2, 5) if self.high - self.low <= 2 else (1,)
        ticks = [step * 10.0 ** power for power in range(self.low, self.high + 1) for step in steps]
        return [tick for tick in ticks if tick <= 10.0 ** self.high * 1.001]


def text(x, y, content, anchor="start", kind=""):
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{html.escape(content)}</text>'


def segment(x1, y1, x2, y2, kind):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def document(height, title, parts):
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">'
            f"<title>{html.escape(title)}</title>{style()}"
            f'<rect class="ground" width="{WIDTH}" height="{height}"/>')
    return head + "\n" + "\n".join([text(16, 26, title, kind="title"), *parts]) + "\n</svg>\n"


def colours(names):
    """The number of the colour of each name. netemctl always has the first one, and `A, more` has that of A."""
    of = {"netemctl": 0}
    for name in names:
        of.setdefault(name.split(", ±")[0], len(of))
    return {name: of[name.split(", ±")[0]] % len(LIGHT) for name in names}


def spread_labels(places, least=16):
    """Moves labels apart, so that none covers another one."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for _ in range(50):
        for above, below in zip(order, order[1:]):
            gap = moved[below] - moved[above]
            if gap < least:
                moved[above] -= (least - gap) / 2
                moved[below] += (least - gap) / 2
    return moved


def lines(title, x_label, y_label, series, dashed=()):
    """`series`: name → list of (x, median, least, most). Both axes are logarithmic. `dashed`: these names have the colours
    of the others, in their order."""
    top, bottom, left, right = 64, 380, 70, 560
    solid = [name for name in series if name not in dashed]
    colour = colours(solid)
    colour.update(zip((name for name in series if name in dashed), (colour[name] for name in solid)))
    points = [point for each in series.values() for point in each]
    xs = sorted({point[0] for point in points})
    x = Log([min(xs) / 1.01, max(xs)], left + 16, right)
    # The data begin and end at the axis's ends, not at powers of ten.
    x.low, x.high = math.log10(min(xs)), math.log10(max(xs)) if len(xs) > 1 else math.log10(min(xs)) + 1
    y = Log([max(value, 1e-6) for point in points for value in point[1:]], bottom, top)
    parts = [text(left - 54, 48, y_label, kind="small")]
    for tick in y.ticks():
        parts += [segment(left, y.at(tick), right, y.at(tick), "grid"), text(left - 8, y.at(tick) + 4, number(tick), "end", "small")]
    for tick in xs:
        parts += [segment(x.at(tick), bottom, x.at(tick), bottom + 5, "grid"), text(x.at(tick), bottom + 20, number(tick), "middle", "small")]
    parts.append(text((left + right) / 2, bottom + 42, x_label, "middle", "small"))
    ends = spread_labels([y.at(each[-1][1]) for each in series.values()])
    for (name, each), label in zip(series.items(), ends):
        index, dash = colour[name], " dashed" if name in dashed else ""
        path = " ".join(f"{'M' if place == 0 else 'L'}{x.at(point[0]):.1f} {y.at(point[1]):.1f}" for place, point in enumerate(each))
        parts.append(f'<path d="{path}" class="line s{index}{dash}"/>')
        for at, middle, least, most in each:
            parts += [segment(x.at(at), y.at(least), x.at(at), y.at(most), f"range s{index}"),
                      f'<circle cx="{x.at(at):.1f}" cy="{y.at(middle):.1f}" r="3.5" class="s{index}"/>']
        end = each[-1]
        parts.append(text(x.at(end[0]) + 10, label + 4, f"{name}: {number(end[1])}", kind=f"small s{index}"))
    return document(bottom + 60, title, parts)


def dots(title, x_label, rows, names):
    """`rows`: list of (label, name → (median, least, most)). One logarithmic x axis, a line of dots for each row."""
    longest = max(len(label) for label, _ in rows)
    left, right, top, step = 30 + 7.5 * longest, WIDTH - 40, 84, 22
    colour = colours(names)
    values = [max(value, 1e-6) for _, cells in rows for cell in cells.values() for value in cell]
    x = Log(values, left, right)
    heights, y = [], top
    for _, cells in rows:
        heights.append(y)
        y += step * len(cells) + 14
    parts = []
    for tick in x.ticks():
        parts += [segment(x.at(tick), top - 18, x.at(tick), y, "grid"), text(x.at(tick), y + 18, number(tick), "middle", "small")]
    parts.append(text((left + right) / 2, y + 40, x_label, "middle", "small"))
    place = 20
    for name in names:
        index = colour[name]
        parts += [f'<circle cx="{place}" cy="48" r="4" class="s{index}"/>', text(place + 9, 52, name, kind=f"small s{index}")]
        place += 26 + 7 * len(name)
    for (label, cells), height in zip(rows, heights):
        parts.append(text(left - 14, height + 4, label, "end"))
        for line, (name, (middle, least, most)) in enumerate(cells.items()):
            at, index = height + line * step, colour[name]
            parts += [segment(x.at(least), at, x.at(most), at, f"range s{index}"),
                      f'<circle cx="{x.at(middle):.1f}" cy="{at}" r="4" class="s{index}"/>']
            beside = x.at(most) + 8 if x.at(most) < right - 60 else x.at(least) - 8
            parts.append(text(beside, at + 4, number(middle), "start" if beside > x.at(most) else "end", f"small s{index}"))
    return document(y + 56, title, parts)
