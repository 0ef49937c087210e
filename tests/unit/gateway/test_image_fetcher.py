"""Fetching: base64, URLs over an injected network, redirects, limits, S3 through a stub."""

from __future__ import annotations

import asyncio
import base64
import io
import sys
import types
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx2
import pytest

from segserve.config import FetchPolicy
from segserve.errors import FetchError, InvalidRequestError, SegserveError, TooLargeError
from segserve.gateway.images import ImageFetcher, decode_base64, parse_s3, parse_url
from segserve.imaging import ImageLimits
from segserve.schema import ImageSource

Answer = Callable[[httpx2.Request], httpx2.Response]


class Web:
    """A network of named hosts. It records what was resolved, and which address was asked for which host."""

    def __init__(self, answer: Answer, hosts: dict[str, list[str]] | None = None, **policy: Any) -> None:
        self.answer = answer
        self.hosts = hosts or {}
        self.resolved: list[str] = []
        self.asked: list[httpx2.Request] = []
        self.fetcher = ImageFetcher(
            FetchPolicy(**policy), ImageLimits(), transport=httpx2.MockTransport(self.handle), resolver=self.resolve
        )

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.resolved.append(host)
        return self.hosts.get(host, ["93.184.216.34"])

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        return self.answer(request)

    def get(self, **source: str) -> bytes:
        return asyncio.run(self.fetcher.get(ImageSource(**source)))

    def fails(self, url: str) -> SegserveError:
        with pytest.raises(FetchError) as raised:
            self.get(url=url)
        return raised.value


def ok(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, content=b"the image")


def redirect(to: str, status: int = 302) -> httpx2.Response:
    return httpx2.Response(status, headers={"Location": to})


def test_the_connection_goes_to_the_checked_address_under_the_hosts_name() -> None:
    web = Web(ok, {"shop.example": ["93.184.216.34"]})
    assert web.get(url="https://shop.example:8443/a%20b.png?size=1#part") == b"the image"
    (request,) = web.asked
    assert str(request.url) == "https://93.184.216.34:8443/a%20b.png?size=1"
    assert request.headers["host"] == "shop.example:8443"
    assert request.extensions["sni_hostname"] == "shop.example"
    assert web.resolved == ["shop.example"]


def test_an_ipv6_address_is_connected_to() -> None:
    web = Web(ok, {"six.example": ["2606:4700::1111"]})
    assert web.get(url="http://six.example/a.png") == b"the image"
    assert str(web.asked[0].url) == "http://[2606:4700::1111]/a.png"
    assert web.asked[0].headers["host"] == "six.example"


def test_an_international_host_name() -> None:
    web = Web(ok)
    assert web.get(url="http://bücher.example/a.png") == b"the image"
    assert web.asked[0].headers["host"] == "xn--bcher-kva.example"


def test_a_name_server_that_changes_its_mind_gains_nothing() -> None:
    """DNS rebinding: public when checked, private when resolved again. It is not resolved again."""
    web = Web(ok)
    answers = [["93.184.216.34"], ["127.0.0.1"]]

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    web.fetcher._guard._resolver = rebinding
    assert web.get(url="http://rebinding.example/") == b"the image"
    assert [request.url.host for request in web.asked] == ["93.184.216.34"]
    assert web.fails("http://rebinding.example/").error_code == "fetch_forbidden"
    assert len(web.asked) == 1


@pytest.mark.parametrize("failure", [httpx2.ConnectError, httpx2.ConnectTimeout])
def test_the_next_address_is_tried_when_one_cannot_be_reached(failure: type[httpx2.TransportError]) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "2606:4700::1111":
            raise failure("no route")
        return ok(request)

    web = Web(answer, {"two.example": ["2606:4700::1111", "1.1.1.1"]})
    assert web.get(url="http://two.example/") == b"the image"
    assert [request.url.host for request in web.asked] == ["2606:4700::1111", "1.1.1.1"]


def test_redirects_are_followed_and_each_is_resolved_and_checked() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        steps = {"a.example": redirect("https://b.example/x", 301), "b.example": redirect("/y", 307)}
        return ok(request) if request.url.path == "/y" else steps[request.headers["host"]]

    web = Web(answer)
    assert web.get(url="http://a.example/") == b"the image"
    assert web.resolved == ["a.example", "b.example", "b.example"]
    assert [request.extensions["sni_hostname"] for request in web.asked] == ["a.example", "b.example", "b.example"]


@pytest.mark.parametrize(
    "target",
    [
        "http://intern.example/",
        "http://127.0.0.1/",
        "http://[::ffff:169.254.169.254]/latest/meta-data/",
        "//intern.example/a",
        "file:///etc/passwd",
        "gopher://a.example/",
        "http://user:password@a.example/",
        "http://[broken",
    ],
)
def test_a_redirect_to_what_may_not_be_fetched(target: str) -> None:
    hosts = {"intern.example": ["192.168.0.5"], "127.0.0.1": ["127.0.0.1"]}
    hosts["::ffff:169.254.169.254"] = ["::ffff:169.254.169.254"]
    web = Web(lambda request: redirect(target), hosts)
    error = web.fails("http://a.example/")
    assert (error.status, error.error_code) == (424, "fetch_forbidden")
    assert len(web.asked) == 1
    assert "192.168" not in error.message


@pytest.mark.parametrize(("redirects", "works"), [(3, True), (4, False)])
def test_three_redirects_at_most(redirects: int, works: bool) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        step = int(request.url.path[1:])
        return ok(request) if step == redirects else redirect(f"/{step + 1}")

    web = Web(answer)
    if works:
        assert web.get(url="http://a.example/0") == b"the image"
    else:
        assert "more than 3 redirects" in web.fails("http://a.example/0").message
        assert len(web.asked) == 4


def test_a_redirect_without_a_target() -> None:
    assert "leads nowhere" in Web(lambda request: httpx2.Response(302)).fails("http://a.example/").message


@pytest.mark.parametrize(
    ("status", "word"), [(404, "404"), (403, "403"), (500, "500"), (204, "204"), (206, "206"), (304, "304")]
)
def test_a_status_that_is_no_image(status: int, word: str) -> None:
    error = Web(lambda request: httpx2.Response(status)).fails("http://a.example/p?key=s3cret")
    assert word in error.message
    assert "http://a.example/p" in error.message
    assert "s3cret" not in error.message


def test_a_compressed_body_is_not_unpacked() -> None:
    web = Web(lambda request: httpx2.Response(200, headers={"Content-Encoding": "gzip"}, stream=Stream([b"x"])))
    assert "compressed" in web.fails("http://a.example/").message
    assert web.asked[0].headers["accept-encoding"] == "identity"


class Stream(httpx2.AsyncByteStream):
    """A body in pieces; counts those that were read."""

    def __init__(self, pieces: Sequence[bytes], pause_s: float = 0.0) -> None:
        self.pieces, self.pause_s, self.read, self.closed = pieces, pause_s, 0, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            await asyncio.sleep(self.pause_s)
            self.read += 1
            yield piece

    async def aclose(self) -> None:
        self.closed = True


def test_a_body_of_30_mib_is_given_up_at_20() -> None:
    stream = Stream([b"\xff" * 2**20] * 30)
    error = Web(lambda request: httpx2.Response(200, stream=stream)).fails("http://a.example/")
    assert error.error_code == "fetch_too_large"
    assert stream.read == 21
    assert stream.closed


def test_a_body_that_announces_30_mib_is_not_read_at_all() -> None:
    stream = Stream([b"\xff"])
    headers = {"Content-Length": str(30 * 2**20)}
    error = Web(lambda request: httpx2.Response(200, headers=headers, stream=stream)).fails("http://a.example/")
    assert error.error_code == "fetch_too_large"
    assert stream.read == 0


def test_a_body_of_just_the_limit_is_taken() -> None:
    web = Web(lambda request: httpx2.Response(200, stream=Stream([b"1234", b"567890"])), max_bytes=10)
    assert web.get(url="http://a.example/") == b"1234567890"


def test_a_slow_drip_ends_with_the_time_limit() -> None:
    stream = Stream([b"x"] * 1000, pause_s=0.02)
    error = Web(lambda request: httpx2.Response(200, stream=stream), timeout_s=0.15).fails("http://a.example/")
    assert error.error_code == "fetch_timed_out"
    assert "0.15 s" in error.message
    assert stream.read < 20
    assert stream.closed


def test_the_time_limit_covers_redirects_and_resolving() -> None:
    web = Web(lambda request: redirect("/again"), timeout_s=0.15, max_redirects=1000)

    async def slow(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(0.02)
        return ["93.184.216.34"]

    web.fetcher._guard._resolver = slow
    assert web.fails("http://a.example/").error_code == "fetch_timed_out"


@pytest.mark.parametrize(
    "error",
    [
        httpx2.ConnectError("refused"),
        httpx2.ConnectTimeout("late"),
        httpx2.ReadError("reset"),
        httpx2.RemoteProtocolError("garbage"),
        httpx2.ReadTimeout("late"),
    ],
)
def test_transport_failures_are_the_fetched_servers_fault(error: Exception) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        raise error

    failure = Web(answer).fails("http://a.example/")
    assert failure.status == 424
    assert "93.184" not in failure.message


def test_cookies_are_not_kept() -> None:
    web = Web(lambda request: httpx2.Response(200, headers={"Set-Cookie": "session=1"}, content=b"x"))
    web.get(url="http://a.example/")
    web.get(url="http://a.example/")
    assert "cookie" not in web.asked[1].headers


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    fetcher = ImageFetcher(FetchPolicy(allow=("127.0.0.1",)), ImageLimits())

    async def scenario() -> bytes:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            try:
                return await fetcher.fetch(f"http://127.0.0.1:{port}/")
            finally:
                await fetcher.aclose()

    assert asyncio.run(scenario()) == b"hi"


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/passwd",
        "ftp://example.com/a",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "example.com/a.png",
        "//example.com/a.png",
        "/etc/passwd",
        "",
        "http://",
        "http:///a",
        "http://user@example.com/",
        "http://user:word@example.com/",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http://[::1",
        "http://exa mple.com/",
        "http://exa%20mple.com/",
        "http://example.com/\x00",
        "http://" + "a" * 9000,
    ],
)
def test_urls_that_are_refused_before_anything_is_resolved(text: str) -> None:
    web = Web(ok)
    with pytest.raises(InvalidRequestError, match="url"):
        web.get(url=text)
    assert web.resolved == web.asked == []


@pytest.mark.parametrize("text", ["http://example.com", "HTTPS://EXAMPLE.com:8443/a", " http://example.com/a b "])
def test_urls_that_are_taken(text: str) -> None:
    assert parse_url(text).host == "example.com"


def test_base64_forms() -> None:
    data = bytes(range(256))
    plain = base64.b64encode(data).decode()
    wrapped = "\n".join(plain[start : start + 76] for start in range(0, len(plain), 76))
    for text in (plain, wrapped, f"data:image/png;base64,{plain}"):
        assert decode_base64(text, 1000) == data


@pytest.mark.parametrize("text", ["a", "abc", "ab=c", "äöü=", "a-_b", "%%%%", "data:image/png,abcd", "data:abcd"])
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="base64"):
        decode_base64(text, 1000)


def test_base64_of_too_much_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(TooLargeError) as raised:
        decode_base64("A" * 4_000_000, 1_000_000)
    assert raised.value.error_code == "image_too_large"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("s3://bucket/key", ("bucket", "key")), ("s3://b/a/b c?d#e.png", ("b", "a/b c?d#e.png"))],
)
def test_s3_names(text: str, expected: tuple[str, str]) -> None:
    assert parse_s3(text) == expected


@pytest.mark.parametrize("text", ["s3://bucket", "s3://bucket/", "s3:///key", "http://bucket/key", "bucket/key", ""])
def test_what_is_no_s3_name(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="s3://bucket/key"):
        parse_s3(text)


class StubS3:
    """The part of boto3 that is used, in place of the real package."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: bytes | Exception) -> None:
        self.answer, self.asked = answer, []  # type: ignore[var-annotated]
        exceptions = types.ModuleType("botocore.exceptions")
        exceptions.BotoCoreError = type("BotoCoreError", (Exception,), {})  # type: ignore[attr-defined]
        exceptions.ClientError = ClientError  # type: ignore[attr-defined]
        config = types.ModuleType("botocore.config")
        config.Config = lambda **options: options  # type: ignore[attr-defined]
        boto3 = types.ModuleType("boto3")
        boto3.client = lambda service, config: self  # type: ignore[attr-defined]
        for module in (boto3, types.ModuleType("botocore"), config, exceptions):
            monkeypatch.setitem(sys.modules, module.__name__, module)

    def get_object(self, **names: str) -> dict[str, Any]:
        self.asked.append(names)
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"Body": io.BytesIO(self.answer)}


class ClientError(Exception):
    response = {"Error": {"Code": "NoSuchKey"}}  # noqa: RUF012


def test_s3_of_an_allowed_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = StubS3(monkeypatch, b"from s3")
    assert Web(ok, s3_buckets=("pictures",)).get(s3="s3://pictures/a/b.png") == b"from s3"
    assert stub.asked == [{"Bucket": "pictures", "Key": "a/b.png"}]


def test_s3_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = StubS3(monkeypatch, ClientError())
    web = Web(ok, s3_buckets=("pictures",), max_bytes=5)
    with pytest.raises(FetchError, match="NoSuchKey"):
        web.get(s3="s3://pictures/a")
    stub.answer = b"123456"
    with pytest.raises(FetchError, match="more than 5 bytes"):
        web.get(s3="s3://pictures/a")
    stub.answer = OSError("no network")
    with pytest.raises(FetchError, match="cannot be reached"):
        web.get(s3="s3://pictures/a")
    asked = len(stub.asked)
    with pytest.raises(FetchError, match="'others'") as raised:
        web.get(s3="s3://others/a")
    assert raised.value.error_code == "fetch_forbidden"
    assert len(stub.asked) == asked


def test_s3_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(FetchError, match=r"segserve\[s3\]"):
        Web(ok, s3_buckets=("pictures",)).get(s3="s3://pictures/a")
