"""Start the page: on this machine, or on a Space."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from albert_hub_bridge.errors import AlbertHubBridgeError
from albert_hub_bridge.ui.limits import Limits


def require_gradio() -> None:
    """Refuse to start without Gradio.

    Raises:
        AlbertHubBridgeError: It is not installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise AlbertHubBridgeError("The page needs Gradio. Run: pip install 'albert-hub-bridge[ui]'.")


def serve(
    *,
    host: str | None = None,
    port: int | None = None,
    open_browser: bool = False,
    local_folders: bool = False,
    limits: Limits | None = None,
    started: Callable[[str], None] = print,
) -> None:
    """Serve the page until the process is interrupted or ended. Its folders are removed then.

    Args:
        host: The address to listen on; that of `GRADIO_SERVER_NAME`, which a Space sets, or 127.0.0.1 by default.
        port: The port; that of `GRADIO_SERVER_PORT`, or the first free one from 7860, by default.
        open_browser: Whether to open the page in a browser.
        local_folders: Whether visitors may choose folders of this machine.
        limits: Of each visit; those for a free Space by default.
        started: Takes the address of the page.

    Raises:
        AlbertHubBridgeError: Gradio is not installed, or the port is in use.
    """
    require_gradio()
    limits = limits or Limits()
    root = Path(tempfile.mkdtemp(prefix="albert-hub-bridge-ui-"))
    served = root / "served"
    os.environ["GRADIO_TEMP_DIR"] = str(served)  # uploads; Gradio serves all files in it
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # Clients give up after 20 s of silence, which ends the visit. With Gradio's 15 s, a pause of 5 s was enough.
    os.environ.setdefault("GRADIO_HEARTBEAT_INTERVAL", "5")
    from albert_hub_bridge.ui.actions import Actions
    from albert_hub_bridge.ui.page import Page, css, theme
    from albert_hub_bridge.ui.visit import Visits

    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    visits = Visits(root / "visits", served, limits)
    actions = Actions(visits, served, local_folders=local_folders)
    blocks = Page(actions, limits, with_login=_is_space_with_login()).build()
    try:
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,  # browsers would keep what was typed
            footer_links=["api"],
            max_file_size=limits.upload_bytes,
            theme=theme(),
            css=css(),
        )
        started(address)
        ended.wait()
    except OSError as error:
        raise AlbertHubBridgeError(f"The page could not be started: {error}") from error
    finally:
        blocks.close(verbose=False)
        visits.close()
        shutil.rmtree(root, ignore_errors=True)
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_space_with_login() -> bool:
    """Return whether this is a Space whose README.md asks for OAuth."""
    return bool(os.environ.get("SPACE_ID") and os.environ.get("OAUTH_CLIENT_ID"))
