"""Paths and their matching against plain readings of RFC 3986."""

from __future__ import annotations

import re
import string
from urllib.parse import quote, unquote_to_bytes

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lbcore.config.plan import RoutePlan
from tests.support.exchange_lab import exchange, head_of, route_of, template

UNRESERVED = string.ascii_letters + string.digits + "-._~"
pieces = st.sampled_from(["/", "/", ".", "..", "a", "b", "%2e", "%2E", "%61", "%2f", "%2F", "%5c",
                          "\\", "%7e", "%25", "%00", "%", "%4", "%zz", ";", "~", "\xe9", "%c3%a9"])
paths = st.lists(pieces, max_size=12).map(lambda parts: "/" + "".join(parts))
plain = st.lists(st.sampled_from(["/", "//", "a", "b", "ab", "."]), max_size=8).map(
    lambda parts: "/" + "".join(parts))


def reference(path: str) -> str | None:
    """The normal form of a path, or None where it has none."""
    if re.search(r"%(?![0-9A-Fa-f]{2})|%00", path):
        return None

    def decoded(found: re.Match[str]) -> str:
        character = chr(int(found[1], 16))
        return character if character in UNRESERVED else found[0].upper()

    path = re.sub(r"%(..)", decoded, path)
    out: list[str] = []
    segments = path.split("/")[1:]
    for index, segment in enumerate(segments):
        if segment not in (".", ".."):
            out.append(segment)
            continue
        if segment == "..":
            if not out:
                return None
            out.pop()
        if index == len(segments) - 1:
            out.append("")
    path = "/" + "/".join(out)
    return None if {".", ".."} & set(re.split(r"/|\\|%2F|%5C", path)) else path


def normal(path: str) -> str | None:
    try:
        return str(route_of(target=path)["path"].encode("utf-8", "surrogateescape").decode())
    except ValueError as error:
        assert "400" in str(error)
        return None


@settings(max_examples=400)
@given(paths)
@example("/a%2f..%2fb")
@example("/\\..")
@example("/%2e%2e")
@example("//...")
def test_paths_are_normalised_as_the_reference_does(path: str) -> None:
    wanted = reference(path)
    assert normal(path) == wanted
    if wanted is not None:
        assert normal(wanted) == wanted


@given(plain, st.lists(st.sampled_from(["/", "a", "b", "ab"]), max_size=5).map(
    lambda parts: "/" + "".join(parts)), st.sampled_from(["exact", "prefix"]))
def test_a_path_is_matched_as_if_runs_of_slashes_were_one(path: str, wanted: str,
                                                          kind: str) -> None:
    full = reference(path)
    assume(full is not None)
    assert full is not None
    merged, want = re.sub("//+", "/", full), re.sub("//+", "/", wanted)
    if kind == "exact":
        expected = merged == want
    else:
        expected = merged.startswith(want) and (
            want.endswith("/") or merged[len(want):len(want) + 1] in ("", "/"))
    route = RoutePlan("r", path_kind=kind, path=wanted, pool=0)  # type: ignore[arg-type]
    assert (route_of(route, target=path)["route"] == 0) == expected


def as_seen(path: str) -> bytes:
    """A normal path as an application sees it that decodes it, runs of slashes as one."""
    return re.sub(b"//+", b"/", unquote_to_bytes(path))


ROUTES = [
    *(RoutePlan(text, path_kind="exact", path=text, pool=0) for text in ("/", "/a", "/a/b", "/@")),
    *(RoutePlan(text, path_kind="regex", path=text, pool=0)
      for text in ("/b/[^/]*/", "/a.*b$", "/(b|~|@)+$", r"/[a-z]\xc3")),
    *(RoutePlan(text, path_kind="prefix", path=text, pool=0)
      for text in ("/a/b", "/b/a/", "/ab", "/%25/", "/@b", "/b", "/a")),
]


@settings(max_examples=600)
@given(paths | st.lists(st.sampled_from(["/", "a", "b", "%2f", "%61", "%40", "@", "%25", "%0a"]),
                        max_size=8).map(lambda parts: "/" + "".join(parts)))
@example("/a%2fb")
@example("/b%2F%2fa%2F")
@example("/a%0ab")
def test_the_route_is_that_of_what_an_application_sees(path: str) -> None:
    assume(reference(path) is not None)
    found = route_of(*ROUTES, target=path)
    seen = as_seen(found["path"])
    plainest = quote(seen, safe="/@")       # the same for applications, in the fewest escapes
    assert route_of(*ROUTES, target=plainest)["route"] == found["route"]
    for escapes in ("".join(f"%{byte:02x}" for byte in seen[1:]), quote(seen[1:], safe="")):
        assume(reference("/" + escapes) is not None)
        assert route_of(*ROUTES, target="/" + escapes)["route"] == found["route"]


@given(paths, st.sampled_from(["/", "/a", "/a/", "/a/b", "/@"]))
def test_what_is_left_of_a_prefix_begins_with_one_slash(path: str, prefix: str) -> None:
    route = RoutePlan("r", path_kind="prefix", path=prefix, pool=0, strip_prefix=True)
    target = prefix.rstrip("/") + path
    assume(reference(target) is not None)
    found = route_of(route, target=target)
    assume(found["route"] == 0)
    assert re.match(r"/(?!/|%2F)", found["target"])
    assert as_seen(found["path"]) == as_seen(prefix.rstrip("/") + found["target"]) or (
        found["target"] == "/")


@given(plain | paths)
def test_captures_put_together_are_the_path(path: str) -> None:
    assume(reference(path) is not None)
    route = RoutePlan("r", path_kind="regex", path="(/[^/]*)(.*)", pool=0)
    found = route_of(route, target=path)
    whole, first, rest = found["captures"]
    assert first + rest == whole == found["path"]


@given(paths, st.sampled_from(["/f(.*)", "/(.?)(.*)", "/(a|b)*(.*)"]))
def test_nothing_climbs_out_of_a_rewrite(path: str, expression: str) -> None:
    route = RoutePlan("r", path_kind="regex", path=expression, pool=0,
                      rewrite=template("/base/", "$1", "$2"))
    try:
        made = exchange(head_of(f"GET /f{path}"), route).target()
    except ValueError:
        return
    assert made is not None
    if reference(f"/f{path}") is not None and made.startswith(b"/base"):
        assert b".." not in made.split(b"/")
    assert made.startswith((b"/base/", b"/"))
    assert not re.search(rb"[\x00-\x20\x7f#]", made)
