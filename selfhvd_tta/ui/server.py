"""Starts the page and keeps it going until it is interrupted."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from selfhvd_tta.errors import UsageError
from selfhvd_tta.extras.report import need_extra
from selfhvd_tta.ui.projects import Shelf
from selfhvd_tta.ui.runner import UI_WORKER, Runner

HOST, PORT, FOLDER, LIMIT_MB = "127.0.0.1", 7860, "selfhvd-tta-videos", 4000
UPLOADS = "uploads"


def serve(
    folder: str | Path = FOLDER,
    host: str = HOST,
    port: int = PORT,
    limit_mb: int = LIMIT_MB,
    tell: Callable[[str], None] = print,
    ended: threading.Event | None = None,
    worker: Sequence[str] = UI_WORKER,
) -> None:
    """Show the page until Ctrl-C.

    Args:
        folder: where uploads and results are kept; what was unfinished in it is resumed.
        host: address to listen on.
        port: to listen on.
        limit_mb: largest upload in megabytes.
        tell: gets the lines for the user.
        ended: ends it, from another thread.
        worker: command of the process for one step.

    Raises:
        UsageError: an extra is not installed, or the address cannot be used.
        DiskError: the folder cannot be made.
    """
    need_extra("ui")
    shelf = Shelf(Path(folder))
    # Read when gradio is imported; uploads are then moved into their project, not copied across disks.
    os.environ["GRADIO_TEMP_DIR"] = str(shelf.root / UPLOADS)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio as gr
    except ImportError as error:
        raise UsageError("ui needs gradio, which is not installed", "Install it: pip install '.[ui]'") from error
    from selfhvd_tta.ui.page import STYLE, build

    # Before anything that was unfinished is resumed.
    with _listening(host, port):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    runner = Runner(shelf, worker)
    page = build(shelf, runner)
    # Handed out from where they are; otherwise each result would be copied, and the copy outlive a deletion.
    gr.set_static_paths([shelf.folder])
    try:
        with _listening(host, port):
            page.queue(default_concurrency_limit=8).launch(
                server_name=host,
                server_port=port,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                max_file_size=limit_mb * 1_000_000,
                ssr_mode=False,
                mcp_server=False,
                enable_monitoring=False,
                theme=_theme(),
                css=STYLE,
            )
        tell(f"open http://{_shown(host)}:{port} in a browser; Ctrl-C ends it")
        tell(f"videos and results are in {shelf.root}")
        if not _is_local(host):
            tell("everyone who can reach this machine can use the page, without a password")
        (ended or threading.Event()).wait()
    except KeyboardInterrupt:
        tell("ending; what is unfinished is resumed by the next start")
    finally:
        runner.close()
        page.close()


@contextmanager
def _listening(host: str, port: int) -> Iterator[None]:
    """Say that the address cannot be listened on, whoever finds that out."""
    try:
        yield
    except (OSError, OverflowError) as error:
        raise UsageError(f"{host}:{port}: cannot be listened on", "Choose another --port or --host.") from error


def _theme() -> Any:
    """Fonts of the system, so that nothing is loaded from elsewhere; white on the buttons with a contrast above 4.5."""
    from gradio.themes import Default

    theme = Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    colours = {
        "button_primary_background_fill": "#1d4ed8",
        "button_primary_background_fill_hover": "#1e40af",
        "button_cancel_background_fill": "#b91c1c",
        "button_cancel_background_fill_hover": "#991b1b",
    }
    return theme.set(**colours, **{f"{name}_dark": value for name, value in colours.items()})


def _shown(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
