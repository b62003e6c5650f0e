"""The signed report of a campaign: hostile text stays text."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from pdp.reviews import Campaign
from pdp.reviews.report import ITEM_COLUMNS, csv_report, html_report, read_key, signed_report

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title><svg/onload=1>",
    "' onmouseover='1",
    "&lt;b&gt;",
    "{facts} {0} %s",
    "\x1b[2J\u202e",
    "javascript:alert(1)",
    "]]><!--",
]
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "dl", "dt", "dd"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
}


class Page(HTMLParser):
    """What a browser sees of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def report_of(text: str) -> tuple[Campaign, list[list[str]]]:
    return Campaign("c1", text, text, 0.0, 0, 1, 1), [["1", *[text] * (len(ITEM_COLUMNS) - 1)]]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_stays_text_in_the_page(hostile: str) -> None:
    text = html_report(*report_of(hostile))
    page = Page(text)
    assert page.tags <= TAGS
    assert page.attributes <= {"lang", "charset", "http-equiv", "content", "scope"}
    assert "\x1b" not in text
    assert "\u202e" not in text
    if hostile.isprintable():
        assert hostile in page.cells[-1]
    assert "default-src 'none'" in text


def test_the_page_loads_nothing() -> None:
    text = html_report(*report_of("x"))
    assert not [
        word for word in ("src=", "href=", "url(", "@import", "http:", "<script") if word in text
    ]


def test_each_row_of_the_table_names_its_campaign() -> None:
    head, row = csv_report(*report_of("=1")).splitlines()
    assert head.startswith('"campaign","name","revision","number"')
    assert row.startswith('"c1","\'=1","0","1"')


def pem_of(key: "Ed25519PrivateKey | rsa.RSAPrivateKey") -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_the_signature_is_over_the_whole_file(tmp_path: Path) -> None:
    signer = Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(pem_of(signer))
    files = signed_report(*report_of("é\U0001f600"), read_key(tmp_path / "key.pem"))
    assert list(files) == [f"review-c1.{end}" for end in ("html", "html.sig", "csv", "csv.sig")]
    signature, content = files["review-c1.html.sig"], files["review-c1.html"]
    signer.public_key().verify(signature, content)
    with pytest.raises(InvalidSignature):
        signer.public_key().verify(signature, content + b" ")


@pytest.mark.parametrize("content", [b"", b"secret", b"-----BEGIN PRIVATE KEY-----\nAA\n"])
def test_a_file_without_a_key_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key.pem").write_bytes(content)
    with pytest.raises(ValueError, match="does not hold an Ed25519 private key") as raised:
        read_key(tmp_path / "key.pem")
    assert "secret" not in str(raised.value)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    (tmp_path / "key.pem").write_bytes(pem_of(key))
    with pytest.raises(ValueError, match="Ed25519"):
        read_key(tmp_path / "key.pem")
