"""Links before anything is connected: what they say, whose host is listed, and which addresses are no stranger's business."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.links import Link, entry_for, is_public, read_entry, read_link, read_redirect
from gateway.config import ConfigError, settle

INNER = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.9",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "168.63.129.16",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:8.8.8.8",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2001:10::1",
    "2001:20::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "2620:4f:8000::1",
    "2600::5efe:7f00:1",
    "2600::200:5efe:7f00:1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "4000::1",
    "8000::1",
]
OUTER = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.215.14",
    "172.15.0.1",
    "172.32.0.1",
    "100.63.0.1",
    "100.128.0.1",
    "168.63.129.17",
    "223.255.255.255",
]
OUTER += ["2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "2001:4860:4860::8888", "2600::1"]


@pytest.mark.parametrize("address", INNER)
def test_an_address_that_is_nobodys_or_ones_own_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", OUTER)
def test_an_address_of_the_public_network_is(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", ["", "localhost", "127.1", "0x7f.0.0.1", "2130706433", "0177.0.0.1", "8.8.8.8 "])
def test_what_is_no_address_is_not_public(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_no_way_to_put_an_ipv4_address_into_an_ipv6_one_is_public(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for before in ("::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::", "2600::5efe:0:0"):
        assert not is_public(str(ipaddress.IPv6Address(before) + number))
    assert not is_public(str(ipaddress.IPv6Address("2002::") + (number << 80)))
    if is_public(str(address)):
        assert address.is_global
        assert not address.is_multicast


READ = {
    "http://example.org": Link(False, "example.org", 80, "/"),
    "HTTPS://Example.ORG/A": Link(True, "example.org", 443, "/A"),
    "https://example.org.:8443/a?b=c#d": Link(True, "example.org", 8443, "/a?b=c"),
    "http://example.org?x=@y": Link(False, "example.org", 80, "/?x=@y"),
    "http://example.org/a%20b/ü z": Link(False, "example.org", 80, "/a%20b/%C3%BC%20z"),
    "http://example.org/\\\\inner": Link(False, "example.org", 80, "/%5C%5Cinner"),
    "http://bücher.example/": Link(False, "xn--bcher-kva.example", 80, "/"),
    "http://\uff45\uff58ample\u3002org/": Link(False, "example.org", 80, "/"),
    "http://a_b.example.org/x": Link(False, "a_b.example.org", 80, "/x"),
    # Spellings of an address are names here: only a list could allow them, and only a public address be connected to.
    "http://0x7f.0.0.1/": Link(False, "0x7f.0.0.1", 80, "/"),
    "http://2130706433/": Link(False, "2130706433", 80, "/"),
    "http://0177.1/": Link(False, "0177.1", 80, "/"),
}


@pytest.mark.parametrize("text", READ)
def test_a_link_says_one_thing(text: str) -> None:
    assert read_link(text) == READ[text]


@pytest.mark.parametrize(
    "text",
    [
        "", "http://", "http:///x", "http:example.org", "//example.org/x", "ftp://example.org/x", "file:///etc/passwd",
        "http://user@example.org/", "http://user:word@example.org/", "http://example.org@inner/", "http://@example.org/",
        "http://example.org:80@inner/", "http://example.org:80:80/", "http://example.org:/", "http://example.org:0/",
        "http://example.org:65536/", "http://example.org:\uff18\uff10/", "http://example.org:+80/", "http://example.org\\@inner/",
        "http://example.org\\.inner/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[v1.x]/", "http://exa mple.org/",
        "http://example.org\n/", "http://exam\tple.org/", "http://example.org/\r\nX: y", "http://example.org/\0",
        "http://ex%61mple.org/", "http://.example.org/", "http://example..org/", "http://./", f"http://{'a' * 64}.org/",
        "http://straße.example/", "http://xn--\u200d.example/", "http://\u2024\u2024/", f"http://example.org/{'a' * 9000}",
        " http://example.org/", "http://example.org/\ud800", "http://" + "a." * 127 + "org/",
    ],
)  # fmt: skip
def test_what_two_readers_could_read_in_two_ways_is_no_link(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_link(text)


@given(st.text(max_size=60), st.sampled_from(["", "http://", "https://listed.example", "http://listed.example:80"]))
def test_any_text_is_a_link_or_a_value_error(text: str, before: str) -> None:
    try:
        link = read_link(before + text)
    except ValueError:
        return
    assert set(link.host) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_")
    assert link.target.startswith("/")
    assert not [letter for letter in link.target if not "!" <= letter <= "~"]
    assert read_link(f"{link.origin}{link.target}") == link


ENTRIES = [
    read_entry(text) for text in ("example.org", "*.example.com", "other.example:8443", "Bücher.Example.", "1.1.1.1")
]


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("http://example.org/x", True),
        ("https://EXAMPLE.org./x", True),
        ("https://example.org:443/", True),
        ("http://example.org:443/", False),
        ("http://example.org:8080/", False),
        ("http://www.example.org/", False),
        ("http://example.org.evil.example/", False),
        ("http://notexample.org/", False),
        ("http://a.example.com/", True),
        ("http://a.b.example.com/", True),
        ("http://example.com/", False),
        ("http://notexample.com/", False),
        ("http://a.example.com:81/", False),
        ("http://other.example:8443/", True),
        ("https://other.example:8443/", True),
        ("https://other.example/", False),
        ("http://bücher.example/", True),
        ("http://xn--bcher-kva.example/", True),
        ("http://1.1.1.1/", True),
        ("http://localhost/", False),
    ],
)
def test_only_listed_hosts_and_ports_are_followed(text: str, listed: bool) -> None:
    assert (entry_for(read_link(text), ENTRIES) is not None) is listed


@pytest.mark.parametrize(
    "host",
    [
        "",
        "*",
        "*.",
        "http://example.org",
        "example.org/x",
        "a.*.org",
        "*example.org",
        "user@example.org",
        "[::1]",
        "x:0",
    ],
)
def test_an_odd_item_of_the_list_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_entry(host)


@pytest.mark.parametrize("host", ["*", "10.0.0.1", "127.0.0.1:8080", "169.254.169.254"])
def test_a_list_that_cannot_work_is_refused_at_start(host: str) -> None:
    document = {"images": {"hosts": ["example.org", host]}, "backends": {"e": {"type": "echo"}}}
    with pytest.raises(ConfigError, match=r"images\.hosts\[1\]"):
        settle(document, base=Path(), environ={})


@pytest.mark.parametrize(
    ("location", "there"),
    [
        (b"/b", "https://example.org:443/b"),
        (b"b?c", "https://example.org:443/a/b?c"),
        (b"//other.example/x", "https://other.example:443/x"),
        (b"https://other.example:8443/x#y", "https://other.example:8443/x"),
        ("/ü".encode(), "https://example.org:443/%C3%BC"),
    ],
)
def test_a_redirect_is_a_link_like_another(location: bytes, there: str) -> None:
    link = read_redirect(read_link("https://example.org/a/"), location)
    assert link.origin + link.target == there


@pytest.mark.parametrize(
    "location",
    [b"http://example.org/", b"http://127.0.0.1/", b"https://a@b/", b"file:///etc/passwd", b"data:image/png;base64,AA",
     b"/\xff", b"//[::1]/", b"//[x/", b"\\\\inner\\x:y@z"],
)  # fmt: skip
def test_a_redirect_that_is_none(location: bytes) -> None:
    try:
        link = read_redirect(read_link("https://example.org/a/"), location)
    except ValueError:
        return
    assert link.host == "example.org"  # a path of odd characters


@given(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace"))))
def test_any_redirect_is_a_link_or_a_value_error(location: bytes) -> None:
    before = read_link("https://example.org/a/")
    try:
        link = read_redirect(before, location)
    except ValueError:
        return
    assert link.tls
    assert read_link(link.origin + link.target) == link


@given(st.text(max_size=40))
def test_any_item_of_the_list_is_a_host_or_a_value_error(text: str) -> None:
    try:
        entry = read_entry(text)
    except ValueError:
        return
    name = f"a.{entry.name}" if entry.below else entry.name
    assert entry.allows(Link(True, name, entry.port or 443, "/"))
    assert not entry.allows(Link(True, f"x{name}", entry.port or 443, "/")) or entry.below
