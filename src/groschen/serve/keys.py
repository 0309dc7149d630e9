"""API keys: a file of their hashes, and the middleware that asks for one.

One key a line: `name:sha256:SALT:HASH`, both in hexadecimal; `#` begins a comment. The file is read again
whenever it has changed, so a key is taken back by deleting its line. Leaves out roles and quotas: a key opens
everything.
"""

import base64
import binascii
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from groschen.errors import BadFile, BadRequest
from groschen.serve import faults

# The page asks for the key itself and sends it with each request; what it is made of is no secret.
OPEN_PATHS = frozenset({"/", "/health", "/openapi.json", "/favicon.ico"})
OPEN_FOLDERS = ("/static/",)

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOG = logging.getLogger("groschen.serve.keys")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of the file."""

    name: str
    salt: bytes
    digest: bytes


def make_key(name: str, path: Path) -> str:
    """A new key, whose hash is appended to the file; the key itself is kept nowhere.

    Raises BadRequest for a name that is taken or can't stand in a line, BadFile for a file that is not fit.
    """
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"a key can't be named {name!r}; use 1 to 64 letters, digits, dots, dashes and underscores"
        )
    before = path.read_text() if path.exists() else ""
    if path.exists() and any(entry.name == name for entry in _read(path)):
        raise BadRequest(
            f"{path} has a key named {name} already; delete its line first or choose another name"
        )
    key, salt = f"sk-groschen-{secrets.token_urlsafe(32)}", secrets.token_bytes(16)
    line = f"{name}:sha256:{salt.hex()}:{_digest(salt, key.encode()).hex()}\n"
    try:
        # Appended in one write, so that two makers at once leave two whole lines.
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(line if not before or before.endswith("\n") else "\n" + line)
    except OSError as error:
        raise BadFile(f"the key can't be written to {path}: {error.strerror}") from error
    return key


class KeyFile:
    """The keys of a file, read anew when it changes.

    Raises BadFile when it is opened and can't be read, is malformed, or may be written by other users.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._look()
        self._entries = _read(path)

    def name_of(self, key: str) -> str | None:
        """The name of a key, None if it is not in the file. Raises BadFile if the file is no longer fit."""
        stamp = self._look()
        if stamp != self._stamp:
            self._entries, self._stamp = _read(self._path), stamp
        found = None
        for entry in self._entries:  # all of them, and each whole: the time tells nothing
            if hmac.compare_digest(_digest(entry.salt, key.encode()), entry.digest):
                found = entry.name
        return found

    def _look(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise BadFile(f"the file of keys {self._path} can't be read: {error.strerror}") from error
        return status.st_ctime_ns, status.st_size, status.st_ino  # ctime: a chmod counts as well


class RequireKey:
    """Middleware: every path but the open ones needs `Authorization: Bearer KEY`.

    A browser without scripts may send the key as the password of `Basic`. The key's name goes into
    `scope["state"]["key_name"]`.
    """

    def __init__(self, app: ASGIApp, keys: KeyFile) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI wants it."""
        if scope["type"] != "http" or _is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            scope.setdefault("state", {})["key_name"] = self._check(Headers(scope=scope))
        except faults.ApiFault as fault:
            if not scope["path"].startswith("/v1"):
                fault.headers["www-authenticate"] = 'Basic realm="groschen", charset="UTF-8"'
            await fault.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> str:
        key = _key_in(headers.get("authorization", ""))
        if not key:
            raise faults.no_key()
        try:
            name = self._keys.name_of(key)
        except BadFile as error:
            _LOG.error("nobody is let in: %s", error)
            raise faults.unavailable(
                "The server can't read its file of keys.", "keys_unreadable", 10
            ) from None
        if name is None:
            raise faults.wrong_key()
        return name


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


def _key_in(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _digest(salt: bytes, key: bytes) -> bytes:
    """SHA-256 is enough: the keys are 256 random bits, nothing that a slow hash would have to protect from
    guessing.
    """
    return hashlib.sha256(salt + key).digest()


def _read(path: Path) -> list[_Entry]:
    try:
        with path.open(encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"the file of keys {path} can't be read: {error}") from error
    # Whoever can write it can let himself in. To read it helps nobody: it holds hashes.
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise BadFile(f"the file of keys {path} may be written by other users; run: chmod go-w {path}")
    if status.st_uid not in (0, os.geteuid()):
        raise BadFile(f"the file of keys {path} belongs to another user; chown it to the one who serves")
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return [_entry(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line]


def _entry(line: str, where: str) -> _Entry:
    parts = line.split(":")
    if len(parts) != 4 or parts[1] != "sha256":
        raise BadFile(f"{where}: expected name:sha256:SALT:HASH as 'groschen serve --make-key' writes it")
    try:
        entry = _Entry(parts[0], bytes.fromhex(parts[2]), bytes.fromhex(parts[3]))
    except ValueError as error:
        raise BadFile(f"{where}: the salt and the hash of {parts[0]} must be hexadecimal") from error
    if len(entry.digest) != hashlib.sha256().digest_size:
        raise BadFile(f"{where}: the hash of {parts[0]} has {len(entry.digest)} bytes, expected 32")
    return entry
