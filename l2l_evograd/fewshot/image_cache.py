"""Decoded images, kept within a limit of memory."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor
from torch.utils.data import get_worker_info

from l2l_evograd.runs.settings import check_whole

# Of a cache that nobody has named a limit for: 2 GiB.
DEFAULT_LIMIT = 2 * 1024**3


class ImageCache:
    """Images by key, as bytes; once it is full, those longest unused go.

    One cache may serve all data sets of a run. Processes do not share one: a worker of
    a ``DataLoader`` starts with the images that its parent had when it was forked, or
    with none where it was not, and keeps to its share, ``limit_bytes`` / workers. So a
    process and its workers hold at most twice the limit, and an image that two workers
    need is decoded twice. A copy, pickled or deep, starts empty.

    Args:
        limit_bytes: of all images together; 0 keeps none.

    Attributes:
        limit_bytes: as given.

    Raises:
        ValueError, TypeError: if that is no number of bytes.
    """

    def __init__(self, limit_bytes: int = DEFAULT_LIMIT) -> None:
        check_whole("limit_bytes", limit_bytes, 0)
        self.limit_bytes = limit_bytes
        self._images: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._held = 0

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __reduce__(self) -> tuple[type["ImageCache"], tuple[int]]:
        return type(self), (self.limit_bytes,)

    @property
    def held_bytes(self) -> int:
        """The memory that the images take."""
        return self._held

    @property
    def allowed_bytes(self) -> int:
        """The limit of this process."""
        worker = get_worker_info()
        return self.limit_bytes // (1 if worker is None else worker.num_workers)

    def get(self, key: Hashable, read: Callable[[], Tensor]) -> Tensor:
        """Return the image of ``key``.

        Args:
            key: what tells it from all others, as its path, size and form.
            read: called where the image is not here. Its answer is kept if it alone
                is within the limit, and must not be changed afterwards.
        """
        image = self._images.get(key)
        if image is not None:
            self._images.move_to_end(key)
            return image
        image = read()
        # Of a view the whole memory behind it is held.
        size = image.untyped_storage().nbytes()
        kept = size <= self.allowed_bytes
        self._shrink(self.allowed_bytes - (size if kept else 0))
        if kept:
            self._images[key] = image
            self._held += size
        return image

    def _shrink(self, most: int) -> None:
        while self._held > most:
            _, image = self._images.popitem(last=False)
            self._held -= image.untyped_storage().nbytes()
