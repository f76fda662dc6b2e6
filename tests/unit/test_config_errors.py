"""Everything that can be wrong with a file: told at once, with file, line, key and a hint."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lbcore.config import ConfigError, Problem, load, load_file, parse
from lbcore.config.load import MAX_FILE_BYTES

GOOD = """\
[[listener]]
name = "web"
bind = "127.0.0.1:8080"
pool = "web"

[pool.web]
backends = ["10.0.0.1:8000"]
"""


def problems(text: str) -> list[Problem]:
    with pytest.raises(ConfigError) as refused:
        parse(text, "lb.toml")
    return refused.value.problems


def only(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


def listener(line: str) -> str:
    """GOOD with another line 5, in the listener."""
    return GOOD.replace('pool = "web"\n', f'pool = "web"\n{line}\n', 1)


# ---- files that cannot be read


def read_failure(path: Path) -> Problem:
    with pytest.raises(ConfigError) as refused:
        load(path)
    (problem,) = refused.value.problems
    assert problem.file == str(path)
    return problem


def test_a_missing_file_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "lb.toml").write_text(GOOD)
    problem = read_failure(tmp_path / "lb.tml")
    assert "no such file" in problem.message
    assert str(tmp_path / "lb.toml") in problem.hint


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in read_failure(tmp_path / "nowhere" / "lb.toml").hint


def test_a_directory_is_refused_naming_the_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "lb.toml").write_text(GOOD)
    problem = read_failure(tmp_path)
    assert "directory" in problem.message
    assert str(tmp_path / "lb.toml") in problem.hint


def test_an_unreadable_file_says_which_user_cannot_read_it(tmp_path: Path) -> None:
    path = tmp_path / "lb.toml"
    path.write_text(GOOD)
    path.chmod(0)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)        # root reads everything
    try:
        problem = read_failure(path)
        assert "cannot be read" in problem.message
        assert str(os.geteuid()) in problem.hint
    finally:
        os.seteuid(was)


@pytest.mark.parametrize("content", ["", "\n\n", "# only a comment\n"])
def test_an_empty_file_says_what_it_needs(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lb.toml"
    path.write_text(content)
    problem = read_failure(path)
    assert "empty" in problem.message
    assert "[[listener]]" in problem.hint


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"\x7fELF\x02\x01\x01\x00\x00", 1), (b"a = 1\n\xff\xfe\x00", 2), (b"a = 1\nb = 2\0\n", 2)],
)
def test_binary_garbage_is_no_text(tmp_path: Path, content: bytes, line: int) -> None:
    path = tmp_path / "lb.toml"
    path.write_bytes(content)
    problem = read_failure(path)
    assert "not text" in problem.message
    assert problem.line == line


def test_an_endless_file_is_refused(tmp_path: Path) -> None:
    assert "not an ordinary file" in read_failure(Path("/dev/zero")).message
    sparse = tmp_path / "lb.toml"
    with sparse.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert "too large" in read_failure(sparse).message


def test_a_pipe_is_refused_without_waiting_for_somebody_who_writes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lb.toml")
    assert "not an ordinary file" in read_failure(tmp_path / "lb.toml").message


def test_a_path_with_a_nul_byte_is_refused() -> None:
    assert "cannot be read" in read_failure(Path("lb\0.toml")).message


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "lb.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(path).listener[0].name == "web"


# ---- text that is not TOML


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("[lbcore]\nworkers = auto\n", 2, "quotation marks"),
        ("[lbcore\nworkers = 1\n", 1, "[lbcore"),
        ("[lbcore]\nworkers 2\n", 2, "workers 2"),
        ("a = [1,\n2\n", 2, ""),
        ("a = '''x\n", 1, ""),
        ("{", 1, "{"),
    ],
)
def test_syntax_errors_have_their_line(text: str, line: int, hint: str) -> None:
    problem = only(text)
    assert "not TOML" in problem.message
    assert problem.line == line
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("text", "line", "key", "first"),
    [
        (GOOD + "[pool.web]\ndemo = 1\n", 8, "pool.web", "line 6"),
        (GOOD + 'backends = ["10.0.0.2:1"]\n', 8, "pool.web.backends", "line 7"),
        (GOOD + '[log]\nlevel = "info"\n\nlevel = "debug"\n', 11, "log.level", "line 9"),
        (GOOD + "[[pool.web]]\n", 8, "pool.web", "line 6"),
    ],
)
def test_what_is_defined_twice_names_both_lines(
    text: str, line: int, key: str, first: str
) -> None:
    problem = only(text)
    assert "twice" in problem.message
    assert (problem.line, problem.key) == (line, key)
    assert first in problem.hint


def test_brackets_without_end_are_refused() -> None:
    assert "nested too deeply" in only("a = " + "[" * 100_000).message


# ---- single keys


@pytest.mark.parametrize(
    ("line", "key", "message", "hint"),
    [
        ("backlog = 4096.5", "listener[0].backlog", "whole number", ""),
        ('backlog = "64"', "listener[0].backlog", "not a string", "without quotation marks: 64"),
        ("backlog = true", "listener[0].backlog", "not true", ""),
        ("backlog = 0", "listener[0].backlog", "0 is too small", "at least 1"),
        ("backlog = 70000", "listener[0].backlog", "too large", "at most 65535"),
        ("max_connections = -1", "listener[0].max_connections", "too small", "at least 0"),
        ("max_connections = 99999999999999999999", "listener[0].max_connections", "too large", ""),
        ('keepalive = "yes"', "listener[0].keepalive", "true or false", "without quotation marks"),
        ("keepalive = 1", "listener[0].keepalive", "true or false", ""),
        ("unix_mode = 660", "listener[0].unix_mode", "must be a string", '"660"'),
        ('unix_mode = "999"', "listener[0].unix_mode", "not a file mode", '"0660"'),
        ("client_idle_timeout = 30", "listener[0].client_idle_timeout", "with a unit", '"30s"'),
        ('client_idle_timeout = "5 min"', "listener[0].client_idle_timeout", "duration", '"5m"'),
        ('proxy_header_timeout = "0s"', "listener[0].proxy_header_timeout", "longer than 0", ""),
        ('protocol = "http2"', "listener[0].protocol", "carries tcp and http", '"http"'),
        ('protocol = "tpc"', "listener[0].protocol", "not a choice", 'did you mean "tcp"?'),
        ('proxy_trusted = "10.0.0.0/8"', "listener[0].proxy_trusted", "must be a list", "[ ... ]"),
        ("max_conections = 5", "listener[0].max_conections", "unknown", '"max_connections"'),
        ("maxconn = 5", "listener[0].maxconn", "unknown", '"max_connections"'),
        ('balance = "random"', "listener[0].balance", "unknown key here", "[pool.NAME]"),
        ("zzz = 1", "listener[0].zzz", "unknown", "known here: name, bind"),
        ("route = []", "listener[0].route", "no effect", 'protocol = "http"'),
        ('head_timeout = "1s"', "listener[0].head_timeout", "no effect", 'protocol = "http"'),
        ("when = 2020-01-01", "listener[0].when", "unknown", ""),
        ("backlog = 2020-01-01", "listener[0].backlog", "not a date or time", ""),
    ],
)
def test_a_bad_key_is_told_once_with_its_line(
    line: str, key: str, message: str, hint: str
) -> None:
    problem = only(listener(line))
    assert (problem.file, problem.line, problem.key) == ("lb.toml", 5, key)
    assert message in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("table", "key", "message", "hint"),
    [
        ("[lbcore]\nworkers = 0", "lbcore.workers", "not a number of workers", "1 to 64"),
        ('[lbcore]\nworkers = "2"', "lbcore.workers", "not a number of workers", '"auto"'),
        ("[lbcore]\nworkers = true", "lbcore.workers", "not a number of workers", '"auto"'),
        ('[lbcore]\nhang_timeout = "1s"', "lbcore.hang_timeout", "too short", '"2s"'),
        ('[lbcore]\npid_file = "lb.pid"', "lbcore.pid_file", "absolute", "/"),
        ('[admin]\nlisten = "localhost:1"', "admin.listen", "is a name", "127.0.0.1:1"),
        ('[log]\naccess = "access.log"', "log.access", "absolute", "/"),
        ('[log]\nformat = "combine"', "log.format", "not a choice", '"combined"'),
        ('[log]\nlevel = "warn"', "log.level", "not a choice", '"warning"'),
        ("lbcore = 3", "lbcore", "must be a table", "[lbcore]"),
        ("[logs]", "logs", "unknown", '"log"'),
        ("pool.x = 1", "pool.x", "must be a table", "[pool.x]"),
        ('[pool.""]\ndemo = 1', 'pool.""', "cannot be a name", "letters"),
        ('[pool."a b"]\ndemo = 1', 'pool."a b"', "cannot be a name", "letters"),
        ('[pool.x]\nbackends = "a:1"', "pool.x.backends", "must be a list", ""),
        ("[pool.x]\nbackends = [1]", "pool.x.backends[0]", "must be a table", "{ ... }"),
        ('[pool.x]\nbackends = ["a"]', "pool.x.backends[0]", "no port", '"a:8000"'),
        ("[pool.x]\ndemo = 65", "pool.x.demo", "too large", "64"),
        (
            '[pool.x]\nbalance = "consistent"\ndemo = 1\nhash_on = "header"',
            "pool.x.hash_on", "nothing to hash on", '"header:NAME"',
        ),
    ],
)
def test_a_bad_table_is_told_once(table: str, key: str, message: str, hint: str) -> None:
    problem = only(table + "\n" + GOOD)
    assert problem.key == key
    assert problem.line > 0
    assert message in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize("key", ["name", "bind", "pool"])
def test_a_missing_key_is_told_with_the_line_of_its_table(key: str) -> None:
    text = "\n".join(line for line in GOOD.split("\n") if not line.startswith(f"{key} ="))
    problem = only(text)
    assert (problem.line, problem.key) == (1, f"listener[0].{key}")
    assert "missing" in problem.message


def test_an_address_without_brackets_is_told_at_its_item() -> None:
    problem = only(GOOD.replace('"127.0.0.1:8080"', '[\n"127.0.0.1:1",\n"::1:8080",\n]'))
    assert (problem.line, problem.key) == (5, "listener[0].bind[1]")
    assert problem.hint == '"[::1]:8080"'


def test_a_unix_path_that_is_too_long_is_told() -> None:
    problem = only(GOOD.replace("127.0.0.1:8080", "unix:/" + "x" * 107))
    assert "108 bytes" in problem.message


# ---- keys together


def test_an_undefined_pool_names_the_nearest_one() -> None:
    problem = only(GOOD.replace('pool = "web"', 'pool = "wbe"'))
    assert (problem.line, problem.key) == (4, "listener[0].pool")
    assert problem.hint == 'did you mean "web"?'


def test_an_undefined_pool_without_a_near_one_lists_them() -> None:
    assert '"web"' in only(GOOD.replace('pool = "web"', 'pool = "zzzzzz"')).hint


def test_a_listener_without_any_pool_defined_is_told_how() -> None:
    assert "[pool.web]" in only(GOOD.partition("[pool.web]")[0]).hint


def test_a_file_without_listeners_is_refused() -> None:
    assert "nothing listens" in only("[pool.web]\ndemo = 1\n").message


def test_two_listeners_of_one_name_are_told_at_the_second() -> None:
    problem = only(GOOD + '[[listener]]\nname = "web"\nbind = "127.0.0.1:1"\npool = "web"\n')
    assert (problem.line, problem.key) == (9, "listener[1].name")
    assert "(line 2)" in problem.message


def test_two_backends_of_one_name_are_told_at_the_second() -> None:
    problem = only(GOOD.replace('["10.0.0.1:8000"]', '["10.0.0.1:1",\n "10.0.0.1:1"]'))
    assert (problem.line, problem.key) == (8, "pool.web.backends[1]")
    assert "(line 7)" in problem.message


def test_the_same_server_twice_under_two_names_is_fine() -> None:
    parse(GOOD.replace('000"]', '000", {address = "10.0.0.1:8000", name = "again"}]\n'), "lb.toml")


@pytest.mark.parametrize(
    "pool", ["[pool.web]\n", "[pool.web]\nbackends = []\n", "[pool.web]\ndemo = 0\n"]
)
def test_an_empty_pool_is_refused(pool: str) -> None:
    assert "no backends" in only(GOOD.partition("[pool.web]")[0] + pool).message


def test_a_pool_of_demonstration_servers_is_not_empty() -> None:
    parse(GOOD.partition("[pool.web]")[0] + "[pool.web]\ndemo = 2\n", "lb.toml")


def test_weight_0_everywhere_is_refused() -> None:
    zero = '[{ address = "a:1", weight = 0 }, { address = "b:1", weight = 0, backup = true }]'
    problem = only(GOOD.replace('["10.0.0.1:8000"]', zero))
    assert (problem.line, problem.key) == (7, "pool.web.backends")
    assert "weight 0" in problem.message


@pytest.mark.parametrize(
    ("first", "second", "collide"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "0.0.0.0:80", True),
        ("[::]:80", "[::1]:80", True),
        ("[::1]:80", "[0:0::1]:80", True),
        ("unix:/run/a", "unix:/run//a", True),
        ("unix:/run/a", "unix:/run/x/../a", True),
        ("0.0.0.0:80", "[::]:80", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("unix:/run/a", "unix:/run/b", False),
    ],
)
def test_one_place_named_by_two_listeners_is_told(first: str, second: str, collide: bool) -> None:
    text = GOOD.replace("127.0.0.1:8080", first)
    text += f'[[listener]]\nname = "other"\nbind = "{second}"\npool = "web"\n'
    if not collide:
        parse(text, "lb.toml")
        return
    problem = only(text)
    assert (problem.line, problem.key) == (10, "listener[1].bind")
    assert 'already named by listener "web"' in problem.message
    assert "(line 3)" in problem.message


def test_the_control_api_cannot_have_a_listeners_address() -> None:
    problem = only('[admin]\nlisten = "127.0.0.1:8080"\n' + GOOD)
    assert 'listener "web"' in problem.message
    assert problem.key == "admin.listen"


@pytest.mark.parametrize(
    ("bind", "backend"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("0.0.0.0:8080", "localhost:8080"),
        ("[::]:8080", "[::1]:8080"),
        ("unix:/run/a", "unix:/run/a"),
    ],
)
def test_a_backend_that_is_the_listener_itself_is_refused(bind: str, backend: str) -> None:
    problem = only(GOOD.replace("127.0.0.1:8080", bind).replace("10.0.0.1:8000", backend))
    assert "round for ever" in problem.message
    assert problem.key == "pool.web.backends[0]"


@pytest.mark.parametrize("key", ["load_bound = 1.25", 'hash = "ketama"', 'hash_on = "source_ip"'])
def test_hash_keys_without_consistent_are_refused(key: str) -> None:
    problem = only(GOOD + key + "\n")
    assert problem.line == 8
    assert 'balance = "round_robin"' in problem.message
    assert problem.hint == 'balance = "consistent"'
    parse(GOOD + 'balance = "consistent"\n' + key + "\n", "lb.toml")


@pytest.mark.parametrize("bound", ["0.5", "1", "1.0", "1.001"])
def test_a_load_bound_without_room_is_refused(bound: str) -> None:
    problem = only(GOOD + f'balance = "consistent"\nload_bound = {bound}\n')
    assert "no room" in problem.message


def test_an_infinite_load_bound_is_refused() -> None:
    assert only(GOOD + 'balance = "consistent"\nload_bound = inf\n').key == "pool.web.load_bound"
    assert only(GOOD + 'balance = "consistent"\nload_bound = nan\n').key == "pool.web.load_bound"


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ('source = "fd00::1"', "source"),
        ('source = "10.0.0.9"\nsource_transparent = true', "source"),
        ('[pool.web.health]\npath = "/x"', "health.path"),
        ("[pool.web.health]\nexpect_status = [200]", "health.expect_status"),
        ('[pool.web.ejection]\nbase = "1h"', "ejection.base"),
        ('[pool.web.health]\ntype = "http"\npath = "healthz"', "health.path"),
        ('[pool.web.health]\ntype = "http"\npath = "/a b"', "health.path"),
        ('[pool.web.health]\ntype = "http"\nhost = "a\\r\\nb"', "health.host"),
        ("[pool.web.health]\njitter = 0.9", "health.jitter"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(more: str, key: str) -> None:
    assert only(GOOD + more + "\n").key == f"pool.web.{key}"


def test_workers_that_give_up_privileges_cannot_use_the_clients_address() -> None:
    text = '[lbcore]\nuser = "nobody"\n' + GOOD + "source_transparent = true\n"
    problem = only(text)
    assert problem.key == "pool.web.source_transparent"
    assert "CAP_NET_ADMIN" in problem.message
    assert "line 2" in problem.message


def test_trusted_networks_without_proxy_protocol_are_refused() -> None:
    assert only(listener('proxy_trusted = ["10.0.0.0/8"]')).hint == "proxy_protocol = true"


def test_a_unix_backend_cannot_be_checked_at_another_port() -> None:
    text = GOOD.replace("10.0.0.1:8000", "unix:/run/a") + "[pool.web.health]\nport = 9000\n"
    assert "no other port" in only(text).message


# ---- all at once

MANY = """\
[lbcore]
workers = "many"
[[listener]]
name = "a"
bind = ["127.0.0.1", "127.0.0.1:80", "::1:80"]
pool = "nobody"
colour = "red"
[[listener]]
name = "a"
bind = "0.0.0.0:80"
pool = "web"
backlog = "x"
[pool.web]
balance = "fair"
backends = ["bad", { address = "a:1", wieght = 3 }, { weight = 1 }, "a:1", "a:1"]
[pool.empty]
connect_timeout = "2 seconds"
"""


def test_all_problems_come_at_once_in_the_order_of_the_file() -> None:
    assert [(problem.line, problem.key) for problem in problems(MANY)] == [
        (2, "lbcore.workers"),
        (5, "listener[0].bind[0]"),
        (5, "listener[0].bind[2]"),
        (6, "listener[0].pool"),
        (7, "listener[0].colour"),
        (9, "listener[1].name"),
        (10, "listener[1].bind"),
        (12, "listener[1].backlog"),
        (14, "pool.web.balance"),
        (15, "pool.web.backends[0]"),
        (15, "pool.web.backends[1].wieght"),
        (15, "pool.web.backends[2].address"),
        (15, "pool.web.backends[3]"),
        (15, "pool.web.backends[4]"),
        (16, "pool.empty"),
        (17, "pool.empty.connect_timeout"),
    ]


def test_a_problem_reads_as_one_line_with_everything_in_it() -> None:
    assert str(only(GOOD.replace('pool = "web"', 'pool = "wbe"'))) == (
        'lb.toml:4: listener[0].pool: no pool is called "wbe". Hint: did you mean "web"?'
    )


def test_a_misspelt_key_is_not_told_again_as_missing() -> None:
    assert only(GOOD.replace("backends =", "backend =")).hint == 'did you mean "backends"?'
    assert only(GOOD.replace("name =", "nmae =")).hint == 'did you mean "name"?'


def test_a_misspelt_key_does_not_hide_mistakes_in_the_right_one() -> None:
    found = problems(GOOD.replace("bind =", 'bnid = "x"\nbind = 5 #'))
    assert [(problem.line, problem.key) for problem in found] == [
        (3, "listener[0].bnid"), (4, "listener[0].bind"),
    ]
    found = problems(GOOD + "backend = []\n" + "demo = 0\n")
    assert [problem.key for problem in found] == ["pool.web.backend"]
    found = problems(GOOD.replace('["10.0.0.1:8000"]', "[]\nbackend = []"))
    assert [problem.key for problem in found] == ["pool.web.backends", "pool.web.backend"]


@pytest.mark.parametrize(
    "text",
    [
        "listener = 3\npool = 4\n",
        "listener = [1, 2]\n",
        "[listener]\nname = 'x'\n",
        "[pool]\nweb = [1]\n",
        "[[pool]]\n",
        "[[listener]]\n[[listener]]\n[[pool.web.backends]]\n",
        "[[listener]]\nname = [[]]\nbind = {}\npool = 1.5\n",
        "[[listener]]\nbind = [1, {}, []]\n[pool.a]\nbackends = [{}, [], 1, 'x', {address = 1}]\n",
        "[[lbcore]]\n[[admin]]\n[[log]]\n",
    ],
)
def test_a_file_of_wrong_shapes_is_explained_to_the_end(text: str) -> None:
    for problem in problems(text):
        assert problem.line or "nothing listens" in problem.message


# ---- warnings


def warned(text: str) -> list[str]:
    return [problem.key for problem in parse(text, "lb.toml").warnings]


def test_a_good_file_has_no_warnings(tmp_path: Path) -> None:
    path = tmp_path / "lb.toml"
    path.write_text(GOOD)
    assert load_file(path).warnings == []


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (GOOD + "[pool.spare]\ndemo = 1\n", "pool.spare"),
        (
            listener("proxy_protocol = true").replace("127.0.0.1:8080", "0.0.0.0:8080"),
            "listener[0].proxy_protocol",
        ),
        (GOOD + 'connect_timeout = "10s"\n', "pool.web.connect_timeout"),
        (GOOD + '[pool.web.health]\nfast_interval = "1m"\n', "pool.web.health.fast_interval"),
    ],
)
def test_what_is_dangerous_or_pointless_is_warned_about(text: str, key: str) -> None:
    assert warned(text) == [key]
