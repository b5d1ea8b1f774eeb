"""HTTP server with OpenAI's interface for chats with images, on one `Lyrics`. It needs the extra `serve`."""

from ..listening import bind_socket
from .application import create_application
from .http_server import run_server
from .limits import ServerLimits

__all__ = ["ServerLimits", "bind_socket", "create_application", "run_server"]
