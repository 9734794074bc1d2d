"""Rounds: each starts every row's proxy anew, and begins with another row each time."""

import sys
import traceback

from compare.stage import Failed


def interleaved(options, stage, rows, measure):
    """Samples by row key; `measure` gets the running proxy and its row."""
    samples = {row.key: [] for row in rows}

    def once(row):
        with stage.running(row) as running:
            return measure(running, row)

    for number in range(options.rounds):
        shift = number % len(rows) if rows else 0
        for row in rows[shift:] + rows[:shift]:
            say(f"round {number + 1} of {options.rounds}: {row.label}")
            sample = attempt(row, lambda: once(row))
            samples[row.key] += [sample] if sample else []
    return samples


def attempt(row, measure):
    """A row that fails costs that row only."""
    try:
        return measure()
    except Failed as reason:
        say(f"{row.label}: {reason}")
    except Exception:  # noqa: BLE001 - the other rows are worth having
        say(f"{row.label}: {traceback.format_exc()}")
    return None


def say(text):
    print(text, file=sys.stderr, flush=True)
