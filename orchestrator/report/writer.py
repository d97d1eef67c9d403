"""Write the report: one HTML page that needs nothing but itself."""

from __future__ import annotations

import json
import os
import tempfile
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from orchestrator.errors import RunError
from orchestrator.report import palette
from orchestrator.report.data import load
from orchestrator.report.sections import page
from orchestrator.report.views import Page

REPORT_NAME = "report.html"


def write_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write a run's report, as far as the run has come.

    Args:
        run_dir: the run folder; it may be empty, or still growing.
        out: the page's path; by default ``report.html`` in the run folder. Folders above it are made. A page that is
            already there is replaced at once, so a reader never sees half a page.

    Returns:
        The path that was written.

    Raises:
        UserError: there is no such run folder, or a file in it cannot be understood.
        RunError: the page could not be written.
    """
    target = run_dir / REPORT_NAME if out is None else out
    write_page(page(load(run_dir)), target)
    return target


def write_page(view: Page, target: Path) -> None:
    """Write a page as a file; folders above it are made, and a page that is already there is replaced at once.

    Raises:
        RunError: the page could not be written.
    """
    html = render(view)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_atomically(target, html)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"report {target}: cannot be written ({reason}); choose another place or make room") from error


def render(view: Page) -> str:
    """The page as HTML text. Every text of a run is escaped; nothing is loaded from anywhere."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("orchestrator", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("template.html.j2").render(
        page=view,
        written_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup((files("orchestrator.report") / "style.css").read_text(encoding="utf-8")),
        plotly_js=Markup(get_plotlyjs()) if view.plots() else None,
        figures={plot.figure_id: _script_safe(plot.figure.to_json()) for plot in view.plots()},
        dark_colours=_script_safe(json.dumps(palette.DARK)),
    )
    return html.strip() + "\n"


def _script_safe(text: str) -> Markup:
    """JSON that cannot end the script element it stands in, whatever texts it holds."""
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _write_atomically(path: Path, text: str) -> None:
    """Write beside ``path`` and rename, with the permissions any new file gets."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
