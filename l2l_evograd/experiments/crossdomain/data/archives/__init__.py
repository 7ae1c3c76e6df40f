"""Makes the benchmark's file lists from the archives of its data sets.

Nothing is downloaded; the user must have the archives. The module of each data set
describes the content that its archives must have.
"""

from l2l_evograd.experiments.crossdomain.data.archives.cars import CARS
from l2l_evograd.experiments.crossdomain.data.archives.cub import CUB
from l2l_evograd.experiments.crossdomain.data.archives.layout import Counts, Layout
from l2l_evograd.experiments.crossdomain.data.archives.mini_imagenet import (
    MINI_IMAGENET,
)
from l2l_evograd.experiments.crossdomain.data.archives.places import PLACES
from l2l_evograd.experiments.crossdomain.data.archives.plantae import PLANTAE
from l2l_evograd.experiments.crossdomain.data.archives.preparing import (
    MadeLists,
    make_lists,
)
from l2l_evograd.experiments.crossdomain.data.archives.remapping import remap

# The data sets of the benchmark, by their names in the benchmark's file lists.
LAYOUTS = {
    layout.name: layout for layout in (MINI_IMAGENET, CUB, CARS, PLACES, PLANTAE)
}

__all__ = ["LAYOUTS", "Counts", "Layout", "MadeLists", "make_lists", "remap"]
