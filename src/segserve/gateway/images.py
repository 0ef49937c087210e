"""The bytes of the images that a request names: base64, a URL or an S3 object. Nothing is decoded here."""

from __future__ import annotations

import asyncio
import binascii
import re
import threading
from collections.abc import AsyncIterable, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import httpx2

from segserve.config import FetchPolicy
from segserve.errors import FetchError, InvalidRequestError, SegserveError, TooLargeError
from segserve.gateway.address_guard import AddressGuard, Resolver, resolve
from segserve.imaging import ImageLimits
from segserve.schema import ImageSource

_MAX_URL_CHARACTERS = 8192
_MAX_ADDRESSES = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LARGE = 2**20
_HOST = re.compile(rb"[A-Za-z0-9._:-]+")
"""After IDNA: what is left of an odd host is percent-encoded, which names no host that could be resolved."""


def decode_base64(text: str, max_bytes: int) -> bytes:
    """The bytes of base64 text; a ``data:image/…;base64,`` prefix and line breaks are accepted.

    Raises:
        InvalidRequestError: not base64.
        TooLargeError: would decode to more than max_bytes.
    """
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise InvalidRequestError("base64: a data URL must have the form data:image/…;base64,….")
    if len(text) * 3 // 4 > max_bytes + 1024:
        raise TooLargeError(
            f"The base64 image would have about {len(text) * 3 // 4:,} bytes; at most {max_bytes:,} are allowed.",
            code="image_too_large",
        )
    try:
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except binascii.Error:
            # Line breaks every 76 characters are usual (MIME, the base64 command).
            return binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except ValueError as error:
        raise InvalidRequestError(
            "base64: not valid base64. Expected the standard alphabet (A-Z a-z 0-9 + /) with = padding; "
            f"came {len(text)} characters that begin with {text[:12]!r}."
        ) from error


class ImageFetcher:
    """Gets the bytes behind image sources within a policy.

    Args:
        policy: time, size, redirects, exceptions and buckets.
        limits: of one image, for base64.
        transport: replaces the network, in tests.
        resolver: replaces the system's name resolution, in tests.
    """

    def __init__(
        self,
        policy: FetchPolicy,
        limits: ImageLimits,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolver: Resolver = resolve,
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._guard = AddressGuard(policy.allow, resolver)
        self._s3 = S3Reader(policy)
        # The bare transport, not a client: no cookies, no proxies, no redirects followed by themselves, and no
        # connection kept that another host name on the same address could be sent over.
        self._transport = transport or httpx2.AsyncHTTPTransport(
            trust_env=False, limits=httpx2.Limits(max_connections=64, max_keepalive_connections=0)
        )

    async def get(self, source: ImageSource) -> bytes:
        """The encoded image.

        Raises:
            InvalidRequestError: not exactly one source, broken base64, malformed URL or another scheme than http(s).
            TooLargeError: base64 of too many bytes.
            FetchError: what is named by a URL could not, or may not, be fetched.
        """
        given = [name for name in ("url", "base64", "s3") if getattr(source, name) is not None]
        if len(given) != 1:
            came = " and ".join(given) or "none of them"
            raise InvalidRequestError(f"An image needs exactly one of url, base64 and s3; came {came}.")
        if source.base64 is not None:
            if len(source.base64) > _LARGE:
                return await asyncio.to_thread(decode_base64, source.base64, self._limits.max_bytes)
            return decode_base64(source.base64, self._limits.max_bytes)
        if source.url is not None:
            return await self.fetch(source.url)
        return await self._fetch_s3(source.s3 or "")

    async def fetch(self, text: str) -> bytes:
        """The body behind an http or https URL.

        Raises:
            InvalidRequestError, FetchError: as get.
        """
        url = parse_url(text)
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                return await self._follow(url)
        except TimeoutError as error:
            raise FetchError(
                f"The image at {_shown(url)} did not arrive within {self._policy.timeout_s:g} s.",
                code="fetch_timed_out",
            ) from error

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def _follow(self, url: httpx2.URL) -> bytes:
        first = url
        for _ in range(self._policy.max_redirects + 1):
            addresses = await self._guard.addresses(url.host, url.port or _default_port(url))
            response = await self._send(url, addresses)
            try:
                if response.status_code not in _REDIRECTS:
                    return await self._read(url, response)
                url = _target(url, response)
            except httpx2.TransportError as error:
                raise FetchError(f"The image at {_shown(url)} could not be read: the connection failed.") from error
            finally:
                await response.aclose()
        raise FetchError(
            f"The image at {_shown(first)} is behind more than {self._policy.max_redirects} redirects: "
            "name its final URL."
        )

    async def _send(self, url: httpx2.URL, addresses: Sequence[str]) -> httpx2.Response:
        """Ask the first address that can be connected to; the host name stays in Host and in TLS."""
        failure: Exception | None = None
        for address in addresses[:_MAX_ADDRESSES]:
            request = httpx2.Request(
                "GET",
                url.copy_with(host=address.partition("%")[0], fragment=None),
                headers={
                    "Host": url.netloc.decode("ascii"),
                    "User-Agent": "segserve",
                    "Accept": "image/*",
                    "Accept-Encoding": "identity",
                },
                extensions={"sni_hostname": url.raw_host.decode("ascii"), "timeout": _timeouts(self._policy.timeout_s)},
            )
            try:
                return await self._transport.handle_async_request(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise FetchError(f"The image at {_shown(url)} could not be fetched: the connection failed.") from error
        raise FetchError(f"The image at {_shown(url)} could not be fetched: the host cannot be reached.") from failure

    async def _read(self, url: httpx2.URL, response: httpx2.Response) -> bytes:
        if response.status_code != 200:
            raise FetchError(f"The server of {_shown(url)} answered {response.status_code} instead of an image.")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise FetchError(f"The server of {_shown(url)} sent a compressed body although none was asked for.")
        limit = self._policy.max_bytes
        announced = response.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced) > limit:
            raise _too_large(url, limit)
        chunks: list[bytes] = []
        size = 0
        async for chunk in cast("AsyncIterable[bytes]", response.stream):
            size += len(chunk)
            if size > limit:
                raise _too_large(url, limit)
            chunks.append(chunk)
        return b"".join(chunks)

    async def _fetch_s3(self, text: str) -> bytes:
        bucket, key = parse_s3(text)
        if bucket not in self._policy.s3_buckets:
            raise FetchError(
                f"s3: the bucket {bucket!r} is not among those the operator allows.", code="fetch_forbidden"
            )
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                return await asyncio.to_thread(self._s3.read, bucket, key)
        except TimeoutError as error:
            raise FetchError(
                f"s3://{bucket}/{key} did not arrive within {self._policy.timeout_s:g} s.", code="fetch_timed_out"
            ) from error


def parse_url(text: str) -> httpx2.URL:
    """An http or https URL without credentials.

    Raises:
        InvalidRequestError: anything else.
    """
    if len(text) > _MAX_URL_CHARACTERS:
        raise InvalidRequestError(f"url: at most {_MAX_URL_CHARACTERS} characters, came {len(text)}.")
    try:
        url = httpx2.URL(text.strip())
        raw_host, port = url.raw_host, url.port
    except (httpx2.InvalidURL, ValueError, UnicodeError) as error:
        raise InvalidRequestError("url: not a well-formed URL.") from error
    if url.scheme not in ("http", "https"):
        raise InvalidRequestError(f"url: the scheme must be http or https, came {url.scheme[:20]!r}.")
    if not _HOST.fullmatch(raw_host) or (port is not None and not 0 < port < 65536):
        raise InvalidRequestError("url: names no host, or no valid port.")
    if url.userinfo:
        raise InvalidRequestError("url: must not carry a user name or a password.")
    return url


def parse_s3(text: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``.

    Raises:
        InvalidRequestError: another form.
    """
    parts = urlsplit(text.strip())
    key = text.strip().removeprefix(f"s3://{parts.netloc}/")
    if parts.scheme != "s3" or not parts.netloc or not key or key == text.strip():
        raise InvalidRequestError("s3: expected s3://bucket/key.")
    return parts.netloc, key


class S3Reader:
    """Reads objects with the credentials of the machine's own role. Blocking; for threads."""

    def __init__(self, policy: FetchPolicy) -> None:
        self._policy = policy
        self._client: Any = None
        self._lock = threading.Lock()

    def read(self, bucket: str, key: str) -> bytes:
        """The object's bytes.

        Raises:
            FetchError: no such object, no access, too large, or no S3 support here.
        """
        try:
            from botocore.exceptions import BotoCoreError, ClientError

            client = self._connected()
        except ImportError as error:
            raise FetchError("s3: this server is installed without S3 support (the extra segserve[s3]).") from error
        limit = self._policy.max_bytes
        try:
            answer: dict[str, Any] = client.get_object(Bucket=bucket, Key=key)
            with answer["Body"] as body:
                data: bytes = body.read(limit + 1)
        except ClientError as error:
            reason = error.response.get("Error", {}).get("Code", "an error")
            raise FetchError(f"s3://{bucket}/{key} could not be read: S3 answered {reason}.") from error
        except (BotoCoreError, OSError) as error:
            raise FetchError(f"s3://{bucket}/{key} could not be read: S3 cannot be reached.") from error
        if len(data) > limit:
            raise FetchError(f"s3://{bucket}/{key} has more than {limit:,} bytes.", code="fetch_too_large")
        return data

    def _connected(self) -> Any:
        """The client, made once: that takes a tenth of a second, and is not safe in two threads at a time."""
        import boto3
        from botocore.config import Config

        with self._lock:
            if self._client is None:
                seconds = self._policy.timeout_s
                config = Config(connect_timeout=seconds, read_timeout=seconds, retries={"max_attempts": 1})
                self._client = boto3.client("s3", config=config)
            return self._client


def _target(url: httpx2.URL, response: httpx2.Response) -> httpx2.URL:
    """Where a redirect leads to; checked like a URL of the caller's, but a fault of the fetched server's."""
    location = response.headers.get("location")
    if not location:
        raise FetchError(f"The server of {_shown(url)} answered a redirect that leads nowhere.")
    try:
        return parse_url(str(url.join(location)))
    except (SegserveError, httpx2.InvalidURL, ValueError) as error:
        raise FetchError(
            f"The server of {_shown(url)} redirects to what is no http or https URL without credentials.",
            code="fetch_forbidden",
        ) from error


def _too_large(url: httpx2.URL, limit: int) -> FetchError:
    return FetchError(
        f"The image at {_shown(url)} has more than {limit:,} bytes, the most that is fetched. Name a smaller one.",
        code="fetch_too_large",
    )


def _default_port(url: httpx2.URL) -> int:
    return 443 if url.scheme == "https" else 80


def _shown(url: httpx2.URL) -> str:
    """The URL as messages show it: without its query, which may hold a signature."""
    path = url.path if len(url.path) <= 80 else url.path[:79] + "…"
    return f"{url.scheme}://{url.netloc.decode('ascii')}{path}"


def _timeouts(seconds: float) -> dict[str, float]:
    # A silent address must leave time for the next one.
    return {"connect": seconds / _MAX_ADDRESSES, "read": seconds, "write": seconds, "pool": seconds}
