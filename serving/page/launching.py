"""Start of the page's server, with limits, looks and scripts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..listening import bind_socket
from .gradio_version import import_gradio
from .page_picture import MAX_FILE_BYTES

_FOLDER = Path(__file__).parent
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")  # nothing is loaded from elsewhere
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
# Gradio confines the rules of `css_paths` to what is inside of these
_OUTER = "@media (max-width: 760px) { .gradio-container .main.fillable { padding: 4px 8px !important; } }"
MAX_SESSIONS = 256  # conversations that are kept at once, with their images


@dataclass(frozen=True)
class PageAddress:
    """Where a page is served.

    Attributes:
        local: URL on this machine.
        public: URL of a shared page, or `None`.
    """

    local: str
    public: str | None


def launch_page(page: Any, host: str = "127.0.0.1", port: int = 7860, share: bool = False) -> PageAddress:
    """Serve a page in threads of its own, and return at once. `page.close()` ends it.

    Args:
        page: `gradio.Blocks` of `build_page`.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        share: whether Gradio's servers give the page a public address, through which everybody reaches it.

    Raises:
        OSError: the port is taken, or the address is none of this machine.
    """
    gr = import_gradio()
    if port == 0:
        with bind_socket(host, 0) as bound:
            port = bound.getsockname()[1]
    theme = gr.themes.Base(primary_hue="blue", neutral_hue="slate", radius_size="lg", font=_FONTS, font_mono=_MONO)
    _, local, public = page.launch(
        server_name=host,
        server_port=port,
        share=share,
        prevent_thread_lock=True,
        quiet=True,
        inbrowser=False,
        ssr_mode=False,
        enable_monitoring=False,
        max_file_size=MAX_FILE_BYTES,
        state_session_capacity=MAX_SESSIONS,
        footer_links=["settings"],
        run_history=False,  # else Gradio keeps every question in the browser
        theme=theme,
        css_paths=_FOLDER / "page.css",
        head=f"<style>{_OUTER}</style><script>{(_FOLDER / 'page.js').read_text(encoding='utf-8')}</script>",
    )
    return PageAddress(local, public)
