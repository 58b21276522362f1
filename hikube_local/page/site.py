"""The page's own addresses: its files, which hold nothing of anybody's, and the way in."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from importlib import resources

from aiohttp import web

from hikube_local.page import walls
from hikube_local.page.sessions import Session, Sessions
from hikube_local.records import dataclass

ROOT = "/ui/"
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
LONGEST = 1000  # bytes of a body that holds a code
TOO_OLD = "this link was used or is too old: run `hikube-local ui` again"


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    zipped: bytes
    tag: str
    type: str


@functools.cache
def files() -> dict[str, File]:
    """Every file of the page by its path below ROOT."""
    found: dict[str, File] = {}
    pending = [("", resources.files("hikube_local.page") / "static")]
    while pending:
        prefix, folder = pending.pop()
        for entry in folder.iterdir():
            path = prefix + entry.name
            if entry.is_dir():
                pending.append((f"{path}/", entry))
            elif type := TYPES.get(entry.name.rpartition(".")[2]):
                content = entry.read_bytes()
                tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
                found[path] = File(content, gzip.compress(content, 9, mtime=0), tag, type)
    return found


def cookie_name(request: web.Request) -> str:
    """With the port, as the browser sees it: cookies of this host go to all of its ports."""
    return f"hikube-local-{walls.port(request.headers.get('Host', ''), request.scheme)}"


def signed_in(request: web.Request, sessions: Sessions) -> Session | None:
    """The session of a request that has both halves."""
    cookie = request.cookies.get(cookie_name(request), "")
    return sessions.find(walls.bearer(request.headers), [cookie]) if cookie else None


class Site:
    """The routes. Nobody needs to be known for them, but to end a session."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"{ROOT}session", self._begin),
            web.delete(f"{ROOT}session", self._end),
            web.get("/ui", self._to_root),
            web.get(f"{ROOT}{{path:.*}}", self._file),
        ]

    @staticmethod
    def is_open(path: str) -> bool:
        return path == "/ui" or path.startswith(ROOT)

    async def _to_root(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPPermanentRedirect(ROOT)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"] or "index.html"
        file = files().get(path)
        if file is None:
            raise web.HTTPNotFound
        headers = {"ETag": file.tag, "Cache-Control": "no-cache", "Content-Type": file.type, "Vary": "Accept-Encoding"}
        if request.headers.get("If-None-Match") == file.tag:
            return web.Response(status=304, headers=headers)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return web.Response(body=file.zipped, headers={**headers, "Content-Encoding": "gzip"})
        return web.Response(body=file.content, headers=headers)

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        """A code for the two halves: one as a cookie that scripts do not see, one for the script."""
        try:
            given = json.loads(await request.content.readexactly(min(request.content_length or 0, LONGEST)))
            code = given["code"] if isinstance(given, dict) else ""
        except (ValueError, KeyError, EOFError, RecursionError):
            code = ""
        session = self.sessions.exchange(code) if isinstance(code, str) and code else None
        if session is None:
            return web.json_response({"message": TOO_OLD}, status=403)
        if old := signed_in(request, self.sessions):  # the browser forgets it now
            self.sessions.end(old)
        answer = web.json_response({"bearer": session.bearer})
        secure = request.scheme == "https"
        name = cookie_name(request)
        answer.set_cookie(name, session.cookie, httponly=True, samesite="Strict", path="/", secure=secure)
        return answer

    async def _end(self, request: web.Request) -> web.StreamResponse:
        if session := signed_in(request, self.sessions):
            session.connections.discard(request.protocol)  # this answer is to arrive
            self.sessions.end(session)
        answer = web.json_response({})
        answer.del_cookie(cookie_name(request))
        return answer
