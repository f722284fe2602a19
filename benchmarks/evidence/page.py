"""A comparison as one HTML file, and as Markdown."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.evidence.tables import EvidenceTable

_PLOTS = ("Differences between rankers", "Numbers along the study's axis")
_STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b1f24;--muted:#5b6470;--line:#d9dee5}
@media(prefers-color-scheme:dark){:root{--page:#14171b;--card:#1c2026;--ink:#e6e9ee;--muted:#9aa5b1;--line:#363d47}}
body{margin:0 auto;padding:1rem;max-width:88rem;font:1rem/1.5 system-ui,sans-serif;background:var(--page);color:var(--ink)}
h1{font-size:1.6rem;margin:.5rem 0}
h2{font-size:1.25rem;margin:2rem 0 .3rem}
h3{font-size:1rem;margin:0 0 .4rem}
.note{color:var(--muted);font-size:.85rem;margin:.4rem 0}
section{margin:1rem 0;padding:.9rem 1rem;background:var(--card);border:1px solid var(--line);border-radius:.6rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.88rem}
th,td{padding:.3rem .8rem .3rem 0;border-top:1px solid var(--line);text-align:right;white-space:nowrap;
font-variant-numeric:tabular-nums;font-weight:400;vertical-align:top}
thead th{border-top:0;color:var(--muted);font-weight:600}
th:first-child{position:sticky;left:0;text-align:left;background:var(--card)}
b{font-weight:700}
small{display:block;color:var(--muted)}
img{display:block;max-width:100%;background:#fff;border-radius:.4rem}
"""


def write_page(
    path: Path, title: str, introduction: str, groups: Mapping[str, tuple[str, Sequence[EvidenceTable], Sequence[Path]]]
) -> None:
    """Writes the page: one file with everything inside, that needs no network.

    Args:
        path: the file.
        title: its heading.
        introduction: sentences below it.
        groups: name -> (protocol, tables, the plots' PNGs).
    """
    parts = []
    for name, (protocol, tables, plots) in groups.items():
        parts.append(f"<h2>{_text(name)}</h2><p class=note>{_text(protocol)}</p>")
        for words, plot in zip(_PLOTS, plots, strict=False):
            image = base64.b64encode(plot.read_bytes()).decode("ascii")
            parts.append(f'<section><img alt="{words}" src="data:image/png;base64,{image}"></section>')
        parts += [_section(table) for table in tables]
    body = "\n".join(parts)
    path.write_text(
        '<!DOCTYPE html>\n<html lang="en-GB"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{_text(title)}</h1><p class=note>{_text(introduction)}</p>\n{body}\n</body></html>\n",
        encoding="utf-8",
    )


def to_markdown(
    title: str, introduction: str, groups: Mapping[str, tuple[str, Sequence[EvidenceTable], Sequence[Path]]]
) -> str:
    """The same as Markdown, the plots by the names of their files.

    Args:
        title, introduction, groups: as `write_page` takes them.
    """
    lines = [f"# {title}", "", introduction]
    for name, (protocol, tables, plots) in groups.items():
        lines += ["", f"## {name}", "", protocol]
        for words, plot in zip(_PLOTS, plots, strict=False):
            lines += ["", f"![{words}]({plot.name})"]
        for table in tables:
            lines += ["", f"### {table.title}", "", _markdown_row(table.columns)]
            lines.append("| --- |" + " ---: |" * (len(table.columns) - 1))
            for r, row in enumerate(table.rows):
                lines.append(
                    _markdown_row([f"**{cell}**" if (r, c) in table.bold else cell for c, cell in enumerate(row)])
                )
            lines += ["", table.note]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _section(table: EvidenceTable) -> str:
    head = "".join(f"<th scope=col>{_text(name)}</th>" for name in table.columns)
    body = []
    for r, row in enumerate(table.rows):
        cells = [f"<b>{_cell(cell)}</b>" if (r, c) in table.bold else _cell(cell) for c, cell in enumerate(row)]
        body.append(f"<tr><th scope=row>{cells[0]}</th>{''.join(f'<td>{cell}</td>' for cell in cells[1:])}</tr>")
    return (
        f"<section><h3>{_text(table.title)}</h3><div class=scroll><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div><p class=note>{_text(table.note)}</p></section>"
    )


def _cell(words: str) -> str:
    """A cell; what follows a number, its interval and its peer, goes below it."""
    number, bracket, rest = words.partition(" [")
    if not bracket:
        return _text(words)
    interval, _, peer = rest.partition("] ")
    return f"{_text(number)}<small>[{_text(interval.rstrip(']'))}]</small>" + (
        f"<small>{_text(peer)}</small>" if peer else ""
    )


def _text(words: str) -> str:
    return html.escape(words)
