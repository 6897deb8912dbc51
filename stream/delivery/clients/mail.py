"""Deliveries by e-mail (SMTP, RFC 5321).

The package smtplib blocks, so each attempt runs in a thread. When the time limit of an attempt has passed, its socket
is shut down, which ends the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import BinaryIO
from urllib.parse import urlsplit

from ingest.contract.records import Alert
from ingest.exceptions import ConfigError
from ingest.site import ReceiverConfig
from stream.delivery.clients.connect import Connector, secret_lines
from stream.delivery.clients.guard import DeliveryPolicy
from stream.delivery.clients.post import MAX_REASON_CHARS
from stream.delivery.clients.templates import facts_of, title_of
from stream.delivery.schedule import AttemptResult

THREADS = 4
"""Maximum number of concurrent connections to one mail server."""
SMTPS_PORT, SUBMISSION_PORT = 465, 587
READY, ACCEPTED, FIRST_FAILURE = 220, 250, 400
"""Reply codes of SMTP: the server is ready, it has accepted a message, and the lowest code of a failure."""
MAX_REPLY_BYTES = 1024 * 1024
"""Maximum number of bytes of a mail server's replies. Replies to one message have a few hundred bytes."""


class MailDeliverer:
    """A client that sends alerts by e-mail. Each delivery opens its own connection.

    A connection to ``smtp://`` is encrypted by STARTTLS if the server offers it. The password is only sent over TLS.
    """

    def __init__(self, receiver: ReceiverConfig, policy: DeliveryPolicy | None = None) -> None:
        self._receiver = receiver
        self._connector = Connector(receiver, policy or DeliveryPolicy())
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="mail")

    async def deliver(self, alert: Alert, now_s: float) -> AttemptResult:
        """Send one message to all recipients. The status of a failure is the reply code of the server."""
        receiver, url = self._receiver, urlsplit(self._receiver.url)
        sending: _Sending | None = None
        try:
            async with asyncio.timeout(receiver.timeout_s):
                host, tls = url.hostname or "", url.scheme == "smtps"
                port = url.port or (SMTPS_PORT if tls else SUBMISSION_PORT)
                address = (await self._connector.resolve(host, port, tls=tls))[0]
                password = secret_lines(receiver, "secret_file", receiver.secret_file)[0] if receiver.user else ""
                context = self._connector.tls_context()
                sending = _Sending(receiver, host, (address, port), context if tls else None, password)
                message = mail_of(alert, receiver)
                loop = asyncio.get_running_loop()
                refused = await loop.run_in_executor(self._threads, sending.post, message, context)
            return AttemptResult(ACCEPTED, f"refused: {', '.join(refused)}" if refused else "")
        except TimeoutError:
            return AttemptResult(None, f"no answer of the mail server within {receiver.timeout_s:g} s")
        except smtplib.SMTPRecipientsRefused as error:
            code, text = next(iter(error.recipients.values()))
            return _failure(code, f"all recipients are refused: {code} {text!r}")
        except smtplib.SMTPResponseException as error:
            return _failure(error.smtp_code, f"{error.smtp_code} {error.smtp_error!r}")
        except (OSError, ValueError, ConfigError) as error:  # an SMTPException is an OSError
            return AttemptResult(None, f"{type(error).__name__}: {error}"[:MAX_REASON_CHARS])
        finally:
            if sending:
                sending.abort()

    async def close(self) -> None:
        """Release the threads."""
        self._connector.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _failure(code: int, reason: str) -> AttemptResult:
    """Return the result of a failed attempt. If a server sends a code of success at the wrong moment, such as a
    greeting with 250, the result has no code, because the mail was not sent."""
    return AttemptResult(code if code >= FIRST_FAILURE else None, reason[:MAX_REASON_CHARS])


class _Replies:
    """The replies of a mail server, which may be hostile and reply without end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, MAX_REPLY_BYTES

    def readline(self, size: int) -> bytes:
        line = self._file.readline(size)
        self._left -= len(line)
        if self._left < 0:
            raise OSError(f"the mail server sent more than {MAX_REPLY_BYTES} bytes of replies")
        return line

    def close(self) -> None:
        self._file.close()


class _Sending(smtplib.SMTP):
    """One connection to an address that was checked before. All methods except ``abort`` block."""

    def __init__(
        self,
        receiver: ReceiverConfig,
        host: str,
        address: tuple[str, int],
        tls: ssl.SSLContext | None,
        password: str,
    ) -> None:
        super().__init__(local_hostname=socket.gethostname(), timeout=receiver.timeout_s)
        self._host = host  # the name that starttls checks the certificate for
        self._receiver, self._address, self._tls, self._password = receiver, address, tls, password
        self._aborted = False

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        opened = socket.create_connection(self._address, timeout)
        return self._tls.wrap_socket(opened, server_hostname=self._host) if self._tls else opened

    def getreply(self) -> tuple[int, bytes]:
        """Read a reply, within ``MAX_REPLY_BYTES`` for all replies since the connection or STARTTLS."""
        if self._aborted:
            raise TimeoutError("the mail server did not answer within the time limit")
        if self.file is None and self.sock:
            self.file = _Replies(self.sock.makefile("rb"))
        return super().getreply()

    def post(self, message: EmailMessage, context: ssl.SSLContext) -> list[str]:
        """Send a message, and return the recipients that the server refuses while it accepts others."""
        try:
            code, text = self.connect(*self._address)
            if code != READY:
                raise smtplib.SMTPConnectError(code, text)
            self.ehlo()
            if not self._tls and self.has_extn("starttls"):
                self.starttls(context=context)
                self.ehlo()
            elif not self._tls and self._password:
                raise ValueError("the mail server offers no STARTTLS: expected TLS, because a password would be sent")
            if self._password:
                self.login(self._receiver.user, self._password)
            refused = list(self.send_message(message))
            with contextlib.suppress(smtplib.SMTPException):
                self.quit()  # the message is accepted already
            return refused
        finally:
            self.close()

    def abort(self) -> None:
        """Shut down the connection, so that a thread that waits for the server ends."""
        self._aborted = True  # a thread that still connects ends at the first reply
        if opened := self.sock:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)


def mail_of(alert: Alert, receiver: ReceiverConfig) -> EmailMessage:
    """Return the message about an alert. All alerts of an incident refer to one message, so that a mail program shows
    them together. A repeated alert has the same ``Message-ID``."""
    message = EmailMessage()
    message["Subject"] = " ".join(title_of(alert).split())[:200]
    message["From"], message["To"] = receiver.sender, ", ".join(receiver.to)
    message["Date"] = format_datetime(datetime.fromisoformat(alert.time))
    message["Message-ID"] = f"<{alert.id}@sightline.invalid>"
    message["References"] = f"<{alert.data.incident}@sightline.invalid>"
    message["Auto-Submitted"] = "auto-generated"
    lines = [f"{name}: {value}" for name, value in facts_of(alert).items()]
    message.set_content("\n".join([title_of(alert), "", *lines, ""]))
    return message
