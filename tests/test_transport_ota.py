"""Who a client is, its token, and the address it is told, without a socket."""

import stat
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from xiaozhi.access.addresses import base_url, client_address, is_loopback, networks, typed_address, websocket_url
from xiaozhi.access.auth import KeyKeeper, TokenAuth
from xiaozhi.access.identity import Identity, from_body, normal_id
from xiaozhi.access.lan import lan_address, reachable_host
from xiaozhi.access.rate_limits import OncePer, RateLimiter
from xiaozhi.access.token_keys import KeyRing, TokenKey, keys_file, load_keys, rotate_keys
from xiaozhi.cli import main
from xiaozhi.settings import AuthSettings, ServerSettings

NOW_S = 1_800_000_000.0
DAY_S = 86_400.0
RING = KeyRing((TokenKey(7, NOW_S, 0.0, b"k" * 32),))
DEVICE = Identity("02:00:00:11:22:33", "client-1", "")


def gate(**settings: object) -> TokenAuth:
    return TokenAuth(AuthSettings.model_validate(settings), RING, lambda: NOW_S)


def with_token(token: str, device_id: str = DEVICE.device_id) -> Identity:
    return Identity(device_id, DEVICE.client_id, token)


def test_identity_comes_from_headers_and_else_from_the_query() -> None:
    headers = {"Device-Id": "02:00:00:AA:BB:CC", "Client-Id": "c", "Authorization": "Bearer tok en"}
    assert Identity.of(headers, {"device-id": "x"}) == Identity("02:00:00:aa:bb:cc", "c", "tok en")
    query = {"device-id": "web", "client-id": "c", "authorization": "Bearer t"}
    assert Identity.of({}, query) == Identity("web", "c", "t")


def test_clients_without_a_name_are_told_apart() -> None:
    assert Identity.of({}, {}).device_id != Identity.of({}, {}).device_id


@given(st.text(max_size=200))
def test_hostile_names_become_harmless(name: str) -> None:
    identity = Identity.of({"Device-Id": name, "Client-Id": name}, {})
    assert len(identity.device_id) <= 64
    assert identity.device_id.isascii()
    assert not set(identity.device_id) & set("/\\ \n\r\"'<>")


def test_a_token_opens_the_door_for_its_own_device_until_it_expires() -> None:
    token_auth = gate(token_ttl_days=1)
    token = token_auth.token_for(DEVICE)
    assert " " not in token
    assert token_auth.admits(with_token(token))
    assert not token_auth.admits(with_token(token, "02:00:00:99:99:99"))
    assert not token_auth.admits(Identity(DEVICE.device_id, "another-client", token))
    later = TokenAuth(AuthSettings(), RING, lambda: NOW_S + 86_401)
    assert not later.admits(with_token(token))
    other_key = TokenAuth(AuthSettings(), KeyRing((TokenKey(7, NOW_S, 0.0, b"x" * 32),)), lambda: NOW_S)
    assert not other_key.admits(with_token(token))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "None",
        "test-token",
        ".",
        "..",
        "7.9999999999.",
        "7." + "9" * 400 + ".x",
        "٧.١٢٣.x",
        "7.-1.x",
        "é.é.é",
        "8.9.x.y",
    ],
)
def test_other_tokens_do_not(token: str) -> None:
    assert not gate().admits(with_token(token))


@pytest.mark.parametrize("with_tags", [True, False], ids=["as now", "as made before there were tags"])
def test_a_refused_token_is_told_by_its_reason(with_tags: bool) -> None:
    token = gate(token_ttl_days=1).token_for(DEVICE)
    start, _, proof = token.rpartition(".")
    if not with_tags:
        digest = urlsafe_b64decode(proof)[-32:]
        token = f"{start}.{urlsafe_b64encode(digest).rstrip(b'=').decode()}"
    assert gate().refusal(with_token(token)) == ""
    later = TokenAuth(AuthSettings(), RING, lambda: NOW_S + 86_401)
    assert later.refusal(with_token(token)) == "the token has expired"
    other_key = TokenAuth(AuthSettings(), KeyRing((TokenKey(8, NOW_S, 0.0, b"x" * 32),)), lambda: NOW_S)
    assert "signed with a key that is not" in other_key.refusal(with_token(token))
    vague = "the token belongs to another device or was altered"
    other_device = gate().refusal(with_token(token, "02:00:00:99:99:99"))
    assert other_device == ("the token belongs to another Device-Id" if with_tags else vague)
    other_client = gate().refusal(Identity(DEVICE.device_id, "another-client", token))
    assert other_client == ("the token belongs to another Client-Id" if with_tags else vague)
    later_expiry = token.replace(".1800086400.", ".1900086400.")
    assert later_expiry != token
    assert gate().refusal(with_token(later_expiry)) == ("the token was altered" if with_tags else vague)
    assert gate().refusal(with_token("")) == "no token"
    for strange in ("test-token", token + "x", token + "=", token + "é", token[:-1], f"{token}.x"):
        assert gate().refusal(with_token(strange)) == "not a token of this server"


@given(st.binary(max_size=60))
def test_no_other_proof_is_accepted(proof: bytes) -> None:
    start, _, _own = gate().token_for(DEVICE).rpartition(".")
    assert gate().refusal(with_token(f"{start}.{urlsafe_b64encode(proof).rstrip(b'=').decode()}"))


def test_fixed_tokens_and_the_open_mode() -> None:
    assert gate(tokens=(SecretStr("let-me-in"),)).admits(with_token("let-me-in"))
    assert not gate(tokens=(SecretStr("let-me-in"),)).admits(with_token("let-me"))
    assert gate(mode="open").admits(with_token("None"))


def test_the_keys_are_made_once_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    ring = load_keys(tmp_path / "data", NOW_S)
    assert load_keys(tmp_path / "data", NOW_S + 1) == ring
    file = keys_file(tmp_path / "data")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    assert load_keys(tmp_path / "data", NOW_S) == ring
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert ring.newest.secret.hex() not in repr(ring)


@pytest.mark.parametrize(
    "content", [b"", b"damaged", b"{}", b'{"keys":[]}', b'{"keys":[{"generation":1}]}', b'{"keys":3}', b"\xff", b"[]"]
)
def test_damaged_keys_are_set_aside_and_made_anew(tmp_path: Path, content: bytes) -> None:
    keys_file(tmp_path).write_bytes(content)
    ring = load_keys(tmp_path, NOW_S)
    assert load_keys(tmp_path, NOW_S) == ring
    assert keys_file(tmp_path).with_suffix(".damaged").read_bytes() == content


async def test_keys_rotate_when_due_and_old_tokens_hold_until_they_expire(tmp_path: Path) -> None:
    now_s = NOW_S
    settings = AuthSettings(rotate_days=90, token_ttl_days=30)
    token_auth = TokenAuth(settings, load_keys(tmp_path, now_s), lambda: now_s)
    keeper = KeyKeeper(token_auth, settings, tmp_path, lambda: now_s, lambda: now_s)
    await keeper.refresh()
    first = token_auth.ring.newest.generation
    now_s += 89 * DAY_S
    await keeper.refresh()
    assert token_auth.ring.newest.generation == first
    old = token_auth.token_for(DEVICE)
    now_s += 2 * DAY_S
    await keeper.refresh()
    assert (token_auth.ring.newest.generation, keeper.rotations) == (first + 1, 1)
    assert token_auth.token_for(DEVICE).startswith(f"{first + 1}.")
    assert token_auth.admits(with_token(old)), "its key has gone, but its time has not"
    now_s += 29 * DAY_S
    assert not token_auth.admits(with_token(old))
    assert load_keys(tmp_path, now_s).find(first, now_s + 3 * DAY_S) is None, "a key whose tokens are over is worthless"


class Machine:
    """A server's machine: a clock that may be wrong, and time that goes on."""

    def __init__(self, folder: Path, now_s: float, **settings: object) -> None:
        self._folder = folder
        self._settings = AuthSettings.model_validate(settings)
        self._now_s = now_s
        self._steady_s = 10.0
        self.start()

    def start(self) -> None:
        """The server is started, again perhaps."""
        ring = load_keys(self._folder, self._now_s)
        self.token_auth = TokenAuth(self._settings, ring, lambda: self._now_s)
        self.keeper = KeyKeeper(
            self.token_auth, self._settings, self._folder, lambda: self._now_s, lambda: self._steady_s
        )

    async def go_on(self, seconds: float, *, clock: float | None = None) -> None:
        """Time passes, and then the network may say what time it is."""
        self._steady_s += seconds
        self._now_s = self._now_s + seconds if clock is None else clock
        await self.keeper.refresh()

    def admits(self, token: str) -> bool:
        return self.token_auth.admits(with_token(token))

    @property
    def kept(self) -> tuple[TokenKey, ...]:
        """The keys as they are in the file."""
        return load_keys(self._folder, self._now_s).keys


@pytest.mark.parametrize("rotate_days", [0, 90])
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("had_keys", [False, True])
@pytest.mark.parametrize("wrong_s", [5.0, 2_208_988_800.0, NOW_S - 60 * DAY_S, NOW_S + 60 * DAY_S])
async def test_a_start_with_a_wrong_clock_locks_nobody_out_and_leaves_nothing_that_holds_for_ever(
    tmp_path: Path, wrong_s: float, had_keys: bool, restarted: bool, rotate_days: int
) -> None:
    if restarted and 5.0 < wrong_s < NOW_S:
        pytest.skip("a clock that is two months behind, and right after a restart, cannot be told from two months")
    before = ""
    if had_keys:
        load_keys(tmp_path, NOW_S - 20 * DAY_S)
        before = Machine(tmp_path, NOW_S - 10 * DAY_S).token_auth.token_for(DEVICE)
    machine = Machine(tmp_path, wrong_s, rotate_days=rotate_days)
    await machine.go_on(10.0)
    given = machine.token_auth.token_for(DEVICE)
    assert machine.admits(given)
    if restarted:
        machine._now_s = NOW_S
        machine.start()
    await machine.go_on(20.0, clock=NOW_S)
    assert machine.admits(given), "a device that has booted meanwhile is not locked out"
    if before:
        assert machine.admits(before), "nor is one that has not"
    assert all(key.made_s <= NOW_S and key.honoured_until_s <= NOW_S + 30 * DAY_S for key in machine.kept)
    await machine.go_on(10.0)
    for _ in range(45):
        await machine.go_on(DAY_S)
    assert not machine.admits(given), "its time is over all the same"
    fresh = machine.token_auth.token_for(DEVICE)
    assert not machine.token_auth.ring.newest.clock_was_wrong
    await machine.go_on(29 * DAY_S)
    assert machine.admits(fresh)
    await machine.go_on(2 * DAY_S)
    assert not machine.admits(fresh), "from then on tokens are what they were"


async def test_a_clock_that_is_wrong_again_and_again_drops_no_key_whose_tokens_hold(tmp_path: Path) -> None:
    machine = Machine(tmp_path, NOW_S)
    given: list[str] = []
    for day in range(40):
        await machine.go_on(DAY_S, clock=NOW_S + day * DAY_S + (day % 2) * 7200.0)
        given.append(machine.token_auth.token_for(DEVICE))
        assert all(machine.admits(token) for token in given[-29:])
    assert len(machine.kept) <= 16


async def test_a_token_that_holds_longer_than_any_ends_with_its_key_also_where_keys_are_never_replaced(
    tmp_path: Path,
) -> None:
    load_keys(tmp_path, NOW_S - DAY_S)
    ahead = Machine(tmp_path, NOW_S + 3000 * DAY_S, rotate_days=0).token_auth.token_for(DEVICE)
    machine = Machine(tmp_path, NOW_S, rotate_days=0)
    await machine.go_on(10.0)
    assert machine.admits(ahead)
    for _ in range(45):
        await machine.go_on(DAY_S)
    assert not machine.admits(ahead)


async def test_a_machine_that_was_asleep_has_no_wrong_clock(tmp_path: Path) -> None:
    machine = Machine(tmp_path, NOW_S)
    for _ in range(5):
        await machine.go_on(3 * DAY_S)
    assert not machine.token_auth.ring.newest.clock_was_wrong and len(machine.kept) == 1


async def test_a_key_made_by_the_command_line_is_taken_up_and_can_make_all_tokens_worthless(tmp_path: Path) -> None:
    settings = AuthSettings()
    token_auth = TokenAuth(settings, load_keys(tmp_path, NOW_S), lambda: NOW_S)
    keeper = KeyKeeper(token_auth, settings, tmp_path, lambda: NOW_S)
    await keeper.refresh()
    before = token_auth.token_for(DEVICE)
    rotate_keys(tmp_path, NOW_S, 30 * DAY_S)
    await keeper.refresh()
    between = token_auth.token_for(DEVICE)
    assert between != before
    assert token_auth.admits(with_token(before))
    rotate_keys(tmp_path, NOW_S, 30 * DAY_S, forget=True)
    await keeper.refresh()
    assert not token_auth.admits(with_token(before))
    assert not token_auth.admits(with_token(between))
    assert token_auth.admits(with_token(token_auth.token_for(DEVICE)))


def test_the_command_line_shows_and_rotates_keys_without_telling_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tokens", "show"]) == 0
    first = load_keys(Path("data"), NOW_S)
    assert main(["tokens", "rotate"]) == 0
    assert [key.generation for key in load_keys(Path("data"), NOW_S).keys] == [
        first.newest.generation,
        first.newest.generation + 1,
    ]
    assert main(["tokens", "rotate", "--forget"]) == 0
    ring = load_keys(Path("data"), NOW_S)
    assert len(ring.keys) == 1
    printed = capsys.readouterr().out
    assert "signs" in printed
    assert "counts until" in printed
    assert not [key for key in (first.newest, ring.newest) if key.secret.hex() in printed]
    assert main(["tokens", "rotate", "--set", "server.data_dir=/dev/null/x"]) == 1


def test_rotating_again_and_again_keeps_the_file_small(tmp_path: Path) -> None:
    for number in range(40):
        ring = rotate_keys(tmp_path, NOW_S + number, 30 * DAY_S)
    assert len(ring.keys) <= 16
    assert load_keys(tmp_path, NOW_S) == ring


@pytest.mark.parametrize(
    ("host", "secure", "proxied", "expected"),
    [
        ("192.0.2.10:8000", False, False, "ws://192.0.2.10:8000/xiaozhi/v1/"),
        ("192.0.2.10", False, False, "ws://192.0.2.10:8000/xiaozhi/v1/"),
        ("xiaozhi.example", False, True, "ws://xiaozhi.example/xiaozhi/v1/"),
        ("xiaozhi.example", True, True, "wss://xiaozhi.example/xiaozhi/v1/"),
        ("xiaozhi.example:8443", True, True, "wss://xiaozhi.example:8443/xiaozhi/v1/"),
        ("", False, False, "ws://192.0.2.99:8000/xiaozhi/v1/"),
        ("0.0.0.0:8000", False, False, "ws://192.0.2.99:8000/xiaozhi/v1/"),
        ("[::1]:8000", False, False, "ws://192.0.2.99:8000/xiaozhi/v1/"),
        ('evil" onload=x', False, False, "ws://192.0.2.99:8000/xiaozhi/v1/"),
    ],
)
def test_a_device_is_told_the_address_it_used(host: str, secure: bool, proxied: bool, expected: str) -> None:
    base = base_url(ServerSettings(), host, secure=secure, proxied=proxied, own_port=8000, fallback_host="192.0.2.99")
    assert websocket_url(base) == expected


@pytest.mark.parametrize(
    ("public", "expected"),
    [
        ("https://home.example", "wss://home.example/xiaozhi/v1/"),
        ("https://home.example/", "wss://home.example/xiaozhi/v1/"),
        ("http://home.example:81/sub", "ws://home.example:81/sub/xiaozhi/v1/"),
        ("wss://home.example/xiaozhi/v1/", "wss://home.example/xiaozhi/v1/"),
    ],
)
def test_the_public_address_wins(public: str, expected: str) -> None:
    settings = ServerSettings(public_url=public)
    base = base_url(settings, "10.0.0.1", secure=False, proxied=False, own_port=8000, fallback_host="x")
    assert websocket_url(base) == expected
    assert base.startswith("http")


PROXIES = networks(["127.0.0.1", "172.16.0.0/12", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),  # anybody can write the header
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "198.51.100.1, 203.0.113.9", "203.0.113.9"),  # the client made up what is further left
        ("127.0.0.1", "203.0.113.9, 172.16.0.5", "203.0.113.9"),
        ("::ffff:127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "1.1.1.1," * 1000, "127.0.0.1"),
        ("", "203.0.113.9", ""),
    ],
)
def test_only_trusted_proxies_say_for_whom_they_ask(peer: str, forwarded: str, expected: str) -> None:
    assert client_address(peer, forwarded, PROXIES) == expected


def test_an_address_may_ask_so_often_and_then_again_after_a_while() -> None:
    limiter = RateLimiter(60)
    assert [limiter.wait_s("192.0.2.1", 100.0) for _ in range(60)] == [0.0] * 60
    assert limiter.wait_s("192.0.2.1", 100.0) == pytest.approx(1.0)
    assert limiter.wait_s("192.0.2.2", 100.0) == 0.0, "others are not held up"
    assert limiter.wait_s("192.0.2.1", 100.5) == pytest.approx(0.5)
    assert limiter.wait_s("192.0.2.1", 101.1) == 0.0
    assert limiter.refused == 2
    assert RateLimiter(0).wait_s("192.0.2.1", 0.0) == 0.0


def test_this_machine_is_not_limited_and_one_ipv6_subscriber_is_one_address() -> None:
    limiter = RateLimiter(1)
    assert [limiter.wait_s(one, 0.0) for one in ("127.0.0.1", "::1", "::ffff:127.0.0.1") for _ in range(9)] == [0] * 27
    assert limiter.wait_s("2001:db8::1", 0.0) == 0.0
    assert limiter.wait_s("2001:db8::2", 0.0) > 0.0
    assert limiter.wait_s("2001:db8:0:1::2", 0.0) == 0.0


@given(st.lists(st.tuples(st.ip_addresses().map(str) | st.text(max_size=80), st.floats(-1e9, 1e9)), max_size=50))
def test_limits_take_any_address_and_a_clock_that_jumps(asked: list[tuple[str, float]]) -> None:
    limiter = RateLimiter(2)
    assert all(0.0 <= limiter.wait_s(address, at_s) <= 30.0 for address, at_s in asked)


def test_tables_of_strangers_do_not_grow() -> None:
    limiter, once = RateLimiter(10), OncePer(60.0, most=100)
    for number in range(12_000):
        limiter.wait_s(f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}", 0.0)
        once.allows(str(number), 0.0)
    assert len(limiter) == 10_000
    assert len(once) == 100


def test_a_refused_device_is_logged_once_a_minute_for_one_reason(caplog: pytest.LogCaptureFixture) -> None:
    now_s = NOW_S
    token_auth = TokenAuth(AuthSettings(), RING, lambda: now_s)
    for step_s in (0, 1, 58, 2, 1):
        now_s += step_s
        token_auth.note_refusal(DEVICE, "no token", "192.0.2.1")
    assert len(caplog.records) == 2
    assert token_auth.refused == 5
    token_auth.note_refusal(DEVICE, "the token has expired", "192.0.2.1")
    assert len(caplog.records) == 3, "another reason is news"


def test_the_body_names_a_device_only_where_its_headers_do_not() -> None:
    body: dict[str, object] = {"mac_address": "02:00:00:AA:BB:CC", "uuid": "c-1"}
    nobody = Identity.of({}, {})
    assert from_body(nobody, body) == Identity("02:00:00:aa:bb:cc", "c-1", "")
    assert from_body(DEVICE, body) == DEVICE
    assert from_body(nobody, {"mac_address": 7, "uuid": None}).is_anonymous


def test_browser_clients_may_call_their_token_token() -> None:
    assert Identity.of({}, {"device-id": "web", "token": "t"}).token == "t"
    assert normal_id("AA-BB-CC-DD-EE-FF") == "aa:bb:cc:dd:ee:ff"
    assert normal_id("Living-Room") == "living-room"


@pytest.mark.parametrize(
    ("base", "typed"),
    [
        ("http://192.168.1.10:8000", "192.168.1.10:8000"),
        ("http://192.168.1.10", "192.168.1.10"),
        ("https://voice.example.org", "voice.example.org"),
        ("https://voice.example.org:8443", "https://voice.example.org:8443"),
        ("https://voice.example.org/xiaozhi/v1/", "voice.example.org"),
    ],
)
def test_a_person_types_no_more_of_an_address_than_is_needed(base: str, typed: str) -> None:
    assert typed_address(base) == typed


def test_the_address_of_this_machine_is_one_a_device_can_reach() -> None:
    assert lan_address() not in ("0.0.0.0", "")


def test_an_address_of_this_machine_alone_is_told_apart() -> None:
    assert is_loopback("http://127.0.0.1:8000") and is_loopback("http://localhost") and is_loopback("http://[::1]:80")
    assert not is_loopback("http://192.168.1.10:8000") and not is_loopback("https://xiaozhi.example.org")
    assert reachable_host("192.168.1.10") == "192.168.1.10" and reachable_host("0.0.0.0") == lan_address()
