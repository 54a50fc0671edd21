"""The page of ``shelf report``: one HTML file with nothing outside it. Every name in it is hostile text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from shelf_tools.report import Import, Request, Run, Wait, own_times

#: Pixels: the page's width, what names take of it, and a row's height.
_WIDTH, _GUTTER, _ROW = 1240, 210, 14
_PLOT = _WIDTH - _GUTTER - 10
#: Imports narrower than this (pixels) are not drawn: thousands that nobody could see.
_NARROWEST = 0.3
#: A package's colour goes by its place; neighbours differ by the golden angle (degrees).
_ANGLE = 137.5
_SLOWEST = 15

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1d2430; --dim: #687182; --line: #dfe3ea; --paper: #fff;
  --wait: #d23c3c; --plain: #b9c0cc; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e6e9ef; --dim: #99a2b3; --line: #333a46;
  --paper: #14181f; --wait: #ff6b6b; --plain: #4a5261; }} }}
body {{ margin: 24px auto; max-width: 1260px; padding: 0 10px; background: var(--paper); color: var(--ink);
  font: 14px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 20px; margin: 0 0 4px; }} h2 {{ font-size: 15px; margin: 28px 0 6px; }}
p {{ margin: 0 0 12px; color: var(--dim); }}
dl {{ display: flex; flex-wrap: wrap; gap: 8px 28px; margin: 12px 0; }}
dt {{ color: var(--dim); font-size: 12px; }} dd {{ margin: 0; font-size: 18px; }}
svg {{ display: block; width: 100%; height: auto; }}
svg text {{ font: 10px system-ui, sans-serif; fill: var(--ink); }}
svg .dim {{ fill: var(--dim); }} svg .grid {{ stroke: var(--line); }}
svg .wait {{ fill: var(--wait); }} svg .link {{ stroke: var(--wait); stroke-dasharray: 2 2; opacity: .55; }}
svg .ready {{ stroke: var(--ink); }} svg .plain {{ fill: var(--plain); }}
svg rect:hover {{ opacity: .7; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: 2px 16px 2px 0; border-bottom: 1px solid var(--line); }}
th {{ color: var(--dim); font-weight: normal; }} td.n, th.n {{ text-align: right; }}
td.bar {{ width: 320px; padding: 0; }} td.bar span {{ display: inline-block; height: 10px; }}
span.unused {{ background: var(--wait); opacity: .6; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{subtitle}</p>
<dl>{figures}</dl>
<h2>What happened when</h2>
<p>Milliseconds since install() began. Imports by thread, what is within another below it; in red, a thread
that waits for a block, tied to the request that brought it; below, the requests, with a mark where a block
was checked and ready. Point at anything to read more.{hidden}</p>
{chart}
<h2>Bytes by package</h2>
{shares}
<h2>The longest waits</h2>
{waits}
<h2>The slowest modules, without what they import</h2>
{slowest}
</body>
</html>
"""


def page(run: Run) -> str:
    """Return the HTML of a run."""
    colours = _Colours(run)
    chart = _Chart(run, colours)
    svg = chart.draw()
    return _PAGE.format(
        title=escape(f"Cold start of {run.program or 'a program'}"),
        subtitle=escape(f"Python {run.python}, {run.target}"),
        figures="".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in _figures(run)),
        hidden=f" {chart.hidden} imports are too short to be seen." if chart.hidden else "",
        chart=svg,
        shares=_shares(run, colours),
        waits=_table(("module", "block", "request", "ms"), _wait_rows(run)),
        slowest=_table(("module", "package", "ms"), _slow_rows(run)),
    )


def _figures(run: Run) -> Iterator[tuple[str, str]]:
    """Yield what stands at the top of the page."""
    stats = run.stats
    unused = sum(share.unused for share in run.shares)
    fetched = sum(share.fetched for share in run.shares)
    yield "until the last import", f"{_ms(run.end)} ms"
    yield "CPU", f"{_ms(run.cpu)} ms"
    yield "waited for the network", f"{stats.get('wait_seconds', 0) * 1000:.1f} ms"
    yield "requests", f"{stats.get('requests', 0):.0f}"
    yield "one after the other", f"{stats.get('round_trips', 0):.0f}"
    yield "fetched", _bytes(stats.get("bytes_fetched", 0))
    yield "of it not used", f"{100 * unused / fetched:.0f} %" if fetched else "0 %"
    yield "modules", str(len({row.name for row in run.imports}))


class _Colours:
    """A colour for each package, the same in the chart and in the table."""

    def __init__(self, run: Run) -> None:
        names = dict.fromkeys(
            [request.package for request in run.requests] + [row.package for row in run.imports]
        )
        self._hues = {name: at * _ANGLE % 360 for at, name in enumerate(filter(None, names))}

    def of(self, package: str) -> str:
        """Return the attribute that colours something."""
        hue = self._hues.get(package)
        return 'class="plain"' if hue is None else f'fill="hsl({hue:.0f} 55% 58%)"'

    def css(self, package: str) -> str:
        """Return the colour for a style."""
        hue = self._hues.get(package)
        return "var(--plain)" if hue is None else f"hsl({hue:.0f} 55% 58%)"


class _Chart:
    """The rows of the chart, from the top."""

    def __init__(self, run: Run, colours: _Colours) -> None:
        self._run, self._colours = run, colours
        self._scale = _PLOT / run.end
        self._parts: list[str] = []
        self._y = 22
        #: How many imports are not drawn.
        self.hidden = 0

    def draw(self) -> str:
        """Return the SVG."""
        run = self._run
        self._label("install()", self._y)
        self._bar(0, run.installed, self._y, 'class="plain"', f"install(): {_ms(run.installed)} ms")
        self._y += _ROW + 6
        anchors: list[tuple[Wait, int]] = []
        for thread in sorted({row.thread for row in run.imports} | {wait.thread for wait in run.waits}):
            self._imports([row for row in run.imports if row.thread == thread], thread)
            waits = [wait for wait in run.waits if wait.thread == thread]
            anchors += [(wait, self._y) for wait in waits]
            self._waits(waits)
        rows = self._requests()
        for wait, y in anchors:
            at = run.bringer(wait)
            if at >= 0:
                x = self._x(wait.ended)
                top, bottom = y + _ROW - 3, rows[at]
                self._parts.append(f'<line class="link" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>')
        grid = "".join(self._grid())
        head = f'<svg viewBox="0 0 {_WIDTH} {self._y + 8}" role="img" aria-label="time line">'
        return head + grid + "".join(self._parts) + "</svg>"

    def _x(self, moment: int) -> str:
        return f"{_GUTTER + moment * self._scale:.2f}"

    def _grid(self) -> Iterator[str]:
        step = _step(self._run.end)
        for moment in range(0, self._run.end + 1, step):
            x = self._x(moment)
            yield f'<line class="grid" x1="{x}" x2="{x}" y1="14" y2="{self._y}"/>'
            yield f'<text class="dim" x="{x}" y="10" text-anchor="middle">{moment / 1000:g}</text>'

    def _label(self, text: str, y: int) -> None:
        self._parts.append(
            f'<text x="{_GUTTER - 8}" y="{y + _ROW - 4}" text-anchor="end">{escape(_short(text, 36))}</text>'
        )

    def _bar(self, began: int, ended: int, y: int, colour: str, title: str, kind: str = "") -> None:
        width = max(0.5, (ended - began) * self._scale)
        mark = f' data-kind="{kind}"' if kind else ""
        self._parts.append(
            f'<rect {colour}{mark} x="{self._x(began)}" y="{y}" width="{width:.2f}" height="{_ROW - 2}">'
            f"<title>{escape(title)}</title></rect>"
        )

    def _imports(self, rows: Sequence[Import], thread: int) -> None:
        self._label("imports" if not thread else f"imports, thread {thread}", self._y)
        deepest = 0
        for row in rows:
            width = (row.ended - row.began) * self._scale
            if width < _NARROWEST:
                self.hidden += 1
                continue
            deepest = max(deepest, row.depth + 1)
            y = self._y + row.depth * _ROW
            title = f"{row.name}: {_ms(row.ended - row.began)} ms with what it imports"
            if row.package:
                title += f"; of {row.package}"
            self._bar(row.began, row.ended, y, self._colours.of(row.package), title, "import")
            letters = int(width / 6.2)
            if letters > 3:
                text = escape(_short(row.name, letters))
                self._parts.append(
                    f'<text x="{_GUTTER + row.began * self._scale + 2:.2f}" y="{y + _ROW - 5}" '
                    f'pointer-events="none">{text}</text>'
                )
        self._y += deepest * _ROW + 2

    def _waits(self, waits: Sequence[Wait]) -> None:
        if not waits:
            return
        self._label("waiting", self._y)
        for wait in waits:
            title = f"{_ms(wait.ended - wait.began)} ms for block {wait.block}"
            module = waiting(self._run.imports, wait)
            if module:
                title += f", while importing {module}"
            self._bar(wait.began, wait.ended, self._y, 'class="wait"', title, "wait")
        self._y += _ROW + 6

    def _requests(self) -> list[int]:
        """Draw the requests, as they began; return where each is."""
        run = self._run
        places = [0] * len(run.requests)
        self._y += 4
        for at in sorted(range(len(run.requests)), key=lambda at: run.requests[at].began):
            request = run.requests[at]
            places[at] = self._y
            self._label(f"{_name(request)}  {_size(request)}", self._y)
            title = f"{request.key} from byte {request.start}: {_size(request)} in "
            title += f"{_ms(request.ended - request.began)} ms"
            colour = self._colours.of(request.package)
            self._bar(request.began, request.ended, self._y, colour, title, "request")
            for came in run.came:
                if came.request == at:
                    x = self._x(came.ready)
                    self._parts.append(
                        f'<line class="ready" x1="{x}" x2="{x}" y1="{self._y}" y2="{self._y + _ROW - 2}">'
                        f"<title>block {escape(came.block)} was ready</title></line>"
                    )
            self._y += _ROW
        return places


def waiting(imports: Sequence[Import], wait: Wait) -> str:
    """Return the innermost module that was being imported when a wait began, "" if none was."""
    found = [
        row
        for row in imports
        if row.thread == wait.thread and row.began <= wait.began and row.ended >= wait.ended
    ]
    return max(found, key=lambda row: row.depth).name if found else ""


def _shares(run: Run, colours: _Colours) -> str:
    most = max([share.fetched for share in run.shares], default=1) or 1
    rows = []
    for share in sorted(run.shares, key=lambda share: -share.fetched):
        used = share.fetched - share.unused
        bars = "".join(
            f'<span {attribute}width:{100 * part / most:.1f}%"></span>'
            for part, attribute in (
                (used, f'style="background:{colours.css(share.name)};'),
                (share.unused, 'class="unused" style="'),
            )
        )
        cells = (_bytes(share.installed), _bytes(share.fetched), _bytes(share.unused))
        rows.append(
            f"<tr><td>{escape(share.name)} {escape(share.version)}</td>"
            + "".join(f'<td class="n">{cell}</td>' for cell in cells)
            + f'<td class="bar">{bars}</td></tr>'
        )
    head = "<tr><th>package</th>" + "".join(
        f'<th class="n">{name}</th>' for name in ("installed", "fetched", "not used")
    )
    return f"<table>{head}<th></th></tr>{''.join(rows)}</table>"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>" if rows else "<p>None.</p>"


def _wait_rows(run: Run) -> list[tuple[str, str, str, str]]:
    longest = sorted(run.waits, key=lambda wait: wait.began - wait.ended)[:_SLOWEST]
    rows = []
    for wait in longest:
        at = run.bringer(wait)
        request = run.requests[at] if at >= 0 else None
        name = f"{_name(request)}, {_size(request)}" if request else "under way before, or in the cache"
        rows.append((waiting(run.imports, wait), wait.block, name, _ms(wait.ended - wait.began)))
    return rows


def _slow_rows(run: Run) -> list[tuple[str, str, str]]:
    return [(row.name, row.package, _ms(own)) for own, row in own_times(run.imports)[:_SLOWEST]]


def _name(request: Request) -> str:
    kind = request.key.rpartition("/")[2].partition("-")[0]
    if request.package:
        return request.package if kind == "pack" else f"{request.package} ({kind})"
    return "environment index" if request.key.startswith("envs/") else request.key


def _size(request: Request) -> str:
    return "failed" if request.size < 0 else _bytes(request.size)


def _bytes(size: float) -> str:
    for unit in ("B", "kB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} MB"


def _ms(microseconds: int) -> str:
    return f"{microseconds / 1000:.1f}"


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: max(1, letters - 1)] + "…"


def _step(end: int) -> int:
    """Return the distance of lines on the axis: 1, 2 or 5 times a power of ten, about ten of them."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if end / (step * factor) <= 12:
                return step * factor
        step *= 10
