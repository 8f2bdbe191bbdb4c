"""Weights on a GPU, straight from the shared mapping: ``upload``, and tensors that export DLPack. Needs no torch.

Everything imports without a GPU and without ``mapcell[cuda]``; what needs one says plainly that there is none.
"""

from __future__ import annotations

from .driver import Device as Device
from .driver import Driver as Driver
from .tensor import DeviceTensor as DeviceTensor
from .uploading import DeviceWeights as DeviceWeights
from .uploading import Strategy as Strategy
from .uploading import UploadStatistics as UploadStatistics
from .uploading import devices as devices
from .uploading import upload as upload
