"""Objects of S3, whose writes can depend on what is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

from k710.errors import FeedError, UsageError
from k710.objects.objects import Objects, OvertakenError

Answer = TypeVar("Answer")

PART_BYTES = 32 << 20
"""Size of the parts that a large object is sent in; a lost connection costs one of them."""
_MAX_PARTS = 9000
"""S3 takes 10,000."""
_PARTS_AT_ONCE = 4
_MOST_DELETED = 1000
"""Objects that one request removes."""
_UNMET = frozenset({"PreconditionFailed", "412"})
_UNKNOWN = frozenset({"NotImplemented", "501"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """An object as it was seen."""

    etag: str
    """What a write that depends on it names."""
    age_s: float
    """How long ago it was written, by the clock of the store."""
    size_bytes: int
    """Its size."""


class S3Objects(Objects):
    """The objects under one s3:// URL."""

    is_guarded = True

    def put_new(self, path: str, data: bytes) -> None:
        """Write an object where there is none.

        Raises:
            OvertakenError: there is another one.
        """
        try:
            self.put_if_absent(path, data)
        except OvertakenError:
            # It may be ours: written, and its answer lost.
            if self.read(path) != data:
                raise

    def put_if_absent(self, path: str, data: bytes) -> str:
        """Write an object where there is none; its etag.

        Raises:
            OvertakenError: there is one.
        """
        return self._put_if(path, data, IfNoneMatch="*")

    def put_over(self, path: str, data: bytes, etag: str) -> str:
        """Write an object in place of the one with ``etag``; its new etag.

        Raises:
            OvertakenError: that is not there any more.
        """
        return self._put_if(path, data, IfMatch=etag)

    def seen(self, path: str) -> Seen | None:
        """What the store says of an object; None: there is none."""
        try:
            with self._reading(path, ""):
                answer = self._call("head_object", path)
        except FeedError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        age_s = (now - answer["LastModified"]).total_seconds()
        return Seen(etag=answer["ETag"], age_s=age_s, size_bytes=int(answer["ContentLength"]))

    def delete_as_seen(self, path: str, etag: str) -> None:
        """Remove an object if it is still the one with ``etag``."""
        with suppress(OvertakenError), self._writing(path):
            self._conditionally(path, lambda: self._call("delete_object", path, IfMatch=etag))

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects, many in one request; those that are not there are no error."""
        todo = list(paths)
        for some in (todo[i : i + _MOST_DELETED] for i in range(0, len(todo), _MOST_DELETED)):
            with self._writing(some[0]):
                bucket = self._place("")[0]
                keys = [{"Key": self._place(path)[1]} for path in some]
                answer = self._ask(
                    lambda files, keys=keys, bucket=bucket: files.call_s3(  # type: ignore[misc]
                        "delete_objects", Bucket=bucket, Delete={"Objects": keys, "Quiet": True}
                    )
                )
                for failed in answer.get("Errors", ()):
                    raise PermissionError(0, f"{failed.get('Code')}: {failed.get('Message')}", failed.get("Key"))

    def upload(self, file: Path, path: str) -> None:
        """Write a large object of a local file, in parts that are tried again each for itself."""
        size_bytes = file.stat().st_size
        part_bytes = max(PART_BYTES, -(-size_bytes // _MAX_PARTS))
        if size_bytes <= part_bytes:
            self.put_files([(file, path)])
            return
        with self._writing(path):
            number = self._call("create_multipart_upload", path)["UploadId"]
            try:
                self._send(file, path, number, part_bytes)
            except BaseException:
                with suppress(Exception):
                    self._call("abort_multipart_upload", path, UploadId=number)
                raise

    def abort_uploads(self, prefix: str) -> None:
        """Give up what broken uploads to paths that begin with ``prefix`` have left, which would be paid for."""
        with self._reading(prefix, ""):
            bucket, start = self._place(prefix)
            known: dict[str, str] = {}
            while True:
                answer = self._ask(
                    lambda files, known=known: files.call_s3(  # type: ignore[misc]
                        "list_multipart_uploads", Bucket=bucket, Prefix=start, **known
                    )
                )
                for upload in answer.get("Uploads", ()):
                    self._give_up(bucket, upload["Key"], upload["UploadId"])
                if not answer.get("IsTruncated"):
                    return
                known = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    def _give_up(self, bucket: str, key: str, number: str) -> None:
        with suppress(FileNotFoundError):  # it has just ended
            self._ask(lambda files: files.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=number))

    def _send(self, file: Path, path: str, number: str, part_bytes: int) -> None:
        size_bytes = file.stat().st_size
        descriptor = os.open(file, os.O_RDONLY)

        def send(part: int) -> dict[str, Any]:
            data = os.pread(descriptor, part_bytes, (part - 1) * part_bytes)
            answer = self._call("upload_part", path, UploadId=number, PartNumber=part, Body=data)
            return {"PartNumber": part, "ETag": answer["ETag"]}

        try:
            with ThreadPoolExecutor(_PARTS_AT_ONCE) as threads:
                parts = list(threads.map(send, range(1, -(-size_bytes // part_bytes) + 1)))
        finally:
            os.close(descriptor)
        try:
            self._call("complete_multipart_upload", path, UploadId=number, MultipartUpload={"Parts": parts})
        except FileNotFoundError:
            # Told before that it is whole, and the answer lost.
            seen = self.seen(path)
            if seen is None or seen.size_bytes != size_bytes:
                raise

    def _put_if(self, path: str, data: bytes, **condition: str) -> str:
        with self._writing(path):
            answer = self._conditionally(path, lambda: self._call("put_object", path, Body=data, **condition))
        return str(answer["ETag"])

    def _conditionally(self, path: str, ask: Callable[[], Answer]) -> Answer:
        try:
            return ask()
        except FileNotFoundError as error:
            raise OvertakenError(f"{self.url(path)}: gone meanwhile") from error
        except OSError as error:
            if _is_code(error, _UNMET):
                raise OvertakenError(f"{self.url(path)}: written by somebody else meanwhile") from error
            if _is_code(error, _UNKNOWN):
                raise UsageError(
                    f"{self.root}: this store has no conditional writes, without which two builds could not be told "
                    "apart",
                    hint="--unguarded goes on all the same, if you see to it that nothing else writes there",
                ) from error
            raise

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        bucket, key = self._place(path)
        return self._ask(lambda files: files.call_s3(method, Bucket=bucket, Key=key, **arguments))

    def _place(self, path: str) -> tuple[str, str]:
        bucket, _, start = self.root.partition("://")[2].partition("/")
        return bucket, f"{start}/{path}".lstrip("/")


def _is_code(error: BaseException | None, codes: frozenset[str]) -> bool:
    """Whether the store's answer behind ``error`` has one of ``codes``; tries of a request are looked through."""
    while error is not None:
        if isinstance(error, FileExistsError) and codes is _UNMET:
            return True
        response = getattr(error, "response", None)
        if isinstance(response, dict) and response.get("Error", {}).get("Code") in codes:
            return True
        error = error.__cause__
    return False
