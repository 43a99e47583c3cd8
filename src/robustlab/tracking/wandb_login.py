"""Find out whether W&B can be reached with the configured credentials, without importing it and without a prompt."""

from __future__ import annotations

import configparser
import netrc
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit


def base_url() -> str:
    """Return the server that W&B would use: `WANDB_BASE_URL`, its settings file, or the public one."""
    return os.environ.get("WANDB_BASE_URL") or saved_setting("base_url") or "https://api.wandb.ai"


def has_key() -> bool:
    """Whether credentials for that server are configured: in the environment, in netrc, or in the settings file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or saved_setting("api_key"):
        return True
    files = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    host = urlsplit(base_url()).hostname or ""
    return any(_netrc_has(Path(file).expanduser(), host) for file in files)


def unreachable(url: str, timeout: float) -> str | None:
    """Return why nobody answers at `url` within `timeout` seconds (or answers with a server error), else None."""
    if urlsplit(url).scheme not in ("http", "https"):
        return f"{url} is not an http(s) address"
    try:
        with urllib.request.urlopen(url, timeout=timeout):
            return None
    except urllib.error.HTTPError as error:
        return f"{url} answers with error {error.code}" if error.code >= 500 else None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):  # W&B brings its own certificates: let it judge
            return None
        return f"{url} cannot be reached ({error.reason})"
    except OSError as error:
        return f"{url} cannot be reached ({error})"


def saved_setting(name: str) -> str | None:
    """Return what W&B's settings file has under a name; None where it has nothing."""
    folder = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(Path(folder).expanduser() / "settings", encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError, RuntimeError):
        return None
    return parser.get("default", name, fallback=None)


def _netrc_has(path: Path, host: str) -> bool:
    try:
        entry = netrc.netrc(path).authenticators(host)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return False
    return bool(entry and entry[2])
