"""A cache of decoded images with a memory limit."""

from collections.abc import Callable, Hashable

from cachetools import LRUCache
from torch import Tensor

from l2l_evograd.checks import check_count

# Default limit: 2 GiB.
DEFAULT_LIMIT = 2 * 1024**3


class ImageCache:
    """Images by key, as bytes. A full cache removes the least recently used images.

    One cache serves all data sets of a run. Processes do not share a cache. A pickled
    copy or a deep copy starts empty.

    Args:
        limit_bytes: limit for all images together; 0: no image is kept.

    Raises:
        InputError: if the limit is not a number of bytes.
    """

    def __init__(self, limit_bytes: int = DEFAULT_LIMIT) -> None:
        check_count(limit_bytes, "limit_bytes", 0)
        self._images: LRUCache[Hashable, Tensor] = LRUCache(limit_bytes, _size)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __reduce__(self) -> tuple[type["ImageCache"], tuple[int]]:
        return type(self), (int(self._images.maxsize),)

    @property
    def held_bytes(self) -> int:
        """Memory that the images take, in bytes."""
        return int(self._images.currsize)

    def get(self, key: Hashable, read: Callable[[], Tensor]) -> Tensor:
        """Return the image of ``key``.

        Args:
            key: key that identifies the image, such as its path, size and form.
            read: function that is called if the image is not in the cache. Its image
                must not be changed afterwards. It is not kept if it alone exceeds the
                limit.
        """
        image = self._images.get(key)
        if image is None:
            image = read()
            if _size(image) <= self._images.maxsize:
                self._images[key] = image
        return image


def _size(image: Tensor) -> int:
    # A view keeps its whole underlying storage in memory.
    return image.untyped_storage().nbytes()
