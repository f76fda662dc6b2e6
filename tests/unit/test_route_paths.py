"""Paths: what routes see, and what is sent on."""

from __future__ import annotations

import pytest

from lbcore.config.plan import RoutePlan
from tests.support.exchange_lab import exchange, head_of, route_of, template


def path_of(target: str, method: str = "GET") -> str:
    path: str = route_of(target=target, method=method)["path"]
    return path


def sent(target: str, route: RoutePlan, *fields: str) -> str:
    made = exchange(head_of(f"GET {target}", fields), route).target()
    assert made is not None
    return made.decode("latin-1")


# ---- normal paths ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [
    "/", "/a", "/a/", "/a/b.c", "/.well-known/x", "/..a", "/a..", "/...", "/a/.b", "//", "//a//b",
    "//...", "/%2F...",
    "/a;x=1", "/a:b@c!$&'()*+,=", "/%2F", "/%25", "/%2541", "/a%20b", "/%5Cx", "/caf%C3%A9",
])
def test_a_normal_path_stays(path: str) -> None:
    assert path_of(path) == path
    assert route_of(target=path)["target"] == path


@pytest.mark.parametrize(("target", "goes"), [
    ("/a|b^`{}\\c", "/a%7Cb%5E%60%7B%7D%5Cc"), ("/<\">", "/%3C%22%3E"),
    ("/caf\xe9", "/caf%E9"), ("/a\x85b\xa0c", "/a%85b%A0c"), ("/a?\xa0=\xff|", "/a?%A0=%FF%7C"),
    ("/%7c?%c3%a9", "/%7C?%c3%a9"), ("/[a]?[b]", "/[a]?[b]"),
    ("http://example.com?\x80", "/?%80"), ("/" + 3000 * "\xff", "/" + 3000 * "%FF"),
])
def test_bytes_that_no_uri_has_are_encoded_for_the_backend(target: str, goes: str) -> None:
    """A backend that splits the request line at 0x85 or 0xA0 must not find them."""
    assert sent(target, RoutePlan("r", pool=0)) == goes


@pytest.mark.parametrize("size", range(1, 40))
def test_a_target_that_grows_needs_its_room(size: int) -> None:
    source = head_of("GET /\xe9|?\xe9\\a", [])
    whole = b"/%E9%7C?%E9%5Ca"
    made = exchange(source, RoutePlan("r", pool=0)).target(room=size)
    assert made == (whole if size >= len(whole) else None)


@pytest.mark.parametrize(("path", "normal"), [
    ("/%61%7E%2d%2E%5f%30", "/a~-._0"), ("/%2f%c3%a9", "/%2F%C3%A9"), ("/a%2fb", "/a%2Fb"),
    ("/.", "/"), ("/./", "/"), ("/a/.", "/a/"), ("/a/./b", "/a/b"), ("/a/..", "/"),
    ("/a/../", "/"), ("/a/../b", "/b"), ("/a/b/../../c", "/c"), ("/a/b/..", "/a/"),
    ("/a//../b", "/a/b"), ("/a/%2e%2e/b", "/b"), ("/a/%2E/b", "/a/b"), ("/a/.%2e", "/"),
    ("/%2e%2e%2e/", "/.../"), ("/a/..//b", "//b"),
])
def test_a_path_is_normalised(path: str, normal: str) -> None:
    assert path_of(path) == normal
    assert path_of(normal) == normal
    assert route_of(target=f"{path}?%61=/../")["target"] == f"{normal}?%61=/../"


@pytest.mark.parametrize("path", [
    "/..", "/../", "/../a", "/a/../..", "/a/../../b", "/%2e%2e/a", "/./..",     # above the root
    "/%", "/%2", "/%zz", "/%2g", "/%-1", "/a%", "/%%41",                        # bad escapes
    "/%00", "/a%00b",
    "/a/..%2fb", "/a%2f..%2fb", "/a%2F../b", "/a/..%5cb", "/a\\..\\b", "/a/..\\b", "/a%5c..",
    "/a/%2e%2e%2fb",                                                            # climbs for others
    "/a%2F.", "/.%2fa", "/a/%2e%2Fb", "/a\\.\\b", "/a/.%5Cb",                    # or stands still
])
def test_a_path_that_could_mean_something_else_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="400"):
        path_of(path)


@pytest.mark.parametrize("path", ["/a..%2Fb", "/..a%2F", "/%2F", "/a%2F...", "/x%2Fb..", "/a\\b",
                                  "/a.%2Fb", "/a%2F.b", "/%2F%2F"])
def test_encoded_slashes_alone_are_no_reason(path: str) -> None:
    assert path_of(path) == path


@pytest.mark.parametrize(("method", "target", "path", "goes"), [
    ("GET", "http://example.com", "/", "/"), ("GET", "http://example.com?a=b", "/", "/?a=b"),
    ("GET", "http://example.com/a/../b?c", "/b", "/b?c"), ("OPTIONS", "*", "", "*"),
    ("OPTIONS", "http://example.com", "", "*"), ("OPTIONS", "http://example.com/", "/", "/"),
    ("GET", "/?", "/", "/?"), ("GET", "/a??b?", "/a", "/a??b?"),
])
def test_all_forms_of_targets_have_a_path(method: str, target: str, path: str, goes: str) -> None:
    found = route_of(method=method, target=target)
    assert (found["path"], found["target"]) == (path, goes)


# ---- strip_prefix ------------------------------------------------------------------------------


@pytest.mark.parametrize(("prefix", "target", "goes"), [
    ("/api", "/api", "/"), ("/api", "/api/", "/"), ("/api", "/api/x?y", "/x?y"),
    ("/api/", "/api/x", "/x"), ("/api/", "/api/", "/"), ("/", "/x", "/x"),
    ("/api", "//api/x", "/x"), ("/api", "/api//x", "/x"), ("/api/", "/api//x", "/x"),
    ("/", "//x", "/x"), ("/api", "/api//", "/"), ("/api/", "/api///x//y", "/x//y"),
    ("/api", "/api%2Fx", "/x"), ("/api/", "/api%2fx%2Fy", "/x%2Fy"),
    ("/api", "/%2Fapi/%2F/x", "/x"), ("/api/v1/", "/api%2Fv1%2F", "/"),
    ("/a@b", "/a%40b/c", "/c"), ("/a%20b/", "/a%20b/c%20d", "/c%20d"), ("/é", "/%c3%a9/x", "/x"),
    ("/api/v1", "/api//v1/x", "/x"), ("/api/v1/", "//api///v1/x", "/x"),
    ("/api", "/api?x", "/?x"), ("/api", "/%61pi/x", "/x"),
])
def test_the_backend_does_not_see_the_prefix(prefix: str, target: str, goes: str) -> None:
    assert sent(target, RoutePlan("a", path_kind="prefix", path=prefix, pool=0,
                                  strip_prefix=True)) == goes


# ---- rewrite -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("expression", "rewrite", "target", "goes"), [
    ("/users/([0-9]+)", ("/u/", "$1"), "/users/7?a=b", "/u/7?a=b"),
    ("/(a)(x)?(b)", ("/", "$3", "$2", "$1", "$0"), "/ab", "/ba/ab"),
    ("/(.*)", ("/", "$9", "$1"), "/x", "/x"),
    ("/(.*)", ("$1",), "/x", "/x"),
    ("/(.*)", ("/q?id=", "$1"), "/7", "/q?id=7"),
    ("/(.*)", ("/q?id=", "$1"), "/7?a=b", "/q?id=7&a=b"),
    ("/(.*)", ("/x",), "/7?", "/x?"),
    ("/a/(.*)", ("/", "$1"), "/a//b", "/b"),
    ("//*a/(.*)", ("/", "$1"), "//a///b//c", "/b//c"),
    ("/a(.*)", ("$1",), "/a//b", "/b"), ("/a(.*)", ("$1",), "/a%2F/b", "/b"),
    ("/a(.*)", ("/./", "$1"), "/a/b%2Fc", "/b%2Fc"),
])
def test_a_path_is_rewritten(expression: str, rewrite: tuple[str, ...], target: str,
                             goes: str) -> None:
    assert sent(target, RoutePlan("a", path_kind="regex", path=expression, pool=0,
                                  rewrite=template(*rewrite))) == goes


def test_a_prefix_is_replaced_by_another() -> None:
    route = RoutePlan("a", path_kind="prefix", path="/old", pool=0,
                      rewrite=template("/new/", "$tail"))
    assert sent("/old/x/y?z", route) == "/new/x/y?z"
    assert sent("/old", route) == "/new/"
    assert sent("/old%2F/x%2Fy", route) == "/new/x%2Fy"


@pytest.mark.parametrize(("target", "goes"), [
    ("/f../secret", "/files/secret"), ("/f.././secret", "/files/secret"),
    ("/f..//secret", "/files//secret"), ("/f..", "/files/"), ("/f.", "/files/"),
    ("/f../..a", "/files/..a"), ("/f..%2Fsecret", "/files%2Fsecret"),
    ("/f.%2fa", "/files%2Fa"), ("/f..\\a", "/files%5Ca"),
])
def test_a_capture_cannot_climb_out_of_a_rewrite(target: str, goes: str) -> None:
    route = RoutePlan("a", path_kind="regex", path="/f(.*)", pool=0,
                      rewrite=template("/files/", "$1"))
    assert sent(target, route) == goes


def test_data_in_a_rewrite_stays_data() -> None:
    route = RoutePlan("a", pool=0, rewrite=template("/t/", "$header:x-t", "/", "$cookie:c"))
    assert sent("/", route, "X-T: a b?c#d%2e", "Cookie: c=../x") == "/t/a%20b%3Fc%23d%252e/x"
    assert sent("/", route, "X-T: ..", "Cookie: c=.") == "/t/"


def test_a_rewrite_needs_its_room() -> None:
    route = RoutePlan("a", pool=0, rewrite=template("/a/./b/", "$tail", "?x"))
    made = exchange(head_of("GET /t?y"), route)
    whole = made.target()
    assert whole == b"/a/b/t?x&y"
    for room in range(len("/a/./b/t?x&y")):
        assert made.target(room=room) in (None, whole)
    assert made.target(room=3) is None
