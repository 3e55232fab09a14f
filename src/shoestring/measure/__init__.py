"""What work costs: quantities, usage, the meter, hardware and its calibration, sensors."""

from shoestring.measure.calibration import calibrate, calibration_file, home
from shoestring.measure.detection import detect
from shoestring.measure.hardware import CATALOGUE, Hardware, find, free_threads, threads
from shoestring.measure.memory import resident_bytes
from shoestring.measure.meter import Meter, running
from shoestring.measure.quantity import Kind, Quantity, counted, estimated, human, measured, predicted, unknown
from shoestring.measure.units import parse, written
from shoestring.measure.usage import UNITS, Usage, base_bytes, no_usage, predicted_usage, total

__all__ = [
    "CATALOGUE",
    "UNITS",
    "Hardware",
    "Kind",
    "Meter",
    "Quantity",
    "Usage",
    "base_bytes",
    "calibrate",
    "calibration_file",
    "counted",
    "detect",
    "estimated",
    "find",
    "free_threads",
    "home",
    "human",
    "measured",
    "no_usage",
    "parse",
    "written",
    "predicted",
    "predicted_usage",
    "resident_bytes",
    "running",
    "threads",
    "total",
    "unknown",
]
