"""
Keep new images out of large_image's cache of sources.
"""

from __future__ import annotations

import inspect
from typing import Any

from large_image.cache_util import LruCacheMetaclass
from large_image.constants import NEW_IMAGE_PATH_FLAG


def is_new(path: Any) -> bool:
    """Whether a path is large_image's flag for a new image."""
    return isinstance(path, str) and path.startswith(NEW_IMAGE_PATH_FLAG)


class SourceMetaclass(LruCacheMetaclass):
    """
    A metaclass that does not cache new images.

    The cache would keep the spool file of an image after its last use.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if args and is_new(args[0]):
            kwargs['noCache'] = True
        return super().__call__(*args, **kwargs)

    @property
    def __signature__(cls) -> inspect.Signature:
        """The parameters of ``__init__``, for ``help``; those of ``__call__`` are not named."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]  # a class, not an object
        return signature.replace(parameters=list(signature.parameters.values())[1:])
