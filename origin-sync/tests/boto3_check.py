#!/usr/bin/env python3
"""Checks an S3 endpoint with boto3: what the bucket promises, asked by somebody else's client.

    boto3_check.py http://127.0.0.1:9000 ACCESS_KEY_ID SECRET_ACCESS_KEY

It makes a bucket of its own, empties it, and deletes it. Prints "N passed, M failed"; exits with 1 if any failed.
It does not start the server.
"""

import base64
import hashlib
import io
import sys
import threading
import traceback
import urllib.error
import urllib.request
import uuid
import zlib
from datetime import datetime, timedelta, timezone

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

CHECKS = []


def check(function):
    """Marks a function as a check; it gets the client and the name of a bucket."""
    CHECKS.append(function)
    return function


def client(endpoint, access_key_id, secret_access_key):
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        region_name="us-east-1",
        config=Config(
            signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1},
            max_pool_connections=32,
        ),
    )


def refused(call, *statuses):
    """Calls, and returns the error, which must have one of these statuses."""
    try:
        call()
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        assert status in statuses, f"{status} instead of {statuses}: {error}"
        return error
    raise AssertionError(f"not refused with {statuses}")


@check
def put_and_get(s3, bucket):
    body = bytes(range(256)) * 1024
    put = s3.put_object(Bucket=bucket, Key="a", Body=body)
    assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"', put["ETag"]
    got = s3.get_object(Bucket=bucket, Key="a")
    assert got["Body"].read() == body
    assert got["ContentLength"] == len(body)
    assert got["ContentType"] == "binary/octet-stream"
    head = s3.head_object(Bucket=bucket, Key="a")
    assert (head["ETag"], head["ContentLength"]) == (put["ETag"], len(body))


@check
def empty_object(s3, bucket):
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""
    refused(lambda: s3.get_object(Bucket=bucket, Key="empty", Range="bytes=0-0"), 416)


@check
def missing(s3, bucket):
    error = refused(lambda: s3.get_object(Bucket=bucket, Key="nothing"), 404)
    assert error.response["Error"]["Code"] == "NoSuchKey"
    refused(lambda: s3.head_object(Bucket=bucket, Key="nothing"), 404)
    error = refused(lambda: s3.get_object(Bucket=bucket + "-not", Key="a"), 404)
    assert error.response["Error"]["Code"] == "NoSuchBucket"


@check
def metadata(s3, bucket):
    expires = datetime(2031, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    s3.put_object(
        Bucket=bucket, Key="meta", Body=b"x", ContentType="text/javascript; charset=utf-8",
        CacheControl="max-age=31536000, immutable", ContentEncoding="gzip", ContentLanguage="de",
        ContentDisposition='attachment; filename="x.js"', Expires=expires, Metadata={"release": "1.2.3", "who": "me"},
    )
    for got in (s3.head_object(Bucket=bucket, Key="meta"), s3.get_object(Bucket=bucket, Key="meta")):
        assert got["ContentType"] == "text/javascript; charset=utf-8"
        assert got["CacheControl"] == "max-age=31536000, immutable"
        assert got["ContentEncoding"] == "gzip", got["ContentEncoding"]
        assert got["ContentLanguage"] == "de"
        assert got["ContentDisposition"] == 'attachment; filename="x.js"'
        assert got["ExpiresString"] == "Thu, 02 Jan 2031 03:04:05 GMT", got["ExpiresString"]
        assert got["Metadata"] == {"release": "1.2.3", "who": "me"}


@check
def strange_keys(s3, bucket):
    keys = ["sp ace", "plus+", "per%20cent", "ümläut/日本", "a/../b", "./dot", "q?x=1&y", "k=v;~!'()*", "x" * 1024]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for key in keys:
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode(), key
    listed = {entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert listed >= set(keys), set(keys) - listed
    refused(lambda: s3.put_object(Bucket=bucket, Key="x" * 1025, Body=b""), 400)


@check
def ranges(s3, bucket):
    body = bytes(range(200))
    s3.put_object(Bucket=bucket, Key="range", Body=body)
    table = {
        "bytes=0-9": (body[:10], "bytes 0-9/200"),
        "bytes=190-": (body[190:], "bytes 190-199/200"),
        "bytes=-5": (body[-5:], "bytes 195-199/200"),
        "bytes=199-1000": (body[199:], "bytes 199-199/200"),
    }
    for asked, (expected, content_range) in table.items():
        got = s3.get_object(Bucket=bucket, Key="range", Range=asked)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206, asked
        assert (got["Body"].read(), got["ContentRange"]) == (expected, content_range), asked
    refused(lambda: s3.get_object(Bucket=bucket, Key="range", Range="bytes=200-"), 416)


@check
def conditional_reads(s3, bucket):
    etag = s3.put_object(Bucket=bucket, Key="cond", Body=b"x")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="cond")["LastModified"]
    hour = timedelta(hours=1)
    for call in (s3.get_object, s3.head_object):
        def get(**condition):
            return call(Bucket=bucket, Key="cond", **condition)
        get(IfMatch=etag)
        get(IfNoneMatch='"other"')
        get(IfModifiedSince=modified - hour)
        get(IfUnmodifiedSince=modified)
        refused(lambda: get(IfMatch='"other"'), 412)
        refused(lambda: get(IfNoneMatch=etag), 304)
        refused(lambda: get(IfModifiedSince=modified), 304)
        refused(lambda: get(IfUnmodifiedSince=modified - hour), 412)
        get(IfMatch=etag, IfUnmodifiedSince=modified - hour)
        get(IfNoneMatch='"other"', IfModifiedSince=modified)


@check
def conditional_writes(s3, bucket):
    first = s3.put_object(Bucket=bucket, Key="once", Body=b"1", IfNoneMatch="*")["ETag"]
    refused(lambda: s3.put_object(Bucket=bucket, Key="once", Body=b"2", IfNoneMatch="*"), 412)
    second = s3.put_object(Bucket=bucket, Key="once", Body=b"3", IfMatch=first)["ETag"]
    refused(lambda: s3.put_object(Bucket=bucket, Key="once", Body=b"4", IfMatch=first), 412)
    refused(lambda: s3.put_object(Bucket=bucket, Key="never", Body=b"5", IfMatch=second), 404)
    assert s3.get_object(Bucket=bucket, Key="once")["Body"].read() == b"3"


@check
def races(s3, bucket):
    held = s3.put_object(Bucket=bucket, Key="held", Body=b"0")["ETag"]
    for key, condition in (("new", {"IfNoneMatch": "*"}), ("held", {"IfMatch": held})):
        won, start = [], threading.Barrier(16)

        def write(number):
            start.wait()
            try:
                s3.put_object(Bucket=bucket, Key=key, Body=f"writer {number}", **condition)
                won.append(number)
            except ClientError as error:
                assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 412, error

        writers = [threading.Thread(target=write, args=(number,)) for number in range(16)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert len(won) == 1, won
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == f"writer {won[0]}".encode()


@check
def checksums(s3, bucket):
    body = b"checked" * 1000
    sha256 = base64.b64encode(hashlib.sha256(body).digest()).decode()
    crc32 = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    put = s3.put_object(Bucket=bucket, Key="sum", Body=body, ChecksumSHA256=sha256)
    assert put["ChecksumSHA256"] == sha256
    got = s3.get_object(Bucket=bucket, Key="sum", ChecksumMode="ENABLED")
    assert (got["Body"].read(), got["ChecksumSHA256"]) == (body, sha256)
    # As a stream the checksum travels in a trailer.
    s3.put_object(Bucket=bucket, Key="sum", Body=io.BytesIO(body), ChecksumAlgorithm="CRC32")
    assert s3.head_object(Bucket=bucket, Key="sum", ChecksumMode="ENABLED")["ChecksumCRC32"] == crc32
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    error = refused(lambda: s3.put_object(Bucket=bucket, Key="bad", Body=body, ChecksumSHA256=wrong), 400)
    assert error.response["Error"]["Code"] == "BadDigest", error
    md5 = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    error = refused(lambda: s3.put_object(Bucket=bucket, Key="bad", Body=body, ContentMD5=md5), 400)
    assert error.response["Error"]["Code"] == "BadDigest", error
    refused(lambda: s3.head_object(Bucket=bucket, Key="bad"), 404)


@check
def multipart(s3, bucket):
    part = 5 * 1024 * 1024
    body = hashlib.sha256(b"seed").digest() * (part // 32) * 2 + b"the end"
    config = TransferConfig(multipart_threshold=part, multipart_chunksize=part, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(body), bucket, "big", Config=config, ExtraArgs={"ContentType": "text/x"})
    head = s3.head_object(Bucket=bucket, Key="big")
    digests = [hashlib.md5(body[at:at + part]).digest() for at in range(0, len(body), part)]
    assert head["ETag"] == f'"{hashlib.md5(b"".join(digests)).hexdigest()}-3"', head["ETag"]
    assert (head["ContentLength"], head["ContentType"]) == (len(body), "text/x")
    target = io.BytesIO()
    s3.download_fileobj(bucket, "big", target, Config=config)
    assert target.getvalue() == body
    last = s3.get_object(Bucket=bucket, Key="big", PartNumber=3)
    assert (last["Body"].read(), last["PartsCount"]) == (b"the end", 3)


@check
def multipart_by_hand(s3, bucket):
    def begin(key):
        return s3.create_multipart_upload(Bucket=bucket, Key=key, ChecksumAlgorithm="SHA256")["UploadId"]

    def part(key, upload, number, body):
        done = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body,
                              ChecksumAlgorithm="SHA256")
        return {"PartNumber": number, "ETag": done["ETag"], "ChecksumSHA256": done["ChecksumSHA256"]}

    def complete(key, upload, parts, **condition):
        return s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload,
                                            MultipartUpload={"Parts": parts}, **condition)

    five = b"5" * (5 * 1024 * 1024)
    upload = begin("hand")
    parts = [part("hand", upload, 1, five), part("hand", upload, 2, b"tail")]
    listed = s3.list_parts(Bucket=bucket, Key="hand", UploadId=upload, MaxParts=1)
    assert [entry["PartNumber"] for entry in listed["Parts"]] == [1] and listed["IsTruncated"]
    assert [entry["UploadId"] for entry in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload]
    refused(lambda: complete("hand", upload, parts[::-1]), 400)
    refused(lambda: complete("hand", upload, [{**parts[0], "ETag": '"0"'}]), 400)
    done = complete("hand", upload, parts, IfNoneMatch="*")
    assert done["ChecksumSHA256"].endswith("-2") and done["ChecksumType"] == "COMPOSITE", done
    assert s3.get_object(Bucket=bucket, Key="hand", ChecksumMode="ENABLED")["Body"].read() == five + b"tail"

    upload = begin("hand")
    parts = [part("hand", upload, 1, b"again")]
    refused(lambda: complete("hand", upload, parts, IfNoneMatch="*"), 412)
    complete("hand", upload, parts, IfMatch=done["ETag"])

    upload = begin("small")
    parts = [part("small", upload, 1, b"small"), part("small", upload, 2, b"tail")]
    error = refused(lambda: complete("small", upload, parts), 400)
    assert error.response["Error"]["Code"] == "EntityTooSmall", error
    s3.abort_multipart_upload(Bucket=bucket, Key="small", UploadId=upload)
    refused(lambda: complete("small", upload, parts), 404)
    refused(lambda: s3.head_object(Bucket=bucket, Key="small"), 404)


@check
def list_pages(s3, bucket):
    keys = sorted([f"list/{number:04}" for number in range(25)] + ["list/dir/a", "list/dir/b", "list/z"])
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    pages = list(s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix="list/", PaginationConfig={"PageSize": 10}))
    assert [len(page["Contents"]) for page in pages] == [10, 10, 8]
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == keys
    page = s3.list_objects_v2(Bucket=bucket, Prefix="list/", Delimiter="/", StartAfter="list/0023")
    assert [entry["Key"] for entry in page["Contents"]] == ["list/0024", "list/z"]
    assert [entry["Prefix"] for entry in page["CommonPrefixes"]] == ["list/dir/"]
    assert page["KeyCount"] == 3
    old = s3.list_objects(Bucket=bucket, Prefix="list/", MaxKeys=3)
    assert [entry["Key"] for entry in old["Contents"]] == keys[:3] and old["IsTruncated"]


@check
def copy(s3, bucket):
    s3.put_object(Bucket=bucket, Key="from ü", Body=b"copied", ContentType="text/plain", Metadata={"a": "1"})
    source = {"Bucket": bucket, "Key": "from ü"}
    s3.copy_object(Bucket=bucket, Key="to", CopySource=source)
    got = s3.get_object(Bucket=bucket, Key="to")
    assert (got["Body"].read(), got["ContentType"], got["Metadata"]) == (b"copied", "text/plain", {"a": "1"})
    s3.copy_object(Bucket=bucket, Key="to", CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"})
    assert s3.head_object(Bucket=bucket, Key="to")["Metadata"] == {"b": "2"}
    refused(lambda: s3.copy_object(Bucket=bucket, Key="to", CopySource=source, CopySourceIfMatch='"0"'), 412)
    refused(lambda: s3.copy_object(Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "no"}), 404)


@check
def delete(s3, bucket):
    s3.put_object(Bucket=bucket, Key="gone", Body=b"x")
    for _ in range(2):
        s3.delete_object(Bucket=bucket, Key="gone")
    refused(lambda: s3.head_object(Bucket=bucket, Key="gone"), 404)
    for key in ("d1", "d2"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    objects = {"Objects": [{"Key": "d1"}, {"Key": "d2"}, {"Key": "d3"}]}
    done = s3.delete_objects(Bucket=bucket, Delete=objects)
    assert {entry["Key"] for entry in done["Deleted"]} == {"d1", "d2", "d3"} and "Errors" not in done


@check
def buckets(s3, bucket):
    assert bucket in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]
    s3.head_bucket(Bucket=bucket)
    refused(lambda: s3.head_bucket(Bucket=bucket + "-not"), 404)
    refused(lambda: s3.create_bucket(Bucket=bucket), 409)
    refused(lambda: s3.delete_bucket(Bucket=bucket), 409)
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None


@check
def presigned(s3, bucket):
    s3.put_object(Bucket=bucket, Key="signed", Body=b"by url")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "signed"}, ExpiresIn=60)
    with urllib.request.urlopen(url, timeout=10) as response:
        assert response.read() == b"by url"
    try:
        urllib.request.urlopen(url.replace("signed?", "other?"), timeout=10)
    except urllib.error.HTTPError as error:
        assert error.code == 403, error.code
    else:
        raise AssertionError("a signature for another key was taken")


@check
def wrong_secret(s3, bucket):
    other = client(s3.meta.endpoint_url, sys.argv[2], "not the secret")
    error = refused(lambda: other.get_object(Bucket=bucket, Key="a"), 403)
    assert error.response["Error"]["Code"] == "SignatureDoesNotMatch", error


def main():
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    s3 = client(*sys.argv[1:])
    bucket = f"check-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    failed = 0
    for function in CHECKS:
        try:
            function(s3, bucket)
        except Exception:  # each check is to be counted, whatever it ends with
            failed += 1
            print(f"FAILED {function.__name__}\n{traceback.format_exc()}", file=sys.stderr)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            s3.delete_object(Bucket=bucket, Key=entry["Key"])
    s3.delete_bucket(Bucket=bucket)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
