"""Clients of object stores: pyarrow's own, told where to look by the environment. Light, for training reads by them, too."""

from __future__ import annotations

import datetime
import os
from functools import cache
from urllib.parse import urlsplit

from pyarrow.fs import FileSystem

CONNECT_SECONDS, STALL_SECONDS = 10, 30


def store_of(uri: str) -> tuple[FileSystem, str]:
    """(client, path in it) of an s3:// or gs:// URI."""
    scheme, _, path = uri.partition("://")
    if scheme in ("s3", "s3a"):
        return s3_client(), path
    if scheme in ("gs", "gcs"):
        return google_client(), path
    raise ValueError(f"{uri}: neither s3:// nor gs://")


def s3_client() -> FileSystem:
    """Amazon S3 and what speaks like it: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID ..."""
    return _s3_client(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"))


def google_client() -> FileSystem:
    """Google Cloud Storage, or the emulator at STORAGE_EMULATOR_HOST."""
    return _google_client(os.environ.get("STORAGE_EMULATOR_HOST"))


@cache
def _s3_client(endpoint: str | None) -> FileSystem:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    return S3FileSystem(
        endpoint_override=endpoint,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=STALL_SECONDS,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=3),
    )


@cache
def _google_client(emulator: str | None) -> FileSystem:
    from pyarrow.fs import GcsFileSystem

    limit = datetime.timedelta(seconds=STALL_SECONDS)
    if not emulator:
        return GcsFileSystem(retry_time_limit=limit)
    place = urlsplit(emulator if "://" in emulator else f"http://{emulator}")
    return GcsFileSystem(
        anonymous=True, scheme=place.scheme, endpoint_override=place.netloc, retry_time_limit=limit
    )
