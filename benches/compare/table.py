"""Markdown tables, and the median that fills them."""

import statistics


def markdown(columns, rows):
    widths = [max(len(str(line[i])) for line in [columns, *rows]) for i in range(len(columns))]

    def line(cells):
        padded = [str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(cells, widths))]
        return f"| {' | '.join(padded)} |"

    rule = [":" + "-" * (w - 1) if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(columns), line(rule), *map(line, rows)])


def median(samples, attribute):
    return statistics.median(getattr(sample, attribute) for sample in samples)


def span(samples, attribute):
    values = [getattr(sample, attribute) for sample in samples]
    return min(values), max(values)


def microseconds(value):
    return f"{value:.0f} µs" if value < 10_000 else f"{value / 1000:.0f} ms"
