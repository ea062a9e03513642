"""The page: shows the projects of one visitor and hands wishes to the runner; decides nothing itself."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import gradio as gr

from selfhvd_tta.batch.plan import VIDEO_SUFFIXES
from selfhvd_tta.errors import InputError
from selfhvd_tta.settings import QUALITIES, Quality
from selfhvd_tta.ui.findings import as_html
from selfhvd_tta.ui.projects import KINDS, Kind, Project, Shelf
from selfhvd_tta.ui.runner import Runner
from selfhvd_tta.wording import duration, plural

TITLE = "selfhvd-tta"
STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
NAMES: dict[Kind, str] = {"look": "looking", "preview": "preview", "restore": "restoring"}
STORAGE = "selfhvd-tta-projects"
REFRESH_S = 1.0
MOST = 50  # projects that one browser remembers


class Views:
    """What the page shows of a project, as values for its components."""

    def __init__(self, shelf: Shelf, runner: Runner) -> None:
        self.shelf, self.runner = shelf, runner

    def mine(self, ids: object) -> list[Project]:
        """The projects that still exist of those a browser remembers, newest first."""
        known = [self.shelf.get(each) for each in ids[-MOST:]] if isinstance(ids, list) else []
        return [project for project in reversed(known) if project is not None]

    def picked(self, ids: object, identity: str) -> Project | None:
        """The one of them with that id; the newest if there is none."""
        mine = self.mine(ids)
        return next((project for project in mine if project.id == identity), mine[0] if mine else None)

    def line(self, project: Project) -> str:
        """One project in the list."""
        return f"{project.name}: {self._word(project)}"

    def _word(self, project: Project) -> str:
        for kind in KINDS:
            step = project.steps.get(kind)
            if step is not None and step.state in ("waiting", "running"):
                return self._state(project, kind)[0]
        for kind in reversed(KINDS):
            if kind in project.steps:
                state = project.steps[kind].state
                if state == "done":
                    return {"look": "ready", "preview": "preview ready", "restore": "restored"}[kind]
                return state
        return "new"

    def _state(self, project: Project, kind: Kind) -> tuple[str, float | None]:
        """A waiting or running step in words, and its share that is done."""
        if project.steps[kind].state == "waiting":
            before = self.runner.waiting_before(project, kind)
            return f"{NAMES[kind]}, waiting" + (f" for {plural(before, 'other')}" if before else ""), None
        progress = self.runner.progress(project, kind)
        if progress is None:
            return NAMES[kind], None
        phase, share, times = progress
        percent = "" if share is None else f" {share:.0%}"
        return f"{NAMES[kind]}{percent}, {phase}, {times}", share

    def status(self, project: Project | None) -> str:
        """What is being done, what failed, and what was noted, as HTML."""
        if project is None:
            return ""
        parts = []
        for kind in KINDS:
            step = project.steps.get(kind)
            if step is None:
                continue
            if step.state in ("waiting", "running"):
                text, share = self._state(project, kind)
                parts.append(f'<p role="status">{html.escape(text)}</p>')
                if share is not None:
                    parts.append(f'<progress value="{share:.3f}"></progress>')
            elif step.state == "failed":
                hint = f"<br>{html.escape(step.hint)}" if step.hint else ""
                parts.append(f'<p class="failed" role="alert"><strong>{html.escape(step.message)}</strong>{hint}</p>')
            elif step.state == "cancelled":
                parts.append(f"<p>{NAMES[kind].capitalize()} was cancelled.</p>")
            elif kind == "restore":
                parts.append(f"<p>Restored in {duration(step.seconds)}.</p>")
            parts += [f"<p>{html.escape(note)}</p>" for note in step.notes]
        return f'<div class="status">{"".join(parts)}</div>'

    def findings(self, project: Project) -> dict[str, Any] | None:
        """What the look found; None before it has ended."""
        if not done(project, "look"):
            return None
        try:
            found: dict[str, Any] = json.loads(project.findings.read_text())
        except (OSError, ValueError):
            return None
        return found

    def qualities(self, found: dict[str, Any] | None) -> list[tuple[str, Quality]]:
        """The choices with their times."""
        seconds = {} if found is None else found["seconds"]
        return [(f"{q} (about {duration(seconds[q])})" if q in seconds else q, q) for q in QUALITIES]


def done(project: Project, kind: Kind) -> bool:
    """Whether a step has ended well."""
    return kind in project.steps and project.steps[kind].state == "done"


def busy(project: Project) -> bool:
    """Whether something is wanted that has not ended."""
    return any(step.state in ("waiting", "running") for step in project.steps.values())


def pair(project: Project, kind: Kind, number: int) -> tuple[str, str] | None:
    """A picture before and after; None if there is none."""
    if not done(project, kind):
        return None
    before, after = (project.pairs(kind) / f"{int(number):02d}-{which}.jpg" for which in ("before", "after"))
    return (str(before), str(after)) if before.is_file() and after.is_file() else None


def build(shelf: Shelf, runner: Runner) -> gr.Blocks:
    """The page.

    Args:
        shelf: the projects.
        runner: does what visitors ask for.
    """
    views = Views(shelf, runner)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        ids = gr.BrowserState([], storage_key=STORAGE, secret=shelf.secret)
        shown = gr.State("")
        # Not the value of the list: an answer to an older request may have set that back.
        current = gr.State("")
        gr.HTML(
            "<h1>Make a shaky, blurry video sharp</h1><p>With the sharp frames that the video itself contains. "
            "Everything stays on the machine that runs this page.</p>"
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                upload = gr.File(
                    label="Drop videos here, or click to pick them",
                    file_count="multiple",
                    file_types=sorted(VIDEO_SUFFIXES),
                    height=170,
                    elem_id="upload",
                )
                chosen = gr.Radio([], label="Your videos", visible=False, elem_id="videos")
                remove = gr.Button("Delete this video and its results", size="sm", visible=False, elem_id="remove")
            with gr.Column(scale=5, min_width=300):
                found = gr.HTML(visible=False, elem_id="found")
                quality = gr.Radio([*QUALITIES], value="balanced", label="Quality", visible=False, elem_id="quality")
                with gr.Row():
                    preview = gr.Button("Preview 3 seconds", visible=False, elem_id="preview", min_width=140)
                    restore = gr.Button("Restore", variant="primary", visible=False, elem_id="restore", min_width=140)
                    cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel", min_width=140)
                status = gr.HTML(visible=False, elem_id="status")
                slider = gr.ImageSlider(
                    label="Before (left) and after",
                    visible=False,
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="slider",
                )
                moment = gr.Slider(0, 11, 0, step=1, label="Moment", visible=False, elem_id="moment")
                player = gr.Video(label="Result", visible=False, interactive=False, elem_id="player")
                with gr.Row():
                    download = gr.DownloadButton("Download video", visible=False, elem_id="download", min_width=140)
                    report = gr.DownloadButton("Download report", visible=False, elem_id="report", min_width=140)
        timer = gr.Timer(REFRESH_S)
        panel = [chosen, remove, found, quality, preview, restore, cancel, slider, moment, player, download, report]

        def refresh(known: list[str], identity: str, before: str) -> list[Any]:
            """Status and list each time; the rest only when a step has changed its state."""
            mine, project = views.mine(known), views.picked(known, identity)
            now = json.dumps([p.id for p in mine] + ([project.id, _marks(project)] if project else []))
            lines = [(views.line(p), p.id) for p in mine]
            listed = gr.Radio(choices=lines, value=project.id if project else None, visible=bool(mine))
            state = gr.HTML(views.status(project), visible=project is not None)
            if now == before:
                return [now, state, listed, *[gr.skip()] * (len(panel) - 1)]
            return [now, state, listed, *_contents(views, project)]

        outputs = [shown, status, *panel]

        def add(files: list[str] | None, known: list[str]) -> tuple[None, list[str], Any, str, str]:
            known = list(known) if isinstance(known, list) else []
            newest = ""
            for file in files or []:
                try:
                    project = shelf.add(Path(file), Path(file).name)
                except InputError as error:
                    raise gr.Error(f"{error.message}. {error.hint}") from error
                runner.submit(project, "look")
                known.append(project.id)
                newest = project.id
            lines = [(views.line(p), p.id) for p in views.mine(known)]
            return None, known[-MOST:], gr.Radio(value=newest, choices=lines), newest, ""

        def wish(kind: Kind) -> Any:
            def ask(known: list[str], identity: str, picked: Quality) -> None:
                if project := views.picked(known, identity):
                    runner.submit(project, kind, picked if picked in QUALITIES else "balanced")

            return ask

        def stop(known: list[str], identity: str) -> None:
            if project := views.picked(known, identity):
                runner.cancel(project)

        def delete(known: list[str], identity: str) -> list[str]:
            project = views.picked(known, identity)
            if project is None:
                return known
            runner.remove(project)
            return [each for each in known if each != project.id]

        def show_pair(known: list[str], identity: str, number: float) -> Any:
            project = views.picked(known, identity)
            return None if project is None else pair(project, _shown(project), int(number))

        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        again: dict[str, Any] = {"fn": refresh, "inputs": [ids, current, shown], "outputs": outputs, **private}
        upload.upload(add, [upload, ids], [upload, ids, chosen, current, shown], **private).then(**again)
        preview.click(wish("preview"), [ids, current, quality], None, **private).then(**again)
        restore.click(wish("restore"), [ids, current, quality], None, **private).then(**again)
        cancel.click(stop, [ids, current], None, **private).then(**again)
        remove.click(delete, [ids, current], ids, **private).then(**again)
        chosen.input(lambda picked: picked, chosen, current, **private).then(**again)
        moment.release(show_pair, [ids, current, moment], slider, **private)
        timer.tick(**again)
        page.load(**again)
    return page


def _shown(project: Project) -> Kind:
    """Which pictures are shown: those of the result, or before there is one, of the preview."""
    return "restore" if done(project, "restore") else "preview"


def _marks(project: Project) -> list[list[object]]:
    """What has to change before the page shows something else of a project."""
    return [[kind, step.state, step.asked] for kind, step in project.steps.items()]


def _contents(views: Views, project: Project | None) -> list[Any]:
    """Values of everything below the list of videos."""
    if project is None:
        hidden = [gr.Button, gr.HTML, gr.Radio, *[gr.Button] * 3, gr.ImageSlider, gr.Slider, gr.Video]
        return [kind(visible=False) for kind in (*hidden, gr.DownloadButton, gr.DownloadButton)]
    findings = views.findings(project)
    ready = findings is not None and not busy(project)
    helpful = findings is not None and findings["helpful"]
    restored = done(project, "restore") and project.output.is_file()
    kind = _shown(project)
    pictures = pair(project, kind, 0)
    count = len(list(project.pairs(kind).glob("*-after.jpg"))) if pictures else 0
    return [
        gr.Button(visible=True),
        gr.HTML(as_html(findings) if findings else "", visible=findings is not None),
        gr.Radio(choices=views.qualities(findings), visible=helpful and ready),
        gr.Button(visible=helpful and ready),
        gr.Button("Restore again" if restored else "Restore", visible=helpful and ready),
        gr.Button(visible=busy(project)),
        gr.ImageSlider(pictures, visible=pictures is not None),
        gr.Slider(0, max(1, count - 1), 0, visible=count > 1),
        _player(project, restored),
        gr.DownloadButton(value=str(project.output) if restored else None, visible=restored),
        gr.DownloadButton(
            value=str(project.report) if restored and project.report.is_file() else None,
            visible=restored and project.report.is_file(),
        ),
    ]


def _player(project: Project, restored: bool) -> Any:
    """The result; before there is one, the preview."""
    if restored:
        return gr.Video(str(project.output), label="Result", visible=True)
    if done(project, "preview") and project.preview.is_file():
        return gr.Video(str(project.preview), label="Preview: before (left) and after", visible=True)
    return gr.Video(None, visible=False)
