"""A storage emulator that counts the generations of objects, as TensorStore needs it.

`python -m tests.trainers.checkpoints.emulator start --port PORT ...`, the arguments those of
`gcp_storage_emulator`: a read tells which generation it saw, and a write may demand that it
replaces that one. Without it two writers of one object lose what the other wrote.
"""

import functools
import threading
from http import HTTPStatus

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

_one_at_a_time = threading.RLock()


def generation(storage, bucket, name):
    """Of an object; "0" where there is none."""
    try:
        return storage.get_file_obj(bucket, name)["generation"]
    except NotFound:
        return "0"


def telling(download):
    """A read that tells what it saw."""

    @functools.wraps(download)
    def wrapped(request, response, storage, *args, **kwargs):
        with _one_at_a_time:
            name = request.params["bucket_name"], request.params["object_id"]
            response["x-goog-generation"] = generation(storage, *name)
            return download(request, response, storage, *args, **kwargs)

    return wrapped


def conditional(insert):
    """A write that is refused where another one came before."""

    @functools.wraps(insert)
    def wrapped(request, response, storage, *args, **kwargs):
        with _one_at_a_time:
            demanded = request.query.get("ifGenerationMatch")
            if demanded and "name" in request.query:
                name = request.params["bucket_name"], request.query["name"][0]
                if generation(storage, *name) != demanded[0]:
                    response.status = HTTPStatus.PRECONDITION_FAILED
                    return None
            return insert(request, response, storage, *args, **kwargs)

    return wrapped


objects.download, objects.insert = (
    telling(objects.download),
    conditional(objects.insert),
)

if __name__ == "__main__":
    from gcp_storage_emulator.__main__ import main  # its server takes what it now finds

    main()
