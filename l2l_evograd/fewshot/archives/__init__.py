"""From the archives of the benchmark's data sets to its file lists.

Nothing is downloaded: the archives are those that people have. What each is expected to
hold is said in the module of the data set.
"""

from l2l_evograd.fewshot.archives.cars import CARS
from l2l_evograd.fewshot.archives.cub import CUB
from l2l_evograd.fewshot.archives.layout import Counts, Layout
from l2l_evograd.fewshot.archives.mini_imagenet import MINI_IMAGENET
from l2l_evograd.fewshot.archives.places import PLACES
from l2l_evograd.fewshot.archives.plantae import PLANTAE
from l2l_evograd.fewshot.archives.preparing import Prepared, prepare
from l2l_evograd.fewshot.archives.remapping import remap

# The data sets of the benchmark, by the names that its file lists go by.
LAYOUTS = {
    layout.name: layout for layout in (MINI_IMAGENET, CUB, CARS, PLACES, PLANTAE)
}

__all__ = ["LAYOUTS", "Counts", "Layout", "Prepared", "prepare", "remap"]
