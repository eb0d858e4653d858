"""daBNN (JD AI, 2019): binary convolutions on ARM, .dab files."""

from bibench_deploy.targets.dabnn.target import DabnnTarget

TARGET = DabnnTarget()
