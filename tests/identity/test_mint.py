"""Development tokens: marked as such, and valid only if their key is configured."""

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pdp.identity import generate_key_pair, mint_development_token
from pdp.model import Reason
from pdp.settings import IssuerSettings
from tests.kit.identity.verifiers import NOW, accepted, make_verifier, reason
from tests.kit.tokens import ISSUER
from tests.kit.waiting import run

PAIR = generate_key_pair()


def mint(**arguments) -> str:
    return mint_development_token(
        PAIR.private_pem,
        **{
            "issuer": ISSUER,
            "user_id": "user_dev",
            "session_id": "sess_dev",
            "now": NOW,
            "lifetime_seconds": 60,
            **arguments,
        },
    )


def development_verifier(**settings):
    return make_verifier(IssuerSettings(issuer=ISSUER, public_key=PAIR.public_pem, **settings))


def test_a_development_token_verifies_and_is_marked() -> None:
    token = mint(
        organization_id="org_a",
        organization_role="org:admin",
        authorized_party="https://app.example.test",
        claims={"team": "blue"},
    )
    verifier = development_verifier(authorized_parties=("https://app.example.test",))
    verified = accepted(run(verifier.verify(token)))
    assert verified.actor.user_id == "user_dev"
    assert verified.actor.organization_id == "org_a"
    assert verified.key_id == "ins_development"
    assert verified.claims["pdp_development"] is True
    assert verified.claims["o"] == {"id": "org_a", "rol": "admin"}
    assert verified.claims["team"] == "blue"
    assert verified.expires_at == NOW + 60


def test_a_development_token_is_refused_where_its_key_is_not_configured() -> None:
    assert reason(run(make_verifier().verify(mint()))) is Reason.TOKEN_SIGNATURE_INVALID


def test_custom_claims_cannot_override_the_tokens_own() -> None:
    token = mint(claims={"sub": "user_root", "pdp_development": False, "exp": 9e9})
    verified = accepted(run(development_verifier().verify(token)))
    assert verified.actor.user_id == "user_dev"
    assert verified.claims["pdp_development"] is True


def test_a_private_key_does_not_show() -> None:
    assert "PRIVATE" not in repr(PAIR)
    assert "PUBLIC" in repr(PAIR)


EC_PEM = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    .decode()
)


@pytest.mark.parametrize("text", ["", "nonsense", PAIR.public_pem, json.dumps({}), EC_PEM])
def test_what_is_no_private_key_mints_nothing(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        mint_development_token(
            text, issuer=ISSUER, user_id="u", session_id="s", now=NOW, lifetime_seconds=1
        )
    assert PAIR.public_pem[30:60] not in str(error.value)
