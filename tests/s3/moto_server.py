"""The server of S3's protocol, which answers for an upload that is gone as S3 does: moto alone
fails by itself, as if that could pass.
"""

import sys

from moto.s3.exceptions import NoSuchUpload
from moto.s3.models import S3Backend
from moto.server import main

complete = S3Backend.complete_multipart_upload


def complete_known(self, bucket_name, multipart_id, body):
    if multipart_id not in self.get_bucket(bucket_name).multiparts:
        raise NoSuchUpload(upload_id=multipart_id)
    return complete(self, bucket_name, multipart_id, body)


S3Backend.complete_multipart_upload = complete_known
main(sys.argv[1:])
