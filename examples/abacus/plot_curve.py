#!/usr/bin/env python3
"""Draws curve.svg from metrics.jsonl: loss and accuracy over the tokens seen. Standard library only.

    python3 examples/abacus/plot_curve.py examples/abacus/metrics.jsonl examples/abacus/curve.svg
"""
import json
import math
import sys

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 380, 64, 64, 34, 46
LOSS, ACCURACY, HELD_OUT = "#c2410c", "#1d4ed8", "#15803d"
SMOOTHED_STEPS = 25


def read(path):
    train, held_out, tokens, smooth = [], [], 0, None
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if "loss" in row:
                tokens = row["tokens"]
                smooth = row["loss"] if smooth is None else smooth + (row["loss"] - smooth) / SMOOTHED_STEPS
                train.append((tokens, smooth))
            elif "eval_exact" in row:
                held_out.append((tokens, row["eval_accuracy"], row["eval_exact"]))
    return train, held_out


def path_of(points, color):
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline fill="none" stroke="{color}" stroke-width="1.6" points="{text}"/>'


def main(source, target):
    train, held_out = read(source)
    tokens_max = train[-1][0]
    low, high = -3.0, 1.0  # decades of the loss

    def at(tokens):
        return LEFT + (WIDTH - LEFT - RIGHT) * tokens / tokens_max

    def at_loss(loss):
        share = (math.log10(max(loss, 1e-9)) - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, max(0.0, share))

    def at_share(share):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           'font-family="sans-serif" font-size="12">', f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    for decade in range(int(low), int(high) + 1):
        y = at_loss(10.0 ** decade)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="{LOSS}">{10.0 ** decade:g}</text>')
    for percent in (0, 25, 50, 75, 100):
        out.append(f'<text x="{WIDTH - RIGHT + 8}" y="{at_share(percent / 100) + 4:.1f}" fill="{HELD_OUT}">'
                   f"{percent} %</text>")
    ticks = 6
    for i in range(ticks + 1):
        tokens = tokens_max * i / ticks
        out.append(f'<text x="{at(tokens):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
                   f"{tokens / 1e6:.0f} M</text>")
    out.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">tokens seen</text>')
    out.append(path_of([(at(t), at_loss(loss)) for t, loss in train], LOSS))
    out.append(path_of([(at(t), at_share(a)) for t, a, _ in held_out], ACCURACY))
    out.append(path_of([(at(t), at_share(e)) for t, _, e in held_out], HELD_OUT))
    labels = ((LOSS, "training loss (nats, log scale)"), (ACCURACY, "held out: tokens right"),
              (HELD_OUT, "held out: whole conversations right"))
    for i, (color, text) in enumerate(labels):
        out.append(f'<text x="{LEFT + i * 215}" y="20" fill="{color}">{text}</text>')
    out.append("</svg>")
    with open(target, "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
