"""An independent client of the server in a folder, for tests.

client.py DIR key                  make a key, and write it to DIR/key
client.py DIR bucket NAME          make a bucket
client.py DIR get BUCKET TO        write all objects into the folder TO, by their keys
client.py DIR put BUCKET KEY FILE ...  make objects of files
client.py DIR delete BUCKET KEY    delete an object
client.py DIR uploads BUCKET       print the keys of uploads that are not complete
client.py DIR abort BUCKET         abort these, as rules of a bucket do
"""

import json
import sys
from pathlib import Path

import boto3
from botocore.config import Config

folder = Path(sys.argv[1])
command = sys.argv[2]
arguments = sys.argv[3:]


def client(service, key, secret):
    return boto3.client(
        service,
        endpoint_url="http://" + (folder / "address").read_text().strip(),
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(s3={"addressing_style": "path"}),
    )


if command == "key":
    iam = client("iam", "nobody", "nothing")
    iam.create_user(UserName="shop")
    made = iam.create_access_key(UserName="shop")["AccessKey"]
    rights = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    iam.put_user_policy(
        UserName="shop",
        PolicyName="all",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [rights]}),
    )
    (folder / "key").write_text(made["AccessKeyId"] + "\n" + made["SecretAccessKey"] + "\n")
    sys.exit()

s3 = client("s3", *(folder / "key").read_text().split())


def uploads(bucket):
    return s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])


if command == "bucket":
    s3.create_bucket(Bucket=arguments[0])
elif command == "get":
    bucket, to = arguments
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for found in page.get("Contents", []):
            path = Path(to) / found["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, found["Key"], str(path))
elif command == "put":
    bucket, *objects = arguments
    for key, file in zip(objects[::2], objects[1::2]):
        s3.upload_file(file, bucket, key)
elif command == "delete":
    bucket, key = arguments
    s3.delete_object(Bucket=bucket, Key=key)
elif command == "uploads":
    for upload in uploads(arguments[0]):
        print(upload["Key"])
elif command == "abort":
    for upload in uploads(arguments[0]):
        s3.abort_multipart_upload(
            Bucket=arguments[0], Key=upload["Key"], UploadId=upload["UploadId"]
        )
else:
    sys.exit(__doc__)
