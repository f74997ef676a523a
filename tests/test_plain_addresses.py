"""A server without encryption whose requests are sent on to one with it: its certificate is looked at all the same."""

import asyncio
import json
import shutil
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from master_agent.openai_server import Server

ANSWER = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Over TLS."}}
COMPLETION = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [ANSWER]}


async def _request(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))


async def _encrypted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _request(reader)
    body = json.dumps(COMPLETION).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await _closed(writer)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def _asked(certificate: Path, key: Path) -> str | None:
    """What is answered to a request at the plain address, which is sent on to the encrypted one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    encrypted = await asyncio.start_server(_encrypted, "127.0.0.1", 0, ssl=context)
    port = encrypted.sockets[0].getsockname()[1]

    async def send_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        where = f"location: https://localhost:{port}/v1/chat/completions"
        writer.write(f"HTTP/1.1 308 Permanent Redirect\r\n{where}\r\ncontent-length: 0\r\n\r\n".encode())
        await _closed(writer)

    plain = await asyncio.start_server(send_on, "127.0.0.1", 0)
    client = Server(f"http://localhost:{plain.sockets[0].getsockname()[1]}/v1", "sk-test").client()
    async with encrypted, plain, client:
        made = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
    await asyncio.sleep(0)  # for the last connection to be let go
    return made.choices[0].message.content


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_certificates_are_read_when_something_is_encrypted_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openai import APIConnectionError

    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    of = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*make, *of, "-keyout", key, "-out", certificate], check=True, capture_output=True)

    with pytest.raises(APIConnectionError) as refused:
        asyncio.run(_asked(certificate, key))
    assert "certificate verify failed" in str(refused.value.__cause__)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert asyncio.run(_asked(certificate, key)) == "Over TLS."
