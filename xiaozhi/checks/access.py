"""Checks of what devices meet first: the certificate, the firmware that is offered to them, the pages beside them."""

from pathlib import Path
from urllib.parse import urlsplit

from xiaozhi.access.firmware import FirmwareShelf
from xiaozhi.access.tls import TlsError, distrusted_because, load_context
from xiaozhi.checks.finding import Finding, bad, ok, warn
from xiaozhi.settings import OtaSettings, ServerSettings
from xiaozhi.settings.origins import EVERYBODY, NO_ADDRESS


def certificate(settings: ServerSettings) -> Finding | None:
    """Whether devices will take the certificate; nothing to say where none is set."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    try:
        context = load_context(settings.tls_cert, settings.tls_key)
    except TlsError as error:
        return bad("server.tls_cert", str(error))
    name = urlsplit(settings.public_url).hostname or ""
    if why := distrusted_because(context, name):
        return warn("server.tls_cert", f"devices will refuse {settings.tls_cert}: {why}")
    if not name:
        return warn("server.tls_cert", "set server.public_url as well, with the name that is in the certificate")
    return ok("server.tls_cert", f"devices that know public authorities will take it for {name}")


def pages(settings: ServerSettings) -> Finding | None:
    """Whether strangers' web pages can do what devices do; nothing to say where they cannot."""
    wide = [origin for origin in (EVERYBODY, NO_ADDRESS) if origin in settings.origins]
    if not wide:
        return None
    who = "every web page" if EVERYBODY in wide else 'every web page that calls itself "null", which any can,'
    return warn("server.origins", f"{who} opened in the house can converse and use tools: name single pages instead")


def firmware(settings: OtaSettings) -> Finding | None:
    """Whether what lies in the firmware folder can be offered; nothing to say where none is set. Reads every file."""
    folder = settings.firmware_dir
    if folder is None:
        return None
    if not folder.is_dir():
        return bad("ota.firmware_dir", f"{folder} is no folder: make it, or leave the setting out", required=False)
    shelf = FirmwareShelf(folder)
    shelf.scan()
    refused = sorted(set(_files(folder)) - {release.path for release in shelf.releases})
    if refused:
        names = ", ".join(str(path.relative_to(folder)) for path in refused[:3])
        return warn("ota.firmware_dir", f"{len(refused)} files are not offered (the log says why): {names}")
    return ok("ota.firmware_dir", f"{len(shelf.releases)} files can be offered")


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
