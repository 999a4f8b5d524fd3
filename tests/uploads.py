"""A picture as clients upload it: eight pixels of red a side, in a form or as a URL."""

from __future__ import annotations

import base64

RED = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC"
)
DATA_URL = "data:image/png;base64," + base64.b64encode(RED).decode()
FORM = b"multipart/form-data; boundary=x"


def form(*parts: tuple[str, str | bytes]) -> bytes:
    return b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%b"; filename="upload"\r\n\r\n%b\r\n'
        % (name.encode(), data.encode() if isinstance(data, str) else data)
        for name, data in parts
    ) + (b"--x--\r\n")
