"""Basic authentication: who is let in, what it costs, and what guessing achieves."""

from __future__ import annotations

import time
from base64 import b64encode

import pytest

from lbcore._auth import Auth, crypt

SECOND = 1000


def hashed(password: bytes, setting: bytes = b"$5$rounds=1000$pepper$") -> bytes:
    made = crypt(password, setting)
    assert made is not None
    return made


def basic(name: bytes, password: bytes) -> bytes:
    return b"Basic " + b64encode(name + b":" + password)


ANN = (b"ann", hashed(b"open sesame"))
BEN = (b"ben", hashed(b"tr0ub4dor&3"))
YES = ("yes", b"ann")
NO = ("no", b"")
LATER = ("later", b"")


@pytest.fixture
def auth() -> Auth:
    return Auth([ANN, BEN])


# ---- who ---------------------------------------------------------------------------------------

def test_the_right_password_lets_in_and_names_the_user(auth: Auth) -> None:
    assert auth.check(basic(b"ann", b"open sesame"), 1) == YES
    assert auth.check(basic(b"ben", b"tr0ub4dor&3"), 1) == ("yes", b"ben")


@pytest.mark.parametrize(("name", "password"), [
    (b"ann", b"open sesam"), (b"ann", b"open sesame "), (b"ann", b""), (b"", b""),
    (b"ann", b"tr0ub4dor&3"), (b"Ann", b"open sesame"), (b"an", b"nopen sesame"),
    (b"eve", b"open sesame"), (b"ann ", b"open sesame"), (b"a" * 64, b"open sesame"),
])
def test_nothing_else_does(auth: Auth, name: bytes, password: bytes) -> None:
    assert auth.check(basic(name, password), 1) == NO


@pytest.mark.parametrize("setting", [
    b"$1$pepper$", b"$5$rounds=1000$pepper$", b"$6$rounds=1000$pepper$",
    b"$2b$04$abcdefghijklmnopqrstuu", b"$y$j9T$abcdefgh$",
])
def test_every_kind_of_hash_that_crypt_knows_will_do(setting: bytes) -> None:
    auth = Auth([(b"ann", hashed(b"open sesame", setting))])
    assert auth.check(basic(b"ann", b"open sesame"), 1) == YES
    assert auth.check(basic(b"ann", b"open sesamf"), 1) == NO


@pytest.mark.parametrize("wrong", [b"", b"*", b"!", b"x", b"*0", b"$apr1$x$y", b"$9$", bytes(500)])
def test_a_hash_that_crypt_does_not_know_lets_nobody_in(wrong: bytes) -> None:
    auth = Auth([(b"ann", wrong)])
    for password in (b"", wrong.replace(b"\0", b"")[:100], b"*0", b"*1"):
        assert auth.check(basic(b"ann", password), 1) == NO


def test_a_route_without_users_lets_nobody_in() -> None:
    assert Auth([]).check(basic(b"ann", b"open sesame"), 1) == NO


def test_names_of_64_bytes_and_passwords_of_511_are_the_longest() -> None:
    name, password = b"n" * 64, b"p" * 511
    auth = Auth([(name, hashed(password)), (name + b"n", hashed(password))])
    assert auth.check(basic(name, password), 1) == ("yes", name)
    assert auth.check(basic(name + b"n", password), 1) == NO
    assert auth.check(basic(name, password + b"p"), 1) == NO
    assert auth.check(b"Basic " + b"A" * 100_000, 1) == NO


def test_colons_and_other_alphabets_belong_to_passwords() -> None:
    password = "a:b:ß€".encode()
    auth = Auth([(b"ann", hashed(password))])
    assert auth.check(basic(b"ann", password), 1) == YES


# ---- how it is said ----------------------------------------------------------------------------

@pytest.mark.parametrize("value", [
    b"basic YW5uOm9wZW4gc2VzYW1l", b"BASIC YW5uOm9wZW4gc2VzYW1l",
    b"Basic    YW5uOm9wZW4gc2VzYW1l",
])
def test_the_name_of_the_scheme_has_no_case(auth: Auth, value: bytes) -> None:
    assert auth.check(value, 1) == YES


@pytest.mark.parametrize("value", [
    b"", b"Basic", b"Basic ", b"Basi", b"BasicYW5uOm9wZW4gc2VzYW1l", b"Bearer YW5uOm9wZW4gc2VzYW1l",
    b"Basic\tYW5uOm9wZW4gc2VzYW1l", b"Basic YW5uOm9wZW4gc2VzYW1l ", b"Basic YW5uOm9wZW4gc2VzYW1l=",
    b"Basic YW5uOm9wZW4gc2VzYW1l====", b"Basic YW5u Om9wZW4gc2VzYW1l", b"Basic YW5uOm9wZW4gc2VzYW1",
    b"Basic YW5uOm9wZW4gc2VzYW1l\0", b"Basic YW5uOm9wZW4gc2VzYW1l, Basic YW5uOm9wZW4gc2VzYW1l",
    b"Basic =W5uOm9wZW4gc2VzYW1l", b"Basic YW5=Om9wZW4gc2VzYW1l", b"Basic Y===", b"Basic ====",
    b"Basic " + b64encode(b"ann"), b"Basic " + b64encode(b"ann\0:open sesame"),
    b"Basic " + b64encode(b"ann:open sesame\0"), b"Basic " + b64encode(b"ann:open sesame\n"),
])
def test_what_is_not_said_exactly_is_not_taken(auth: Auth, value: bytes) -> None:
    assert auth.check(value, 1) == NO
    assert auth.computed == 0


@pytest.mark.parametrize(("strict", "loose"), [
    (b"YW5uOmE=", b"YW5uOmF="), (b"YW46YQ==", b"YW46YR=="),
])
def test_bits_that_base64_leaves_over_must_be_zero(strict: bytes, loose: bytes) -> None:
    auth = Auth([(b"ann", hashed(b"a")), (b"an", hashed(b"a"))])
    assert auth.check(b"Basic " + strict, 1)[0] == "yes"
    assert auth.check(b"Basic " + loose, 1) == NO


# ---- what it costs -----------------------------------------------------------------------------

def test_a_good_password_is_hashed_once_while_it_is_used(auth: Auth) -> None:
    for now in range(1, 1000 * SECOND, 50 * SECOND):
        assert auth.check(basic(b"ann", b"open sesame"), now) == YES
    assert auth.computed == 1
    assert auth.check(basic(b"ann", b"open sesame"), 2000 * SECOND) == YES
    assert auth.computed == 2


def test_a_bad_password_is_remembered_for_ten_seconds(auth: Auth) -> None:
    for now in (1, 5 * SECOND, 10 * SECOND):
        assert auth.check(basic(b"ann", b"wrong"), now) == NO
    assert auth.computed == 1
    assert auth.check(basic(b"ann", b"wrong"), 10 * SECOND + 1) == NO
    assert auth.computed == 2


def test_a_changed_password_counts_at_once(auth: Auth) -> None:
    assert auth.check(basic(b"ann", b"open sesame"), 1) == YES
    auth.set_users([(b"ann", hashed(b"another")), BEN])
    assert auth.check(basic(b"ann", b"open sesame"), 2) == NO
    assert auth.check(basic(b"ann", b"another"), 3) == YES


def test_a_user_taken_out_is_out_at_once_and_one_put_in_is_in(auth: Auth) -> None:
    assert auth.check(basic(b"ann", b"open sesame"), 1) == YES
    auth.set_users([BEN])
    assert auth.check(basic(b"ann", b"open sesame"), 2) == NO
    auth.set_users([ANN, BEN])
    assert auth.check(basic(b"ann", b"open sesame"), 3) == YES


def test_another_plan_with_the_same_users_costs_nothing(auth: Auth) -> None:
    assert auth.check(basic(b"ann", b"open sesame"), 1) == YES
    auth.set_users([(b"zoe", hashed(b"z")), ANN])
    assert auth.check(basic(b"ann", b"open sesame"), 2) == YES
    assert auth.computed == 1


def test_a_name_that_does_not_exist_costs_what_one_that_exists_costs() -> None:
    auth = Auth([(b"ann", hashed(b"open sesame", b"$6$rounds=20000$pepper$"))])
    spent: dict[bytes, list[float]] = {b"ann": [], b"eve": []}
    for turn in range(5):
        for name, each in spent.items():
            began = time.thread_time()
            assert auth.check(basic(name, b"wrong %d" % turn), 1) == NO
            each.append(time.thread_time() - began)
    assert auth.computed == 10
    # Of each the quickest: a busy machine makes some of them slower.
    assert 0.5 < min(spent[b"ann"]) / min(spent[b"eve"]) < 2


# ---- guessing ----------------------------------------------------------------------------------

def slow() -> Auth:
    """Some 20 ms for each hash."""
    return Auth([(b"ann", hashed(b"open sesame", b"$6$rounds=40000$pepper$"))])


def guesses(auth: Auth, now: int, many: int, name: bytes = b"ann") -> list[tuple[str, bytes]]:
    return [auth.check(basic(name, b"%d %d" % (now, guess)), now) for guess in range(many)]


def test_guessing_gets_a_share_of_the_workers_time_and_no_more() -> None:
    auth = slow()
    began = time.thread_time()
    first = guesses(auth, 1, 400)
    spent = time.thread_time() - began
    assert first.count(NO) == auth.computed
    assert first[-1] == LATER
    assert 0.9 < spent < 1.5                # a second, and what the last one was above it
    began = time.thread_time()
    assert guesses(auth, 1 + 2 * SECOND, 200)[-1] == LATER
    assert 0.3 < time.thread_time() - began < 0.8       # a quarter of two seconds


def test_names_that_do_not_exist_are_no_way_around_that() -> None:
    auth = slow()
    assert guesses(auth, 1, 400, b"eve")[-1] == LATER
    assert auth.check(basic(b"mallory", b"x"), 1) == LATER


def test_who_is_in_stays_in_while_others_guess() -> None:
    auth = slow()
    assert auth.check(basic(b"ann", b"open sesame"), 1) == YES
    assert guesses(auth, 1, 400)[-1] == LATER
    assert auth.check(basic(b"ann", b"open sesame"), 1) == YES


def test_guesses_push_no_good_verdict_out() -> None:
    auth = Auth([(b"ann", hashed(b"open sesame", b"$1$pepper$"))])
    assert auth.check(basic(b"ann", b"open sesame"), 1) == YES
    done = auth.computed
    said = [answer for now in range(10, 10 * SECOND, SECOND) for answer in guesses(auth, now, 500)]
    assert said.count(NO) > 3000
    before = auth.computed
    assert auth.check(basic(b"ann", b"open sesame"), 10 * SECOND) == YES
    assert (auth.computed, done) == (before, 1)


@pytest.mark.parametrize("later", [0, -5 * SECOND])
def test_a_clock_that_does_not_go_on_gives_no_credit(later: int) -> None:
    auth = slow()
    guesses(auth, 10**12, 400)
    assert auth.check(basic(b"ann", b"one more"), 10**12 + later) == LATER
    assert auth.check(basic(b"ann", b"one more"), 10**12) == LATER
