#!/usr/bin/env python3
"""Writes vectors.json: aggregated Kinesis records made by two encoders that are not ours.

Needs the packages named in README.md: `aws-kinesis-agg` of PyPI importable here, and the one of npm in a folder that
the environment variable NODE_PATH names. What went in is written beside what came out, as hexadecimal.
Where both make the same bytes they share a vector.
"""

import hashlib
import json
import os
import subprocess
import sys

from aws_kinesis_agg import aggregator

NODE = """
const { RecordAggregator } = require('aws-kinesis-agg/lib/kpl-agg');
const input = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const aggregator = new RecordAggregator();
for (const record of input) {
  const user = { partitionKey: record.partition_key, data: Buffer.from(record.data, 'hex') };
  if (record.explicit_hash_key !== null) user.explicitHashKey = record.explicit_hash_key;
  aggregator.addUserRecord(user);
}
const built = aggregator.build();
process.stdout.write(JSON.stringify({ partition_key: built.partitionKey, data: built.data.toString('hex') }));
"""


def record(key, data, explicit_hash_key=None):
    data = data if isinstance(data, bytes) else data.encode()
    return {"partition_key": key, "explicit_hash_key": explicit_hash_key, "data": data.hex()}


def key_in(low, high, n):
    """The n-th partition key whose hash key lies in this part of all hash keys."""
    keys = (f"k-{i}" for i in range(10_000))
    inside = [key for key in keys if low <= int(hashlib.md5(key.encode()).hexdigest(), 16) / 2**128 < high]
    return inside[n]


LOW, HIGH = "12345678901234567890123456789", str(2**128 - 1)

CASES = {
    "one": [record("solo", "one event")],
    "many": [record(f"key-{n}", f'{{"n":{n}}}') for n in range(40)],
    "shared keys": [record(f"job-{n % 3}", f"event {n}") for n in range(12)],
    "explicit hash keys": [
        record("a", "low", LOW),
        record("b", "high", HIGH),
        record("a", "low again", LOW),
        record("c", "by its partition key"),
    ],
    "empty data": [record("a", ""), record("b", "not empty"), record("a", "")],
    "unicode keys": [record("schlüssel", "grüße"), record("鍵", "値"), record("🔑", "🚀"), record("k" * 256, "long")],
    "binary data": [record("bytes", bytes(range(256))), record("nul", b"\x00"), record("magic", b"\xf3\x89\x9a\xc2")],
    "lower half": [record(key_in(0, 0.5, n), f"lower {n}") for n in range(5)],
    "upper half": [record(key_in(0.5, 1, n % 2), f"upper {n}") for n in range(4)],
    "both halves": [record(key_in(n % 2 / 2, 0.5 + n % 2 / 2, n), f"both {n}") for n in range(5)],
    "big": [record(f"customer-{n % 17}", f"{n:05}:" + chr(97 + n % 26) * (40 + n % 50)) for n in range(250)],
}


def by_pypi(records):
    made = aggregator.RecordAggregator()
    for r in records:
        full = made.add_user_record(r["partition_key"], bytes.fromhex(r["data"]), r["explicit_hash_key"])
        assert full is None, "more than one Kinesis record takes"
    key, _explicit, data = made.clear_and_get().get_contents()
    return {"partition_key": key, "data": data.hex()}


def by_npm(records):
    ran = subprocess.run(["node", "-e", NODE], input=json.dumps(records), capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def main():
    vectors = []
    for name, records in CASES.items():
        for encoder, encode in (("pypi", by_pypi), ("npm", by_npm)):
            made = encode(records)
            if vectors and vectors[-1]["name"] == name and vectors[-1]["aggregated"] == made:
                vectors[-1]["encoders"].append(encoder)
            else:
                vectors.append({"name": name, "encoders": [encoder], "aggregated": made, "records": records})
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "vectors.json"), "w", encoding="utf-8") as out:
        lines = (json.dumps(vector, ensure_ascii=False, separators=(",", ":")) for vector in vectors)
        out.write("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{len(vectors)} vectors", file=sys.stderr)


main()
