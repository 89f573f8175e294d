"""Keys and tokens that open accounts, by the shapes their issuers give them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipeline.patterns import linear
from data_pipeline.privacy.identifiers import Span

# Whole tokens, by issuer.
TOKENS = (
    r"(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ANVA)[A-Z2-7]{16}",  # AWS
    r"LTAI[0-9A-Za-z]{12,26}|AKID[0-9A-Za-z]{32}",  # Alibaba Cloud, Tencent Cloud
    r"gh[pousr]_[0-9A-Za-z]{36,255}|github_pat_[0-9A-Za-z_]{22,255}",  # GitHub
    r"glpat-[0-9A-Za-z_-]{20,64}",  # GitLab
    r"xox[abeoprs]-(?=[A-Za-z-]*[0-9]{6})[0-9A-Za-z-]{10,250}|xapp-[0-9]-[0-9A-Za-z-]{20,200}",  # Slack
    r"AIza[0-9A-Za-z_-]{35}|GOCSPX-[0-9A-Za-z_-]{28}|ya29\.[0-9A-Za-z_-]{20,1000}",  # Google
    r"(?:sk|rk|pk)_(?:live|test)_[0-9A-Za-z]{16,250}|whsec_[0-9A-Za-z]{32,64}",  # Stripe
    r"sk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]+-|or-v1-)?(?=[A-Za-z_-]*[0-9])[0-9A-Za-z_-]{32,250}",  # OpenAI, Anthropic
    r"hf_[0-9A-Za-z]{30,64}|npm_[0-9A-Za-z]{36}|pypi-[0-9A-Za-z_-]{50,250}",  # Hugging Face, npm, PyPI
    r"SG\.[0-9A-Za-z_-]{16,32}\.[0-9A-Za-z_-]{16,64}|key-[0-9a-f]{32}",  # SendGrid, Mailgun
    r"(?:AC|SK)[0-9a-f]{32}",  # Twilio
    r"[0-9]{8,10}:AA[0-9A-Za-z_-]{33}",  # Telegram
    r"do[opr]_v1_[0-9a-f]{64}|dapi[0-9a-f]{32}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",  # DigitalOcean, Databricks, Shopify
    r"eyJ[0-9A-Za-z_-]{10,2000}\.eyJ[0-9A-Za-z_-]{10,4000}\.[0-9A-Za-z_-]{10,2000}",  # JSON web token
)
_TOKEN = re.compile("|".join(f"(?:{token})" for token in TOKENS))
# Where one may begin, with all that may belong to it.
TOKEN_ANCHOR = (
    r"\b(?:A(?:KIA|SIA|GPA|IDA|ROA|NPA|NVA|KID)|LTAI|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|xapp-|AIza|GOCSPX-|"
    r"ya29\.|[srp]k_(?:live|test)_|whsec_|sk-|hf_|npm_|pypi-|SG\.|key-|AC[0-9a-f]|SK[0-9a-f]|[0-9]{8,10}:AA|"
    r"do[opr]_v1_|dapi|shp(?:at|ca|pa|ss)_|eyJ)[0-9A-Za-z_.-]{8,}"
)
# "api_key = ...": the value, where it looks drawn by chance.
ASSIGNED_ANCHOR = (
    r"(?i)(?:api[_ -]?key|secret[_ -]?key|access[_ -]?key(?:[_ -]?id)?|(?:access|auth|api|bearer|refresh)[_ -]?token|"
    r"client[_ -]?secret|app[_ -]?secret|account[_ -]?key|authorization: bearer)[\"']?(?: {0,2}(?:=>|:=|[:=：]) {0,2}| )"
    r"[\"']?[0-9A-Za-z+/_.-]{20,}={0,2}"
)
_VALUE = re.compile(r"[0-9A-Za-z+/_.-]{20,}+={0,2}$")
PRIVATE_KEY_ANCHOR = r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----"
MAX_PRIVATE_KEY_CHARS = 20_000
ANCHORS = "|".join((TOKEN_ANCHOR, f"(?:{ASSIGNED_ANCHOR})", PRIVATE_KEY_ANCHOR))
_TOKEN_ANCHOR, _ASSIGNED, _PRIVATE_KEY = map(linear, (TOKEN_ANCHOR, ASSIGNED_ANCHOR, PRIVATE_KEY_ANCHOR))


def find_api_keys(text: str) -> Iterator[Span]:
    """Tokens of known issuers, private keys in PEM blocks, and what is assigned to an API key or secret."""
    for match in _TOKEN_ANCHOR.finditer(text):
        token = _TOKEN.match(match[0])
        rest = match[0][token.end() :] if token else ""
        if token and not (rest[:1].isalnum() or rest[:1] in ("_", "-")):
            yield match.start(), match.start() + token.end()
    for match in _ASSIGNED.finditer(text):
        value = _VALUE.search(match[0].rstrip("."))
        if value and _is_random(value[0]):
            yield match.start() + value.start(), match.start() + value.end()
    for match in _PRIVATE_KEY.finditer(text):
        end = text.find("-----END", match.end(), match.end() + MAX_PRIVATE_KEY_CHARS)
        close = text.find("-----", end + 8, end + 40) if end >= 0 else -1
        if close >= 0:
            yield match.start(), close + 5


def _is_random(value: str) -> bool:
    """Whether a value has digits and letters, many of them different: no "your_api_key_here", no path, no name."""
    num_digits = sum(char.isdigit() for char in value)
    return num_digits >= 3 and num_digits < len(value) and len(set(value)) >= 10
