"""Puts the context of RO-Crate 1.1, which a wheel of `rocrate` carries, into the HTTP cache of roc-validator.

Arguments: the cache's path, the folder with the wheel.
"""

import io
import pathlib
import sys
import zipfile

import requests
import requests_cache
import urllib3

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
TYPE = {"Content-Type": "application/ld+json"}

cache_path, wheels = sys.argv[1:]
(wheel,) = pathlib.Path(wheels).glob("rocrate-*.whl")
body = zipfile.ZipFile(wheel).read("rocrate/data/ro-crate.jsonld")

accept = {"Accept": "application/ld+json, application/json, */*;q=0.1"}
answer = requests.Response()
answer.request = requests.Request("GET", CONTEXT, headers=accept).prepare()
answer.url, answer.status_code, answer.reason, answer.encoding = CONTEXT, 200, "OK", "utf-8"
answer.headers.update(TYPE)
answer._content = body
answer.raw = urllib3.response.HTTPResponse(
    io.BytesIO(body), TYPE, 200, reason="OK", preload_content=False, request_url=CONTEXT
)

session = requests_cache.CachedSession(cache_path, backend="sqlite", expire_after=-1)
session.cache.save_response(answer)
assert [entry.url for entry in session.cache.filter()] == [CONTEXT]
