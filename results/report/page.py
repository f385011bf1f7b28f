"""Write a study as one self-contained HTML file that requests nothing from the network."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from sharedattn.errors import InputError
from sharedattn.objectives import OBJECTIVES, Objective, shown_costs
from sharedattn.plugins import installed
from sharedattn.results.artifacts.atomic import atomic_write
from sharedattn.results.database.models import utc_now
from sharedattn.results.explanation.explanation import Explanation, explain
from sharedattn.results.failures import shown_reason
from sharedattn.results.front.baselines import difference
from sharedattn.results.front.confirmation import Candidate
from sharedattn.results.front.summary import (
    StudySummary,
    comparison_lines,
    hypervolume_rises,
    start_lines,
)
from sharedattn.results.records import (
    FRONT_ROLES,
    Document,
    StudyRecord,
    TrialRole,
    TrialState,
)
from sharedattn.results.report.strip import (
    Parts,
    number_option,
    parts_of,
    placement_strip,
    style_of,
)
from sharedattn.results.report.worth import worth_of
from sharedattn.units import format_fraction, format_quantity

_FOLDER = Path(__file__).parent
_MAX_DRAWN = 200  # members of a front that are drawn; thousands would be a cloud
LEAST_SCORE = 0.3  # of a box that is drawn
NOTE = "note"  # name of a text in files of pictures
_ROLES = FRONT_ROLES
_STATES = tuple(TrialState)


def write_report(path: Path, summary: StudySummary, *, convention: str) -> None:
    """Write the report of a study, replacing an older one.

    Args:
        path: the HTML file; its folder is created.
        summary: the study.
        convention: the convention of the cost figures, printed beside them.

    Raises:
        InputError: the file cannot be written.
    """
    pictures = None if summary.knee is None else pictures_path(path, summary.knee)
    html = render_report(summary, convention=convention, pictures=pictures)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, html.encode())
    except OSError as error:
        raise InputError(
            f"the report cannot be written to {path}: {error.strerror}; name another --out"
        ) from error


def render_report(summary: StudySummary, *, convention: str, pictures: Path | None = None) -> str:
    """Render the report as HTML, with every name escaped.

    Args:
        summary: the study.
        convention: the convention of the cost figures.
        pictures: PNG file of what the knee says of images; it need not be there.
    """
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "quantity": format_quantity,
        "strip": placement_strip,
        "number_option": number_option,
        "pretty": lambda document: json.dumps(document, indent=2, sort_keys=True),
    }
    members = summary.front.members
    explanation, unexplained = _explanation(summary)
    parts = parts_of(member.placement for member in members[:_MAX_DRAWN])
    style = (_FOLDER / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        summary=summary,
        start_lines=start_lines(summary),
        comparisons=[(b, difference(b, members)) for b in summary.baselines],
        comparison_lines=comparison_lines(summary),
        ranking=summary.ranking,
        explanation=None if explanation is None else worth_of(explanation),
        unexplained=unexplained,
        record=summary.study.record,
        members=members[:_MAX_DRAWN],
        num_members=len(members),
        search=summary.count(TrialRole.SEARCH),
        confirm=summary.count(TrialRole.CONFIRM),
        num_reused=sum(row.reused for row in summary.rows),
        fraction=lambda member: format_fraction(member.top1, member.top1_standard_error),
        provenance=list(_flat(summary.study.record.provenance)),
        pictures=_embedded(pictures),
        pictures_note=_note(pictures),
        least_score=LEAST_SCORE,
        parts=parts,
        missing_note=_missing_note(parts, summary.study.record),
        costs=_shown_costs(summary),
        objectives=OBJECTIVES,
        quality=summary.objectives[0].label,
        convention=convention,
        written_at=utc_now(),
        style=Markup(style + style_of(parts)),
        script=Markup((_FOLDER / "report.js").read_text(encoding="utf-8")),
        data=embedded_json({**_chart_data(summary), "predicted": _predicted(explanation)}),
    )


def pictures_path(report: Path, member: Candidate) -> Path:
    """The file of the pictures of a member's exported run, beside a report."""
    # By the weights, since more seeds may change which run is exported.
    key = member.best_run.weights_sha256 or member.spec_key
    return report.with_name(f"predictions-{key[:12]}.png")


def _embedded(pictures: Path | None) -> str | None:
    """A PNG file as the address of an image, or None if it is not there."""
    if pictures is None or not pictures.is_file():
        return None
    return f"data:image/png;base64,{base64.b64encode(pictures.read_bytes()).decode()}"


def _note(pictures: Path | None) -> str:
    """What a file of pictures says of them, or ""."""
    if pictures is None or not pictures.is_file():
        return ""
    with Image.open(pictures) as image:
        return str(image.info.get(NOTE, ""))


def _explanation(summary: StudySummary) -> tuple[Explanation | None, str]:
    """What the study says of its space, or why it says nothing; nothing at all before trials."""
    if not summary.candidates:
        return None, ""
    try:
        return explain(summary), ""
    except InputError as error:
        return None, str(error)


def _predicted(explanation: Explanation | None) -> list[Document]:
    """The predicted front for its chart."""
    if explanation is None:
        return []
    return [
        {
            "placement": one.placement,
            "macs": one.macs,
            "top1": [_rounded(v, 5) for v in (one.top1.mean, one.top1.low, one.top1.high)],
            "tried": one.tried,
        }
        for one in explanation.front
    ]


def _missing_note(parts: Parts, record: StudyRecord) -> str:
    """A note on kinds and gates that cannot be drawn, and what to install; "" if there is none."""
    if not parts.missing:
        return ""
    here = {plugin.name for plugin in installed()}
    used = {
        **record.provenance.get("plugins", {}),
        **record.fingerprint_document.get("plugins", {}),
    }
    lacking = [f"{name} {version}" for name, version in used.items() if name not in here]
    packages = " ".join(name for name in used if name not in here)
    one = len(parts.missing) == 1
    return (
        f"{', '.join(parts.missing)} {'comes' if one else 'come'} from a plug-in that is not "
        f"installed here: placements with {'it' if one else 'them'} are drawn by their letters "
        f"alone, unknown letters in grey."
    ) + (f" The study used {', '.join(lacking)}; pip install {packages}." if lacking else "")


def embedded_json(document: Any) -> Markup:
    """JSON that can neither close the script element around it nor open a comment there."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _chart_data(summary: StudySummary) -> Document:
    """The data of the charts, in columns and with each placement once, to save space."""
    rows = summary.rows
    spec_index: dict[str, int] = {}
    for row in rows:
        spec_index.setdefault(row.spec_key, len(spec_index))
    specs = {row.spec_key: row for row in rows}
    numbers, volumes = hypervolume_rises(summary)
    costs = _shown_costs(summary)
    return {
        "quality": summary.objectives[0].label,
        "objectives": list(summary.study.record.objectives),
        "costs": {cost.name: _described(cost) for cost in costs},
        "specs": {
            "placement": [specs[key].placement for key in spec_index],
            **{
                cost.name: [_rounded(specs[key].costs.get(cost.name), 4) for key in spec_index]
                for cost in costs
            },
        },
        "roles": [role.value for role in _ROLES],
        "states": [state.value for state in _STATES],
        "trials": {
            "spec": [spec_index[row.spec_key] for row in rows],
            "number": [row.number for row in rows],
            "role": [_ROLES.index(row.role) for row in rows],
            "replicate": [row.replicate for row in rows],
            "state": [_STATES.index(row.state) for row in rows],
            "top1": [_rounded(row.top1, 6) for row in rows],
            "loss": [_rounded(row.loss, 4) for row in rows],
            "wall_time_s": [_rounded(row.wall_time_s, 1) for row in rows],
            "reused": [int(row.reused) for row in rows],
        },
        # Few trials fail: their messages are keyed by position, to avoid a column of nulls.
        "errors": {
            i: shown_reason(row.error) for i, row in enumerate(rows) if row.error is not None
        },
        "front": [_point(member, costs) for member in summary.front.members],
        "knee": None if summary.knee is None else summary.knee.number,
        "baseline": None if summary.baseline is None else _point(summary.baseline, costs),
        "start": _start(summary),
        "baselines": [
            {
                **_point(b.candidate, costs),
                "kind": b.kind.value,
                "text": b.title,
                "label": b.short_title,
            }
            for b in summary.baselines
        ],
        "hypervolume": {"number": numbers, "value": np.round(volumes, 6).tolist()},
        "num_trials": sum(row.role is TrialRole.SEARCH for row in rows),
    }


def _shown_costs(summary: StudySummary) -> tuple[Objective, ...]:
    """The costs that a study optimises or that some trial has, in the order of tables."""
    known = {name for row in summary.rows for name in row.costs}
    return shown_costs(summary.objectives, known | {o.name for o in summary.objectives})


def _described(cost: Objective) -> Document:
    """The description of a cost for the script."""
    return {
        "label": cost.label,
        "heading": cost.heading,
        "symbol": cost.unit.symbol,
        "scaled": cost.unit.scaled,
    }


def _point(candidate: Candidate, costs: Sequence[Objective]) -> Document:
    return {
        "id": candidate.number,
        "placement": candidate.placement,
        "top1": candidate.top1,
        "top1_standard_error": candidate.top1_standard_error,
        **{cost.name: candidate.costs.get(cost.name) for cost in costs},
        "seeds": len(candidate.runs),
    }


def _start(summary: StudySummary) -> Document | None:
    start = summary.start
    # The script reads the quality of any task under this name, as of trials and members.
    return None if start is None else {**start.summary("top1"), "text": str(start)}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _flat(document: Document, prefix: str = "") -> Any:
    """Yield the leaves of a nested document as (`outer inner`, value)."""
    for key, value in document.items():
        name = f"{prefix} {key}".strip()
        if isinstance(value, dict):
            yield from _flat(value, name)
        else:
            yield name, value
