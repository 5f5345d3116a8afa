#!/usr/bin/env python3
"""Draws a part of what `make demo` printed as a terminal, in SVG:  picture.py FROM TO <log >picture.svg

FROM and TO begin the first line of the part and the line after it, such as '== The guard'. The picture has the lines of the
log as they are, cut at 118 characters.
"""
import html
import sys

WIDTH, LINE, LEFT, TOP = 118, 19, 16, 44
STYLES = {"== ": "head", "   $ ": "command", "   ✓": "good", "   ERROR": "bad", "   1,300,001": "bad"}


def part(lines, first, last):
    taken = []
    for line in lines:
        if taken and line.startswith(last):
            break
        if taken or line.startswith(first):
            taken.append(line)
    while taken and not taken[-1].strip():
        taken.pop()
    return taken


def main():
    lines = part([line.rstrip("\n") for line in sys.stdin], *sys.argv[1:3])
    if not lines:
        sys.exit("no such part in the log")
    width, height = LEFT * 2 + int(WIDTH * 8.43), TOP + LINE * len(lines) + 12
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{html.escape(lines[0].strip('= '))}</title>",
        "<style>text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#d8dee9;white-space:pre}"
        ".head{fill:#fff;font-weight:bold}.command{fill:#88c0d0}.good{fill:#a3be8c}.bad{fill:#f28b82}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#1e222a"/>',
    ]
    out += [f'<circle cx="{18 + 18 * at}" cy="18" r="5.5" fill="{fill}"/>' for at, fill in enumerate(("#f28b82", "#ebcb8b", "#a3be8c"))]
    for at, line in enumerate(lines):
        style = next((style for start, style in STYLES.items() if line.startswith(start)), "")
        kind = f' class="{style}"' if style else ""
        out.append(f'<text x="{LEFT}" y="{TOP + 8 + LINE * at}" xml:space="preserve"{kind}>{html.escape(line[:WIDTH])}</text>')
    print("\n".join([*out, "</svg>"]))


main()
